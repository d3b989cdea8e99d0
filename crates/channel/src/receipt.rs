//! What the DS signs for each submission that it accepted: that the channel's running hash at a place is this.
//!
//! The hash stands for everything up to there, so that two receipts of one place with two hashes prove to anybody that
//! the DS showed two logs (RFC 9750, section 8.4.2).

use conclave_names::ChannelId;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use crate::{Position, verdict::Signature};

/// Domain separation of the signature.
const LABEL: &[u8] = b"conclave/v1/receipt\0";

/// The Ed25519 public key by which a DS signs receipts. Groups name it in their GroupContext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, MlsSize, MlsEncode, MlsDecode)]
pub struct ReceiptKey(pub [u8; 32]);

/// The DS's word that a channel had this hash at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct Receipt {
    /// The channel.
    pub channel: ChannelId,
    /// The place, and the running hash there.
    pub position: Position,
    /// By the DS.
    pub signature: Signature,
}

/// Why a receipt, or a proof made of two, is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The signature is not the DS's over these values.
    #[error("the receipt is not signed by the server's receipt key")]
    Signature,
    /// Two receipts that do not contradict one another.
    #[error("the receipts are of different places, or agree")]
    NoContradiction,
}

fn to_be_signed(channel: &ChannelId, position: &Position) -> Vec<u8> {
    let mut bytes = LABEL.to_vec();
    bytes.extend_from_slice(channel.as_bytes());
    bytes.extend_from_slice(&position.seq.0.to_be_bytes());
    bytes.extend_from_slice(position.hash.as_bytes());
    bytes
}

impl Receipt {
    /// Signs a receipt.
    #[must_use]
    pub fn sign(key: &SigningKey, channel: ChannelId, position: Position) -> Self {
        let signature = Signature(key.sign(&to_be_signed(&channel, &position)).to_bytes());
        Self { channel, position, signature }
    }

    /// Verifies it.
    ///
    /// # Errors
    /// [`ReceiptError::Signature`].
    pub fn verify(&self, key: &ReceiptKey) -> Result<(), ReceiptError> {
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature.0);
        VerifyingKey::from_bytes(&key.0)
            .and_then(|key| key.verify_strict(&to_be_signed(&self.channel, &self.position), &signature))
            .map_err(|_| ReceiptError::Signature)
    }
}

/// Two receipts that cannot both be true of one log. Anybody who knows the DS's receipt key can verify it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct Equivocation {
    /// One.
    pub one: Receipt,
    /// The other.
    pub other: Receipt,
}

impl Equivocation {
    /// Whether the DS contradicted itself.
    ///
    /// # Errors
    /// Any [`ReceiptError`]: then nothing is proven.
    pub fn verify(&self, key: &ReceiptKey) -> Result<(), ReceiptError> {
        let (one, other) = (&self.one, &self.other);
        if one.channel != other.channel
            || one.position.seq != other.position.seq
            || one.position.hash == other.position.hash
        {
            return Err(ReceiptError::NoContradiction);
        }
        one.verify(key)?;
        other.verify(key)
    }
}

#[cfg(test)]
mod tests {
    use conclave_names::{Hash, Seq};

    use super::*;

    fn signer() -> SigningKey {
        SigningKey::from_bytes(&[9; 32])
    }

    fn public() -> ReceiptKey {
        ReceiptKey(signer().verifying_key().to_bytes())
    }

    fn receipt(channel: u8, seq: u64, hash: u8) -> Receipt {
        let position = Position { seq: Seq(seq), hash: Hash::new([hash; 32]) };
        Receipt::sign(&signer(), ChannelId::new([channel; 16]), position)
    }

    #[test]
    fn any_other_value_or_key_is_refused() {
        let good = receipt(1, 2, 3);
        assert_eq!(good.verify(&public()), Ok(()));
        let other = ReceiptKey(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
        assert_eq!(good.verify(&other), Err(ReceiptError::Signature));
        let mut bad = good;
        bad.channel = ChannelId::new([2; 16]);
        assert_eq!(bad.verify(&public()), Err(ReceiptError::Signature));
        let mut bad = good;
        bad.position.seq = Seq(3);
        assert_eq!(bad.verify(&public()), Err(ReceiptError::Signature));
        let mut bad = good;
        bad.signature.0[5] ^= 1;
        assert_eq!(bad.verify(&public()), Err(ReceiptError::Signature));
    }

    #[test]
    fn two_hashes_of_one_place_are_a_proof_and_nothing_else_is() {
        let proof = |one, other| Equivocation { one, other }.verify(&public());
        assert_eq!(proof(receipt(1, 2, 3), receipt(1, 2, 4)), Ok(()));
        assert_eq!(proof(receipt(1, 2, 3), receipt(1, 2, 3)), Err(ReceiptError::NoContradiction));
        assert_eq!(proof(receipt(1, 2, 3), receipt(1, 3, 4)), Err(ReceiptError::NoContradiction));
        assert_eq!(proof(receipt(1, 2, 3), receipt(2, 2, 4)), Err(ReceiptError::NoContradiction));
        let mut forged = receipt(1, 2, 4);
        forged.position.hash = Hash::new([5; 32]);
        assert_eq!(proof(receipt(1, 2, 3), forged), Err(ReceiptError::Signature));
    }
}
