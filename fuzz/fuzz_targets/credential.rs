//! Certificates, bindings, KeyPackages and delivery addresses, as strangers may make them.
#![no_main]

use conclave_mls::{
    address::SealedAddress,
    credential::{IdentityBinding, Issuer, Issuers, LeafCertificate, validate},
    crypto,
};
use conclave_names::Timestamp;
use libfuzzer_sys::fuzz_target;
use mls_rs::MlsMessage;

fuzz_target!(|data: &[u8]| {
    if let Ok(leaf) = LeafCertificate::parse(data) {
        assert_eq!(leaf.der(), data, "what was received is kept as it was");
    }
    let _ = Issuer::parse(data);
    assert!(validate(data, &Issuers::new(), Some(Timestamp(0))).is_err(), "nobody vouches for it");
    if let Ok(binding) = IdentityBinding::from_bytes(data) {
        assert_eq!(binding.to_bytes(), data);
    }
    if let Ok(address) = SealedAddress::parse(data) {
        assert_eq!(address.to_bytes().ok().as_deref(), Some(data));
    }
    if let Ok(message) = MlsMessage::from_bytes(data) {
        if let (Some(package), Ok(suite)) = (message.as_key_package(), crypto::suite(crypto::DEFAULT_SUITE)) {
            let _ = package.to_reference(&suite);
            let _ = conclave_mls::address::DeliveryAddress::of(&package.extensions);
        }
    }
});
