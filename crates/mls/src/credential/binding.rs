//! The identity key's word that a signature key is a client's.

use conclave_names::{ClientUri, Timestamp};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

/// Domain separation of the signature.
const LABEL: &[u8] = b"conclave/v1/identity-binding";

/// Version of the signed structure and of the encoding.
const VERSION: u8 = 1;

/// What a signature key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Signing in MLS leaves and in requests to the services.
    Signing,
}

impl Purpose {
    /// The purpose as it stands on the wire.
    #[must_use]
    pub fn as_u8(self) -> u8 {
        match self {
            Self::Signing => 1,
        }
    }
}

impl TryFrom<u8> for Purpose {
    type Error = BindingError;

    fn try_from(value: u8) -> Result<Self, BindingError> {
        match value {
            1 => Ok(Self::Signing),
            other => Err(BindingError::Purpose(other)),
        }
    }
}

/// Why an identity binding is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// It does not have the form that version 1 has.
    #[error("the identity binding does not decode: 106 bytes were expected, {0} came")]
    Form(usize),
    /// It is of a version that this code does not know.
    #[error("the identity binding is of version {0}; version 1 is known: update this program")]
    Version(u8),
    /// It allows something that this code does not know.
    #[error("the identity binding is for purpose {0}; only 1 (signing) is known")]
    Purpose(u8),
    /// A field is not a key.
    #[error("the identity key in the binding is not an Ed25519 public key")]
    Key,
    /// The signature is not the identity key's over this client and this key.
    #[error("the identity key did not sign this client, signature key and time: make a new binding")]
    Signature,
    /// Its time is over.
    #[error("the identity binding expired at {not_after_secs} (seconds since 1970): have it signed anew")]
    Expired {
        /// The end, in seconds since the Unix epoch.
        not_after_secs: u64,
    },
}

/// What is signed: `IdentityBindingTBS` in `authentication.proto`.
#[derive(MlsSize, MlsEncode)]
struct ToBeSigned {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    label: Vec<u8>,
    version: u8,
    purpose: u8,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    user: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    client: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    signature_key: Vec<u8>,
    not_after: u64,
}

impl ToBeSigned {
    fn bytes(purpose: Purpose, client: &ClientUri, signature_key: &[u8; 32], not_after: u64) -> Option<Vec<u8>> {
        Self {
            label: LABEL.to_vec(),
            version: VERSION,
            purpose: purpose.as_u8(),
            user: client.user().to_string().into_bytes(),
            client: client.to_string().into_bytes(),
            signature_key: signature_key.to_vec(),
            not_after,
        }
        .mls_encode_to_vec()
        .ok()
    }
}

/// The encoding inside certificates and stores.
#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Encoded {
    version: u8,
    purpose: u8,
    not_after: u64,
    identity_key: [u8; 32],
    signature: [u8; 64],
}

/// The identity key's signature over a client's name and signature key. It travels without them: who verifies it
/// says for which client and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityBinding {
    /// What the signature key may be used for.
    pub purpose: Purpose,
    /// Seconds since the Unix epoch. The last second in which it is good; no certificate of the key outlives it.
    pub not_after_secs: u64,
    /// The Ed25519 public identity key.
    pub identity_key: [u8; 32],
    /// Its signature.
    pub signature: [u8; 64],
}

impl IdentityBinding {
    /// Length of its encoding, in bytes.
    pub const LEN: usize = 106;

    /// Signs that `signature_key` is `client`'s until `not_after` (whole seconds of it).
    #[must_use]
    pub fn sign(identity: &SigningKey, client: &ClientUri, signature_key: &[u8; 32], not_after: Timestamp) -> Self {
        let purpose = Purpose::Signing;
        let not_after_secs = not_after.as_secs();
        // Encoding fails for fields beyond 2^30 bytes only: names and keys are far shorter.
        let bytes = ToBeSigned::bytes(purpose, client, signature_key, not_after_secs).unwrap_or_default();
        Self {
            purpose,
            not_after_secs,
            identity_key: identity.verifying_key().to_bytes(),
            signature: identity.sign(&bytes).to_bytes(),
        }
    }

    /// Verifies that the identity key in it signed this client and this key, and, if a time is given, that it has
    /// not expired by then.
    pub fn verify(
        &self,
        client: &ClientUri,
        signature_key: &[u8; 32],
        now: Option<Timestamp>,
    ) -> Result<(), BindingError> {
        let key = VerifyingKey::from_bytes(&self.identity_key).map_err(|_| BindingError::Key)?;
        let bytes = ToBeSigned::bytes(self.purpose, client, signature_key, self.not_after_secs)
            .ok_or(BindingError::Signature)?;
        key.verify_strict(&bytes, &Signature::from_bytes(&self.signature)).map_err(|_| BindingError::Signature)?;
        match now {
            Some(now) if now.as_secs() > self.not_after_secs => {
                Err(BindingError::Expired { not_after_secs: self.not_after_secs })
            }
            _ => Ok(()),
        }
    }

    /// The TLS encoding (RFC 9420, section 2.1) of
    /// `struct { uint8 version = 1; uint8 purpose; uint64 not_after; opaque identity_key[32]; opaque signature[64]; }`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Fixed lengths always encode.
        Encoded {
            version: VERSION,
            purpose: self.purpose.as_u8(),
            not_after: self.not_after_secs,
            identity_key: self.identity_key,
            signature: self.signature,
        }
        .mls_encode_to_vec()
        .unwrap_or_default()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; nothing may follow. The signature is not verified here.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BindingError> {
        match bytes.first() {
            Some(&VERSION) if bytes.len() == Self::LEN => {}
            Some(&version) if version != VERSION => return Err(BindingError::Version(version)),
            _ => return Err(BindingError::Form(bytes.len())),
        }
        let encoded = Encoded::mls_decode(&mut &*bytes).map_err(|_| BindingError::Form(bytes.len()))?;
        Ok(Self {
            purpose: encoded.purpose.try_into()?,
            not_after_secs: encoded.not_after,
            identity_key: encoded.identity_key,
            signature: encoded.signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: Timestamp = Timestamp(1_700_000_000_999);

    fn identity() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn client() -> ClientUri {
        "mimi://example.com/d/alice/laptop".parse().unwrap()
    }

    fn binding() -> IdentityBinding {
        IdentityBinding::sign(&identity(), &client(), &[2; 32], END)
    }

    #[test]
    fn it_is_good_for_one_client_one_key_and_its_time() {
        let binding = binding();
        assert_eq!(binding.verify(&client(), &[2; 32], Some(END)), Ok(()));
        assert_eq!(binding.verify(&client(), &[2; 32], None), Ok(()));
        let phone = "mimi://example.com/d/alice/phone".parse().unwrap();
        assert_eq!(binding.verify(&phone, &[2; 32], None), Err(BindingError::Signature));
        assert_eq!(binding.verify(&client(), &[3; 32], None), Err(BindingError::Signature));
        assert_eq!(
            binding.verify(&client(), &[2; 32], Some(END.next())),
            Err(BindingError::Expired { not_after_secs: END.as_secs() })
        );
    }

    #[test]
    fn every_field_is_signed() {
        let later = IdentityBinding { not_after_secs: END.as_secs() + 1, ..binding() };
        assert_eq!(later.verify(&client(), &[2; 32], None), Err(BindingError::Signature));
        let other = SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
        let foreign = IdentityBinding { identity_key: other, ..binding() };
        assert_eq!(foreign.verify(&client(), &[2; 32], None), Err(BindingError::Signature));
        // The encoding of a point of small order, under which weak signatures verify for anything.
        let mut weak_key = [0; 32];
        weak_key[0] = 1;
        let weak = IdentityBinding { identity_key: weak_key, signature: [0; 64], ..binding() };
        assert_eq!(weak.verify(&client(), &[2; 32], None), Err(BindingError::Signature));
    }

    #[test]
    fn the_signed_bytes_are_those_of_the_proto_file() {
        let bytes = ToBeSigned::bytes(Purpose::Signing, &client(), &[2; 32], 7).unwrap();
        let mut expected = vec![28];
        expected.extend_from_slice(b"conclave/v1/identity-binding");
        expected.extend_from_slice(&[1, 1, 26]);
        expected.extend_from_slice(b"mimi://example.com/u/alice");
        expected.push(33);
        expected.extend_from_slice(b"mimi://example.com/d/alice/laptop");
        expected.push(32);
        expected.extend_from_slice(&[2; 32]);
        expected.extend_from_slice(&7u64.to_be_bytes());
        assert_eq!(bytes, expected);
    }

    #[test]
    fn other_forms_are_refused_with_the_reason() {
        let good = binding().to_bytes();
        assert_eq!(good.len(), IdentityBinding::LEN);
        assert_eq!(IdentityBinding::from_bytes(&good), Ok(binding()));
        assert_eq!(IdentityBinding::from_bytes(&[]), Err(BindingError::Form(0)));
        assert_eq!(IdentityBinding::from_bytes(&good[..105]), Err(BindingError::Form(105)));
        let long = [good.as_slice(), &[0]].concat();
        assert_eq!(IdentityBinding::from_bytes(&long), Err(BindingError::Form(107)));
        let mut version = good.clone();
        version[0] = 2;
        assert_eq!(IdentityBinding::from_bytes(&version), Err(BindingError::Version(2)));
        let mut purpose = good;
        purpose[1] = 9;
        assert_eq!(IdentityBinding::from_bytes(&purpose), Err(BindingError::Purpose(9)));
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(binding) = IdentityBinding::from_bytes(&bytes) {
                prop_assert_eq!(binding.to_bytes(), bytes);
            }
        }

        #[test]
        fn any_106_bytes_of_version_1_round_trip(rest in prop::collection::vec(any::<u8>(), 104)) {
            let bytes = [&[1, 1], rest.as_slice()].concat();
            prop_assert_eq!(IdentityBinding::from_bytes(&bytes).unwrap().to_bytes(), bytes);
        }
    }
}
