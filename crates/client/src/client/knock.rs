//! Asking members to be let into a group again, and being asked.

use std::collections::BTreeSet;

use conclave_engine::{
    group::{Group, KnockPost, KnockRefused, Status},
    key_packages::{self, AddressKey},
    knock::{self, Knocked, KnockedError},
    writes::{Room, Write},
};
use conclave_mls::crypto;
use conclave_names::{ClientUri, GroupUri, Timestamp, UserUri};
use conclave_protocol::{SigningKey, v1};

use super::{
    Client, ClientError, ClientEvent,
    lost::{Asked, Unasked},
    register::random,
    rows::StoreRows,
};
use crate::transport::Signer;

/// What the keys of the rows in [`Room::ACCOUNT`] begin with that say how many knocks about all groups came from a client of late.
const HEARD: &[u8] = b"heard/";

/// Knocks about all groups that are looked at from one client in [`DAY_MS`]: as many as one that keeps to its pauses sends.
const HEARD_A_DAY: u64 = 8;

const DAY_MS: u64 = 86_400_000;

/// Since when, in milliseconds, and how many.
fn heard_of(row: &[u8]) -> Option<(Timestamp, u64)> {
    let (since, count) = row.split_first_chunk::<8>()?;
    Some((Timestamp(u64::from_be_bytes(*since)), u64::from_be_bytes(count.try_into().ok()?)))
}

/// What knocks at all groups say.
pub(super) struct Note {
    /// A KeyPackage of ours.
    key_package: Vec<u8>,
    /// The groups that we follow, and whose users are in them.
    followed: Vec<(GroupUri, BTreeSet<UserUri>)>,
}

impl Note {
    /// What is said to a user's devices: nothing of groups in which they are not.
    fn kept_with(&self, user: &UserUri) -> Vec<GroupUri> {
        let shared = self.followed.iter().filter(|(_, users)| users.contains(user));
        shared.map(|(group, _)| group.clone()).collect()
    }
}

impl Client {
    /// What to say to all who are asked, with a KeyPackage of ours whose private part is durable.
    pub(super) fn note_to_all(&mut self, key_package: Vec<u8>) -> Result<Note, ClientError> {
        let own = self.account.client.clone();
        let mut followed = Vec::new();
        for summary in self.groups()?.into_iter().filter(|group| group.status == Status::Active) {
            // In one that does not load, this client is lost for all that can be said.
            let Ok(members) = self.glance(&summary.name, Group::members) else { continue };
            let Ok(members) = members else { continue };
            let others = members.into_iter().filter(|member| member.client != own).map(|member| member.user);
            followed.push((summary.name, others.collect()));
        }
        Ok(Note { key_package, followed })
    }

    /// Looks at a group as it is stored here, and does not keep it in memory for that.
    fn glance<T>(&mut self, name: &GroupUri, look: impl FnOnce(&Group) -> T) -> Result<T, ClientError> {
        let known = self.groups.contains_key(name);
        let seen = look(self.group(name)?);
        if !known && let Some(group) = self.groups.remove(name) {
            group.unload();
        }
        Ok(seen)
    }

    /// The groups that a knock may be about. About all groups anybody may knock who has an account: so nothing is loaded for those who
    /// never were in one of ours, and nothing read for who is in none for all that is stored.
    fn groups_about(&mut self, knocked: &Knocked) -> Result<Vec<GroupUri>, ClientError> {
        // Who was locked out knows a group by the name that it had then.
        let present = knocked.group().map(|group| self.current(group)).transpose()?;
        let active = self.groups()?.into_iter().filter(|group| group.status == Status::Active).map(|group| group.name);
        if let Some(present) = present {
            return Ok(active.filter(|name| *name == present).collect());
        }
        let client = knocked.client();
        // Each member's identity key was remembered when it was first seen.
        if self.pinned(client.user())?.is_none() && client.user() != self.user() {
            return Ok(Vec::new());
        }
        let (_, before) = self.heard(client)?;
        if before >= HEARD_A_DAY {
            tracing::warn!(%client, "somebody knocks too often");
            return Ok(Vec::new());
        }
        // One that does not load is looked at when its turn comes.
        let shared = |name: &GroupUri| self.glance(name, |group| group.has_member(client)).unwrap_or(false);
        Ok(active.collect::<Vec<_>>().into_iter().filter(shared).collect())
    }

    /// How many knocks about all groups came from a client today, and since when that is counted.
    fn heard(&self, client: &ClientUri) -> Result<(Timestamp, u64), ClientError> {
        let now = self.delivery.now();
        let row = self.store.get(Room::ACCOUNT, &[HEARD, client.to_string().as_bytes()].concat())?;
        let heard = row.and_then(|row| heard_of(&row)).filter(|(since, _)| since.is_within_ms(DAY_MS, now));
        Ok(heard.unwrap_or((now, 0)))
    }

    /// Counts one more, and forgets counts that are over.
    fn count_heard(&self, client: &ClientUri) -> Result<Vec<Write>, ClientError> {
        let (since, before) = self.heard(client)?;
        let mut writes = Vec::new();
        for (key, value) in self.store.scan(Room::ACCOUNT, HEARD)? {
            if !heard_of(&value).is_some_and(|(since, _)| since.is_within_ms(DAY_MS, self.delivery.now())) {
                writes.push(Write::Delete { room: Room::ACCOUNT, key });
            }
        }
        let value = [since.0.to_be_bytes(), before.saturating_add(1).to_be_bytes()].concat().into();
        let key = [HEARD, client.to_string().as_bytes()].concat();
        writes.push(Write::Put { room: Room::ACCOUNT, key, value });
        Ok(writes)
    }

    /// The provider's key to which delivery addresses are sealed.
    pub(super) async fn address_key(&mut self) -> Result<AddressKey, ClientError> {
        let info = self.delivery.get_server_info().await?;
        let id = info.address_key_id.as_slice().try_into();
        let id = id.map_err(|_| ClientError::Answer("`address_key_id` is not 8 bytes".into()))?;
        Ok(AddressKey { id, public: info.address_key })
    }

    /// Asks a few members to let this client in again, if it is time for that; nobody, if nobody can help.
    ///
    /// # Errors
    /// Transient ones only: it is tried again. That one member cannot be asked is no error.
    pub(super) async fn knock(&mut self, name: &GroupUri, helpless: bool) -> Result<Vec<ClientEvent>, ClientError> {
        let now = self.delivery.now();
        if self.group(name)?.knock_due(now).is_none_or(|due| due > now) {
            return Ok(Vec::new());
        }
        let mut asked = Vec::new();
        let members = if helpless { Vec::new() } else { self.group(name)?.whom_to_ask()? };
        for member in members {
            if asked.len() == Group::knocks_at_a_time() {
                break;
            }
            match self.ask(name, &member).await {
                Ok(()) => asked.push(member),
                Err(error) if error.is_transient() && error.code().is_none() => return Err(error),
                Err(error) => {
                    tracing::info!(%error, %member, group = %name, "a member could not be asked for help");
                    // The server has no time for us: later.
                    if error.is_transient() {
                        break;
                    }
                }
            }
        }
        let mut events = Vec::new();
        self.group(name)?.knocked(asked, now, &mut events);
        self.save(name)?;
        Ok(ClientEvent::all_of(name, events).collect())
    }

    /// Asks one member, by a KeyPackage that is claimed of it.
    async fn ask(&mut self, name: &GroupUri, member: &ClientUri) -> Result<(), ClientError> {
        let suite = self.group(name)?.cipher_suite();
        let answer = self.claim(member.to_string(), vec![suite.into()], None).await?;
        let theirs = answer.key_packages.into_iter().next().map(|claimed| claimed.key_package);
        let theirs = theirs.ok_or_else(|| ClientError::Dropped("it has left no keying material".to_owned()))?;
        let address_key = self.address_key().await?;
        let suite = crypto::suite_by_number(suite).map_err(|error| ClientError::Dropped(error.to_string()))?;
        let now = self.delivery.now();
        let fresh = key_packages::generate(&self.account, &self.mls, suite, &address_key, 1, false, now)?;
        // The private part is durable before the public one leaves.
        self.store.apply(&fresh.writes)?;
        let ours = fresh.key_packages.into_iter().next().unwrap_or_default();
        let post = self.group(name)?.knock(member, &theirs, ours, now);
        let post = post.map_err(|error| ClientError::Dropped(error.to_string()))?;
        self.post_knock(post).await
    }

    async fn post_knock(&mut self, post: KnockPost) -> Result<(), ClientError> {
        // Nothing but the address admits: the signer is nobody.
        let nobody = SigningKey::from_bytes(&random()?);
        let request = v1::KnockRequest {
            idempotency_key: random::<16>()?.to_vec(),
            domain: post.domain,
            address: post.address,
            knock: post.knock,
        };
        self.delivery.knock(&Signer::bare(&nobody), &request).await?;
        Ok(())
    }

    /// Lets somebody who knocked into its groups again, if they are ours and it is a member.
    ///
    /// # Errors
    /// Transient ones only: it is to be tried again.
    pub(super) async fn take_knock(&mut self, entry: &[u8]) -> Result<Vec<ClientEvent>, ClientError> {
        let now = self.delivery.now();
        let mut knocked = Knocked::open(&self.mls, entry, now);
        if matches!(knocked, Err(KnockedError::Credential(_))) && self.learn_issuers().await? {
            knocked = Knocked::open(&self.mls, entry, now);
        }
        let knocked = match knocked {
            Ok(knocked) => knocked,
            Err(error) => {
                tracing::warn!(%error, "a knock in the inbox was dropped");
                return Ok(Vec::new());
            }
        };
        let mut events = Vec::new();
        let about = self.groups_about(&knocked)?;
        if about.is_empty() {
            tracing::info!(client = %knocked.client(), "somebody knocked at a group that is none of ours");
        }
        let counts = knocked.group().is_none() && !about.is_empty();
        for name in about {
            match self.let_in(&name, &knocked).await {
                Ok(done) => events.extend(done),
                Err(error) if error.is_transient() || matches!(error, ClientError::Store(_)) => {
                    return Err(self.keep(events, error));
                }
                // What is amiss is told when the group's turn comes.
                Err(error) => {
                    tracing::warn!(%error, group = %name, "a knock is not answered");
                    events.extend(self.take_untold());
                }
            }
        }
        let mut writes = knocked.used(&self.mls, &StoreRows(&*self.store))?;
        if counts {
            writes.extend(self.count_heard(knocked.client())?);
        }
        self.store.apply(&writes)?;
        Ok(events)
    }

    async fn let_in(&mut self, name: &GroupUri, knocked: &Knocked) -> Result<Vec<ClientEvent>, ClientError> {
        let mut events = match self.sync_group(name).await {
            Ok(events) => events,
            Err(error) if error.is_transient() => return Err(error),
            // What is amiss is told when the group's turn comes.
            Err(_) => return Ok(self.take_untold()),
        };
        let mut name = name;
        let current;
        if self.group(name)?.is_frozen() {
            match Box::pin(self.drive(name, None)).await {
                Ok(done) => events.extend(done),
                Err(error) if error.is_transient() => return Err(self.keep(events, error)),
                Err(error) => tracing::warn!(%error, group = %name, "a frozen group does not go on"),
            }
            current = self.current(name)?;
            name = &current;
        }
        let now = self.delivery.now();
        let answered = match self.group(name)?.would_answer(knocked, now) {
            // A successor may be of another cipher suite than the group that the knock is about.
            Ok(()) if knocked.group() != Some(name) => match self.claim_for(name, knocked).await? {
                Some(fresh) => self.group(name)?.answer(&fresh, now),
                None => return Ok(events),
            },
            Ok(()) => self.group(name)?.answer(knocked, now),
            // It waits in the inbox for the successor.
            Err(KnockRefused::Frozen) => return Err(self.keep(events, ClientError::Undecided)),
            Err(refused) => Err(refused),
        };
        self.save(name)?;
        match answered {
            Ok(_) => match Box::pin(self.drive(name, None)).await {
                Ok(done) => events.extend(done),
                Err(error) if error.is_transient() => return Err(self.keep(events, error)),
                // The wish is stored: the group's turn comes.
                Err(error) => tracing::warn!(%error, group = %name, "a knock is answered later"),
            },
            Err(refused) => {
                tracing::info!(%refused, client = %knocked.client(), group = %name, "a knock is not answered");
            }
        }
        Ok(events)
    }

    /// A knock at all groups with a KeyPackage of the knocker for one of them: a KeyPackage serves once. None if the directory has none
    /// that is the knocker's.
    ///
    /// # Errors
    /// Transient ones only.
    async fn claim_for(&mut self, name: &GroupUri, knocked: &Knocked) -> Result<Option<Knocked>, ClientError> {
        let suite = self.group(name)?.cipher_suite();
        let answer = match self.claim(knocked.client().to_string(), vec![suite.into()], None).await {
            Ok(answer) => answer,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, client = %knocked.client(), group = %name, "a knock cannot be answered");
                return Ok(None);
            }
        };
        let now = self.delivery.now();
        // The directory is not believed: it is the knocker's, by its name and keys, or nobody's.
        let fresh = answer
            .key_packages
            .into_iter()
            .next()
            .map(|claimed| knocked.with_key_package(&self.mls, claimed.key_package, now));
        match fresh.transpose() {
            Ok(fresh) => Ok(fresh),
            Err(error) => {
                tracing::warn!(%error, client = %knocked.client(), group = %name, "a knock cannot be answered");
                Ok(None)
            }
        }
    }

    /// Asks devices of one user, three at most unless it is our own, to let this client into all groups that they share with it.
    ///
    /// # Errors
    /// Transient ones only, where the server says no more: that a device cannot be asked is no error.
    pub(super) async fn ask_user(&mut self, user: &UserUri, note: &Note, asked: &mut Asked) -> Result<(), ClientError> {
        let own = user == self.user();
        // Any will do: it is no group that it serves.
        let suites = crypto::SUITES.map(|suite| u16::from(suite).into()).to_vec();
        let answer = match self.claim(user.to_string(), suites, None).await {
            Ok(answer) => answer,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                asked.unable.push(Unasked { who: user.to_string(), reason: error.to_string() });
                return Ok(());
            }
        };
        let without = answer.without.into_iter().filter(|client| *client != self.account.client.to_string());
        let reason = "it has left no keying material";
        asked.unable.extend(without.map(|who| Unasked { who, reason: reason.to_owned() }));
        let most = if own { usize::MAX } else { Group::knocks_at_a_time() };
        let mut done = 0;
        for claimed in answer.key_packages {
            if done == most {
                break;
            }
            match self.ask_device(user, &claimed.key_package, note).await {
                Ok(Some(client)) => {
                    asked.devices.push(client);
                    done += 1;
                }
                Ok(None) => {}
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => asked.unable.push(Unasked { who: user.to_string(), reason: error.to_string() }),
            }
        }
        Ok(())
    }

    /// Asks one device, by a KeyPackage that was claimed of it; none: it is this one.
    async fn ask_device(
        &mut self,
        user: &UserUri,
        theirs: &[u8],
        note: &Note,
    ) -> Result<Option<ClientUri>, ClientError> {
        let (client, identity_key) = self.identify_key_package(user, theirs)?;
        if client == self.account.client {
            return Ok(None);
        }
        if user == self.user() && identity_key != self.identity_key() {
            return Err(ClientError::Answer("the directory gave a KeyPackage of another identity key".into()));
        }
        let (now, to) = (self.delivery.now(), (&client, &identity_key));
        let (kept, ours) = (note.kept_with(user), note.key_package.clone());
        let post = knock::for_all_groups(&self.account, &self.mls, to, theirs, &kept, ours, now);
        self.post_knock(post.map_err(|error| ClientError::Dropped(error.to_string()))?).await?;
        Ok(Some(client))
    }
}
