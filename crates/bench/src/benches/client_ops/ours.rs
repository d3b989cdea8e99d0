//! The engine, with everything made durable in its encrypted store.

use std::{collections::BTreeMap, error::Error};

use conclave_channel::{Body, Entry, EntryKind, chain, receipt::ReceiptKey, size_class};
use conclave_client::{
    profile::{NewKey, NewProfile, Profile},
    store::{ProfileStore as _, Store, StoreError},
};
use conclave_engine::{
    Mls,
    account::Account,
    group::{Group, Handshakes, Incoming, NewGroup, SubmissionBody},
    intent::Wish,
    invitation::{Invitation, load_key_packages},
    key_packages,
    writes::{Room, Rows, Write},
};
use conclave_mls::{crypto, welcome::InboxWelcome};
use conclave_names::{Epoch, Hash, Seq, Timestamp};
use conclave_protocol::v1::WelcomeBundle;
use indicatif::ProgressBar;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{
    Times,
    world::{NOW, World},
};

/// What the server keeps.
pub(crate) type Blobs = BTreeMap<Hash, Vec<u8>>;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) struct StoreRows<'a>(pub(crate) &'a Store);

impl Rows for StoreRows<'_> {
    type Error = StoreError;

    fn get(&self, room: Room, key: &[u8]) -> std::result::Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.0.get(room, key)
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> std::result::Result<Vec<conclave_client::store::Row>, StoreError> {
        self.0.scan(room, prefix)
    }
}

/// A client with its store on disk.
pub(crate) struct Client {
    pub(crate) account: Account,
    pub(crate) mls: Mls,
    pub(crate) store: Store,
    pub(crate) group: Option<Group>,
    pub(crate) profile: Profile,
    _directory: TempDir,
}

/// What went through the channel last.
pub(crate) struct Submitted {
    pub(crate) incoming: Incoming,
    blobs: Vec<Vec<u8>>,
    welcome: Option<WelcomeBundle>,
}

impl Client {
    pub(crate) fn new(world: &World, name: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let new = NewProfile::new("https://localhost:1", world.domain.clone(), NewKey::File(None));
        let (profile, key) = Profile::create(&directory.path().join(name), new)?;
        let store = Store::open(&profile, &key)?;
        let account = world.account(name)?;
        Ok(Self { mls: World::mls(&account), account, store, group: None, profile, _directory: directory })
    }

    pub(crate) fn group(&mut self) -> Result<&mut Group> {
        self.group.as_mut().ok_or_else(|| "no group".into())
    }

    pub(crate) fn save(&mut self) -> Result<()> {
        let writes: Vec<Write> = self.group()?.take_writes()?;
        Ok(self.store.apply(&writes)?)
    }

    pub(crate) fn key_package(&mut self, world: &World) -> Result<Vec<u8>> {
        let fresh =
            key_packages::generate(&self.account, &self.mls, crypto::DEFAULT_SUITE, &world.address_key, 1, false, NOW)?;
        self.store.apply(&fresh.writes)?;
        fresh.key_packages.into_iter().next().ok_or_else(|| "no KeyPackage".into())
    }

    /// Makes a group, and stores it.
    pub(crate) fn create(&mut self, world: &World) -> Result<()> {
        let new = NewGroup {
            hub: world.domain.clone(),
            receipt_key: ReceiptKey([0; 32]),
            title: "Bench".into(),
            cipher_suite: crypto::DEFAULT_SUITE,
            handshakes: Handshakes::Private,
            dispute_pause: conclave_channel::law::DisputePause::DEFAULT,
        };
        self.group = Some(Group::create(&self.account, &self.mls, new, NOW)?);
        self.save()
    }

    /// Makes and stores the next submission.
    pub(crate) fn submit(&mut self) -> Result<Submitted> {
        self.submit_at(NOW)?.ok_or_else(|| "nothing to submit".into())
    }

    fn submit_at(&mut self, now: Timestamp) -> Result<Option<Submitted>> {
        let Some(submission) = self.group()?.next_submission(now, &mut Vec::new())? else { return Ok(None) };
        self.save()?;
        let (entry, welcome) = match submission.body {
            SubmissionBody::Entry(request) => (request.entry, None),
            SubmissionBody::Bundle(bundle) => (bundle.entry, bundle.welcome),
        };
        let blob = match Entry::parse(&entry)?.body {
            Body::Staged { hash, .. } => submission.blobs.iter().find(|blob| chain::entry_hash(blob) == hash).cloned(),
            Body::Inline(_) => None,
        };
        let seq = self.group()?.position().seq.next();
        Ok(Some(Submitted { incoming: Incoming { seq, time: NOW, entry, blob }, blobs: submission.blobs, welcome }))
    }

    /// Reads what came and makes it durable.
    pub(crate) fn read(&mut self, incoming: &Incoming) -> Result<()> {
        self.read_all(std::slice::from_ref(incoming))
    }

    /// The same of a page.
    pub(crate) fn read_all(&mut self, page: &[Incoming]) -> Result<()> {
        self.process(page)?;
        self.save()
    }

    /// Reads a page without storing it.
    pub(crate) fn process(&mut self, page: &[Incoming]) -> Result<()> {
        let done = self.group()?.process(page);
        done.fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    pub(crate) fn join(&mut self, welcome: &WelcomeBundle, blobs: &Blobs) -> Result<()> {
        load_key_packages(&self.mls, &StoreRows(&self.store))?;
        for part in &welcome.parts {
            let inside = InboxWelcome {
                cipher_suite: u16::try_from(welcome.cipher_suite)?,
                secrets: part.secrets.clone(),
                encrypted_group_info: welcome.encrypted_group_info.clone(),
                attachment: welcome.attachment.clone(),
            };
            let body = size_class::pad(inside.to_bytes()?, 0);
            let entry = Entry::new(EntryKind::Welcome, Epoch(0), Body::Inline(body)).to_bytes()?;
            let Ok(invitation) = Invitation::open(&self.account, &self.mls, &entry) else { continue };
            let mut tree = invitation.tree()?;
            while let Some(name) = tree.wanted().pop() {
                tree.give(blobs.get(&name).ok_or("the tree is not among the blobs")?)?;
            }
            let group =
                invitation.join(&self.account, &self.mls, &StoreRows(&self.store), &tree, NOW, &mut Vec::new())?;
            self.group = Some(group);
            return self.save();
        }
        Err("no Welcome is ours".into())
    }
}

/// Makes a group of the world's size: Alice, who made it, Bob, and members that only have a leaf.
pub(crate) fn pair(world: &World) -> Result<(Client, Client)> {
    let mut alice = Client::new(world, "alice")?;
    let mut bob = Client::new(world, "bob")?;
    alice.create(world)?;
    let mut key_packages = vec![bob.key_package(world)?];
    key_packages.extend(world.leaves()?);
    alice.group()?.wish(Wish::Add { key_packages })?;
    let added = alice.submit()?;
    alice.read(&added.incoming)?;
    let blobs = added.blobs.iter().map(|blob| (chain::entry_hash(blob), blob.clone())).collect();
    bob.join(added.welcome.as_ref().ok_or("no Welcome")?, &blobs)?;
    bob.read(&added.incoming)?;
    Ok((alice, bob))
}

/// Measures; gives sizes in bytes.
pub(super) fn measure(
    world: &World,
    repetitions: usize,
    times: &mut Times,
    progress: &ProgressBar,
) -> Result<Vec<(&'static str, usize)>> {
    let mut alice = Client::new(world, "alice")?;
    let mut bob = Client::new(world, "bob")?;
    for _ in 0..repetitions {
        times.take("create", || alice.create(world))?;
    }
    let mut key_packages = vec![bob.key_package(world)?];
    key_packages.extend(world.leaves()?);
    alice.group()?.wish(Wish::Add { key_packages })?;
    let added = alice.submit()?;
    alice.read(&added.incoming)?;
    let mut blobs = Blobs::new();
    let keep = |submitted: &Submitted, blobs: &mut Blobs| {
        blobs.extend(submitted.blobs.iter().map(|blob| (chain::entry_hash(blob), blob.clone())));
        submitted.blobs.iter().map(Vec::len).sum::<usize>()
    };
    let whole = keep(&added, &mut blobs);
    bob.join(added.welcome.as_ref().ok_or("no Welcome")?, &blobs)?;
    bob.read(&added.incoming)?;
    let mut sizes = Vec::new();

    for repetition in 0..repetitions {
        progress.inc(1);
        let commit = times.take("commit", || -> Result<_> {
            alice.group()?.wish(Wish::Update)?;
            let commit = alice.submit()?;
            alice.read(&commit.incoming)?;
            Ok(commit)
        })?;
        keep(&commit, &mut blobs);
        times.take("process", || bob.read(&commit.incoming))?;
        let message = times.take("send", || -> Result<_> {
            alice.group()?.wish_text("hello, this is a message of an ordinary length")?;
            alice.submit()
        })?;
        alice.read(&message.incoming)?;
        times.take("receive", || bob.read(&message.incoming))?;

        let mut carol = Client::new(world, &format!("carol{repetition}"))?;
        let package = carol.key_package(world)?;
        let added = times.take("add", || -> Result<_> {
            alice.group()?.wish(Wish::Add { key_packages: vec![package] })?;
            let added = alice.submit()?;
            alice.read(&added.incoming)?;
            Ok(added)
        })?;
        let welcome = added.welcome.as_ref().ok_or("no Welcome")?;
        let uploaded = keep(&added, &mut blobs);
        times.take("join", || carol.join(welcome, &blobs))?;
        bob.read(&added.incoming)?;
        // Bob acknowledges what is open, as he would an hour later.
        while let Some(ack) = bob.submit_at(NOW.plus_ms(2 * 3600 * 1000))? {
            alice.read(&ack.incoming)?;
            bob.read(&ack.incoming)?;
        }
        let user = carol.account.client.user().clone();
        alice.group()?.wish(Wish::Remove { users: vec![user] })?;
        let removed = alice.submit()?;
        keep(&removed, &mut blobs);
        alice.read(&removed.incoming)?;
        bob.read(&removed.incoming)?;

        if repetition + 1 == repetitions {
            let part = welcome.parts.first().map_or(0, |part| part.secrets.len());
            let body = |submitted: &Submitted| {
                submitted.incoming.blob.as_ref().map_or(submitted.incoming.entry.len(), Vec::len)
            };
            sizes = vec![
                ("welcome-per-joiner", part + welcome.encrypted_group_info.len() + welcome.attachment.len()),
                ("commit-size", body(&commit)),
                ("tree-size", whole),
                // Of one more member: changed chunks of the tree, and the commit if it is long.
                ("add-upload", uploaded),
                ("message-size", body(&message)),
            ];
        }
    }
    if bob.group()?.position().seq == Seq(0) {
        return Err("Bob read nothing".into());
    }
    Ok(sizes)
}
