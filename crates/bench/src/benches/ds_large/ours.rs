//! The engine with its encrypted store on disk, over a real server.

use std::time::Instant;

use conclave_channel::{Body, Entry, receipt::ReceiptKey};
use conclave_client::{
    profile::{NewKey, NewProfile, Profile},
    store::{ProfileStore as _, Store, StoreError},
    transport::{Session, SessionOpener, Signer, Transport},
};
use conclave_engine::{
    Mls,
    account::Account,
    group::{Group, Handshakes, Incoming, NewGroup, Submission, SubmissionBody},
    intent::Wish,
    invitation::{Invitation, load_key_packages},
    key_packages,
    outcome::Outcome,
    writes::{Room, Rows},
};
use conclave_mls::crypto;
use conclave_names::{Epoch, Seq, Timestamp, limits};
use conclave_protocol::v1;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{
    LATER, Times,
    people::{People, create_inbox, transport},
};
use crate::{
    benches::client_ops::world::World,
    ds::{Failure, Process},
};

/// Blobs that are on their way at the same time, as in the SDK.
const PARALLEL: usize = 8;

/// What a call adds to a blob that it uploads: hash, size, session, MAC, and the frames of gRPC and HTTP/2, in bytes.
const CALL: usize = 160;

/// Sizes in bytes, by name.
type Sizes = Vec<(&'static str, usize)>;

struct StoreRows<'a>(&'a Store);

impl Rows for StoreRows<'_> {
    type Error = StoreError;

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.0.get(room, key)
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<conclave_client::store::Row>, StoreError> {
        self.0.scan(room, prefix)
    }
}

/// A client with its store on disk.
struct Client {
    account: Account,
    mls: Mls,
    store: Store,
    group: Option<Group>,
    transport: Transport,
    session: Option<Session>,
    /// Bytes of the last submission.
    uploaded: usize,
    /// Bytes of the last commit's body.
    commit: usize,
    /// Bytes of Welcome and tree when it joined.
    joined: (usize, usize),
    _directory: TempDir,
}

impl Client {
    async fn new(server: &Process, people: &People, name: &str) -> Result<Self, Failure> {
        let directory = TempDir::new()?;
        let new = NewProfile::new("https://localhost:1", people.world.domain.clone(), NewKey::File(None));
        let (profile, key) = Profile::create(&directory.path().join(name), new)?;
        let store = Store::open(&profile, &key)?;
        let account = people.account(name)?;
        let transport = transport(server)?;
        // Its clock is the server's from then on.
        transport.get_server_info().await?;
        create_inbox(&transport, &account.inbox).await?;
        let mls = World::mls(&account);
        let (group, session) = (None, None);
        let (uploaded, commit, joined) = (0, 0, (0, 0));
        Ok(Self { account, mls, store, group, transport, session, uploaded, commit, joined, _directory: directory })
    }

    fn group(&mut self) -> Result<&mut Group, Failure> {
        self.group.as_mut().ok_or_else(|| "no group".into())
    }

    fn save(&mut self) -> Result<(), Failure> {
        let writes = self.group()?.take_writes()?;
        Ok(self.store.apply(&writes)?)
    }

    fn session(&mut self) -> Result<Session, Failure> {
        let epoch = self.group()?.epoch();
        if let Some(session) = self.session.as_ref().filter(|session| session.epoch() == epoch) {
            return Ok(session.clone());
        }
        let access = self.group()?.access()?;
        let opener =
            SessionOpener { channel: access.channel, epoch: access.epoch, key: access.key, path: Some(access.path) };
        let session = Session::new(&self.transport, opener);
        self.session = Some(session.clone());
        Ok(session)
    }

    fn key_package(&mut self, people: &People) -> Result<Vec<u8>, Failure> {
        let (suite, key) = (crypto::DEFAULT_SUITE, &people.world.address_key);
        let fresh = key_packages::generate(&self.account, &self.mls, suite, key, 1, false, people.world.now)?;
        self.store.apply(&fresh.writes)?;
        fresh.key_packages.into_iter().next().ok_or_else(|| "no KeyPackage".into())
    }

    async fn create(&mut self) -> Result<(), Failure> {
        let info = self.transport.get_server_info().await?;
        let new = NewGroup {
            hub: self.transport.domain().clone(),
            receipt_key: ReceiptKey(info.receipt_key.as_slice().try_into()?),
            title: "Large".into(),
            cipher_suite: crypto::DEFAULT_SUITE,
            handshakes: Handshakes::Private,
            dispute_pause: conclave_channel::law::DisputePause::DEFAULT,
        };
        let group = Group::create(&self.account, &self.mls, new, self.transport.now())?;
        let access = group.access()?;
        let request = v1::CreateChannelRequest {
            channel: access.channel.to_vec(),
            key_root: group.key_root()?.to_vec(),
            ..Default::default()
        };
        self.transport.create_channel(&Signer::bare(&access.key), &request).await?;
        self.group = Some(group);
        self.save()
    }

    /// Wishes something and carries it out, until the channel has shown it.
    async fn carry_out(&mut self, wish: Wish) -> Result<(), Failure> {
        self.group()?.wish(wish)?;
        self.save()?;
        if self.drive().await? == 0 { Err("nothing was submitted".into()) } else { Ok(()) }
    }

    /// Submits what there is to submit, and reads it. Gives how much there was.
    async fn drive(&mut self) -> Result<usize, Failure> {
        self.drive_later(0).await
    }

    /// The same, as if so many milliseconds had passed.
    async fn drive_later(&mut self, ms: u64) -> Result<usize, Failure> {
        let mut count = 0;
        loop {
            let now = self.transport.now().plus_ms(ms);
            let next = self.group()?.next_submission(now, &mut Vec::new())?;
            self.save()?;
            let Some(submission) = next else { return Ok(count) };
            self.submit(&submission).await?;
            self.read().await?;
            count += 1;
        }
    }

    async fn submit(&mut self, submission: &Submission) -> Result<(), Failure> {
        let session = self.session()?;
        let uploads = submission.blobs.iter().map(|blob| session.upload_blob(blob));
        stream::iter(uploads).buffer_unordered(PARALLEL).try_collect::<Vec<_>>().await?;
        let blobs: usize = submission.blobs.iter().map(|blob| blob.len() + CALL).sum();
        let reply = match &submission.body {
            SubmissionBody::Entry(request) => session.submit(request).await?,
            SubmissionBody::Bundle(request) => {
                self.uploaded = blobs + request.encoded_len() + CALL;
                self.commit = match Entry::parse(&request.entry)?.body {
                    Body::Staged { size, .. } => usize::try_from(size)?,
                    Body::Inline(body) => body.len(),
                };
                session.submit_bundle(request).await?
            }
        };
        self.group()?.accepted(&reply);
        Ok(())
    }

    /// Reads the channel to its end.
    async fn read(&mut self) -> Result<(), Failure> {
        loop {
            let session = self.session()?;
            let after = self.group()?.position().seq.0;
            let page = session.fetch(&v1::FetchRequest { after, limit: 0 }).await?;
            if page.entries.is_empty() || page.head == after {
                return Ok(());
            }
            let head = page.head;
            let mut batch = Vec::new();
            for logged in page.entries {
                let blob = match Entry::parse(&logged.entry)?.body {
                    Body::Staged { hash, size } if self.group()?.wants_blob(&logged.entry) => {
                        Some(self.transport.download_blob(hash, size).await?)
                    }
                    _ => None,
                };
                let (seq, time) = (Seq(logged.seq), Timestamp(logged.time_ms));
                batch.push(Incoming { seq, time, entry: logged.entry, blob });
            }
            let done = self.group()?.process(&batch);
            if let Some(fault) = done.fault {
                return Err(fault.into());
            }
            if let Some((seq, outcome)) = done.outcomes.iter().find(|(_, outcome)| !good(outcome)) {
                return Err(format!("entry {seq}: {outcome:?}").into());
            }
            self.save()?;
            if self.group()?.position().seq.0 >= head {
                return Ok(());
            }
        }
    }

    /// Joins by the newest Welcome in the inbox.
    async fn join(&mut self) -> Result<(), Failure> {
        let inbox = &self.account.inbox;
        let opener = SessionOpener { channel: inbox.id, epoch: Epoch(0), key: inbox.key.clone(), path: None };
        let session = Session::new(&self.transport, opener);
        load_key_packages(&self.mls, &StoreRows(&self.store))?;
        // The server posts Welcomes after the commit, never before.
        let entry = loop {
            let page = session.fetch(&v1::FetchRequest { after: 0, limit: 0 }).await?;
            if let Some(last) = page.entries.last() {
                break last.entry.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        };
        let invitation = Invitation::open(&self.account, &self.mls, &entry)?;
        let mut tree = invitation.tree()?;
        let mut bytes = 0;
        loop {
            let wanted = tree.wanted();
            if wanted.is_empty() {
                break;
            }
            let largest = tree.largest();
            let downloads = wanted.into_iter().map(|chunk| self.transport.download_blob(chunk, largest));
            let mut chunks = stream::iter(downloads).buffer_unordered(PARALLEL);
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk?;
                bytes += chunk.len();
                tree.give(&chunk)?;
            }
        }
        let now = self.transport.now();
        let rows = StoreRows(&self.store);
        let group = invitation.join(&self.account, &self.mls, &rows, &tree, now, &mut Vec::new())?;
        self.group = Some(group);
        let Body::Inline(body) = Entry::parse(&entry)?.body else { return Err("a Welcome that is not inline".into()) };
        self.joined = (body.len(), bytes);
        self.save()
    }
}

fn good(outcome: &Outcome) -> bool {
    // Bob reads the commit that added him, too, in the epoch before his first.
    matches!(outcome, Outcome::Applied | Outcome::Confirmed | Outcome::Counted | Outcome::Stale)
}

/// Both write their state, as they would five seconds later, and Bob acknowledges what is open, as he would an hour later.
async fn settle(alice: &mut Client, bob: &mut Client, times: &mut Times) -> Result<(), Failure> {
    for client in [&mut *alice, &mut *bob] {
        let start = Instant::now();
        client.group()?.write_state_next();
        client.save()?;
        times.note(LATER, start);
    }
    bob.drive_later(2 * 3600 * 1000).await?;
    alice.read().await
}

/// Measures; gives sizes in bytes.
pub(super) async fn measure(
    server: &Process,
    people: &People,
    repetitions: usize,
    times: &mut Times,
) -> Result<Sizes, Failure> {
    let mut alice = Client::new(server, people, "alice").await?;
    let mut bob = Client::new(server, people, "bob").await?;
    alice.create().await?;
    let mut packages = people.key_packages.clone();
    packages.push(bob.key_package(people)?);
    let start = Instant::now();
    for batch in packages.chunks(limits::WELCOMES_PER_BUNDLE) {
        alice.carry_out(Wish::Add { key_packages: batch.to_vec() }).await?;
    }
    times.note("add-all", start);
    drop(packages);
    let start = Instant::now();
    bob.join().await?;
    times.note("join", start);
    bob.read().await?;
    settle(&mut alice, &mut bob, times).await?;

    let mut sizes = Vec::new();
    for repetition in 0..repetitions {
        let start = Instant::now();
        alice.carry_out(Wish::Update).await?;
        times.note("commit", start);
        let commit = alice.commit;

        let start = Instant::now();
        bob.read().await?;
        times.note("process", start);
        settle(&mut alice, &mut bob, times).await?;

        let mut carol = Client::new(server, people, &format!("carol{repetition}")).await?;
        let package = carol.key_package(people)?;
        let start = Instant::now();
        alice.carry_out(Wish::Add { key_packages: vec![package] }).await?;
        times.note("add-one", start);

        let start = Instant::now();
        carol.join().await?;
        times.note("join", start);
        bob.read().await?;
        settle(&mut alice, &mut bob, times).await?;
        let (welcome, tree) = carol.joined;
        sizes = vec![
            ("add-one-upload", alice.uploaded),
            ("commit-size", commit),
            ("welcome-per-joiner", welcome),
            ("tree-size", tree),
            ("join-download", welcome + tree),
        ];
        let agree = alice.group()?.epoch_authenticator()? == bob.group()?.epoch_authenticator()?;
        if !agree || carol.group()?.epoch_authenticator()? != bob.group()?.epoch_authenticator()? {
            return Err("the members do not agree".into());
        }
    }
    Ok(sizes)
}
