//! How a new device and the device that approves it recognise each other through the AS, which neither believes.
//!
//! The new device shows a *link code*: a random link id and a random secret, which the AS never learns. Both leave
//! what they have to say at the AS under the link id, each with an HMAC under the secret.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The secret half of a link code.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LinkSecret([u8; 16]);

impl std::fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkSecret(..)")
    }
}

impl LinkSecret {
    /// From 16 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for the code that a person carries from one device to the other.
    #[must_use]
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        // HMAC takes keys of any length.
        let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0) else { return [0; 32] };
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// MAC of what the new device asks (`PutLinkRequest.mac`).
    #[must_use]
    pub fn request_mac(&self, client: &str, signature_key: &[u8]) -> [u8; 32] {
        self.mac(&[b"conclave/v1/link-request\0", client.as_bytes(), b"\0", signature_key])
    }

    /// MAC of the approval (`ApproveLinkRequest.mac`).
    #[must_use]
    pub fn approval_mac(&self, identity_key: &[u8], signature: &[u8]) -> [u8; 32] {
        self.mac(&[b"conclave/v1/link-approval\0", identity_key, signature])
    }
}

/// Compares a MAC that was received with the one expected, in constant time.
#[must_use]
pub fn mac_matches(expected: &[u8; 32], received: &[u8]) -> bool {
    expected.ct_eq(received).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_depend_on_everything_they_cover() {
        let secret = LinkSecret::new([1; 16]);
        let mac = secret.request_mac("mimi://a/d/b/c", &[2; 32]);
        assert!(mac_matches(&mac, &mac));
        assert!(!mac_matches(&mac, &mac[..31]));
        assert!(!mac_matches(&mac, &secret.request_mac("mimi://a/d/b/d", &[2; 32])));
        assert!(!mac_matches(&mac, &secret.request_mac("mimi://a/d/b/c", &[3; 32])));
        assert!(!mac_matches(&mac, &LinkSecret::new([2; 16]).request_mac("mimi://a/d/b/c", &[2; 32])));
        assert!(!mac_matches(&secret.approval_mac(&[1; 32], &[2; 64]), &mac));
    }
}
