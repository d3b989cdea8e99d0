//! The way back for a member that cannot follow the group any more: by an external commit (RFC 9420, section 12.4.3.2; RFC 9750,
//! section 5.3) that takes the place of its own old leaf.
//!
//! The old channel key still reads the sealed GroupInfo, as long as nobody was removed since, and the old group seed opens
//! it. In it is the epoch's join key, by which the DS takes one commit without learning whose it is. What the GroupInfo
//! and the tree say is believed only where it agrees with what this client knew and with what the channel shows.

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::{
    CommitHeader, Entry, EntryKind,
    access::{ChannelKey, KeyTree},
    chain,
    law::Ledger,
};
use conclave_mls::{
    components::{ChannelKeyExtension, CommitAad, HandshakeAad},
    identity,
    rejoin::{psk, psk_id},
    seal::{Purpose, Seed, epoch_context},
    tree_chunks::{self, Keyed, Nodes},
};
use conclave_names::{ChannelId, ClientUri, Epoch, Hash, IdempotencyKey, Seq, Timestamp};
use conclave_protocol::v1::SubmitBundleRequest;
use ed25519_dalek::SigningKey;
use mls_rs::{
    MlsMessage,
    group::{CommitEffect, CommitMessageDescription, ExportedTree, Sender, proposal::Proposal},
};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use mls_rs_core::psk::{ExternalPskId, PreSharedKey};
use prost::Message as _;
use zeroize::{Zeroize, Zeroizing};

use super::{
    Group, Status,
    access::{each_member, fault},
    commit::body_of,
    group_info::SealedGroupInfo,
    meanwhile::{came_and_went, roster},
    misled::Signed,
    place::ChannelEnd,
    refresh::Refreshed,
    reinit,
    standing::Parent,
    submit::TO_ALL,
    tree::Known,
    view::clients_of,
};
use crate::{
    intent::{Intent, Prepared, Wish},
    invitation::TreeFetch,
    mls_client::{MlsError, MlsGroup, leaf_extensions, random, suite},
    outcome::{Event, Rejection},
    record::{self, Text},
    stores::GroupRows,
};

/// Why a member does not come back by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RejoinError {
    /// There is nothing to come back from, or a way back is being taken.
    #[error("this client follows the group, or is on its way back already")]
    NotNeeded,
    /// The server has no GroupInfo of the epoch. There will be one with the next commit.
    #[error(
        "the server has no GroupInfo of the present epoch: it comes with the next commit, or the group is being made anew"
    )]
    NoGroupInfo,
    /// It is of another epoch than the channel is in, or was when it was read.
    #[error("the GroupInfo is of epoch {given}, and the channel is in epoch {current}")]
    Epoch {
        /// That of the GroupInfo.
        given: Epoch,
        /// That of the channel.
        current: Epoch,
    },
    /// It does not open. Who was locked out by a removal is not served it: so it was sealed wrongly, or changed, or this client followed
    /// another branch of the group. Only a member can help.
    #[error(
        "the GroupInfo does not open by what this client knows: who made the newest commit sealed it wrongly, the server changed it, or this \
         client was shown another log; only a member can let this client in"
    )]
    Sealed,
    /// What its signer left before led to a commit that members could not apply. Only a member can help.
    #[error(
        "the GroupInfo is {0}'s, and members could not apply the commit by which this client came back by what {0} had left before: only a \
         member can let this client in"
    )]
    Misled(ClientUri),
    /// It does not decode, or is another group's.
    #[error("the GroupInfo or the tree is damaged: {0}")]
    Damaged(String),
    /// It contradicts the channel or what this client knew.
    #[error("the GroupInfo contradicts what this client knows: {0}")]
    Contradicts(String),
    /// There is more to read: entries that this client had not read are gone, and it goes on where the GroupInfo's committer stood; or
    /// others were faster. Then it is to be tried again.
    #[error("there is more to read, if need be from the place that the GroupInfo names: read on, then try again")]
    ReadOn,
    /// Nobody is there any more: the group goes on in another, into which only a member can let this client.
    #[error("the group was made anew without this client: only a member can let it into the group that it has become")]
    MadeAnew,
    /// Our leaf is not there.
    #[error("this client is no member of the group any more")]
    NoMember,
    /// Our leaf has a newer certificate than we: this profile is an older copy. A newer one has to be had first.
    #[error("this client's certificate is older than that of its leaf: it has to be renewed first")]
    Outdated,
    /// Nothing speaks against it but that somebody unknown vouches for it. The user decides.
    #[error("only {0} vouches for the group's present members, and this client did not know it as a member")]
    Doubtful(ClientUri),
    /// MLS refused.
    #[error("MLS refused: {0}")]
    Mls(String),
}

impl From<MlsError> for RejoinError {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.0)
    }
}

/// A GroupInfo that we may come back by.
pub struct WayBack {
    epoch: Epoch,
    info: MlsMessage,
    /// In private groups.
    sealed: Option<SealedGroupInfo>,
    /// Its hash as it was served.
    word: Hash,
}

impl std::fmt::Debug for WayBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WayBack").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What opens the session in which a commit from outside is submitted.
#[derive(Clone)]
pub struct JoinAccess {
    /// The channel.
    pub channel: ChannelId,
    /// The epoch that the commit ends.
    pub epoch: Epoch,
    /// The epoch's join key.
    pub key: SigningKey,
}

impl std::fmt::Debug for JoinAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinAccess").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What becomes of us if the commit is ordered.
#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Next {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    state: Vec<u8>,
    channel_key: [u8; 32],
    join_key: Option<[u8; 32]>,
    tree_key_epoch: Epoch,
    tree_key: [u8; 32],
    strangers: bool,
    /// Who signed the GroupInfo, and its hash as it was served.
    signer: Text,
    word: Hash,
    /// Whether our leaf had another signature key.
    rekeyed: bool,
}

impl Drop for Next {
    fn drop(&mut self) {
        self.state.zeroize();
        self.channel_key.zeroize();
        self.join_key.zeroize();
        self.tree_key.zeroize();
    }
}

/// A member as a tree has it.
struct InTree {
    leaf: u32,
    certified: Timestamp,
    identity_key: [u8; 32],
    signature_key: [u8; 32],
    channel_key: ChannelKey,
}

fn members_of(tree: &ExportedTree<'_>) -> Result<BTreeMap<ClientUri, InTree>, RejoinError> {
    let mut members = BTreeMap::new();
    let mut read = Ok(());
    each_member(tree, |leaf, signing_identity, extensions| {
        read =
            identity::read(signing_identity).map_err(|error| RejoinError::Damaged(error.to_string())).and_then(|of| {
                let channel_key =
                    ChannelKeyExtension::of(extensions).map_err(|error| RejoinError::Damaged(error.to_string()))?;
                let (identity_key, certified, signature_key) = (of.identity_key(), of.not_before(), of.signature_key());
                let member = InTree { leaf, certified, identity_key, signature_key, channel_key };
                members.insert(of.client().clone(), member);
                Ok(())
            });
        read.is_ok()
    });
    read.map(|()| members)
}

/// The root of the newest epoch's key tree, as the channel has it.
fn newest_root(ledger: &Ledger) -> Hash {
    ledger.open().last().map_or_else(|| *ledger.settled_root(), |commit| commit.key_root)
}

impl WayBack {
    /// The tree, to be fetched at the hub.
    ///
    /// # Errors
    /// [`MlsError`] never in practice.
    pub fn tree(&self) -> Result<TreeFetch, MlsError> {
        let info = self.info.as_group_info().ok_or_else(|| fault("no GroupInfo"))?;
        let suite = suite(info.group_context().cipher_suite())?;
        match &self.sealed {
            Some(sealed) => Ok(TreeFetch::in_chunks(sealed.tree, sealed.tree_key().map_err(fault)?, suite)),
            None => Ok(TreeFetch::unnamed(suite)),
        }
    }

    /// The epoch that it is of.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Group {
    /// Whether this client is to come back by itself: it cannot follow the group, and no annulment will change that.
    #[must_use]
    pub fn wants_rejoin(&self) -> bool {
        let certain = self.lost.as_ref().is_none_or(|lost| lost.settled);
        let under_way = self.intents.values().any(|intent| intent.wish == Wish::Rejoin);
        matches!(self.status, Status::Stuck { .. }) && certain && !under_way
    }

    /// The MLSMessage with the GroupInfo of an epoch in what the DS served, and what was sealed with it in a group that seals.
    ///
    /// # Errors
    /// [`RejoinError::Sealed`], [`RejoinError::Damaged`].
    pub(super) fn opened_info(
        &self,
        epoch: Epoch,
        served: &[u8],
    ) -> Result<(Vec<u8>, Option<SealedGroupInfo>), RejoinError> {
        if self.is_visible() {
            return Ok((served.to_vec(), None));
        }
        let (provider, context) = (suite(self.mls.cipher_suite())?, epoch_context(&self.profile.channel, epoch));
        let seed = self.seed(epoch).ok_or(RejoinError::Sealed)?;
        let opened = seed.open(&provider, Purpose::GroupInfo, &context, served);
        let opened = Zeroizing::new(opened.map_err(|_| RejoinError::Sealed)?);
        let sealed = SealedGroupInfo::parse(&opened).map_err(|error| RejoinError::Damaged(error.to_string()))?;
        Ok((sealed.group_info.clone(), Some(sealed)))
    }

    /// Takes what the DS served as the GroupInfo of an epoch, read with the session of our old leaf ([`Group::access`]),
    /// after the channel was read to its end. `end`: of the channel, as the DS said with it.
    ///
    /// # Errors
    /// Any [`RejoinError`].
    pub fn way_back(
        &mut self,
        epoch: Epoch,
        group_info: &[u8],
        end: ChannelEnd,
        now: Timestamp,
    ) -> Result<WayBack, RejoinError> {
        if !self.wants_rejoin() {
            return Err(RejoinError::NotNeeded);
        }
        if self.was_made_anew() {
            return Err(RejoinError::MadeAnew);
        }
        if group_info.is_empty() {
            return Err(RejoinError::NoGroupInfo);
        }
        let damaged = |error: &dyn std::fmt::Display| RejoinError::Damaged(error.to_string());
        let word = chain::entry_hash(group_info);
        let (bytes, sealed) = self.opened_info(epoch, group_info)?;
        let info = MlsMessage::from_bytes(&bytes).map_err(|error| damaged(&error))?;
        let context = info.as_group_info().ok_or_else(|| damaged(&"it is no GroupInfo"))?.group_context();
        if context.group_id() != self.mls.group_id() || context.epoch() != epoch.0 {
            return Err(damaged(&"it is of another group or epoch"));
        }
        if epoch < self.epoch() {
            return Err(RejoinError::Epoch { given: epoch, current: self.epoch() });
        }
        if self.lost.is_none() || self.is_in_wrong_log() {
            return Err(self.resume(sealed.as_ref(), epoch, word, now));
        }
        self.prove_place(&end)?;
        let current = self.ledger.at(now).epoch();
        if current != epoch {
            if self.is_placed_by(&word) {
                return Err(self.refuse_place());
            }
            return Err(RejoinError::Epoch { given: epoch, current });
        }
        Ok(WayBack { epoch, info, sealed, word })
    }

    /// Makes the commit by which we come back, as an intent that the next submissions carry out. `approved`: whom the
    /// user has seen named by [`RejoinError::Doubtful`], and believes all the same.
    ///
    /// # Errors
    /// Any [`RejoinError`]; nothing has changed then.
    pub fn rejoin(
        &mut self,
        way: &WayBack,
        tree: &TreeFetch,
        approved: Option<&ClientUri>,
        now: Timestamp,
    ) -> Result<IdempotencyKey, RejoinError> {
        if !self.wants_rejoin() {
            return Err(RejoinError::NotNeeded);
        }
        let damaged = |error: &dyn std::fmt::Display| RejoinError::Damaged(error.to_string());
        let exported = tree.finish().map_err(|error| damaged(&error))?;
        let tree = ExportedTree::from_bytes(&exported).map_err(|error| damaged(&error))?.into_owned();
        let current = self.ledger.at(now);
        if current.epoch() != way.epoch {
            return Err(RejoinError::Epoch { given: way.epoch, current: current.epoch() });
        }
        let members = members_of(&tree)?;
        let keys = KeyTree::new(members.values().map(|member| member.channel_key)).map_err(|error| damaged(&error))?;
        if keys.root() != newest_root(&current) {
            return Err(RejoinError::Contradicts("its tree is not the one that the channel's commit announced".into()));
        }
        let (strangers, signer) = self.vouched(way, &members, approved)?;
        let signed = Signed { by: signer, word: way.word };
        self.check_signer(&signed, now)?;
        let own = members.get(&self.account.client).ok_or(RejoinError::NoMember)?;
        // Members refuse it.
        if self.account.certified_from().is_none_or(|from| from < own.certified) {
            return Err(RejoinError::Outdated);
        }
        let made = self.outside_commit(way, tree, &exported, &keys, own, (strangers, &signed));
        let (prepared, channel_key) = made.map_err(|error| match error {
            // MLS may have refused the signature.
            RejoinError::Mls(reason) => {
                RejoinError::Mls(format!("{reason} (the GroupInfo says to be signed by {})", signed.by))
            }
            error => error,
        })?;
        self.channel_keys.push(channel_key);
        Ok(self.wish_prepared(Wish::Rejoin, prepared)?)
    }

    /// Compares the members with those that we knew: each that is there has the same identity key. In a private group nobody was
    /// removed since, or the GroupInfo would not have opened: so all must be there. Gives whether there are new ones, and who signed it.
    fn vouched(
        &self,
        way: &WayBack,
        members: &BTreeMap<ClientUri, InTree>,
        approved: Option<&ClientUri>,
    ) -> Result<(bool, ClientUri), RejoinError> {
        let known = members_of(&self.mls.export_tree())?;
        for (client, before) in &known {
            match members.get(client) {
                Some(now) if now.identity_key == before.identity_key => {}
                Some(_) => {
                    return Err(RejoinError::Contradicts(format!(
                        "the identity key of {client} is another than before"
                    )));
                }
                None if *client == self.account.client => return Err(RejoinError::NoMember),
                // The DS of a visible group serves it after removals, too.
                None if self.is_visible() => {}
                None => return Err(RejoinError::Contradicts(format!("{client} is missing, and nobody was removed"))),
            }
        }
        let strangers = members.keys().any(|client| !known.contains_key(client));
        let sender = way.info.as_group_info().map(mls_rs::group::GroupInfo::sender);
        let signer = members.iter().find(|(_, member)| Some(member.leaf) == sender).map(|(client, _)| client);
        let signer = signer.ok_or_else(|| RejoinError::Damaged("its signer is no member".into()))?;
        if !known.contains_key(signer) && approved != Some(signer) {
            return Err(RejoinError::Doubtful(signer.clone()));
        }
        Ok((strangers, signer.clone()))
    }

    /// Builds the commit and its bundle.
    fn outside_commit(
        &self,
        way: &WayBack,
        tree: ExportedTree<'static>,
        exported: &[u8],
        keys: &KeyTree,
        own: &InTree,
        (strangers, signed): (bool, &Signed),
    ) -> Result<(Prepared, SigningKey), RejoinError> {
        let provider = suite(self.mls.cipher_suite())?;
        let channel = self.profile.channel;
        let (channel_key, join_key) =
            (SigningKey::from_bytes(&random(&provider)?), SigningKey::from_bytes(&random(&provider)?));
        let committer = ChannelKey(channel_key.verifying_key().to_bytes());
        let after = keys.changed(&[own.channel_key], &[committer]).map_err(fault)?;
        let header = CommitHeader { committer, removed: 0, members: after.len(), key_root: after.root() };
        let commit = CommitAad { key_root: after.root(), renews_seed: false, renews_tree_key: false };
        let aad = HandshakeAad { position: self.window.position(), commit: Some(commit) };

        let seed = self.seed(way.epoch).cloned().ok_or(RejoinError::Sealed)?;
        let group_id = self.mls.group_id().to_vec();
        let (id, secret) = self.rejoin_psk(way.epoch)?;
        let apart = self.shared.apart();
        let builder = apart
            .client(&self.account, self.mls.cipher_suite())
            .external_commit_builder()
            .map_err(MlsError::from)?
            .with_tree_data(tree)
            .with_removal(own.leaf)
            .with_external_psk(id.clone())
            .with_authenticated_data(aad.to_bytes().map_err(fault)?)
            .with_leaf_node_extensions(leaf_extensions(&channel_key)?);
        // Leaves were judged when they were admitted: no time is given, so that their lifetimes are not judged again.
        let built = apart.psks.during(id, secret, || builder.build(way.info.clone()));
        let (mut next, message) = built.map_err(MlsError::from)?;
        next.write_to_storage().map_err(MlsError::from)?;
        let state = apart.groups.state_of(&group_id).ok_or_else(|| fault("the state was not written"))?;

        let mut blobs = Vec::new();
        let info = next.group_info_message_allowing_ext_commit(false).map_err(MlsError::from)?;
        let group_info = info.to_bytes().map_err(MlsError::from)?;
        let bytes = message.to_bytes().map_err(MlsError::from)?;
        let mut bundle =
            SubmitBundleRequest { base_seq: self.window.position().seq.0, ..SubmitBundleRequest::default() };
        let mut tree_key = (way.epoch.next(), Zeroizing::new([0; 32]));
        let body = if let Some(sealed) = &way.sealed {
            let key = sealed.tree_key().map_err(fault)?;
            tree_key = (sealed.tree_key_epoch, Zeroizing::new(*key.expose()));
            let after = next.export_tree().to_bytes().map_err(MlsError::from)?;
            let (before, after) = (Nodes::parse(exported).map_err(fault)?, Nodes::parse(&after).map_err(fault)?);
            let (before, after) = (Keyed { key: &key, nodes: &before }, Keyed { key: &key, nodes: &after });
            let names = tree_chunks::names(&provider, before).map_err(fault)?;
            let changed = tree_chunks::changes(&provider, Some(&names), before, after).map_err(fault)?;
            let root = changed.names.root().ok_or_else(|| fault("no tree"))?;
            bundle.tree = root.to_vec();
            bundle.tree_dropped = changed.dropped.iter().map(Hash::to_vec).collect();
            for (name, chunk) in changed.added {
                bundle.tree_added.push(name.to_vec());
                blobs.push(chunk);
            }
            bundle.join_key = join_key.verifying_key().to_bytes().to_vec();
            let place = (self.window.position(), self.logged().clone());
            let sealed = SealedGroupInfo::new(&join_key, (tree_key.0, &key), root, place, group_info);
            let context = epoch_context(&channel, way.epoch.next());
            bundle.group_info =
                seed.seal(&provider, Purpose::GroupInfo, &context, sealed.to_bytes()?.to_vec()).map_err(fault)?;
            self.seal(EntryKind::Commit, way.epoch, bytes)?
        } else {
            bundle.group_info = group_info;
            bytes
        };
        let entry = Entry::commit(way.epoch, header, body_of(body, &mut blobs)).to_bytes().map_err(fault)?;
        let key = IdempotencyKey::new(random(&provider)?);
        bundle.idempotency_key = key.to_vec();
        bundle.entry.clone_from(&entry);
        let secrets = Next {
            state: state.to_vec(),
            channel_key: channel_key.to_bytes(),
            join_key: way.sealed.as_ref().map(|sealed| *sealed.join_key()),
            tree_key_epoch: tree_key.0,
            tree_key: *tree_key.1,
            strangers,
            signer: Text::new(&signed.by),
            word: signed.word,
            rekeyed: own.signature_key != self.account.signature_key.verifying_key().to_bytes(),
        };
        let secrets = record::encode(&secrets);
        let bundle = Some(bundle.encode_to_vec());
        Ok((Prepared { key, epoch: way.epoch, entry, bundle, blobs, secrets }, channel_key))
    }

    /// The PSK of who comes back in an epoch.
    pub(super) fn rejoin_psk(&self, epoch: Epoch) -> Result<(ExternalPskId, PreSharedKey), MlsError> {
        let (since, seed) = self.seeds.range(..=epoch).next_back().ok_or_else(|| fault("no group seed"))?;
        let group_id = self.mls.group_id();
        let key = psk(&suite(self.mls.cipher_suite())?, seed, group_id).map_err(fault)?;
        Ok((psk_id(group_id, *since), key))
    }

    /// What opens the session for a rejoin that is under way; none if the old leaf's does.
    pub(super) fn join_access(&self, intent: &Intent) -> Result<Option<JoinAccess>, MlsError> {
        let (Wish::Rejoin, Some(prepared)) = (&intent.wish, &intent.prepared) else { return Ok(None) };
        let next: Next = record::decode(&prepared.secrets).map_err(fault)?;
        let (channel, epoch) = (self.profile.channel, prepared.epoch);
        Ok(next.join_key.map(|key| JoinAccess { channel, epoch, key: SigningKey::from_bytes(&key) }))
    }

    /// Whether a rejoin that was made is of no use any more: another commit ended its epoch, or we can follow the group again.
    pub(super) fn rejoin_is_void(&self, intent: &Intent, now: Timestamp) -> bool {
        let current = self.ledger.at(now).epoch();
        intent.wish == Wish::Rejoin
            && (self.status == Status::Active || intent.prepared.as_ref().is_none_or(|made| made.epoch != current))
    }

    /// The channel shows our commit from outside: we are back.
    pub(super) fn come_back(
        &mut self,
        prepared: &Prepared,
        seq: Seq,
        time: Timestamp,
        hash: Hash,
        stays_open: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), Rejection> {
        let refused = |error: MlsError| Rejection::Mls(error.to_string());
        let next: Next = record::decode(&prepared.secrets).map_err(|error| Rejection::Mls(error.to_string()))?;
        let group_id = self.mls.group_id().to_vec();
        let (before, began) = (self.epoch(), prepared.epoch.next());
        if stays_open && self.lags() {
            // What we used in the epoch in which we were left is not to be used again if we go back to it.
            self.write_state().map_err(refused)?;
        }
        let old = self.shared.groups.state_of(&group_id);
        let dropped: Vec<u64> = self.shared.groups.epochs_before(&group_id, u64::MAX).into_keys().collect();
        let rows = GroupRows { state: Zeroizing::new(next.state.clone()), ..GroupRows::default() };
        self.shared.groups.load(&group_id, rows);
        let client = self.shared.client(&self.account, self.mls.cipher_suite());
        let mls: MlsGroup = client.load_group(&group_id).map_err(MlsError::from).map_err(refused)?;
        if Epoch(mls.current_epoch()) != began {
            return Err(Rejection::Mismatch);
        }
        for epoch in dropped {
            self.delete_epoch(Epoch(epoch));
        }
        if let (true, Some(state)) = (stays_open, old.filter(|_| self.saved == Some(before))) {
            let now: BTreeSet<_> = clients_of(&mls).collect();
            let removed = clients_of(&self.mls).filter(|client| !now.contains(client)).collect();
            let was_removed = |client: &ClientUri| self.parents.iter().any(|parent| parent.removed.contains(client));
            let added = now.into_iter().filter(was_removed).collect();
            // If the commit is annulled, we are where we were.
            self.parents.push(Parent {
                commit: seq,
                ended: prepared.epoch,
                at: before,
                astray: self.is_in_wrong_branch(),
                state,
                last_added: self.last_added,
                joined: self.joined,
                joined_by: self.joined_by,
                joined_at: self.joined_at,
                signs_since: self.signs_since,
                spent: self.spent_keys(),
                late: Vec::new(),
                proposed_at: self.proposed_at,
                removed,
                added,
                renews: false,
            });
        }
        // What does not read gives no events, and is no reason to stay away.
        let members = |mls: &MlsGroup| reinit::members_of(&mls.export_tree()).map(roster);
        let meanwhile = members(&self.mls).and_then(|old| Ok(came_and_went(&old, &members(&mls)?, began)));
        let place = self.own_place();
        self.mls = mls;
        self.note_own_place(&place, began);
        self.first_generation();
        self.keys = std::sync::OnceLock::new();
        self.dirty = true;
        self.unsaved_proposals = false;
        self.proposed_at = None;
        self.forget_generations();
        self.past.clear();
        self.joined = began;
        self.joined_by = Some(hash);
        self.came_by.push(hash);
        self.forget_ways();
        self.joined_at = Some(seq);
        if let (true, Ok(by)) = (stays_open, next.signer.parse()) {
            self.came_by_word(seq, Signed { by, word: next.word });
        }
        if next.strangers {
            self.last_added = began;
            // Epochs of a branch that is not the group may count further: whose members its writer saw, it does not know.
            self.seen_before(began);
        }
        if !self.is_visible() {
            self.tree_keys =
                BTreeMap::from([(next.tree_key_epoch, Seed::from_slice(&next.tree_key).map_err(|_| Rejection::Seal)?)]);
        }
        self.tree_names = Known::default();
        self.offers_whole_tree = false;
        self.refreshed = Refreshed::new(time);
        self.stop_knocking();
        let from = self.first_unread().unwrap_or(seq);
        (self.lost, self.skipped) = (None, None);
        self.status = Status::Active;
        let member = &self.account.client;
        events.push(Event::Rejoined { member: member.clone(), epoch: began });
        if next.rekeyed {
            events.push(Event::KeyChanged { member: member.clone(), epoch: began });
        }
        events.extend(meanwhile.unwrap_or_default());
        events.push(Event::Missed { from, to: seq });
        self.open_gap(from, Some(seq.previous().unwrap_or(seq)), time);
        Ok(())
    }

    /// Our commit from outside is of no use.
    pub(super) fn drop_rejoin(&mut self, order: u64) {
        let made = self.intents.get(&order).and_then(|intent| intent.prepared.clone());
        self.drop_intent(order);
        if let Some(next) = made.and_then(|made| record::decode::<Next>(&made.secrets).ok()) {
            self.remember_refused(&SigningKey::from_bytes(&next.channel_key));
        }
    }

    /// What was wished, and is done or is not, was wished before this epoch, but for what is to be said to whoever is a member then.
    fn seen_before(&mut self, epoch: Epoch) {
        let newer = |intent: &Intent| intent.wished >= epoch && intent.wished != TO_ALL;
        let changed: Vec<_> =
            self.intents.iter().filter(|(_, intent)| newer(intent)).map(|(order, _)| *order).collect();
        for order in changed {
            if let Some(intent) = self.intents.get_mut(&order) {
                intent.wished = Epoch(epoch.0.saturating_sub(1));
            }
            self.save_intent(order);
        }
        self.done_before(epoch);
    }

    /// Opens the body of a commit from outside.
    pub(super) fn is_outside(message: &MlsMessage) -> bool {
        matches!(
            message.description(),
            mls_rs::MlsMessageDescription::PublicProtocolMessage { sender: Sender::NewMemberCommit, .. }
        )
    }

    /// What a commit from outside has to be beyond what MLS and the rules require: it removes nobody but its committer's old leaf, and
    /// renews neither seed nor tree key, which would shut out others that have to come back.
    pub(super) fn check_outside(
        description: &CommitMessageDescription,
        header: &CommitHeader,
        aad: &CommitAad,
    ) -> Result<(), Rejection> {
        let CommitEffect::NewEpoch(epoch) = &description.effect else { return Err(Rejection::Mismatch) };
        let removed =
            epoch.applied_proposals.iter().filter(|info| matches!(info.proposal, Proposal::Remove(_))).count();
        if removed != 1 || header.removed != 0 || aad.renews_seed || aad.renews_tree_key {
            return Err(Rejection::Flags);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "rejoin_tests.rs"]
pub(super) mod tests;
