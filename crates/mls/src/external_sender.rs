//! Proposals of an external sender (RFC 9420, section 12.1.8.1): somebody whom the GroupContext lists, and who is no
//! member. It needs no state of the group: its signature covers the group's name, the epoch and the proposal, and not the
//! GroupContext (section 6.1).

use conclave_names::{Epoch, GroupUri};
use ed25519_dalek::SigningKey;
use mls_rs::{MlsMessage, group::ContentType};
use mls_rs_codec::{MlsEncode, MlsSize};
use mls_rs_core::crypto::{CipherSuiteProvider, SignatureSecretKey};

use crate::signing;

/// `ProtocolVersion` mls10.
const MLS10: u16 = 1;

/// `WireFormat` mls_public_message.
const PUBLIC_MESSAGE: u16 = 1;

/// `SenderType` external.
const EXTERNAL: u8 = 2;

/// `ProposalType`s.
const ADD: u16 = 1;
const REMOVE: u16 = 3;

/// What an external sender asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// That a client be added, by its KeyPackage (an MLSMessage).
    Add(Vec<u8>),
    /// That the member at a leaf be removed.
    Remove(u32),
}

/// Why a proposal cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExternalProposalError {
    /// What is to be added is no KeyPackage.
    #[error("what is to be added is no KeyPackage")]
    KeyPackage,
    /// Encoding or signing failed.
    #[error("the proposal cannot be encoded or signed")]
    Signing,
}

/// A group, as far as an external sender must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub group: GroupUri,
    /// Its epoch. The DS tells it to who proposes for another (EPOCH_STALE).
    pub epoch: Epoch,
    /// The sender's place in the group's list of external senders.
    pub sender: u32,
}

#[derive(MlsSize, MlsEncode)]
struct FramedContent {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    group_id: Vec<u8>,
    epoch: u64,
    sender_type: u8,
    sender_index: u32,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    authenticated_data: Vec<u8>,
    content_type: u8,
    proposal: Encoded,
}

/// What is encoded already.
struct Encoded(Vec<u8>);

impl MlsSize for Encoded {
    fn mls_encoded_len(&self) -> usize {
        self.0.len()
    }
}

impl MlsEncode for Encoded {
    fn mls_encode(&self, writer: &mut Vec<u8>) -> Result<(), mls_rs_codec::Error> {
        writer.extend_from_slice(&self.0);
        Ok(())
    }
}

#[derive(MlsSize, MlsEncode)]
struct PublicMessage {
    version: u16,
    wire_format: u16,
    content: FramedContent,
}

fn proposal(request: &Request) -> Result<Encoded, ExternalProposalError> {
    let mut bytes = Vec::new();
    match request {
        Request::Add(message) => {
            let message = MlsMessage::from_bytes(message).map_err(|_| ExternalProposalError::KeyPackage)?;
            let package = message.as_key_package().ok_or(ExternalProposalError::KeyPackage)?;
            bytes.extend_from_slice(&ADD.to_be_bytes());
            package.mls_encode(&mut bytes).map_err(|_| ExternalProposalError::KeyPackage)?;
        }
        Request::Remove(leaf) => {
            bytes.extend_from_slice(&REMOVE.to_be_bytes());
            bytes.extend_from_slice(&leaf.to_be_bytes());
        }
    }
    Ok(Encoded(bytes))
}

/// Makes the MLSMessage of an external proposal, with empty authenticated data.
///
/// # Errors
/// Any [`ExternalProposalError`].
pub fn propose<P: CipherSuiteProvider>(
    provider: &P,
    key: &SigningKey,
    target: &Target,
    request: &Request,
) -> Result<Vec<u8>, ExternalProposalError> {
    let message = PublicMessage {
        version: MLS10,
        wire_format: PUBLIC_MESSAGE,
        content: FramedContent {
            group_id: target.group.to_string().into_bytes(),
            epoch: target.epoch.0,
            sender_type: EXTERNAL,
            sender_index: target.sender,
            authenticated_data: Vec::new(),
            content_type: ContentType::Proposal as u8,
            proposal: proposal(request)?,
        },
    };
    // FramedContentTBS has the same form as the beginning of the message: version, wire format, content.
    let mut bytes = message.mls_encode_to_vec().map_err(|_| ExternalProposalError::Signing)?;
    let secret = SignatureSecretKey::new(key.to_keypair_bytes().to_vec());
    let signature =
        signing::sign(provider, &secret, "FramedContentTBS", &bytes).ok_or(ExternalProposalError::Signing)?;
    mls_rs_codec::byte_vec::mls_encode(&signature, &mut bytes).map_err(|_| ExternalProposalError::Signing)?;
    Ok(bytes)
}
