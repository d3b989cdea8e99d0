//! People with engines, whose stores are maps.

use std::{collections::BTreeMap, rc::Rc};

use conclave_channel::{Body, Entry, receipt::ReceiptKey};
use conclave_engine::{
    Mls,
    account::{Account, Inbox},
    group::{Group, Handshakes, Incoming, NewGroup, Submission, SubmissionBody},
    intent::Wish,
    invitation::{Invitation, load_key_packages},
    key_packages,
    outcome::Event,
    writes::{Room, Rows, Write},
};
use conclave_mls::{credential::IdentityBinding, crypto};
use conclave_names::{ChannelId, IdempotencyKey, Seq, Timestamp, UserUri};
use conclave_protocol::{Code, Refusal, SigningKey, v1};
use zeroize::Zeroizing;

use crate::world::{NOW, Session, World, domain, random};

/// A client's durable rows.
#[derive(Default, Clone)]
pub(crate) struct Disk(BTreeMap<(Room, Vec<u8>), Vec<u8>>);

impl Disk {
    fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { room, key, value } => {
                    self.0.insert((room, key), value.to_vec());
                }
                Write::Delete { room, key } => {
                    self.0.remove(&(room, key));
                }
                Write::Message(_) => {}
            }
        }
    }
}

impl Rows for Disk {
    type Error = std::convert::Infallible;

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Self::Error> {
        Ok(self.0.get(&(room, key.to_vec())).cloned().map(Zeroizing::new))
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, Self::Error> {
        let found = self.0.iter().filter(|((of, key), _)| *of == room && key.starts_with(prefix));
        Ok(found.map(|((_, key), value)| (key.clone(), Zeroizing::new(value.clone()))).collect())
    }
}

/// An account that an authority has certified, with an inbox at the DS.
pub(crate) fn account(world: &mut World, name: &str) -> Account {
    let client = UserUri::new(domain(), name).unwrap().client("laptop").unwrap();
    let (identity, signature_key) = (SigningKey::from_bytes(&random()), SigningKey::from_bytes(&random()));
    let public = signature_key.verifying_key().to_bytes();
    let (begin, end) = (Timestamp(NOW.0 - 3_600_000), NOW.plus_ms(86_400_000 * 30));
    let binding = IdentityBinding::sign(&identity, &client, &public, end);
    let certificate = world.ca.issue(&client, &public, &binding, begin, end, random()).unwrap();
    let inbox = Inbox {
        id: ChannelId::new(random()),
        key: SigningKey::from_bytes(&random()),
        drop_key: Zeroizing::new(random()),
        done: Seq(0),
        trimmed: Seq(0),
    };
    world.create_inbox(inbox.id, &inbox.key, *inbox.drop_key);
    Account {
        rotation: conclave_engine::rotation::Rotation::default(),
        client,
        signature_key,
        identity_secret: Some(identity),
        binding,
        certificate,
        issuers: vec![world.ca.certificate().to_vec()],
        inbox,
    }
}

pub(crate) struct Person {
    pub(crate) account: Account,
    pub(crate) mls: Mls,
    disk: Disk,
    pub(crate) group: Option<Group>,
    pub(crate) events: Vec<Event>,
    /// With the epoch and the start of the service that it is of.
    session: Option<(u64, usize, Rc<Session>)>,
}

impl Person {
    pub(crate) fn new(world: &mut World, name: &str) -> Self {
        let account = account(world, name);
        let mls = Mls::new(&account);
        Self { account, mls, disk: Disk::default(), group: None, events: Vec::new(), session: None }
    }

    pub(crate) fn group(&mut self) -> &mut Group {
        self.group.as_mut().unwrap()
    }

    pub(crate) fn user(&self) -> UserUri {
        self.account.client.user().clone()
    }

    pub(crate) fn save(&mut self) {
        if let Some(group) = &mut self.group {
            self.disk.apply(group.take_writes().unwrap());
        }
    }

    /// Makes a group, at the DS and here.
    pub(crate) fn create(&mut self, world: &mut World, handshakes: Handshakes) -> ChannelId {
        let new = NewGroup {
            hub: domain(),
            receipt_key: ReceiptKey([0; 32]),
            title: "Test".into(),
            cipher_suite: crypto::DEFAULT_SUITE,
            handshakes,
            dispute_pause: conclave_channel::law::DisputePause::DEFAULT,
        };
        let group = Group::create(&self.account, &self.mls, new, world.now).unwrap();
        let access = group.access().unwrap();
        let message = v1::CreateChannelRequest {
            channel: access.channel.to_vec(),
            key_root: group.key_root().unwrap().to_vec(),
            group_info: group.first_group_info().unwrap().unwrap_or_default(),
            ..v1::CreateChannelRequest::default()
        };
        world.create_channel(&access.key, &message).unwrap();
        self.group = Some(group);
        self.save();
        access.channel
    }

    /// Makes something durable that is no group's.
    pub(crate) fn keep(&mut self, writes: Vec<Write>) {
        self.disk.apply(writes);
    }

    pub(crate) fn key_package(&mut self, world: &mut World) -> Vec<u8> {
        let (suite, key, now) = (crypto::DEFAULT_SUITE, world.address_key(), world.now);
        let fresh = key_packages::generate(&self.account, &self.mls, suite, &key, 1, false, now).unwrap();
        self.disk.apply(fresh.writes);
        fresh.key_packages.into_iter().next().unwrap()
    }

    /// A session of the epoch that the engine is in.
    pub(crate) fn session(&mut self, world: &mut World) -> Rc<Session> {
        let (epoch, starts) = (self.group().epoch().0, world.starts);
        let good = self.session.as_ref().is_some_and(|(of, start, _)| *of == epoch && *start == starts);
        if !good {
            // Who was removed still has the session by which it reads that.
            if let Ok(access) = self.group().access() {
                // Of an epoch that was annulled, as the next entries will tell, there is no access.
                let opened = world.open(&access).unwrap_or_else(|_| {
                    let mut before = self.group().epoch();
                    loop {
                        let access = self.group().access_before(before).unwrap().expect("an epoch that stands");
                        before = access.epoch;
                        if let Ok(session) = world.open(&access) {
                            return session;
                        }
                    }
                });
                self.session = Some((epoch, starts, Rc::new(opened)));
            }
        }
        Rc::clone(&self.session.as_ref().unwrap().2)
    }

    /// After a long silence the service has forgotten it.
    pub(crate) fn forget_session(&mut self) {
        self.session = None;
    }

    pub(crate) fn wish(&mut self, wish: Wish) -> IdempotencyKey {
        let id = self.group().wish(wish).unwrap();
        self.save();
        id
    }

    pub(crate) fn say(&mut self, world: &mut World, text: &str) {
        self.group().wish_text(text).unwrap();
        self.save();
        self.drive(world);
    }

    /// Reads the channel to its end.
    pub(crate) fn sync(&mut self, world: &mut World) {
        for _ in 0..4 {
            let after = self.group().position().seq.0;
            let session = self.session(world);
            let entries = world.fetch(&session, after).unwrap();
            let batch: Vec<_> = entries
                .into_iter()
                .map(|logged| {
                    let blob = match Entry::parse(&logged.entry).unwrap().body {
                        Body::Staged { hash, .. } => Some(world.blob(&hash).unwrap()),
                        Body::Inline(_) => None,
                    };
                    Incoming { seq: Seq(logged.seq), time: Timestamp(logged.time_ms), entry: logged.entry, blob }
                })
                .collect();
            let mut done = self.group().process(&batch);
            assert!(done.fault.is_none(), "{:?}", done.fault);
            self.events.append(&mut done.events);
            self.save();
            if batch.is_empty() {
                let now = world.now;
                self.group().caught_up(now).unwrap();
                self.save();
                return;
            }
        }
    }

    /// What there is to submit now.
    pub(crate) fn next(&mut self, world: &World) -> Option<Submission> {
        let mut events = Vec::new();
        let next = self.group().next_submission(world.now.plus_ms(60_000), &mut events);
        self.events.append(&mut events);
        self.save();
        next.unwrap()
    }

    pub(crate) fn send(&mut self, world: &mut World, submission: &Submission) -> Result<(), Refusal> {
        let session = self.session(world);
        for blob in &submission.blobs {
            world.stage(&session, blob);
        }
        match &submission.body {
            SubmissionBody::Entry(request) => world.submit(&session, request).map(drop),
            SubmissionBody::Bundle(bundle) => world.submit_bundle(&session, bundle).map(drop),
        }
    }

    /// Submits until nothing is left, reading in between.
    pub(crate) fn drive(&mut self, world: &mut World) {
        for _ in 0..50 {
            self.sync(world);
            if self.group().access().is_err() {
                return;
            }
            let Some(submission) = self.next(world) else { return };
            if let Err(refusal) = self.send(world, &submission) {
                assert_ne!(refusal.code, Code::HandshakeRefused, "the service refused what is right: {refusal}");
                self.session = None;
                self.sync(world);
                let mut events = Vec::new();
                self.group().refused(submission.intent, &refusal, &mut events).unwrap();
                self.events.append(&mut events);
                self.save();
            }
        }
        panic!("the group does not come to rest");
    }

    /// Joins by the newest Welcome that is ours.
    pub(crate) fn join(&mut self, world: &mut World) {
        load_key_packages(&self.mls, &self.disk).unwrap();
        let inbox = world.inbox(self.account.inbox.id, &self.account.inbox.key);
        let invitation =
            inbox.iter().find_map(|entry| Invitation::open(&self.account, &self.mls, entry).ok()).expect("invited");
        let mut tree = invitation.tree().unwrap();
        while let Some(name) = tree.wanted().first() {
            tree.give(&world.blob(name).expect("the tree is served")).unwrap();
        }
        let now = world.now;
        let group = invitation.join(&self.account, &self.mls, &self.disk, &tree, now, &mut self.events).unwrap();
        self.group = Some(group);
        self.session = None;
        self.save();
        self.sync(world);
    }

    pub(crate) fn add(&mut self, world: &mut World, others: &mut [&mut Self]) {
        let key_packages = others.iter_mut().map(|other| other.key_package(world)).collect();
        self.wish(Wish::Add { key_packages });
        self.drive(world);
        for other in others {
            other.join(world);
        }
    }

    pub(crate) fn texts(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Message { text: Some(text), .. } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}

/// A visible group of these people, made by the first.
pub(crate) fn group_of(world: &mut World, people: &mut [&mut Person], external_senders: Vec<Account>) -> ChannelId {
    let (first, others) = people.split_first_mut().unwrap();
    let external_senders = external_senders.iter().map(Account::signing_identity).collect();
    let channel = first.create(world, Handshakes::Visible { external_senders });
    if !others.is_empty() {
        first.add(world, others);
    }
    channel
}

/// All have read everything, and agree with one another and with the service.
pub(crate) fn agree(world: &mut World, people: &mut [&mut Person]) {
    let mut seen = None;
    for person in people.iter_mut() {
        person.sync(world);
        let channel = person.group().profile().channel;
        let followed = world.followed(channel).expect("the service follows");
        let group = person.group();
        let view = (group.epoch(), group.context_hash().unwrap(), group.epoch_authenticator().unwrap());
        assert_eq!((followed.epoch, followed.context), (view.0, view.1), "the service and {}", person.account.client);
        assert_eq!(followed.members, person.group().members().unwrap().len());
        assert_eq!(*seen.get_or_insert(view.clone()), view);
    }
}
