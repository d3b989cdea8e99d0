//! What people do with groups. Each change is an intent of the engine: stored first, then carried out as far as the
//! network allows.

use std::{collections::BTreeSet, time::Duration};

use conclave_channel::{access::KeyPath, law::DisputePause, receipt::ReceiptKey};
use conclave_engine::{
    group::{Access, Group, Handshakes, JoinAccess, NewGroup, Status, SubmissionBody, WishError},
    intent::Wish,
    outcome::Event,
};
use conclave_mls::{capabilities::Capabilities, content::MessageId, crypto};
use conclave_names::{ClientUri, Epoch, GroupUri, IdempotencyKey, UserUri};
use conclave_protocol::v1;
use futures::{StreamExt, TryStreamExt, stream};
use mls_rs::MlsMessage;
use serde::Serialize;
use tokio::time::sleep;

use super::{Client, ClientError, ClientEvent, register::random};
use crate::transport::{Backoff, CallError, Session, SessionOpener, Signer};

/// Blobs that are staged at the same time.
const UPLOADS: usize = 8;

/// Submissions of one call, before it leaves the rest to the next sync.
const ROUNDS: usize = 64;

/// Who was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Added {
    /// Clients that are members now.
    pub clients: Vec<ClientUri>,
    /// Clients of the same users that have left no keying material and so could not be added.
    pub without_key_packages: Vec<ClientUri>,
    /// Clients of the same users that cannot be members of this group.
    pub unable: Vec<Unable>,
}

/// A client that cannot be a member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unable {
    /// Which.
    pub client: ClientUri,
    /// What it lacks, for people.
    pub reason: String,
}

pub(super) fn lacks(missing: &Capabilities) -> String {
    format!("it lacks what the group requires: {missing}")
}

/// Why the directory served nothing of a client; none: there is nothing, or no reason was given.
fn unable(unserved: &v1::Unserved, suite: u32) -> Option<Unable> {
    let client = unserved.client.parse().ok()?;
    let reason = match unserved.reason() {
        v1::UnservedReason::Capabilities => {
            let missing = unserved.missing.clone().unwrap_or_default();
            let list = |numbers: Vec<u32>| numbers.into_iter().filter_map(|number| u16::try_from(number).ok());
            let missing = Capabilities::new(
                list(missing.protocol_versions),
                list(missing.extension_types),
                list(missing.proposal_types),
                list(missing.credential_types),
            );
            lacks(&missing)
        }
        v1::UnservedReason::CipherSuite => {
            let has: Vec<_> = unserved.cipher_suites.iter().map(|suite| format!("0x{suite:04X}")).collect();
            format!("it does not offer the group's cipher suite 0x{suite:04X}, only {}", has.join(", "))
        }
        _ => return None,
    };
    Some(Unable { client, reason })
}

fn to_wire(required: &Capabilities) -> v1::Capabilities {
    let list = |numbers: &BTreeSet<u16>| numbers.iter().copied().map(u32::from).collect();
    v1::Capabilities {
        protocol_versions: list(&required.protocol_versions),
        extension_types: list(&required.extension_types),
        proposal_types: list(&required.proposal_types),
        credential_types: list(&required.credential_types),
    }
}

/// What became of the wish to leave a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// The others have the request: the next member that comes online carries it out.
    Asked,
    /// This client is no member any more.
    Left,
    /// This client could not follow the group any more, so nobody was told: its keys are gone, and the others show it as a member until one
    /// of them removes it.
    Unheard,
}

/// A path as requests have it.
pub(super) fn key_path(path: &KeyPath) -> v1::KeyPath {
    v1::KeyPath {
        index: path.index,
        leaves: path.leaves,
        siblings: path.siblings.iter().map(conclave_names::Hash::to_vec).collect(),
    }
}

pub(super) fn opener(access: Access) -> SessionOpener {
    SessionOpener { channel: access.channel, epoch: access.epoch, key: access.key, path: Some(access.path) }
}

fn outsider(join: &JoinAccess) -> SessionOpener {
    SessionOpener { channel: join.channel, epoch: join.epoch, key: join.key.clone(), path: None }
}

impl Client {
    /// Makes a group with this client as its only member. Its handshakes are private: see
    /// [`Client::create_group_with`].
    pub async fn create_group(&mut self, title: &str) -> Result<GroupUri, ClientError> {
        self.create_group_with(title, Handshakes::Private).await
    }

    /// Makes a group with this client as its only member, whose handshakes the DS reads or does not.
    pub async fn create_group_with(&mut self, title: &str, handshakes: Handshakes) -> Result<GroupUri, ClientError> {
        self.create_group_in(title, handshakes, crypto::DEFAULT_SUITE.into()).await
    }

    /// The same in another cipher suite than the default one.
    ///
    /// # Errors
    /// [`ClientError::Suite`] for a cipher suite that identity keys do not sign in.
    pub async fn create_group_in(
        &mut self,
        title: &str,
        handshakes: Handshakes,
        cipher_suite: u16,
    ) -> Result<GroupUri, ClientError> {
        self.create_group_as(title, handshakes, Some(cipher_suite), DisputePause::DEFAULT).await
    }

    /// The same, of the default cipher suite if none is given, where a disputed commit waits for longer or shorter than the 15 minutes that are usual until it is annulled. It cannot be
    /// changed later.
    ///
    /// # Errors
    /// As [`Client::create_group_in`].
    pub async fn create_group_as(
        &mut self,
        title: &str,
        handshakes: Handshakes,
        cipher_suite: Option<u16>,
        dispute_pause: DisputePause,
    ) -> Result<GroupUri, ClientError> {
        let cipher_suite = cipher_suite.map_or(Ok(crypto::DEFAULT_SUITE), crypto::suite_by_number)?;
        let info = self.delivery.get_server_info().await?;
        let key = info.receipt_key.as_slice().try_into();
        let key = key.map_err(|_| ClientError::Answer("`receipt_key` is not 32 bytes".into()))?;
        let new = NewGroup {
            hub: self.delivery.domain().clone(),
            receipt_key: ReceiptKey(key),
            title: title.to_owned(),
            cipher_suite,
            handshakes,
            dispute_pause,
        };
        let group = Group::create(&self.account, &self.mls, new, self.delivery.now())?;
        self.make_channel(&group).await?;
        let name = group.name().clone();
        self.groups.insert(name.clone(), group);
        self.save(&name)?;
        Ok(name)
    }

    /// Has the DS make the channel of a group that was just made.
    pub(super) async fn make_channel(&mut self, group: &Group) -> Result<(), ClientError> {
        let access = group.access()?;
        let request = v1::CreateChannelRequest {
            channel: access.channel.to_vec(),
            key_root: group.key_root()?.to_vec(),
            group_info: group.first_group_info()?.unwrap_or_default(),
            epoch: 0,
            path: None,
            dispute_ms: group.profile().dispute_pause.ms(),
        };
        self.delivery.create_channel(&Signer::bare(&access.key), &request).await?;
        Ok(())
    }

    /// Claims KeyPackages of a user or client, of the first of these cipher suites that it offers.
    pub(super) async fn claim(
        &mut self,
        target: String,
        cipher_suites: Vec<u32>,
        required: Option<v1::Capabilities>,
    ) -> Result<v1::ClaimResponse, ClientError> {
        let idempotency_key = random::<16>()?.to_vec();
        let request = v1::ClaimRequest { target, cipher_suites, idempotency_key, required };
        let mut claimed = self.delivery.claim(&Self::signer(&self.account), &request).await;
        if self.outlives_issuer(claimed.as_ref().err().and_then(CallError::code)).await {
            self.renew_credential().await?;
            claimed = self.delivery.claim(&Self::signer(&self.account), &request).await;
        }
        let answer = claimed?;
        self.learn_issuers_of(answer.key_packages.iter().map(|claimed| claimed.key_package.as_slice())).await?;
        Ok(answer)
    }

    /// Adds all clients of users, those excepted that left no keying material or lack what the group requires (R102). It needs the
    /// directory: if the server is away, nothing is stored, and the call is to be made again, which adds nobody twice.
    ///
    /// # Errors
    /// [`ClientError::CannotAdd`] if a user has no client that can be added, [`ClientError::IdentityChanged`] if one's
    /// identity key is another than before.
    pub async fn add(&mut self, group: &GroupUri, users: &[UserUri]) -> Result<Added, ClientError> {
        let group = &self.current(group)?;
        self.sync_group(group).await?;
        let mut added = Added { clients: Vec::new(), without_key_packages: Vec::new(), unable: Vec::new() };
        let mut key_packages = Vec::new();
        let members: Vec<ClientUri> = self.group(group)?.members()?.into_iter().map(|member| member.client).collect();
        let suite = u32::from(self.group(group)?.cipher_suite());
        let required = to_wire(&self.group(group)?.required_capabilities()?);
        for user in users {
            let answer = self.claim(user.to_string(), vec![suite], Some(required.clone())).await?;
            let mut found = false;
            let mut lacking: Vec<_> = answer.unserved.iter().filter_map(|unserved| unable(unserved, suite)).collect();
            for claimed in answer.key_packages {
                let client = self.judge_key_package(user, &claimed.key_package)?;
                // The directory was told, but is not believed.
                let missing = self.group(group)?.lacking(&claimed.key_package)?;
                if !missing.is_empty() {
                    lacking.push(Unable { client, reason: lacks(&missing) });
                    continue;
                }
                // Our own device is a member, and so may others be.
                found = true;
                if !members.contains(&client) {
                    added.clients.push(client);
                    key_packages.push(claimed.key_package);
                }
            }
            if !found {
                let reasons: Vec<_> = lacking.iter().map(|one| format!("{}: {}", one.client, one.reason)).collect();
                let reason = if reasons.is_empty() {
                    "none of its clients has left keying material; they must come online first".into()
                } else {
                    reasons.join("; ")
                };
                return Err(ClientError::CannotAdd { user: user.clone(), reason });
            }
            let others = answer.without.iter().filter_map(|client| client.parse().ok());
            added.without_key_packages.extend(others.filter(|client| !lacking.iter().any(|one| one.client == *client)));
            added.unable.extend(lacking);
        }
        if !key_packages.is_empty() {
            self.carry_out(group, Wish::Add { key_packages }).await?;
        }
        Ok(added)
    }

    /// Whose KeyPackage this is. The directory is not believed: the credential must be valid, of the user that was
    /// asked for, and with the identity key that we know (R47).
    pub(super) fn judge_key_package(&mut self, user: &UserUri, bytes: &[u8]) -> Result<ClientUri, ClientError> {
        self.identify_key_package(user, bytes).map(|(client, _)| client)
    }

    /// The same, and which identity key that is.
    pub(super) fn identify_key_package(
        &mut self,
        user: &UserUri,
        bytes: &[u8],
    ) -> Result<(ClientUri, [u8; 32]), ClientError> {
        let refused = |reason: String| ClientError::CannotAdd { user: user.clone(), reason };
        let message = MlsMessage::from_bytes(bytes).map_err(|error| refused(error.to_string()))?;
        let package = message.as_key_package().ok_or_else(|| refused("the directory gave no KeyPackage".into()))?;
        let identity = self
            .mls
            .identities()
            .identify(package.signing_identity(), Some(self.delivery.now()))
            .map_err(|error| refused(error.to_string()))?;
        if identity.user != *user {
            return Err(refused(format!("the directory gave a KeyPackage of {}", identity.user)));
        }
        self.check_identity(user, &identity.identity_key)?;
        Ok((identity.client, identity.identity_key))
    }

    /// Removes all clients of users.
    ///
    /// # Errors
    /// [`ClientError::Dropped`] if one is no member, and nobody is removed then. A transient error means that it is stored here and will
    /// be carried out by the next sync.
    pub async fn remove(&mut self, group: &GroupUri, users: &[UserUri]) -> Result<(), ClientError> {
        let group = &self.current(group)?;
        if let Some(absent) = self.absent(group, users)? {
            // Somebody may have added it since. If that cannot be read now, it is no member for all that we know.
            let read = self.sync_group(group).await;
            match read {
                Ok(_) if self.absent(group, users)?.is_none() => {}
                Err(error) if !error.is_transient() => return Err(error),
                _ => return Err(ClientError::Dropped(format!("{absent} is not a member of the group"))),
            }
        }
        let id = self.wish(group, Wish::Remove { users: users.to_vec() }).await?;
        self.read_and_settle(group, id).await
    }

    /// Which of these users is no member, for all that was read.
    fn absent(&mut self, group: &GroupUri, users: &[UserUri]) -> Result<Option<UserUri>, ClientError> {
        let members = self.group(group)?.members()?;
        Ok(users.iter().find(|user| !members.iter().any(|member| member.user == **user)).cloned())
    }

    /// Asks to be removed. A member that is online commits it; until then this client stays a member. A group that it cannot follow, and finds
    /// no way back into, ends here instead.
    ///
    /// # Errors
    /// As [`Client::update`].
    pub async fn leave(&mut self, group: &GroupUri) -> Result<Leaving, ClientError> {
        let group = &self.current(group)?;
        let asked = self.group(group)?.intents().find(|intent| intent.wish == Wish::Leave).map(|intent| intent.id);
        let id = match asked {
            Some(id) => id,
            None => self.wish(group, Wish::Leave).await?,
        };
        self.sync_group(group).await?;
        self.drive(group, None).await?;
        let group = &self.current(group)?;
        if self.is_over(group)? {
            return Ok(Leaving::Left);
        }
        if self.group(group)?.wants_rejoin() {
            let events = self.come_back(group, None).await?;
            if events.iter().any(|happened| matches!(happened.event, Event::GivenUp { .. })) {
                return Ok(Leaving::Unheard);
            }
        }
        if *self.group(group)?.status() == Status::Removed {
            return Ok(Leaving::Left);
        }
        let asked = !self.group(group)?.is_pending(id) || self.group(group)?.is_asked_to_leave();
        if asked { Ok(Leaving::Asked) } else { Err(ClientError::Unconfirmed) }
    }

    /// Renews this client's own keys in a group: the leaf's, the channel key, and the credential if there is a newer
    /// one (RFC 9750, section 8.2.2: what heals after a compromise).
    ///
    /// # Errors
    /// A transient error means that it is stored here and will be carried out by the next sync.
    pub async fn update(&mut self, group: &GroupUri) -> Result<(), ClientError> {
        let group = &self.current(group)?;
        let id = self.wish(group, Wish::Update).await?;
        self.read_and_settle(group, id).await
    }

    /// Says something. When this returns, the server has it on disk, and the history here has it, too.
    ///
    /// # Errors
    /// A transient error means that it is stored here and will be sent by the next sync. So it is, whatever the server did to fail the call
    /// ([`ClientError::Call`], [`ClientError::Log`]): it is sent once that is possible. It goes to those who are members for all that this
    /// client has read: if it turns out that others joined before, it is not sent, and that is told ([`ClientError::Dropped`], or by
    /// the sync [`Event::IntentFailed`]).
    pub async fn send(&mut self, group: &GroupUri, text: &str) -> Result<MessageId, ClientError> {
        self.say(group, text, false).await
    }

    /// The same to whoever is a member when it is sent: also where members joined of whom this client learns only now, which
    /// [`Client::send`] refuses.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_to_all(&mut self, group: &GroupUri, text: &str) -> Result<MessageId, ClientError> {
        self.say(group, text, true).await
    }

    async fn say(&mut self, group: &GroupUri, text: &str, to_all: bool) -> Result<MessageId, ClientError> {
        let group = &self.current(group)?;
        let earlier = self.group(group)?.intents().next().is_some();
        // An older copy of the profile that was put back must not take keys that were used since.
        let unread = !self.group(group)?.has_caught_up();
        let read =
            earlier || unread || self.group(group)?.waits_for_commit() || self.group(group)?.founding()?.is_some();
        let made = |group: &mut Group| if to_all { group.wish_text_to_all(text) } else { group.wish_text(text) };
        // It is stored before anything is asked of the server, which may be away.
        let (intent, message) = self.wish_by(group, made).await?;
        if read {
            self.save(group)?;
            // What was sent earlier may be in the channel, its reply lost: the DS remembers idempotency keys for a day only, the channel
            // for good.
            self.read_and_settle(group, intent).await?;
        } else {
            // Stored with what is made of it.
            self.settle(group, intent, Vec::new()).await?;
        }
        Ok(message)
    }

    /// Says nothing but where in the channel this client stands: members that the server has shown another log learn of
    /// it, also in a group where nobody talks.
    ///
    /// # Errors
    /// As [`Client::update`].
    pub async fn heartbeat(&mut self, group: &GroupUri) -> Result<(), ClientError> {
        let group = &self.current(group)?;
        let id = self.wish(group, Wish::Heartbeat).await?;
        self.read_and_settle(group, id).await
    }

    /// Takes a wish. A group that takes none may do so once the channel was read: a commit that could not be applied may be annulled,
    /// and a removal, too. If it cannot be read now, nothing is stored, and the error says so.
    async fn wish_by<T>(
        &mut self,
        group: &GroupUri,
        make: impl Fn(&mut Group) -> Result<T, WishError>,
    ) -> Result<T, ClientError> {
        let refused = match make(self.group(group)?) {
            Ok(made) => return Ok(made),
            Err(WishError::Mls(error)) => return Err(error.into()),
            Err(refused) => refused,
        };
        match self.sync_group(group).await {
            Ok(_) => Ok(make(self.group(group)?)?),
            Err(error) if error.is_transient() => Err(refused.into()),
            Err(error) => Err(error),
        }
    }

    /// Takes a wish, and makes it durable.
    async fn wish(&mut self, group: &GroupUri, wish: Wish) -> Result<IdempotencyKey, ClientError> {
        let id = self.wish_by(group, |group| group.wish(wish.clone())).await?;
        self.save(group)?;
        Ok(id)
    }

    /// Takes a wish and carries it out, in a group whose channel was just read.
    pub(super) async fn carry_out(&mut self, group: &GroupUri, wish: Wish) -> Result<(), ClientError> {
        let id = self.wish(group, wish).await?;
        self.settle(group, id, Vec::new()).await
    }

    /// Reads what others did meanwhile, and carries out what was stored.
    async fn read_and_settle(&mut self, group: &GroupUri, id: IdempotencyKey) -> Result<(), ClientError> {
        let read = self.sync_group(group).await?;
        self.settle(group, id, read).await
    }

    /// Works until the channel has shown the outcome of an intent, which what was read already may have. In a group that is made anew
    /// meanwhile, that may be the successor's.
    async fn settle(
        &mut self,
        group: &GroupUri,
        id: IdempotencyKey,
        read: Vec<ClientEvent>,
    ) -> Result<(), ClientError> {
        let driven = self.drive(group, Some(id)).await;
        let events = self.joined(read, driven)?;
        let failed = events.into_iter().find_map(|happened| match happened.event {
            Event::IntentFailed { intent, reason } if intent == id => Some(reason),
            _ => None,
        });
        let group = self.current(group)?;
        match failed {
            Some(_) if self.is_over(&group)? || *self.group(&group)?.status() == Status::Removed => {
                Err(WishError::Removed.into())
            }
            Some(reason) => Err(ClientError::Dropped(reason)),
            None if self.is_over(&group)? => Err(WishError::Removed.into()),
            None if self.group(&group)?.is_pending(id) && self.group(&group)?.is_frozen() => Err(ClientError::Frozen),
            None if self.group(&group)?.is_pending(id) => Err(ClientError::Unconfirmed),
            None => Ok(()),
        }
    }

    /// A session on the group's channel, of the epoch that we are in.
    pub(super) fn session(&mut self, name: &GroupUri) -> Result<Session, ClientError> {
        let epoch = self.group(name)?.epoch();
        if let Some(session) = self.sessions.get(name).filter(|session| session.epoch() == epoch) {
            return Ok(session.clone());
        }
        let access = self.group(name)?.access()?;
        let session = Session::new(&self.delivery, opener(access));
        self.sessions.insert(name.clone(), session.clone());
        Ok(session)
    }

    /// A session on the group's channel of the newest epoch before another whose key we have, and the epoch.
    pub(super) fn earlier_session(
        &mut self,
        name: &GroupUri,
        before: Epoch,
    ) -> Result<Option<(Epoch, Session)>, ClientError> {
        let access = self.group(name)?.access_before(before)?;
        Ok(access.map(|access| (access.epoch, Session::new(&self.delivery, opener(access)))))
    }

    /// Submits what there is to submit, reading the channel in between, until nothing is left. With an intent, until
    /// that one is settled.
    pub(super) async fn drive(
        &mut self,
        name: &GroupUri,
        until: Option<IdempotencyKey>,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        let mut events = Vec::new();
        let done = self.drive_on(name, until, &mut events).await;
        self.told(done, events)
    }

    async fn drive_on(
        &mut self,
        name: &GroupUri,
        until: Option<IdempotencyKey>,
        all: &mut Vec<ClientEvent>,
    ) -> Result<(), ClientError> {
        let mut backoff = Backoff::default();
        // Whoever died before has gone on in a group of which the DS knows nothing yet.
        Box::pin(self.found(name, all)).await?;
        for _ in 0..ROUNDS {
            if until.is_some_and(|id| self.groups.get(name).is_some_and(|group| !group.is_pending(id))) {
                break;
            }
            all.extend(self.tend_gaps(name)?);
            let now = self.delivery.now();
            let mut events = Vec::new();
            let next = self.group(name)?.next_submission(now, &mut events);
            all.extend(ClientEvent::all_of(name, events));
            self.save(name)?;
            let submission = match next {
                Ok(Some(submission)) => submission,
                Ok(None) => break,
                // The wish was dropped; the event tells why.
                Err(_) => continue,
            };
            let session = match &submission.join {
                Some(join) => Session::new(&self.delivery, outsider(join)),
                None => self.session(name)?,
            };
            let sent = async {
                let uploads: Vec<_> = submission.blobs.iter().map(|blob| session.upload_blob(blob)).collect();
                stream::iter(uploads).buffer_unordered(UPLOADS).try_collect::<Vec<_>>().await?;
                match &submission.body {
                    SubmissionBody::Entry(request) => session.submit(request).await,
                    SubmissionBody::Bundle(request) => session.submit_bundle(request).await,
                }
            }
            .await;
            match sent {
                // What the channel shows counts, not the reply; but the reply's signature binds the server.
                Ok(reply) => {
                    let told = self.group(name)?.accepted(&reply);
                    all.extend(ClientEvent::all_of(name, told));
                    all.extend(self.sync_group(name).await?);
                }
                Err(CallError::Refused(refusal)) if !CallError::Refused(refusal.clone()).is_transient() => {
                    self.sessions.remove(name);
                    all.extend(self.sync_group(name).await?);
                    let mut events = Vec::new();
                    let taken = self.group(name)?.refused(submission.intent, &refusal, &mut events);
                    all.extend(ClientEvent::all_of(name, events));
                    self.save(name)?;
                    if let Err(refusal) = taken {
                        tracing::debug!(code = %refusal.code, "the server refused, but its channel does not show why");
                        sleep(backoff.next_pause().min(Duration::from_secs(2))).await;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        all.extend(Box::pin(self.go_on(name)).await?);
        Ok(())
    }
}
