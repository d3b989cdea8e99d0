//! What mls-rs asks about proposals and commits: the group's policy hook (RFC 9750, sections 3.5 and 6.1).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use conclave_channel::access::ChannelKey;
use conclave_names::GroupUri;
use mls_rs::{
    MlsRules, ProtocolVersion,
    group::{
        GroupContext, Roster, Sender,
        proposal::{Proposal, ReInitProposal},
    },
    mls_rules::{CommitDirection, CommitOptions, CommitSource, EncryptionOptions, ProposalBundle},
};
use mls_rs_core::error::IntoAnyError;

use crate::address::DeliveryAddress;
use crate::components::{ChannelKeyExtension, GroupProfile, HandshakeMode, ProfileError};
use crate::crypto;
use crate::rejoin::{self, RejoinError};

/// Why a commit or a proposal is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The group has no profile of ours.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A proposal of a type that this version's groups do not use.
    #[error("the group's policy admits Add, Update and Remove proposals only")]
    ProposalType,
    /// A commit from outside the group that is no member's rejoin.
    #[error("the group's policy admits commits of members only, and of members that come back: {0}")]
    External(RejoinError),
    /// A group cannot be made anew like this.
    #[error(
        "a group can be made anew only by a member's own commit, in the same room, with a suite of ours and another channel"
    )]
    ReInit,
    /// A leaf without a channel key could not be given access.
    #[error("the leaf of an Add or Update has no channel key")]
    ChannelKey,
    /// A KeyPackage that says not where its Welcome goes.
    #[error("the KeyPackage of an Add has no delivery address, or one at no provider")]
    Address,
    /// No two leaves have the same channel key: a commit could not say which keys show that somebody is a member.
    #[error("the channel key in the leaf of an Add or Update is another leaf's")]
    SharedKey,
}

impl IntoAnyError for PolicyError {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(Box::new(self))
    }
}

/// Members of a group from which on a commit that only adds brings no path.
///
/// A path is encrypted to the whole resolution of the committer's copath: in a group that was just made, whose tree is blank,
/// to every member (80 bytes each). Adding one member to 10,000 would upload 800 KB. What heals such a group are its
/// members' own updates.
pub const PATHLESS_ADDS_FROM: u32 = 256;

/// Whether a commit must bring a path, beyond what RFC 9420, section 12.4, asks of each: each commit heals its committer
/// (RFC 9750, section 8.2.2), unless that is too dear.
fn wants_path(roster: &Roster<'_>, proposals: &ProposalBundle) -> bool {
    let only_adds = proposals.length() > 0 && proposals.add_proposals().len() == proposals.length();
    !only_adds || roster.member_identities_iter().nth(PATHLESS_ADDS_FROM as usize - 1).is_none()
}

/// The rules of Conclave's groups. Every member applies them to every commit, sent or received.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules;

/// What the policy says to a proposal, whoever commits it.
///
/// # Errors
/// Any [`PolicyError`].
pub fn judge(proposal: &Proposal) -> Result<(), PolicyError> {
    let leaf = match proposal {
        Proposal::Add(add) => {
            // Without an address nobody could commit it: there would be nowhere to send the Welcome.
            let address = DeliveryAddress::of(&add.key_package_extensions());
            address.and_then(|address| address.domain()).map_err(|_| PolicyError::Address)?;
            add.leaf_node_extensions()
        }
        Proposal::Update(update) => update.leaf_node_extensions(),
        Proposal::Remove(_) => return Ok(()),
        _ => return Err(PolicyError::ProposalType),
    };
    ChannelKeyExtension::of(&leaf).map(drop).map_err(|_| PolicyError::ChannelKey)
}

/// The channel key that a proposal brings into the group.
fn key_in(proposal: &Proposal) -> Option<ChannelKey> {
    let leaf = match proposal {
        Proposal::Add(add) => add.leaf_node_extensions(),
        Proposal::Update(update) => update.leaf_node_extensions(),
        _ => return None,
    };
    ChannelKeyExtension::of(&leaf).ok()
}

/// What the policy says to the channel key that a proposal brings, of the member at a leaf if one sent it. `holder` says which
/// leaf of the group has a key. Gives whether it is that of the leaf already.
///
/// # Errors
/// [`PolicyError::SharedKey`].
pub fn judge_key(
    proposal: &Proposal,
    sender: Option<u32>,
    holder: impl FnOnce(&ChannelKey) -> Option<u32>,
) -> Result<bool, PolicyError> {
    let own = sender.filter(|_| matches!(proposal, Proposal::Update(_)));
    match key_in(proposal).and_then(|key| holder(&key)) {
        Some(leaf) if Some(leaf) != own => Err(PolicyError::SharedKey),
        held => Ok(held.is_some()),
    }
}

/// Whether two proposals bring the same channel key.
#[must_use]
pub fn share_key(one: &Proposal, other: &Proposal) -> bool {
    key_in(one).is_some_and(|key| key_in(other) == Some(key))
}

/// Leaves out what others proposed by which two leaves would have one channel key: of such proposals the first by reference stays, if none is
/// the committer's own. So it is the same however often the commit is made.
fn leave_out_shared_keys(roster: &Roster<'_>, proposals: &mut ProposalBundle) -> Result<(), PolicyError> {
    let mut bring: BTreeMap<ChannelKey, Option<Vec<u8>>> = BTreeMap::new();
    for info in proposals.iter_proposals() {
        let Some(key) = key_in(&info.proposal.clone().into()) else { continue };
        let named = info.proposal_ref().map(|reference| reference.as_slice().to_vec());
        bring.entry(key).and_modify(|first| *first = first.take().min(named.clone())).or_insert(named);
    }
    if bring.values().all(Option::is_none) {
        return Ok(());
    }
    // mls-rs copies each member for this.
    let taken: BTreeMap<ChannelKey, u32> = roster
        .members_iter()
        .filter_map(|member| Some((ChannelKeyExtension::of(&member.extensions).ok()?, member.index)))
        .collect();
    proposals.retain(|info| {
        let Some(reference) = info.proposal_ref() else { return Ok(true) };
        let proposal = info.proposal.clone().into();
        let sender = match info.sender {
            Sender::Member(index) => Some(index),
            _ => None,
        };
        let first = |key| bring.get(&key).and_then(Option::as_deref) == Some(reference.as_slice());
        let keeps = judge_key(&proposal, sender, |key| taken.get(key).copied());
        Ok(keeps.is_ok_and(|keeps| keeps || key_in(&proposal).is_none_or(first)))
    })
}

/// What the policy says to making a group anew, by the member that commits it: with another suite of ours and in another
/// channel, but for the same room at the same provider.
fn judge_reinit(proposal: &ReInitProposal, context: &GroupContext) -> Result<(), PolicyError> {
    let (old, new) =
        (GroupProfile::of(&context.extensions)?, GroupProfile::of(proposal.new_group_context_extensions())?);
    let name = std::str::from_utf8(proposal.group_id()).ok().and_then(|name| name.parse::<GroupUri>().ok());
    let good = proposal.new_version() == ProtocolVersion::MLS_10
        && crypto::SUITES.contains(&proposal.new_cipher_suite())
        && name.is_some_and(|name| *name.domain() == old.hub)
        && proposal.group_id() != context.group_id()
        && (&new.hub, &new.room, &new.receipt_key) == (&old.hub, &old.room, &old.receipt_key)
        && new.channel != old.channel;
    if good { Ok(()) } else { Err(PolicyError::ReInit) }
}

impl MlsRules for Rules {
    type Error = PolicyError;

    fn filter_proposals(
        &self,
        direction: CommitDirection,
        source: CommitSource,
        roster: &Roster<'_>,
        context: &GroupContext,
        mut proposals: ProposalBundle,
    ) -> Result<ProposalBundle, PolicyError> {
        if let CommitSource::NewMember(committer) = &source {
            return match rejoin::judge(context.group_id(), committer, roster, &proposals) {
                Ok(()) => Ok(proposals),
                Err(refused) => Err(PolicyError::External(refused)),
            };
        }
        // Somebody's refused proposal must not keep a committer from committing the others.
        let drop_refused = direction == CommitDirection::Send;
        proposals.retain(|info| {
            let verdict = match &info.proposal.clone().into() {
                Proposal::ReInit(reinit) if !info.is_by_reference() => judge_reinit(reinit, context),
                proposal => judge(proposal),
            };
            match verdict {
                Err(_) if drop_refused && info.is_by_reference() => Ok(false),
                verdict => verdict.map(|()| true),
            }
        })?;
        if drop_refused {
            leave_out_shared_keys(roster, &mut proposals)?;
        }
        Ok(proposals)
    }

    fn commit_options(
        &self,
        roster: &Roster<'_>,
        _: &GroupContext,
        proposals: &ProposalBundle,
    ) -> Result<CommitOptions, PolicyError> {
        Ok(CommitOptions::new()
            .with_path_required(wants_path(roster, proposals))
            // Trees travel out of band: in a Welcome they would make adding quadratic.
            .with_ratchet_tree_extension(false)
            .with_always_out_of_band_ratchet_tree(true)
            .with_single_welcome_message(true)
            .with_allow_external_commit(true))
    }

    fn encryption_options(&self, _: &Roster<'_>, context: &GroupContext) -> Result<EncryptionOptions, PolicyError> {
        let private = GroupProfile::of(&context.extensions)?.mode == HandshakeMode::Private;
        // The seal pads to size classes, so MLS need not.
        Ok(EncryptionOptions::new(private, mls_rs::client_builder::PaddingMode::None))
    }
}

/// Rules by which commits of ours leave out proposals, be they valid. Clones leave out the same.
#[derive(Debug, Clone, Default)]
pub struct LeavingOut<R> {
    rules: R,
    /// References (RFC 9420, section 5.2), which no two proposals of any groups share.
    references: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

impl<R> LeavingOut<R> {
    /// Rules that leave out nothing yet.
    pub fn new(rules: R) -> Self {
        Self { rules, references: Arc::default() }
    }

    fn references(&self) -> MutexGuard<'_, BTreeSet<Vec<u8>>> {
        // Nothing panics while it holds the lock half-way through a change.
        self.references.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on, commits are made without these proposals.
    pub fn leave_out(&self, references: &BTreeSet<Vec<u8>>) {
        self.references().extend(references.iter().cloned());
    }

    /// From here on, commits are made with these again.
    pub fn take_in(&self, references: &BTreeSet<Vec<u8>>) {
        self.references().retain(|reference| !references.contains(reference));
    }
}

impl<R: MlsRules> MlsRules for LeavingOut<R> {
    type Error = R::Error;

    fn filter_proposals(
        &self,
        direction: CommitDirection,
        source: CommitSource,
        roster: &Roster<'_>,
        context: &GroupContext,
        mut proposals: ProposalBundle,
    ) -> Result<ProposalBundle, R::Error> {
        if direction == CommitDirection::Send {
            let left_out = self.references();
            proposals.retain(|info| {
                let goes = info.proposal_ref().is_some_and(|reference| left_out.contains(reference.as_slice()));
                Ok::<_, R::Error>(!goes)
            })?;
        }
        self.rules.filter_proposals(direction, source, roster, context, proposals)
    }

    fn commit_options(
        &self,
        roster: &Roster<'_>,
        context: &GroupContext,
        proposals: &ProposalBundle,
    ) -> Result<CommitOptions, R::Error> {
        self.rules.commit_options(roster, context, proposals)
    }

    fn encryption_options(&self, roster: &Roster<'_>, context: &GroupContext) -> Result<EncryptionOptions, R::Error> {
        self.rules.encryption_options(roster, context)
    }
}
