//! How a member that lost its state comes back: by an external commit (RFC 9420, section 12.4.3.2) that removes its own old leaf.
//!
//! It proves that it was a member by an external PSK that is derived from the group seed in force, which every member
//! holds and nobody else: former members do not, as each removal renews the seed. Whose leaf it is to take back is proven by its
//! credential: the same client and the same identity key, and no older certificate than the leaf has. So who has stolen a signature key takes
//! no place by it any more in which the client has put another one since, or the same with a newer certificate.

use conclave_names::Epoch;
use mls_rs::{
    group::{Roster, proposal::Proposal},
    identity::SigningIdentity,
    mls_rules::ProposalBundle,
    psk::{ExternalPskId, PreSharedKey},
};
use mls_rs_core::crypto::CipherSuiteProvider;

use crate::{
    credential::same_client,
    identity,
    seal::{SealError, Seed},
};

/// Label of the PSK and of its id.
const LABEL: &[u8] = b"conclave/v1/rejoin-psk\0";

/// Length of the PSK in bytes.
const PSK_LEN: usize = 32;

/// Why somebody may not come back like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RejoinError {
    /// It does more or less than a rejoin.
    #[error(
        "an external commit of this group removes one leaf, proves membership by one external PSK, and does nothing else"
    )]
    Proposals,
    /// The PSK is not named as those of rejoins are.
    #[error("the external PSK is not one of this group's for rejoining")]
    Psk,
    /// Credentials do not read, or there is no such leaf.
    #[error("the leaf that it removes, or its own, has no credential that reads")]
    Credential,
    /// It takes somebody else's place.
    #[error("the leaf that it removes is another client's, or has another identity key")]
    Stranger,
    /// It takes its place with a credential that the client has replaced since.
    #[error("its credential is older than that of the leaf that it removes: renew it first")]
    Outdated,
}

/// Name of the PSK of a seed: the label, the epoch since which the seed is in force (8 bytes, big endian), the group id.
#[must_use]
pub fn psk_id(group_id: &[u8], seed_epoch: Epoch) -> ExternalPskId {
    ExternalPskId::new([LABEL, &seed_epoch.0.to_be_bytes(), group_id].concat())
}

/// The PSK of a seed: KDF.Expand(seed, label ‖ group id, 32).
///
/// # Errors
/// [`SealError::Crypto`] if the library refuses.
pub fn psk<P: CipherSuiteProvider>(suite: &P, seed: &Seed, group_id: &[u8]) -> Result<PreSharedKey, SealError> {
    let info = [LABEL, group_id].concat();
    let key = suite.kdf_expand(seed.expose(), &info, PSK_LEN).map_err(|_| SealError::Crypto)?;
    Ok(PreSharedKey::new(key.to_vec()))
}

/// Whether what an external commit does is a rejoin, of the member whose leaf it removes. Whether the PSK is of the seed in force, and
/// the committer knows it, MLS finds out: members have no other.
///
/// # Errors
/// Any [`RejoinError`].
pub fn judge(
    group_id: &[u8],
    committer: &SigningIdentity,
    roster: &Roster<'_>,
    proposals: &ProposalBundle,
) -> Result<(), RejoinError> {
    let ([removal], [psk], [_]) =
        (proposals.remove_proposals(), proposals.psk_proposals(), proposals.external_init_proposals())
    else {
        return Err(RejoinError::Proposals);
    };
    if proposals.length() != 3 {
        return Err(RejoinError::Proposals);
    }
    let id = psk.proposal.external_psk_id().ok_or(RejoinError::Psk)?;
    let named = id.strip_prefix(LABEL).and_then(|rest| rest.split_at_checked(8));
    if named.is_none_or(|(_, group)| group != group_id) {
        return Err(RejoinError::Psk);
    }
    let before = roster.member_with_index(removal.proposal.to_remove()).map_err(|_| RejoinError::Credential)?;
    let before = identity::read(&before.signing_identity).map_err(|_| RejoinError::Credential)?;
    let now = identity::read(committer).map_err(|_| RejoinError::Credential)?;
    if !same_client(&before, &now) {
        return Err(RejoinError::Stranger);
    }
    if now.not_before() < before.not_before() {
        return Err(RejoinError::Outdated);
    }
    Ok(())
}

/// Whether a proposal has its place in a rejoin, and nowhere else.
#[must_use]
pub fn belongs(proposal: &Proposal) -> bool {
    matches!(proposal, Proposal::Psk(_) | Proposal::ExternalInit(_))
}
