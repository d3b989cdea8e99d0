//! KeyPackages as clients make them.

use conclave_channel::access::ChannelKey;
use conclave_mls::{
    address::{DeliveryAddress, DropToken, SealedAddress},
    components::ChannelKeyExtension,
    crypto,
    identity::{Identities, signing_identity},
};
use conclave_names::{ChannelId, Timestamp, code_points};
use mls_rs::{
    CipherSuite, Client, Extension, ExtensionList, client_builder::MlsConfig, extension::ExtensionType, time::MlsTime,
};
use mls_rs_core::crypto::CipherSuiteProvider;
use std::time::Duration;

use super::world::{Certified, DAY_MS, NOW, domain};

/// What may be wrong with one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    LastResort,
    NoChannelKey,
    NoAddress,
    LongLife,
    OtherSigner,
}

pub(crate) struct Maker<'a> {
    pub(crate) who: &'a Certified,
    pub(crate) identities: &'a Identities,
    pub(crate) suite: CipherSuite,
    pub(crate) made: Timestamp,
    pub(crate) days: u64,
    /// Extension types that the leaf lists beside the channel key.
    pub(crate) extensions: Vec<u16>,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(who: &'a Certified, identities: &'a Identities) -> Self {
        Self { who, identities, suite: crypto::DEFAULT_SUITE, made: NOW, days: 30, extensions: Vec::new() }
    }

    fn client(&self, fault: Fault) -> Client<impl MlsConfig> {
        let public = self.who.key.verifying_key().to_bytes();
        let identity = signing_identity(self.who.certificate.clone(), &public);
        let secret = if fault == Fault::OtherSigner { [9; 32] } else { self.who.key.to_bytes() };
        let days = if fault == Fault::LongLife { 91 } else { self.days };
        let public = conclave_protocol::SigningKey::from_bytes(&secret).verifying_key().to_bytes();
        Client::builder()
            .crypto_provider(crypto::provider())
            .identity_provider(self.identities.clone())
            .extension_type(ExtensionType::new(code_points::EXTENSION_CHANNEL_KEY))
            .extension_types(self.extensions.iter().copied().map(ExtensionType::new))
            .key_package_lifetime(Duration::from_millis(days * DAY_MS))
            .signing_identity(identity, [secret, public].concat().into(), self.suite)
            .build()
    }

    pub(crate) fn make(&self, fault: Fault) -> Vec<u8> {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let mut leaf = ExtensionList::new();
        if fault != Fault::NoChannelKey {
            let key = suite.random_bytes_vec(32).unwrap().try_into().unwrap();
            leaf.set_from(ChannelKeyExtension(ChannelKey(key))).unwrap();
        }
        let mut extensions = ExtensionList::new();
        if fault != Fault::NoAddress {
            let (_, public) = suite.kem_generate().unwrap();
            let token = DropToken::mint(&[1; 32], ChannelId::new([7; 16]), [1; 16], 1, NOW.plus_ms(DAY_MS));
            let address = SealedAddress::seal(&suite, &public, [1; 8], &token).unwrap();
            extensions.set_from(DeliveryAddress::new(&domain(), &address).unwrap()).unwrap();
        }
        if fault == Fault::LastResort {
            extensions.set(Extension::new(ExtensionType::new(code_points::EXTENSION_LAST_RESORT), vec![]));
        }
        let time = MlsTime::from(self.made.as_secs());
        let message = self.client(fault).generate_key_package_message(extensions, leaf, Some(time)).unwrap();
        message.to_bytes().unwrap()
    }

    pub(crate) fn some(&self, count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.make(Fault::None)).collect()
    }
}
