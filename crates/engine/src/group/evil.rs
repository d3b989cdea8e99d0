//! Cryptography of a member that breaks the rules: everything is computed as it should be, but for one thing. And a member that takes
//! everybody's word for who they are.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use conclave_mls::{
    crypto::hostile::{Meddle, Meddled},
    identity::{Identities, IdentityError},
};
use mls_rs::{
    ExtensionList, IdentityProvider,
    identity::{CredentialType, SigningIdentity},
    time::MlsTime,
};
use mls_rs_core::{crypto::CipherSuite, identity::MemberValidationContext};

/// The one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The signature with this number, counted from zero.
    Signature(usize),
    /// The MAC with this number: the confirmation tag is the first, the membership tag of a handshake in the clear the second.
    Mac(usize),
    /// Path secrets.
    PathSecret,
    /// The generation that a message names.
    Generation(u32),
}

#[derive(Clone)]
pub(super) struct Evil {
    fault: Fault,
    signed: Arc<AtomicUsize>,
    tagged: Arc<AtomicUsize>,
    /// How many keys were derived.
    pub(super) derived: Arc<AtomicUsize>,
}

impl Evil {
    pub(super) fn new(fault: Fault) -> Self {
        Self { fault, signed: Arc::default(), tagged: Arc::default(), derived: Arc::default() }
    }

    pub(super) fn provider(self, suite: CipherSuite) -> Meddled<Self> {
        Meddled::new(suite, self).unwrap()
    }
}

/// Takes every credential for a valid one.
#[derive(Clone)]
pub(super) struct Gullible(pub(super) Identities);

impl IdentityProvider for Gullible {
    type Error = IdentityError;

    fn validate_member(
        &self,
        _: &SigningIdentity,
        _: Option<MlsTime>,
        _: MemberValidationContext<'_>,
    ) -> Result<(), IdentityError> {
        Ok(())
    }

    fn validate_external_sender(
        &self,
        _: &SigningIdentity,
        _: Option<MlsTime>,
        _: Option<&ExtensionList>,
    ) -> Result<(), IdentityError> {
        Ok(())
    }

    fn identity(
        &self,
        signing_identity: &SigningIdentity,
        extensions: &ExtensionList,
    ) -> Result<Vec<u8>, IdentityError> {
        self.0.identity(signing_identity, extensions)
    }

    fn valid_successor(
        &self,
        _: &SigningIdentity,
        _: &SigningIdentity,
        _: &ExtensionList,
    ) -> Result<bool, IdentityError> {
        Ok(true)
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        self.0.supported_types()
    }
}

fn flipped_if(is_it: bool, mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(last) = bytes.last_mut().filter(|_| is_it) {
        *last ^= 1;
    }
    bytes
}

impl Meddle for Evil {
    fn tag(&self, tag: Vec<u8>) -> Vec<u8> {
        let number = self.tagged.fetch_add(1, Ordering::Relaxed);
        flipped_if(self.fault == Fault::Mac(number), tag)
    }

    fn plaintext<'a>(&self, plaintext: &'a [u8]) -> Cow<'a, [u8]> {
        match (self.fault, plaintext.len()) {
            // struct { uint32 leaf_index; uint32 generation; opaque reuse_guard[4]; } (RFC 9420, section 6.3.2).
            (Fault::Generation(generation), 12) => {
                [&plaintext[..4], &generation.to_be_bytes(), &plaintext[8..]].concat().into()
            }
            _ => plaintext.into(),
        }
    }

    fn hpke_plaintext<'a>(&self, _: &[u8], plaintext: &'a [u8]) -> Cow<'a, [u8]> {
        flipped_if(self.fault == Fault::PathSecret, plaintext.to_vec()).into()
    }

    fn signature(&self, signature: Vec<u8>) -> Vec<u8> {
        let number = self.signed.fetch_add(1, Ordering::Relaxed);
        flipped_if(self.fault == Fault::Signature(number), signature)
    }

    fn derived(&self) {
        self.derived.fetch_add(1, Ordering::Relaxed);
    }
}
