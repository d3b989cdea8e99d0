//! Requests signed by a key (`conclave.v1.SignedRequest`).

use conclave_names::{Domain, Timestamp, limits::REQUEST_CLOCK_SKEW_MS};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;

use crate::{
    Code, Refusal,
    v1::{RequestContext, SignedRequest},
};

/// Version of the context that this code writes and reads.
const VERSION: u32 = 1;

/// Domain separation of the signature.
const LABEL: &[u8] = b"conclave/v1/signed-request\0";

/// Why a signed request is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedRequestError {
    /// A field is missing or has the wrong length.
    #[error("the signed request does not decode: {0}")]
    Malformed(&'static str),
    /// Its version is not ours.
    #[error("the signed request is of version {0}; this server speaks version 1")]
    Version(u32),
    /// The signature is not the key's over these bytes.
    #[error("the signature of the request does not verify under the key it names")]
    Signature,
    /// It was made for another server.
    #[error("the request is for the server `{0}`, not for this one")]
    Audience(String),
    /// It was made for another call.
    #[error("the request was signed for another call than the one it came in")]
    Method,
    /// The clocks are too far apart, or the request is old.
    #[error("the request is {0} s away from this server's clock; at most 300 s are accepted: correct the clock")]
    Expired(u64, Timestamp),
}

impl From<SignedRequestError> for Refusal {
    fn from(error: SignedRequestError) -> Self {
        let message = error.to_string();
        match error {
            SignedRequestError::Malformed(_) => Self::new(Code::Malformed, message),
            SignedRequestError::Version(_) => Self::new(Code::UnsupportedVersion, message),
            SignedRequestError::Signature => Self::new(Code::SignatureInvalid, message),
            SignedRequestError::Audience(_) | SignedRequestError::Method => Self::new(Code::WrongAudience, message),
            SignedRequestError::Expired(_, now) => Self::new(Code::RequestExpired, message).with("server_time_ms", now),
        }
    }
}

/// A request whose signature, audience, call and time were verified. The nonce is the caller's to remember.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Who signed.
    pub key: VerifyingKey,
    /// The encoded request, exactly as signed.
    pub body: Vec<u8>,
    /// The certificate sent along (not verified here), or nothing.
    pub certificate: Vec<u8>,
    /// Never seen before from this key, if the request is no replay.
    pub nonce: [u8; 16],
    /// When the signer made it.
    pub time: Timestamp,
}

impl Verified {
    /// Decodes the body as the message that the call takes.
    pub fn decode<M: Message + Default>(&self) -> Result<M, SignedRequestError> {
        M::decode(self.body.as_slice()).map_err(|_| SignedRequestError::Malformed("the body is not the call's message"))
    }
}

/// The exact bytes signed.
fn to_be_signed(context: &[u8], body: &[u8]) -> Vec<u8> {
    // A context beyond 4 GiB cannot exist: it was bounded when it was decoded, or made here.
    let len = u32::try_from(context.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(LABEL.len() + 4 + context.len() + body.len());
    bytes.extend_from_slice(LABEL);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(context);
    bytes.extend_from_slice(body);
    bytes
}

/// Signs an encoded request for one call of one server.
#[must_use]
pub fn sign(
    key: &SigningKey,
    method: &str,
    audience: &Domain,
    now: Timestamp,
    nonce: [u8; 16],
    body: Vec<u8>,
    certificate: Vec<u8>,
) -> SignedRequest {
    let context = RequestContext {
        version: VERSION,
        audience: audience.to_string(),
        method: method.to_owned(),
        time_ms: now.0,
        nonce: nonce.to_vec(),
    }
    .encode_to_vec();
    let signature = key.sign(&to_be_signed(&context, &body));
    SignedRequest {
        context,
        body,
        key: key.verifying_key().to_bytes().to_vec(),
        signature: signature.to_bytes().to_vec(),
        certificate,
    }
}

/// Verifies a request that came in the call `method` of the server `audience`.
pub fn verify(
    request: &SignedRequest,
    method: &str,
    audience: &Domain,
    now: Timestamp,
) -> Result<Verified, SignedRequestError> {
    use SignedRequestError as E;
    let key = <[u8; 32]>::try_from(request.key.as_slice())
        .ok()
        .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
        .ok_or(E::Malformed("`key` is not an Ed25519 public key"))?;
    let signature =
        Signature::from_slice(&request.signature).map_err(|_| E::Malformed("`signature` is not 64 bytes"))?;
    key.verify_strict(&to_be_signed(&request.context, &request.body), &signature).map_err(|_| E::Signature)?;
    let context = RequestContext::decode(request.context.as_slice())
        .map_err(|_| E::Malformed("`context` is not a RequestContext"))?;
    if context.version != VERSION {
        return Err(E::Version(context.version));
    }
    if context.audience != audience.as_str() {
        return Err(E::Audience(context.audience.chars().take(80).collect()));
    }
    if context.method != method {
        return Err(E::Method);
    }
    let away = context.time_ms.abs_diff(now.0);
    if away > REQUEST_CLOCK_SKEW_MS {
        return Err(E::Expired(away / 1000, now));
    }
    let nonce = context.nonce.as_slice().try_into().map_err(|_| E::Malformed("`nonce` is not 16 bytes"))?;
    Ok(Verified {
        key,
        body: request.body.clone(),
        certificate: request.certificate.clone(),
        nonce,
        time: Timestamp(context.time_ms),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::method;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn domain() -> Domain {
        "example.com".parse().unwrap()
    }

    fn request() -> SignedRequest {
        let key = SigningKey::from_bytes(&[3; 32]);
        sign(&key, method::CLAIM, &domain(), NOW, [9; 16], b"hello".to_vec(), Vec::new())
    }

    #[test]
    fn another_call_server_or_time_is_refused() {
        let request = request();
        let at = |method, domain: &str, now| verify(&request, method, &domain.parse().unwrap(), now);
        assert!(at(method::CLAIM, "example.com", NOW).is_ok());
        assert_eq!(at(method::COUNT, "example.com", NOW).unwrap_err(), SignedRequestError::Method);
        assert!(matches!(at(method::CLAIM, "example.org", NOW).unwrap_err(), SignedRequestError::Audience(_)));
        let edge = NOW.plus_ms(REQUEST_CLOCK_SKEW_MS);
        assert!(at(method::CLAIM, "example.com", edge).is_ok());
        let late = at(method::CLAIM, "example.com", edge.next()).unwrap_err();
        let refusal = Refusal::from(late);
        assert_eq!(refusal.code, Code::RequestExpired);
        assert_eq!(refusal.number("server_time_ms"), Some(edge.next().0));
    }

    #[test]
    fn the_border_between_context_and_body_is_signed() {
        let mut moved = request();
        let byte = moved.context.pop().unwrap();
        moved.body.insert(0, byte);
        assert_eq!(verify(&moved, method::CLAIM, &domain(), NOW).unwrap_err(), SignedRequestError::Signature);
    }

    #[test]
    fn a_missing_field_is_named() {
        let empty = SignedRequest::default();
        assert!(matches!(verify(&empty, method::CLAIM, &domain(), NOW), Err(SignedRequestError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(part in 0..4usize, byte in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut request = request();
            let field = match part {
                0 => &mut request.context,
                1 => &mut request.body,
                2 => &mut request.key,
                _ => &mut request.signature,
            };
            let index = byte.index(field.len());
            field[index] ^= 1 << bit;
            prop_assert!(verify(&request, method::CLAIM, &domain(), NOW).is_err());
        }
    }
}
