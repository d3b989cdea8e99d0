//! A world in memory: an Authentication Service's authority, a Delivery Service that orders by the channel's law, and
//! clients whose stores are maps.

#![allow(dead_code, unreachable_pub, clippy::cast_possible_truncation, clippy::unused_self)]

mod visible;

use std::collections::BTreeMap;

use conclave_authentication::CertificateAuthority;
use conclave_channel::{
    Body, Entry, EntryKind, Position, chain,
    law::{self, Change, DisputePause, Ledger},
    receipt::ReceiptKey,
    size_class,
    verdict::Verdict,
};
use conclave_engine::{
    Mls,
    account::{Account, Inbox},
    group::{
        Access, ChannelEnd, Group, Handshakes, Incoming, KIND_MESSAGE, KnockRefused, Known, NewGroup, Processed,
        RejoinError, Submission, SubmissionBody,
    },
    intent::Wish,
    invitation::{Invitation, TreeFetch, load_key_packages},
    key_packages::{self, AddressKey},
    knock::Knocked,
    outcome::{Event, Outcome},
    writes::{Room, Rows, StoredMessage, Write},
};
use conclave_mls::{content::MessageId, credential::IdentityBinding, crypto, welcome::InboxWelcome};
use conclave_names::{ChannelId, ClientUri, Domain, Epoch, GroupUri, Hash, IdempotencyKey, Seq, Timestamp, UserUri};
use conclave_protocol::{
    Code, Refusal, SigningKey,
    v1::{SubmitBundleRequest, SubmitRequest},
};
use mls_rs::CipherSuite;
use mls_rs_core::crypto::CipherSuiteProvider;
use zeroize::Zeroizing;

pub const NOW: Timestamp = Timestamp(1_750_000_000_000);

pub fn domain() -> Domain {
    "example.com".parse().unwrap()
}

/// By which the DS signs.
pub fn receipt_signer() -> SigningKey {
    SigningKey::from_bytes(&[77; 32])
}

pub fn random<const N: usize>() -> [u8; N] {
    crypto::suite(crypto::DEFAULT_SUITE).unwrap().random_bytes_vec(N).unwrap().try_into().unwrap()
}

/// One group's channel, its blobs, and the addresses to which Welcomes went.
#[derive(Default)]
pub struct Ds {
    pub channel: Option<ChannelId>,
    pub ledger: Option<Ledger>,
    /// How far the clock is ahead of the entries, in milliseconds.
    pub ahead: u64,
    pub entries: Vec<(Timestamp, Vec<u8>)>,
    pub blobs: BTreeMap<Hash, Vec<u8>>,
    pub welcomes: Vec<InboxWelcome>,
    pub seen: BTreeMap<Vec<u8>, Seq>,
    /// Of the newest commit, with the epoch that it began.
    pub group_info: (Epoch, Vec<u8>),
    /// The group, if it is one whose handshakes the DS reads.
    pub visible: visible::Visible,
}

impl Ds {
    pub fn submit(&mut self, submission: &Submission) -> Result<Seq, Refusal> {
        for blob in &submission.blobs {
            self.blobs.insert(chain::entry_hash(blob), blob.clone());
        }
        let (bytes, bundle) = match &submission.body {
            SubmissionBody::Entry(request) => (request.entry.clone(), None),
            SubmissionBody::Bundle(bundle) => (bundle.entry.clone(), Some(bundle)),
        };
        if let Some(seq) = self.seen.get(&bytes) {
            return Ok(*seq);
        }
        let entry = Entry::parse(&bytes).unwrap();
        let time = self.now();
        let seq = Seq(self.entries.len() as u64 + 1);
        let (channel, mut ledger) = (self.channel.unwrap(), self.ledger.clone().unwrap());
        let decided = ledger.advance(time);
        ledger.admit(&channel, seq, time, &entry, chain::entry_hash(&bytes)).map_err(|refused| match refused {
            law::Refused::Conflict { .. } => Refusal::new(Code::EpochConflict, refused.to_string()),
            law::Refused::Verdict(_) => Refusal::new(Code::VerdictRefused, refused.to_string()),
            _ => Refusal::new(Code::EpochStale, refused.to_string()),
        })?;
        for change in decided {
            if let Change::Annulled { epoch, .. } = change {
                self.visible.go_back(epoch);
            }
        }
        if self.visible.reads(&entry) {
            let message = match &entry.body {
                Body::Inline(body) => body,
                Body::Staged { hash, .. } => &self.blobs[hash],
            };
            self.blobs.extend(self.visible.follow(entry.epoch, message, time)?);
        }
        self.ledger = Some(ledger);
        self.entries.push((time, bytes.clone()));
        self.seen.insert(bytes, seq);
        if let Some(bundle) = bundle {
            self.group_info = (entry.epoch.next(), bundle.group_info.clone());
            self.post(bundle);
        }
        Ok(seq)
    }

    pub fn end(&self) -> ChannelEnd {
        let hash = self.after(Seq(0)).iter().fold(chain::start(&self.channel.unwrap()), |hash, incoming| {
            let kind = Entry::parse(&incoming.entry).unwrap().kind;
            chain::next(&hash, incoming.seq, kind, incoming.time, &chain::entry_hash(&incoming.entry))
        });
        let ledger = self.ledger.as_ref().unwrap().hash().unwrap();
        ChannelEnd { place: Position { seq: Seq(self.entries.len() as u64), hash }, ledger }
    }

    /// Orders what somebody made by hand.
    pub fn put(&mut self, entry: Entry) -> Seq {
        let request = SubmitRequest { idempotency_key: vec![7; 16], entry: entry.to_bytes().unwrap() };
        let (intent, body) = (IdempotencyKey::new([7; 16]), SubmissionBody::Entry(request));
        self.submit(&Submission { intent, join: None, blobs: Vec::new(), body }).unwrap()
    }

    pub fn now(&self) -> Timestamp {
        NOW.plus_ms(self.entries.len() as u64 + self.ahead)
    }

    fn post(&mut self, bundle: &SubmitBundleRequest) {
        let Some(welcome) = &bundle.welcome else { return };
        for part in &welcome.parts {
            self.welcomes.push(InboxWelcome {
                cipher_suite: welcome.cipher_suite.try_into().unwrap(),
                secrets: part.secrets.clone(),
                encrypted_group_info: welcome.encrypted_group_info.clone(),
                attachment: welcome.attachment.clone(),
            });
        }
    }

    pub fn after(&self, position: Seq) -> Vec<Incoming> {
        (position.0..self.entries.len() as u64)
            .map(|index| {
                let (time, entry) = self.entries[index as usize].clone();
                let blob = match Entry::parse(&entry).map(|entry| entry.body) {
                    Ok(Body::Staged { hash, .. }) => self.blobs.get(&hash).cloned(),
                    _ => None,
                };
                Incoming { seq: Seq(index + 1), time, entry, blob }
            })
            .collect()
    }
}

/// A client's durable rows.
#[derive(Default, Clone)]
pub struct Store {
    pub rows: BTreeMap<(Room, Vec<u8>), Vec<u8>>,
    pub messages: Vec<StoredMessage>,
}

impl Store {
    /// As the client's store says it.
    pub fn known(&self, id: &MessageId) -> Known {
        let same = |stored: &&StoredMessage| stored.kind == KIND_MESSAGE && stored.id == *id.as_bytes();
        self.messages
            .iter()
            .find(same)
            .map_or(Known::No, |stored| Known::At { seq: Seq(stored.seq), epoch: Epoch(stored.epoch) })
    }

    pub fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { room, key, value } => {
                    self.rows.insert((room, key), value.to_vec());
                }
                Write::Delete { room, key } => {
                    self.rows.remove(&(room, key));
                }
                Write::Message(message) => self.messages.push(message),
            }
        }
    }
}

impl Rows for Store {
    type Error = std::convert::Infallible;

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Self::Error> {
        Ok(self.rows.get(&(room, key.to_vec())).cloned().map(Zeroizing::new))
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, Self::Error> {
        Ok(self
            .rows
            .iter()
            .filter(|((in_room, key), _)| *in_room == room && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), Zeroizing::new(value.clone())))
            .collect())
    }
}

pub struct Person {
    pub account: Account,
    pub mls: Mls,
    pub store: Store,
    pub group: Option<Group>,
    pub events: Vec<Event>,
    /// Of groups that it makes.
    pub handshakes: Handshakes,
    pub suite: CipherSuite,
    pub dispute_pause: DisputePause,
}

pub struct World {
    pub ca: CertificateAuthority,
    pub ds: Ds,
    pub address_key: AddressKey,
    /// How long certificates are good.
    pub until: Timestamp,
}

impl World {
    pub fn new() -> Self {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let (_, public) = suite.kem_generate().unwrap();
        Self {
            ca: CertificateAuthority::generate(&domain(), NOW).unwrap(),
            ds: Ds::default(),
            address_key: AddressKey { id: [1; 8], public: public.as_ref().to_vec() },
            until: NOW.plus_ms(86_400_000 * 30),
        }
    }

    pub fn person(&self, name: &str) -> Person {
        self.person_of(name, &self.ca, &[&self.ca])
    }

    /// Fetches the tree of an invitation.
    pub fn tree(&self, invitation: &Invitation) -> TreeFetch {
        let mut tree = invitation.tree().unwrap();
        while let Some(name) = tree.wanted().pop() {
            tree.give(&self.ds.blobs[&name]).unwrap();
        }
        tree
    }

    /// Certified by one authority, believing these.
    pub fn person_of(&self, name: &str, ca: &CertificateAuthority, believed: &[&CertificateAuthority]) -> Person {
        let user = UserUri::new(domain(), name).unwrap();
        let client = user.client("laptop").unwrap();
        let identity = SigningKey::from_bytes(&random());
        let signature_key = SigningKey::from_bytes(&random());
        let public = signature_key.verifying_key().to_bytes();
        let end = self.until;
        let binding = IdentityBinding::sign(&identity, &client, &public, end);
        let certificate = ca.issue(&client, &public, &binding, NOW, end, random()).unwrap();
        let account = Account {
            rotation: conclave_engine::rotation::Rotation::default(),
            client,
            signature_key,
            identity_secret: Some(identity),
            binding,
            certificate,
            issuers: believed.iter().map(|ca| ca.certificate().to_vec()).collect(),
            inbox: Inbox {
                id: ChannelId::new(random()),
                key: SigningKey::from_bytes(&random()),
                drop_key: Zeroizing::new(random()),
                done: Seq(0),
                trimmed: Seq(0),
            },
        };
        let mls = Mls::new(&account);
        Person {
            account,
            mls,
            store: Store::default(),
            group: None,
            events: Vec::new(),
            handshakes: Handshakes::Private,
            suite: crypto::DEFAULT_SUITE,
            dispute_pause: DisputePause::DEFAULT,
        }
    }
}

impl Person {
    pub fn group(&mut self) -> &mut Group {
        self.group.as_mut().unwrap()
    }

    pub fn user(&self) -> UserUri {
        self.account.client.user().clone()
    }

    /// Makes everything durable.
    pub fn save(&mut self) {
        if let Some(group) = &mut self.group {
            self.store.apply(group.take_writes().unwrap());
        }
    }

    /// A crash: what was not durable is gone.
    pub fn restart(&mut self) {
        let name = self.group.take().map(|group| group.name().clone());
        self.mls = Mls::new(&self.account);
        load_key_packages(&self.mls, &self.store).unwrap();
        self.group = name.and_then(|name| Group::load(&self.account, &self.mls, &self.store, &name).unwrap());
    }

    pub fn create(&mut self, world: &mut World, title: &str) -> GroupUri {
        let receipt_key = ReceiptKey(receipt_signer().verifying_key().to_bytes());
        let new = NewGroup {
            hub: domain(),
            receipt_key,
            title: title.into(),
            cipher_suite: self.suite,
            handshakes: self.handshakes.clone(),
            dispute_pause: self.dispute_pause,
        };
        let group = Group::create(&self.account, &self.mls, new, NOW).unwrap();
        world.ds.channel = Some(group.profile().channel);
        world.ds.ledger = Some(Ledger::new(Epoch(0), group.key_root().unwrap(), 1).with_pause(self.dispute_pause));
        let first = group.first_group_info().unwrap();
        world.ds.visible =
            first.map(|info| visible::Visible::begin(&info, self.account.parsed_issuers())).unwrap_or_default();
        let name = group.name().clone();
        self.group = Some(group);
        self.save();
        name
    }

    pub fn key_package(&mut self, world: &World) -> Vec<u8> {
        let fresh =
            key_packages::generate(&self.account, &self.mls, self.suite, &world.address_key, 1, false, NOW).unwrap();
        self.store.apply(fresh.writes);
        fresh.key_packages.into_iter().next().unwrap()
    }

    pub fn wish(&mut self, wish: Wish) -> IdempotencyKey {
        let id = self.group().wish(wish).unwrap();
        self.save();
        id
    }

    pub fn say(&mut self, text: &str) {
        self.group().wish_text(text).unwrap();
        self.save();
    }

    /// Reads the channel to its end.
    pub fn sync(&mut self, ds: &Ds) -> Processed {
        let (group, store) = (self.group.as_mut().unwrap(), &self.store);
        let mut done = group.process_with(&ds.after(group.position().seq), |id| store.known(id));
        for _ in 0..8 {
            if !group.wants_refetch() {
                break;
            }
            let again = group.process_with(&ds.after(group.position().seq), |id| store.known(id));
            done.outcomes.extend(again.outcomes);
            done.events.extend(again.events);
            done.fault = again.fault;
        }
        if done.fault.is_none() && group.position().seq.0 == ds.entries.len() as u64 {
            group.caught_up(ds.now()).unwrap();
        }
        self.events.append(&mut done.events.clone());
        self.save();
        done
    }

    /// Submits what there is to submit until nothing is left, reading in between. The clock is an hour ahead, so that
    /// nobody waits for others.
    pub fn drive(&mut self, world: &mut World) {
        let now = NOW.plus_ms(3_600_000).max(world.ds.now());
        self.drive_at(world, now);
    }

    /// The same at the time that the DS's clock shows and a minute.
    pub fn drive_now(&mut self, world: &mut World) {
        let now = world.ds.now().plus_ms(60_000);
        self.drive_at(world, now);
    }

    /// The same at a given time.
    pub fn drive_at(&mut self, world: &mut World, now: Timestamp) {
        for _ in 0..50 {
            self.sync(&world.ds);
            let mut events = Vec::new();
            let next = self.group().next_submission(now, &mut events);
            self.events.append(&mut events);
            self.save();
            let Ok(Some(submission)) = next else { return };
            if let Err(refusal) = world.ds.submit(&submission) {
                self.sync(&world.ds);
                let mut events = Vec::new();
                self.group().refused(submission.intent, &refusal, &mut events).unwrap();
                self.events.append(&mut events);
                self.save();
            }
        }
        panic!("the group does not come to rest");
    }

    /// Makes the commit by which this member comes back, by what the DS serves. `approved`: also where only somebody unknown vouches for it,
    /// whoever that is.
    pub fn begin_rejoin(&mut self, world: &World, approved: bool) -> Result<(), RejoinError> {
        match self.begin_rejoin_by(world, None) {
            Err(RejoinError::Doubtful(signer)) if approved => self.begin_rejoin_by(world, Some(&signer)),
            begun => begun,
        }
    }

    /// The same, if who vouches for it is known, or this one.
    pub fn begin_rejoin_by(&mut self, world: &World, approved: Option<&ClientUri>) -> Result<(), RejoinError> {
        let now = world.ds.now();
        let (epoch, group_info) = &world.ds.group_info;
        let group = self.group.as_mut().unwrap();
        let way = group.way_back(*epoch, group_info, world.ds.end(), now);
        let begun = way.and_then(|way| {
            let mut tree = way.tree().unwrap();
            while let Some(name) = tree.wanted().pop() {
                tree.give(&world.ds.blobs[&name]).unwrap();
            }
            if tree.wants_whole() {
                tree.give(&world.ds.visible.tree(way.epoch())).unwrap();
            }
            group.rejoin(&way, &tree, approved, now)
        });
        self.save();
        begun.map(drop)
    }

    /// Joins by the newest Welcome that is ours.
    pub fn join(&mut self, world: &World) {
        load_key_packages(&self.mls, &self.store).unwrap();
        for welcome in world.ds.welcomes.iter().rev() {
            let Ok(invitation) = Invitation::open(&self.account, &self.mls, &inbox_entry(welcome)) else { continue };
            let tree = world.tree(&invitation);
            let group = invitation.join(&self.account, &self.mls, &self.store, &tree, NOW, &mut self.events).unwrap();
            self.group = Some(group);
            self.save();
            return;
        }
        panic!("no Welcome is ours");
    }

    pub fn texts(&self) -> Vec<String> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Message { text: Some(text), .. } => Some(text.clone()),
                _ => None,
            })
            .collect()
    }
}

pub fn inbox_entry(welcome: &InboxWelcome) -> Vec<u8> {
    let body = size_class::pad(welcome.to_bytes().unwrap(), 0);
    Entry::new(EntryKind::Welcome, Epoch(0), Body::Inline(body)).to_bytes().unwrap()
}

/// A group of these people, made by the first.
pub fn group_of(world: &mut World, people: &mut [&mut Person]) {
    let packages: Vec<_> = people.iter_mut().skip(1).map(|person| person.key_package(world)).collect();
    let (first, others) = people.split_first_mut().unwrap();
    first.create(world, "Test");
    if !packages.is_empty() {
        first.wish(Wish::Add { key_packages: packages });
        first.drive(world);
    }
    for person in others {
        person.join(world);
        person.sync(&world.ds);
    }
}

pub fn agree(people: &mut [&mut Person]) {
    let views: Vec<_> = people
        .iter_mut()
        .map(|person| {
            let group = person.group();
            let mut members: Vec<_> = group.members().unwrap().into_iter().map(|member| member.client).collect();
            members.sort();
            (group.epoch(), group.epoch_authenticator().unwrap(), members, group.key_root().unwrap())
        })
        .collect();
    for view in &views {
        assert_eq!(*view, views[0]);
    }
}

/// Alice, Bob and Carol in a group.
pub fn trio(world: &mut World) -> [Person; 3] {
    let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
    let [alice, bob, carol] = &mut people;
    group_of(world, &mut [alice, bob, carol]);
    for person in &mut people {
        person.sync(&world.ds);
    }
    people
}

/// The server shows Bob a commit of Carol's, and the others one of Alice's at its place. Gives the place.
pub fn fork(world: &mut World, alice: &mut Person, bob: &mut Person, carol: &mut Person) -> Seq {
    let seq = Seq(world.ds.entries.len() as u64 + 1);
    carol.wish(Wish::Update);
    let now = world.ds.now();
    let withheld = carol.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    carol.save();
    let SubmissionBody::Bundle(bundle) = &withheld.body else { panic!() };
    let false_log = Incoming { seq, time: now, entry: bundle.entry.clone(), blob: None };
    let done = bob.group().process(&[false_log]);
    assert_eq!(done.outcomes[0].1, Outcome::Applied);
    bob.save();
    alice.wish(Wish::Update);
    alice.drive_now(world);
    seq
}

/// The next commit of somebody, changed on its way.
pub fn bad_commit(world: &mut World, person: &mut Person, change: impl FnOnce(&mut Entry)) {
    person.wish(Wish::Update);
    let mut submission = person.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
    person.save();
    let SubmissionBody::Bundle(bundle) = &mut submission.body else { panic!() };
    let mut entry = Entry::parse(&bundle.entry).unwrap();
    change(&mut entry);
    bundle.entry = entry.to_bytes().unwrap();
    world.ds.submit(&submission).unwrap();
}

/// A dispute of the newest commit by somebody who could apply it, with a key of the epoch that the commit ended.
pub fn false_nack(world: &mut World, access: &Access) {
    let open = world.ds.ledger.as_ref().unwrap().open().len();
    dispute(world, access, open - 1);
}

/// The same of one of the open commits.
pub fn dispute(world: &mut World, access: &Access, open: usize) {
    let open = world.ds.ledger.as_ref().unwrap().open()[open].clone();
    let about = Position { seq: open.seq, hash: open.hash };
    let path = access.path.clone();
    let nack = Verdict::sign(&access.channel, EntryKind::Nack, access.epoch, &about, &access.key, path, vec![0; 16]);
    world.ds.put(nack);
}

/// Has `member` take a knock of `knocker`. Says what came of it.
pub fn knock(world: &World, knocker: &mut Person, member: &mut Person) -> Result<(), KnockRefused> {
    let (theirs, ours) = (member.key_package(world), knocker.key_package(world));
    let now = world.ds.now();
    let post = knocker.group().knock(&member.account.client, &theirs, ours, now).unwrap();
    knocker.group().knocked(vec![member.account.client.clone()], now, &mut Vec::new());
    knocker.save();
    let body = Body::Inline(size_class::pad(post.knock, 0));
    let entry = Entry::new(EntryKind::Knock, Epoch(0), body).to_bytes().unwrap();
    let knocked = Knocked::open(&member.mls, &entry, now).unwrap();
    let answered = member.group().answer(&knocked, now).map(drop);
    member.save();
    let writes = knocked.used(&member.mls, &member.store).unwrap();
    member.store.apply(writes);
    answered
}

/// A new signature key for a person, certified two seconds later, as its shell would bring it about. Its group has yet to learn of it.
pub fn rotate(world: &mut World, person: &mut Person) {
    world.ds.ahead += 2_000;
    let key = SigningKey::from_bytes(&random());
    let identity = person.account.identity_secret.clone().unwrap();
    let public = key.verifying_key().to_bytes();
    let binding = IdentityBinding::sign(&identity, &person.account.client, &public, world.until);
    person.account.begin_rotation(key, binding);
    let mut account = person.account.as_next().unwrap();
    let (from, until) = (world.ds.now(), world.until);
    account.certificate = world.ca.issue(&account.client, &public, &account.binding, from, until, random()).unwrap();
    person.account = account.clone();
    person.store.apply(vec![account.to_write()]);
    if let Some(group) = &mut person.group {
        group.set_account(account);
    }
}

/// Has `member` take a knock of who says to have lost everything. Says what came of it.
pub fn knock_for_all(world: &World, knocker: &Person, member: &mut Person) -> Result<(), KnockRefused> {
    knock_for_all_but(world, knocker, member, &[])
}

/// The same of who says to follow these groups still.
pub fn knock_for_all_but(
    world: &World,
    knocker: &Person,
    member: &mut Person,
    kept: &[GroupUri],
) -> Result<(), KnockRefused> {
    let theirs = member.key_package(world);
    let mut ours = Person {
        store: Store::default(),
        group: None,
        events: Vec::new(),
        mls: Mls::new(&knocker.account),
        account: knocker.account.clone(),
        handshakes: Handshakes::Private,
        dispute_pause: DisputePause::DEFAULT,
        suite: knocker.suite,
    };
    let ours = ours.key_package(world);
    let now = world.ds.now();
    let to = (&member.account.client, &member.account.identity_key());
    let post =
        conclave_engine::knock::for_all_groups(&knocker.account, &knocker.mls, to, &theirs, kept, ours, now).unwrap();
    let body = Body::Inline(size_class::pad(post.knock, 0));
    let entry = Entry::new(EntryKind::Knock, Epoch(0), body).to_bytes().unwrap();
    let knocked = Knocked::open(&member.mls, &entry, now).unwrap();
    let answered = member.group().answer(&knocked, now).map(drop);
    member.save();
    answered
}
