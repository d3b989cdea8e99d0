//! Groups that are made anew (RFC 9420, section 11.2; RFC 9750, section 5.2.3): with another cipher suite or handshake mode, and the
//! same members, room and history.

use std::collections::BTreeMap;

use conclave_engine::{
    MlsError,
    group::{Group, GroupSummary, Status},
    intent::Wish,
    invitation::JoinError,
    outcome::Event,
    writes::{Room, Write},
};
use conclave_mls::crypto;
use conclave_names::{ClientUri, GroupUri, Timestamp, limits};
use conclave_protocol::{Code, v1};
use mls_rs::{MlsMessage, external_client::ExternalClient, time::MlsTime};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{
    Client, ClientError, ClientEvent,
    groups::{key_path, lacks},
    onward::Absent,
    rows::StoreRows,
    told::Trouble,
};
use crate::transport::{CallError, Signer};

/// Prefix of the rows in [`Room::ACCOUNT`] with KeyPackages that were claimed for a group's successor, one a client.
const KEPT: &[u8] = b"successor/";

/// How long a KeyPackage that was claimed is preferred to a new one, in milliseconds: its owner deletes the private part
/// [`limits::INVITATION_MS`] after it has replaced it, which it may have done right after the claim.
const FRESH_MS: u64 = limits::INVITATION_MS / 2;

/// How long they are kept while nobody has frozen the group, in milliseconds: a day, for who tries again.
const UNUSED_MS: u64 = 86_400_000;

/// Clients that are named in what is told of those whose KeyPackages cannot be had.
const NAMED: usize = 16;

/// KeyPackages that were claimed for a group's successor, by client: since when, and the KeyPackage.
type KeptPackages = BTreeMap<Vec<u8>, (Timestamp, Vec<u8>)>;

/// The row that keeps one.
#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Kept {
    version: u8,
    cipher_suite: u16,
    since: Timestamp,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    bytes: Vec<u8>,
}

impl Kept {
    /// None if it is damaged, or of another version: it is claimed anew.
    fn of(mut row: &[u8]) -> Option<Self> {
        Self::mls_decode(&mut row).ok().filter(|kept| row.is_empty() && kept.version == 1)
    }
}

/// What the keys of a group's rows begin with: its name, and a zero byte, which no name has.
fn kept_prefix(group: &GroupUri) -> Vec<u8> {
    [KEPT, group.to_string().as_bytes(), &[0]].concat()
}

impl Client {
    /// Makes a group anew. Until it goes on, which needs another member to come online, what is said waits. Gives its name
    /// afterwards: the new one once it went on, else the old.
    ///
    /// A group must not be frozen that cannot go on: every member's KeyPackage of the cipher suite is here before it is.
    ///
    /// # Errors
    /// [`ClientError::Suite`] for a cipher suite that identity keys do not sign in; [`ClientError::CannotAdd`], which names them, if
    /// members left no keying material of it. Nothing has changed then. Nor is anything stored while the server is away: the call is to be
    /// made again.
    pub async fn reinit(
        &mut self,
        group: &GroupUri,
        cipher_suite: u16,
        visible: bool,
    ) -> Result<GroupUri, ClientError> {
        crypto::suite_by_number(cipher_suite)?;
        let group = self.current(group)?;
        self.sync_group(&group).await?;
        let own = self.account.client.clone();
        let members = self.group(&group)?.members()?.into_iter().map(|member| member.client);
        let others: Vec<_> = members.filter(|client| *client != own).collect();
        Box::pin(self.packages_of(&group, &others, cipher_suite)).await?;
        self.carry_out(&group, Wish::ReInit { cipher_suite, visible }).await?;
        self.current(&group)
    }

    /// The group in which a group goes on, if it was made anew; else itself.
    pub fn current(&self, name: &GroupUri) -> Result<GroupUri, ClientError> {
        if self.groups.contains_key(name) {
            return Ok(name.clone());
        }
        let groups = self.groups()?;
        let mut current = name;
        while let Some(next) = groups.iter().find(|group| group.name == *current).and_then(|of| of.successor.as_ref()) {
            current = next;
        }
        Ok(current.clone())
    }

    /// A KeyPackage of each of these clients for a group's successor: those that were claimed before it was frozen, and others. What is
    /// claimed is kept, so that whoever froze the group can go on whatever the directory says later, and no more is used up than one of
    /// each.
    ///
    /// # Errors
    /// [`ClientError::CannotAdd`] names the clients of which none is to be had.
    async fn packages_of(
        &mut self,
        group: &GroupUri,
        clients: &[ClientUri],
        cipher_suite: u16,
    ) -> Result<Vec<Vec<u8>>, ClientError> {
        let (packages, absent) = self.packages_to_be_had(group, clients, cipher_suite).await?;
        if let Some((client, _)) = absent.first() {
            let mut reasons: Vec<_> = absent.iter().take(NAMED).map(|(_, reason)| reason.clone()).collect();
            if absent.len() > NAMED {
                reasons.push(format!("and {} others", absent.len() - NAMED));
            }
            return Err(ClientError::CannotAdd { user: client.user().clone(), reason: reasons.join("; ") });
        }
        Ok(packages.into_iter().map(|(_, bytes)| bytes).collect())
    }

    /// The same of those clients of whom one is to be had, and who the others are.
    pub(super) async fn packages_to_be_had(
        &mut self,
        group: &GroupUri,
        clients: &[ClientUri],
        cipher_suite: u16,
    ) -> Result<(Vec<(ClientUri, Vec<u8>)>, Absent), ClientError> {
        let prefix = kept_prefix(group);
        let mut kept = KeptPackages::new();
        for (key, row) in self.store.scan(Room::ACCOUNT, &prefix)? {
            let of = Kept::of(&row).filter(|of| of.cipher_suite == cipher_suite);
            let client = key.strip_prefix(prefix.as_slice()).unwrap_or_default().to_vec();
            kept.extend(of.map(|of| (client, (of.since, of.bytes))));
        }
        let absent = self.claim_lacking(group, clients, cipher_suite, &mut kept).await?;
        let package = |client: &ClientUri| Some((client.clone(), kept.remove(client.to_string().as_bytes())?.1));
        Ok((clients.iter().filter_map(package).collect(), absent))
    }

    /// Claims what is not there, too old, or not valid any more. Gives whose cannot be had, and why.
    async fn claim_lacking(
        &mut self,
        group: &GroupUri,
        clients: &[ClientUri],
        cipher_suite: u16,
        kept: &mut KeptPackages,
    ) -> Result<Absent, ClientError> {
        let now = self.delivery.now();
        let mut absent = Vec::new();
        for client in clients {
            let name = client.to_string().into_bytes();
            if let Some((_, bytes)) = kept.get(&name)
                && self.unfit(group, client, cipher_suite, bytes)?.is_some()
            {
                kept.remove(&name);
            }
            let known = kept.get(&name).map(|(since, _)| *since);
            if known.is_some_and(|since| now < since.plus_ms(FRESH_MS)) {
                continue;
            }
            match self.claim_of(group, client, cipher_suite).await? {
                Ok(bytes) => {
                    // Before the next one is claimed: whatever becomes of that, this one is used up.
                    let row = Kept { version: 1, cipher_suite, since: now, bytes: bytes.clone() };
                    let (key, value) = ([kept_prefix(group), name.clone()].concat(), row.mls_encode_to_vec());
                    if let Ok(value) = value {
                        self.store.apply(&[Write::Put { room: Room::ACCOUNT, key, value: value.into() }])?;
                    }
                    kept.insert(name, (now, bytes));
                }
                Err(reason) if known.is_none() => absent.push((client.clone(), format!("{client} {reason}"))),
                // An older one is better than none.
                Err(_) => {}
            }
        }
        Ok(absent)
    }

    /// A KeyPackage of a client, or why there is none.
    ///
    /// # Errors
    /// Transient ones, and [`ClientError::IdentityChanged`].
    async fn claim_of(
        &mut self,
        group: &GroupUri,
        client: &ClientUri,
        cipher_suite: u16,
    ) -> Result<Result<Vec<u8>, String>, ClientError> {
        let answer = match self.claim(client.to_string(), vec![cipher_suite.into()], None).await {
            Ok(answer) => answer,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => return Ok(Err(format!("cannot be asked for: {error}"))),
        };
        let Some(claimed) = answer.key_packages.into_iter().next() else {
            let what = format!("has left no keying material of cipher suite {cipher_suite}: it must come online first");
            let removable = if self.group(group)?.is_frozen() { "" } else { ", or be removed" };
            return Ok(Err(format!("{what}{removable}")));
        };
        Ok(match self.unfit(group, client, cipher_suite, &claimed.key_package)? {
            None => Ok(claimed.key_package),
            Some(reason) => Err(format!("has left keying material that does not do: {reason}")),
        })
    }

    /// Why the successor cannot be made with a KeyPackage, which is looked at as closely as MLS does when the successor is made: then it
    /// would be too late.
    ///
    /// # Errors
    /// [`ClientError::Store`] and [`ClientError::IdentityChanged`].
    fn unfit(
        &mut self,
        group: &GroupUri,
        client: &ClientUri,
        cipher_suite: u16,
        bytes: &[u8],
    ) -> Result<Option<String>, ClientError> {
        match self.judge_key_package(client.user(), bytes) {
            Ok(found) if found == *client => {}
            Ok(_) => return Ok(Some("it is of another client".into())),
            Err(ClientError::CannotAdd { reason, .. }) => return Ok(Some(reason)),
            Err(error) => return Err(error),
        }
        let missing = self.group(group)?.lacking(bytes)?;
        if !missing.is_empty() {
            return Ok(Some(lacks(&missing)));
        }
        let message = MlsMessage::from_bytes(bytes).map_err(MlsError::from)?;
        let suite = message.as_key_package().map(|package| u16::from(package.cipher_suite));
        if suite != Some(cipher_suite) {
            return Ok(Some("it is of another cipher suite".into()));
        }
        let valid = ExternalClient::builder()
            .crypto_provider(crypto::provider())
            .identity_provider(self.mls.identities().clone())
            .build()
            .validate_key_package(message, Some(MlsTime::from(self.delivery.now().as_secs())));
        Ok(valid.err().map(|error| error.to_string()))
    }

    /// Forgets what was claimed for a group's successor.
    pub(super) fn forget_kept(&self, group: &GroupUri) -> Result<Vec<Write>, ClientError> {
        let rows = self.store.scan(Room::ACCOUNT, &kept_prefix(group))?;
        Ok(rows.into_iter().map(|(key, _)| Write::Delete { room: Room::ACCOUNT, key }).collect())
    }

    /// Forgets what was claimed for successors that are not made: as that was annulled, or this client is no member any more, or nobody tries again.
    pub(super) fn forget_claims(&mut self) -> Result<(), ClientError> {
        let now = self.delivery.now();
        let mut groups: BTreeMap<Vec<u8>, Timestamp> = BTreeMap::new();
        for (key, row) in self.store.scan(Room::ACCOUNT, KEPT)? {
            let name = key.strip_prefix(KEPT).and_then(|rest| rest.split(|byte| *byte == 0).next()).unwrap_or_default();
            let since = Kept::of(&row).map(|kept| kept.since).unwrap_or_default();
            groups.entry(name.to_vec()).and_modify(|newest| *newest = since.max(*newest)).or_insert(since);
        }
        for (name, newest) in groups {
            let name: Option<GroupUri> = std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok());
            let Some(name) = name else { continue };
            let needed = match self.group(&name) {
                Ok(group) => {
                    let reinit = |wish: &Wish| matches!(wish, Wish::ReInit { .. });
                    let wished = group.is_frozen() || group.intents().any(|intent| reinit(&intent.wish));
                    *group.status() != Status::Removed && (wished || now < newest.plus_ms(UNUSED_MS))
                }
                Err(ClientError::NoSuchGroup(_) | ClientError::Wish(_)) => false,
                // It is told of when its turn comes.
                Err(_) => true,
            };
            if !needed {
                let writes = self.forget_kept(&name)?;
                self.store.apply(&writes)?;
            }
        }
        Ok(())
    }

    /// Does what a frozen group needs of us: makes the successor when it is our turn, and goes on in it. What stands in the way of one
    /// group must not keep the others from being read: it is told, and tried again with the next sync.
    pub(super) async fn go_on(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let mut all = Vec::new();
        let now = self.delivery.now();
        if !self.group(name)?.is_frozen() {
            return Ok(all);
        }
        if self.group(name)?.successor_due().is_some_and(|due| due <= now) {
            let (suite, clients) = self.group(name)?.successor_needs()?;
            let made = match Box::pin(self.packages_of(name, &clients, suite)).await {
                Ok(packages) => self.group(name)?.make_successor(&packages, now).map(drop).map_err(ClientError::from),
                Err(error) => Err(error),
            };
            match made {
                Ok(()) => {
                    self.unable_to_go_on.remove(name);
                    self.save(name)?;
                    all.extend(Box::pin(self.drive(name, None)).await?);
                }
                // The network or the store: that concerns every group.
                Err(error) if error.is_transient() && error.code().is_none() => return Err(error),
                Err(error) => {
                    // What was half done is undone.
                    self.groups.remove(name);
                    let reason = self.waiting(name, &error)?;
                    // It is told once, and not at each sync.
                    let unable = Trouble::new(&error, now).saying(reason);
                    let reason = unable.reason();
                    let news = unable.is_news(self.unable_to_go_on.get(name));
                    self.unable_to_go_on.insert(name.clone(), unable);
                    if news {
                        let event = ClientEvent::of(name, Event::SuccessorWaits { reason });
                        self.note(std::slice::from_ref(&event))?;
                        all.push(event);
                    }
                    let begun = Box::pin(self.carry_on(name)).await;
                    return self.joined(all, begun);
                }
            }
        }
        if self.groups.get(name).is_some_and(|group| group.onward().is_some()) {
            let gone_over = Box::pin(self.go_over(name)).await;
            return self.joined(all, gone_over);
        }
        if self.groups.get(name).is_some_and(Group::has_successor) {
            let succeeded = Box::pin(self.succeed(name)).await;
            return self.joined(all, succeeded);
        }
        Ok(all)
    }

    /// Reads what a group's channel says, and goes on in its successor if it has one.
    pub(super) async fn catch_up_and_go_on(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let read = self.sync_group(name).await?;
        let gone_on = Box::pin(self.go_on(name)).await;
        self.joined(read, gone_on)
    }

    async fn succeed(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let now = self.delivery.now();
        let Some(mut old) = self.groups.remove(name) else { return Ok(Vec::new()) };
        self.sessions.remove(name);
        let mut events = Vec::new();
        let next = match old.succeed(&StoreRows(&*self.store), now, &mut events) {
            Ok(next) => next,
            Err(JoinError::Store(error)) => return Err(error.into()),
            Err(error) => {
                let told = old.left_out(&error.to_string());
                let mut writes = old.take_writes()?;
                writes.extend(self.forget_kept(name)?);
                self.store.apply(&writes)?;
                return Ok(ClientEvent::all_of(name, told).collect());
            }
        };
        let mut writes = old.take_writes()?;
        writes.extend(self.forget_kept(name)?);
        let mut all: Vec<_> = ClientEvent::all_of(name, events).collect();
        let Some(mut next) = next else {
            self.store.apply(&writes)?;
            return Ok(all);
        };
        writes.extend(next.take_writes()?);
        self.store.apply(&writes)?;
        let name = next.name().clone();
        self.groups.insert(name.clone(), next);
        let done = self.begin_in(&name, &mut all).await;
        self.told(done, all)
    }

    /// What is to be done first in a group that goes on in another.
    pub(super) async fn begin_in(&mut self, name: &GroupUri, events: &mut Vec<ClientEvent>) -> Result<(), ClientError> {
        events.extend(self.sync_group(name).await?);
        events.extend(Box::pin(self.drive(name, None)).await?);
        Ok(())
    }

    /// Stores a group that this client was invited to, and that the invitation was taken up. If it is what has become of one that this client could not follow, it leaves
    /// that one for it.
    pub(super) fn leave_for(
        &mut self,
        next: &mut Group,
        joined: &[Event],
        taken: Write,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        let by = joined.iter().find_map(|event| match event {
            Event::Joined { by, .. } => Some(by),
            _ => None,
        });
        let same_room = |group: &GroupSummary| {
            matches!(group.status, Status::Stuck { .. })
                && group.room == next.profile().room
                && group.name != *next.name()
        };
        let (mut writes, mut old) = (vec![taken], None);
        if let Some(by) = by {
            let mut beside = self.knows_as_lost(next)?;
            for stuck in self.groups()?.into_iter().filter(same_room) {
                // One that does not load is none to leave.
                let Ok(group) = self.group(&stuck.name) else { continue };
                if group.is_continued_by(next, by) {
                    old = self.groups.remove(&stuck.name);
                    break;
                }
                if group.may_be_continued_by(next, by) {
                    group.stay_beside(next);
                    writes.extend(group.take_writes()?);
                    beside = true;
                }
            }
            if beside && old.is_none() {
                next.stand_beside(by);
            }
        }
        if let Some(old) = &mut old {
            return self.leave_group(old, next, writes);
        }
        writes.extend(next.take_writes()?);
        self.store.apply(&writes)?;
        Ok(Vec::new())
    }

    /// Has the DS make the channel of a group that goes on in it, unless it has. If it has another one there, that is told.
    pub(super) async fn found(&mut self, name: &GroupUri, events: &mut Vec<ClientEvent>) -> Result<(), ClientError> {
        let Some(founding) = self.group(name)?.founding()? else { return Ok(()) };
        let founded = self
            .delivery
            .create_channel(
                &Signer::bare(&founding.key),
                &v1::CreateChannelRequest {
                    channel: founding.channel.to_vec(),
                    key_root: founding.key_root.to_vec(),
                    group_info: founding.group_info,
                    epoch: founding.epoch.0,
                    path: Some(key_path(&founding.path)),
                    dispute_ms: founding.dispute_pause.ms(),
                },
            )
            .await;
        match founded {
            Err(CallError::Refused(refusal)) if refusal.code == Code::ChannelExists => {
                let mut told = Vec::new();
                self.group(name)?.not_founded(&mut told);
                events.extend(ClientEvent::all_of(name, told));
            }
            founded => {
                founded?;
                self.group(name)?.founded();
            }
        }
        self.save(name)
    }
}
