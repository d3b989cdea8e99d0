//! What is remembered of validated credentials must never admit what the validator would refuse.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use conclave_authentication::CertificateAuthority;
use conclave_mls::{
    credential::{IdentityBinding, InvalidCredential, Issuers},
    identity::{Identities, IdentityError, signing_identity},
};
use conclave_names::{ClientUri, Timestamp};
use ed25519_dalek::SigningKey;
use mls_rs::{ExtensionList, IdentityProvider, identity::SigningIdentity};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DAY: u64 = 24 * 3600 * 1000;

fn authority(secret: u8) -> CertificateAuthority {
    CertificateAuthority::self_signed(&"example.com".parse().unwrap(), &[secret; 32], NOW).unwrap()
}

fn issuers(authority: &CertificateAuthority) -> Issuers {
    [authority.issuer().clone()].into_iter().collect()
}

/// A client's credential for 30 days from now, and its certificate.
fn member(authority: &CertificateAuthority, name: &str) -> (SigningIdentity, Vec<u8>) {
    let client: ClientUri = format!("mimi://example.com/d/{name}/laptop").parse().unwrap();
    let key = SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes();
    let end = NOW.plus_ms(30 * DAY);
    let binding = IdentityBinding::sign(&SigningKey::from_bytes(&[4; 32]), &client, &key, end);
    let certificate = authority.issue(&client, &key, &binding, NOW, end, [7; 16]).unwrap();
    (signing_identity(certificate.clone(), &key), certificate)
}

#[test]
fn lifetimes_are_judged_each_time() {
    let ca = authority(7);
    let identities = Identities::new(issuers(&ca));
    let (alice, _) = member(&ca, "alice");
    let known = identities.identify(&alice, Some(NOW)).unwrap();
    for _ in 0..2 {
        assert_eq!(identities.identify(&alice, Some(NOW.plus_ms(30 * DAY))).unwrap(), known);
        assert_eq!(identities.identify(&alice, None).unwrap(), known);
        assert!(matches!(
            identities.identify(&alice, Some(NOW.plus_ms(30 * DAY + 1000))),
            Err(IdentityError::Invalid(InvalidCredential::Expired { .. } | InvalidCredential::Binding(_)))
        ));
        assert!(matches!(
            identities.identify(&alice, Some(Timestamp(NOW.0 - 1000))),
            Err(IdentityError::Invalid(InvalidCredential::NotYetValid { .. }))
        ));
    }
}

#[test]
fn other_issuers_are_asked_anew() {
    let (ca, other) = (authority(7), authority(8));
    let identities = Identities::new(issuers(&ca));
    let (alice, _) = member(&ca, "alice");
    identities.identify(&alice, Some(NOW)).unwrap();
    identities.set_issuers(issuers(&other));
    assert!(matches!(
        identities.identify(&alice, Some(NOW)),
        Err(IdentityError::Invalid(InvalidCredential::UnknownIssuer(_)))
    ));
}

#[test]
fn a_known_certificate_admits_no_other_key_and_no_other_bytes() {
    let ca = authority(7);
    let identities = Identities::new(issuers(&ca));
    let (alice, certificate) = member(&ca, "alice");
    identities.identify(&alice, Some(NOW)).unwrap();
    let stolen = signing_identity(certificate.clone(), &[9; 32]);
    assert_eq!(identities.identify(&stolen, Some(NOW)), Err(IdentityError::Key));
    for place in 0..certificate.len() {
        let mut changed = certificate.clone();
        changed[place] ^= 1;
        let changed = signing_identity(changed, alice.signature_key.as_bytes().try_into().unwrap());
        assert!(identities.identify(&changed, Some(NOW)).is_err(), "byte {place}");
    }
}

#[test]
fn who_a_credential_is_of_is_the_same_remembered_or_not() {
    let ca = authority(7);
    let identities = Identities::new(issuers(&ca));
    let people: Vec<_> = ["alice", "bob", "carol"].map(|name| member(&ca, name).0).into();
    let ask = || people.iter().map(|of| identities.identity(of, &ExtensionList::new()).unwrap()).collect::<Vec<_>>();
    let before = ask();
    for of in &people {
        identities.identify(of, Some(NOW)).unwrap();
    }
    assert_eq!(ask(), before);
    assert_eq!(before[1], b"mimi://example.com/d/bob/laptop");
}
