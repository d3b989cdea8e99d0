//! A proposal judged by itself.
//!
//! MLS judges proposals when they are committed, and leaves out or refuses those that are not valid then (RFC 9420,
//! section 12.2). A server that follows a group must say sooner: what no commit can carry out should not be ordered.

use mls_rs::{
    ExtensionList,
    group::{Sender, proposal::Proposal},
    identity::SigningIdentity,
};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use mls_rs_core::{
    crypto::{CipherSuiteProvider, HpkePublicKey},
    group::Capabilities,
};

use crate::signing;

/// Why no commit can carry out a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposalError {
    /// Who sent it may not propose this.
    #[error("a sender of this kind may not propose this: external senders add and remove, others are members")]
    Sender,
    /// The leaf of an Update does not decode, or is not one of an Update.
    #[error("the leaf of the Update does not decode or has another source than an Update")]
    Leaf,
    /// The leaf's signature does not verify.
    #[error("the signature of the Update's leaf does not verify")]
    LeafSignature,
}

/// Whether a sender of this kind may propose this at all (RFC 9420, section 12.1.8; those who are not members yet do
/// not propose in our groups).
///
/// # Errors
/// [`ProposalError::Sender`].
pub fn check_sender(sender: &Sender, proposal: &Proposal) -> Result<(), ProposalError> {
    match (sender, proposal) {
        (Sender::Member(_), _) | (Sender::External(_), Proposal::Add(_) | Proposal::Remove(_)) => Ok(()),
        _ => Err(ProposalError::Sender),
    }
}

/// The source of an Update's leaf (RFC 9420, section 7.2).
const SOURCE_UPDATE: u8 = 2;

/// A LeafNode of an Update, up to its signature.
#[derive(MlsSize, MlsEncode, MlsDecode)]
struct LeafNode {
    public_key: HpkePublicKey,
    signing_identity: SigningIdentity,
    capabilities: Capabilities,
    source: u8,
    extensions: ExtensionList,
}

/// Verifies the leaf of an Update by its own signature key, for a member of a group.
///
/// # Errors
/// [`ProposalError::Leaf`], [`ProposalError::LeafSignature`].
pub fn check_update<P: CipherSuiteProvider>(
    provider: &P,
    update: &mls_rs::group::proposal::UpdateProposal,
    group_id: &[u8],
    leaf: u32,
) -> Result<(), ProposalError> {
    let bytes = update.mls_encode_to_vec().map_err(|_| ProposalError::Leaf)?;
    let mut rest = bytes.as_slice();
    let node = LeafNode::mls_decode(&mut rest).map_err(|_| ProposalError::Leaf)?;
    if node.source != SOURCE_UPDATE {
        return Err(ProposalError::Leaf);
    }
    let mut content = bytes.get(..bytes.len() - rest.len()).unwrap_or_default().to_vec();
    let signature: Vec<u8> = mls_rs_codec::byte_vec::mls_decode(&mut rest).map_err(|_| ProposalError::Leaf)?;
    mls_rs_codec::byte_vec::mls_encode(&group_id, &mut content).map_err(|_| ProposalError::Leaf)?;
    content.extend_from_slice(&leaf.to_be_bytes());
    let key = &node.signing_identity.signature_key;
    if signing::is_signed(provider, key, "LeafNodeTBS", &content, &signature) {
        Ok(())
    } else {
        Err(ProposalError::LeafSignature)
    }
}
