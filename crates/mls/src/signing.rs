//! SignWithLabel and VerifyWithLabel (RFC 9420, section 5.1.2), where mls-rs keeps its own to itself.

use mls_rs_codec::{MlsEncode, MlsSize};
use mls_rs_core::crypto::{CipherSuiteProvider, SignaturePublicKey, SignatureSecretKey};

#[derive(MlsSize, MlsEncode)]
struct SignContent {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    label: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    content: Vec<u8>,
}

fn to_be_signed(label: &str, content: &[u8]) -> Result<Vec<u8>, mls_rs_codec::Error> {
    SignContent { label: format!("MLS 1.0 {label}").into_bytes(), content: content.to_vec() }.mls_encode_to_vec()
}

/// Signs `content` under a label (without the prefix `MLS 1.0 `); none if the key is not one of the suite's.
pub fn sign<P: CipherSuiteProvider>(
    provider: &P,
    key: &SignatureSecretKey,
    label: &str,
    content: &[u8],
) -> Option<Vec<u8>> {
    provider.sign(key, &to_be_signed(label, content).ok()?).ok()
}

/// Whether the key signed `content` under a label (without the prefix `MLS 1.0 `).
pub fn is_signed<P: CipherSuiteProvider>(
    provider: &P,
    key: &SignaturePublicKey,
    label: &str,
    content: &[u8],
    signature: &[u8],
) -> bool {
    to_be_signed(label, content).is_ok_and(|bytes| provider.verify(key, signature, &bytes).is_ok())
}
