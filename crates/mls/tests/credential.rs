//! Conformance of the one validator (R36): one good credential, and one for every way of being invalid. The
//! certificates are written here byte by byte, so that nothing depends on what an encoder is willing to write.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use conclave_authentication::CertificateAuthority;
use conclave_mls::credential::{
    BindingError, CertificateError, IdentityBinding, InvalidCredential, Issuer, Issuers, KeyId, LeafCertificate,
    same_client, validate,
};
use conclave_names::{ClientUri, Hash, Timestamp, code_points::OID_IDENTITY_BINDING};
use der::{DateTime, Encode, asn1::ObjectIdentifier};
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use x509_cert::{name::Name, time::Time};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DAY: u64 = 24 * 3600 * 1000;

const AUTHORITY_KEY_ID: &str = "2.5.29.35";
const KEY_USAGE: &str = "2.5.29.15";
const NAMES: &str = "2.5.29.17";
const CONSTRAINTS: &str = "2.5.29.19";
const SUBJECT_KEY_ID: &str = "2.5.29.14";
const UNKNOWN: &str = "1.3.6.1.3.9750.999";
const RSA: &str = "1.2.840.113549.1.1.1";

const DIGITAL_SIGNATURE: [u8; 4] = [3, 2, 7, 0x80];
const KEY_CERT_SIGN: [u8; 4] = [3, 2, 2, 4];

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut out = vec![tag];
    match (content.len(), len) {
        (0..128, [_, low]) => out.push(low),
        (128..256, [_, low]) => out.extend([0x81, low]),
        (_, [high, low]) => out.extend([0x82, high, low]),
    }
    out.extend_from_slice(content);
    out
}

fn oid(text: &str) -> Vec<u8> {
    ObjectIdentifier::new(text).unwrap().to_der().unwrap()
}

fn algorithm(text: &str) -> Vec<u8> {
    tlv(0x30, &oid(text))
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], bytes].concat())
}

fn time(at: Timestamp) -> Vec<u8> {
    let time: Time = DateTime::from_unix_duration(std::time::Duration::from_secs(at.as_secs())).unwrap().into();
    time.to_der().unwrap()
}

fn name(text: &str) -> Vec<u8> {
    text.parse::<Name>().unwrap().to_der().unwrap()
}

fn uris(texts: &[&str]) -> Vec<u8> {
    tlv(0x30, &texts.iter().flat_map(|text| tlv(0x86, text.as_bytes())).collect::<Vec<_>>())
}

/// A certificate with every part open to change.
#[derive(Clone)]
struct Sheet {
    version: Vec<u8>,
    inner_algorithm: Vec<u8>,
    outer_algorithm: Vec<u8>,
    issuer: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
    subject: Vec<u8>,
    key_algorithm: Vec<u8>,
    key: Vec<u8>,
    unique_id: Vec<u8>,
    extensions: Vec<(&'static str, bool, Vec<u8>)>,
    signer: SigningKey,
    signature_len: usize,
}

impl Sheet {
    fn der(&self) -> Vec<u8> {
        let extensions = self.extensions.iter().flat_map(|(id, critical, value)| {
            let flag: &[u8] = if *critical { &[1, 1, 0xFF] } else { &[] };
            tlv(0x30, &[oid(id).as_slice(), flag, &tlv(4, value)].concat())
        });
        let extensions: Vec<u8> = extensions.collect();
        let tbs = tlv(
            0x30,
            &[
                self.version.clone(),
                tlv(2, &[0x45; 16]),
                self.inner_algorithm.clone(),
                self.issuer.clone(),
                tlv(0x30, &[time(self.not_before), time(self.not_after)].concat()),
                self.subject.clone(),
                tlv(0x30, &[self.key_algorithm.clone(), bits(&self.key)].concat()),
                self.unique_id.clone(),
                tlv(0xA3, &tlv(0x30, &extensions)),
            ]
            .concat(),
        );
        let signature = self.signer.sign(&tbs).to_bytes();
        tlv(0x30, &[tbs, self.outer_algorithm.clone(), bits(&signature[..self.signature_len])].concat())
    }

    fn set(&mut self, id: &'static str, value: Vec<u8>) {
        self.extensions.iter_mut().filter(|extension| extension.0 == id).for_each(|e| e.2.clone_from(&value));
    }

    fn drop(&mut self, id: &str) {
        self.extensions.retain(|extension| extension.0 != id);
    }

    fn bind(&mut self, binding: &IdentityBinding) {
        self.set(OID_IDENTITY_BINDING, tlv(4, &binding.to_bytes()));
    }
}

fn ca_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn identity() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn device() -> [u8; 32] {
    SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes()
}

fn client() -> ClientUri {
    "mimi://example.com/d/alice/laptop".parse().unwrap()
}

fn binding() -> IdentityBinding {
    IdentityBinding::sign(&identity(), &client(), &device(), NOW.plus_ms(60 * DAY))
}

fn ca_id() -> KeyId {
    KeyId::of(&ca_key().verifying_key().to_bytes())
}

fn leaf() -> Sheet {
    Sheet {
        version: tlv(0xA0, &[2, 1, 2]),
        inner_algorithm: algorithm("1.3.101.112"),
        outer_algorithm: algorithm("1.3.101.112"),
        issuer: name("CN=example.com"),
        not_before: NOW,
        not_after: NOW.plus_ms(30 * DAY),
        subject: tlv(0x30, &[]),
        key_algorithm: algorithm("1.3.101.112"),
        key: device().to_vec(),
        unique_id: Vec::new(),
        extensions: vec![
            (AUTHORITY_KEY_ID, false, tlv(0x30, &tlv(0x80, &ca_id().0))),
            (KEY_USAGE, true, DIGITAL_SIGNATURE.to_vec()),
            (NAMES, true, uris(&["mimi://example.com/u/alice", "mimi://example.com/d/alice/laptop"])),
            (OID_IDENTITY_BINDING, false, tlv(4, &binding().to_bytes())),
        ],
        signer: ca_key(),
        signature_len: 64,
    }
}

fn authority() -> Sheet {
    Sheet {
        subject: name("CN=example.com"),
        not_before: Timestamp(NOW.0 - DAY),
        not_after: NOW.plus_ms(3650 * DAY),
        key: ca_key().verifying_key().to_bytes().to_vec(),
        extensions: vec![
            (CONSTRAINTS, true, tlv(0x30, &[1, 1, 0xFF])),
            (KEY_USAGE, true, KEY_CERT_SIGN.to_vec()),
            (SUBJECT_KEY_ID, false, tlv(4, &ca_id().0)),
            (NAMES, false, tlv(0x30, &tlv(0x82, b"example.com"))),
        ],
        ..leaf()
    }
}

fn issuers() -> Issuers {
    [Issuer::parse(&authority().der()).unwrap()].into_iter().collect()
}

fn changed(change: impl FnOnce(&mut Sheet)) -> Sheet {
    let mut sheet = leaf();
    change(&mut sheet);
    sheet
}

fn judge(change: impl FnOnce(&mut Sheet)) -> InvalidCredential {
    validate(&changed(change).der(), &issuers(), Some(NOW)).unwrap_err()
}

fn bad(extension: &'static str) -> impl Fn(&InvalidCredential) -> bool {
    move |found| matches!(found, InvalidCredential::Certificate(CertificateError::BadExtension(name, _)) if *name == extension)
}

#[test]
fn a_good_credential_is_believed_and_read_completely() {
    let der = leaf().der();
    let who = validate(&der, &issuers(), Some(NOW)).unwrap();
    assert_eq!(who.user.to_string(), "mimi://example.com/u/alice");
    assert_eq!(who.client, client());
    assert_eq!(who.identity_key, identity().verifying_key().to_bytes());
    assert_eq!(who.signature_key, device());
    assert_eq!((who.not_before, who.not_after), (NOW, NOW.plus_ms(30 * DAY)));
    assert_eq!(who.issuer, ca_id());
    assert_eq!(LeafCertificate::parse(&der).unwrap().der(), der);
}

#[test]
fn what_the_profile_leaves_open_is_no_reason_to_refuse() {
    for sheet in [
        changed(|s| s.extensions.push((UNKNOWN, false, vec![1, 2, 3]))),
        changed(|s| s.extensions.push((CONSTRAINTS, true, tlv(0x30, &[])))),
        changed(|s| s.extensions.reverse()),
        changed(|s| s.subject = name("CN=alice")),
    ] {
        assert!(validate(&sheet.der(), &issuers(), Some(NOW)).is_ok());
    }
}

#[test]
fn every_way_of_being_invalid_in_form_is_named() {
    use CertificateError as C;
    let named = |what: &str, change: &dyn Fn(&mut Sheet), expected: C| {
        assert_eq!(judge(change), InvalidCredential::Certificate(expected), "{what}");
    };
    named("version 1", &|s| s.version.clear(), C::Version);
    named("version 2", &|s| s.version = tlv(0xA0, &[2, 1, 1]), C::Version);
    named("unique id", &|s| s.unique_id = tlv(0x81, &[0, 1]), C::UniqueId);
    named("inner algorithm", &|s| s.inner_algorithm = algorithm(RSA), C::SignatureAlgorithm(RSA.into()));
    named("outer algorithm", &|s| s.outer_algorithm = algorithm(RSA), C::SignatureAlgorithm(RSA.into()));
    named("key algorithm", &|s| s.key_algorithm = algorithm(RSA), C::KeyAlgorithm(RSA.into()));
    let with_null = tlv(0x30, &[oid("1.3.101.112"), vec![5, 0]].concat());
    named("parameters", &|s| s.key_algorithm = with_null.clone(), C::KeyAlgorithm("1.3.101.112".into()));
    named("short key", &|s| s.key.truncate(31), C::Key);
    named("key that is no point", &|s| s.key = [&[2], [0; 31].as_slice()].concat(), C::Key);
    named("key of small order", &|s| s.key = [&[1], [0; 31].as_slice()].concat(), C::Key);
    named("short signature", &|s| s.signature_len = 63, C::SignatureLength);
    named("ends before it begins", &|s| s.not_after = Timestamp(NOW.0 - DAY), C::Validity);
    named(
        "repeated",
        &|s| s.extensions.push((KEY_USAGE, true, DIGITAL_SIGNATURE.to_vec())),
        C::RepeatedExtension(KEY_USAGE.into()),
    );
    named(
        "unknown and critical",
        &|s| s.extensions.push((UNKNOWN, true, vec![5, 0])),
        C::CriticalExtension(UNKNOWN.into()),
    );
    named("no names", &|s| s.drop(NAMES), C::MissingExtension("subjectAltName"));
    named("no authority", &|s| s.drop(AUTHORITY_KEY_ID), C::MissingExtension("authorityKeyIdentifier"));
    named("no key usage", &|s| s.drop(KEY_USAGE), C::MissingExtension("keyUsage"));
    named("no binding", &|s| s.drop(OID_IDENTITY_BINDING), C::MissingExtension("identity binding"));
    named(
        "client of another user",
        &|s| s.set(NAMES, uris(&["mimi://example.com/u/bob", "mimi://example.com/d/alice/laptop"])),
        C::ClientOfAnotherUser,
    );
    let short = C::Binding(BindingError::Form(5));
    named("short binding", &|s| s.set(OID_IDENTITY_BINDING, tlv(4, &[1; 5])), short);
    let version = C::Binding(BindingError::Version(9));
    named("binding of version 9", &|s| s.set(OID_IDENTITY_BINDING, tlv(4, &[9; 106])), version);
    let purpose = C::Binding(BindingError::Purpose(9));
    let bytes = [&[1, 9], [0; 104].as_slice()].concat();
    named("binding for something else", &|s| s.set(OID_IDENTITY_BINDING, tlv(4, &bytes)), purpose);
    let long = judge(|s| s.extensions.push((UNKNOWN, false, vec![0; 4096])));
    assert!(matches!(long, InvalidCredential::Certificate(C::TooLong(len)) if len > 4096));
}

#[test]
fn every_extension_that_is_not_as_it_should_be_is_named() {
    const USER: &str = "mimi://example.com/u/alice";
    const CLIENT: &str = "mimi://example.com/d/alice/laptop";
    let mut with_name = uris(&[USER, CLIENT]);
    with_name[0] = 0x31;
    for names in [uris(&[]), uris(&[USER]), uris(&[USER, CLIENT, CLIENT]), with_name, vec![5, 0]] {
        assert!(bad("subjectAltName")(&judge(|s| s.set(NAMES, names))));
    }
    let dns = tlv(0x30, &[tlv(0x86, USER.as_bytes()), tlv(0x82, b"example.com")].concat());
    assert!(bad("subjectAltName")(&judge(|s| s.set(NAMES, dns))));
    for names in [uris(&[CLIENT, USER]), uris(&[USER, "mimi://Example.com/d/alice/laptop"])] {
        let found = judge(|s| s.set(NAMES, names));
        assert!(matches!(found, InvalidCredential::Certificate(CertificateError::Name(_))), "{found}");
    }
    for id in [vec![], tlv(0x80, &[1; 19]), tlv(0x80, &[1; 21]), [tlv(0x80, &ca_id().0), tlv(0x82, &[1])].concat()] {
        assert!(bad("authorityKeyIdentifier")(&judge(|s| s.set(AUTHORITY_KEY_ID, tlv(0x30, &id)))));
    }
    for usage in [vec![3, 2, 6, 0xC0], KEY_CERT_SIGN.to_vec(), vec![3, 1, 0], vec![1]] {
        assert!(bad("keyUsage")(&judge(|s| s.set(KEY_USAGE, usage))));
    }
    let authority = tlv(0x30, &[1, 1, 0xFF]);
    assert!(bad("basicConstraints")(&judge(|s| s.extensions.push((CONSTRAINTS, true, authority)))));
    assert!(bad("identity binding")(&judge(|s| s.set(OID_IDENTITY_BINDING, binding().to_bytes()))));
    assert!(bad("identity binding")(&judge(|s| s.extensions[3].1 = true)));
}

#[test]
fn what_is_no_certificate_is_refused() {
    let der = leaf().der();
    let form = |bytes: &[u8]| match validate(bytes, &issuers(), Some(NOW)) {
        Err(InvalidCredential::Certificate(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(form(&[der.as_slice(), &[0]].concat()), CertificateError::TrailingBytes);
    assert_eq!(form(&[der.as_slice(), &der].concat()), CertificateError::TrailingBytes);
    assert!(matches!(form(&[]), CertificateError::Der(_)));
    assert!(matches!(form(b"-----BEGIN CERTIFICATE-----"), CertificateError::Der(_)));
    for len in 0..der.len() {
        assert!(matches!(form(&der[..len]), CertificateError::Der(_)), "{len}");
    }
}

#[test]
fn every_way_of_being_unfounded_is_named() {
    use InvalidCredential as E;
    let stranger = SigningKey::from_bytes(&[9; 32]);

    let id = KeyId([5; 20]);
    let unknown = judge(|s| s.set(AUTHORITY_KEY_ID, tlv(0x30, &tlv(0x80, &id.0))));
    assert_eq!(unknown, E::UnknownIssuer(id));

    let foreign = judge(|s| {
        s.set(NAMES, uris(&["mimi://example.org/u/alice", "mimi://example.org/d/alice/laptop"]));
    });
    let (issuer, client_domain) = ("example.com".parse().unwrap(), "example.org".parse().unwrap());
    assert_eq!(foreign, E::ForeignDomain { issuer, client: client_domain });

    assert_eq!(judge(|s| s.issuer = name("CN=example.org")), E::IssuerName);
    assert_eq!(judge(|s| s.signer = stranger.clone()), E::Signature);
    assert_eq!(judge(|s| s.signer = identity()), E::Signature);

    // The Authentication Service alone: it certifies, but no identity key vouches.
    let ghost = stranger.verifying_key().to_bytes();
    assert_eq!(judge(|s| s.key = ghost.to_vec()), E::Binding(BindingError::Signature));
    let other_client = IdentityBinding::sign(
        &identity(),
        &"mimi://example.com/d/alice/phone".parse().unwrap(),
        &device(),
        NOW.plus_ms(60 * DAY),
    );
    assert_eq!(judge(|s| s.bind(&other_client)), E::Binding(BindingError::Signature));
    let relabelled = IdentityBinding { identity_key: stranger.verifying_key().to_bytes(), ..binding() };
    assert_eq!(judge(|s| s.bind(&relabelled)), E::Binding(BindingError::Signature));
    let mut no_point = [0; 32];
    no_point[0] = 2;
    let no_key = IdentityBinding { identity_key: no_point, ..binding() };
    assert_eq!(judge(|s| s.bind(&no_key)), E::Binding(BindingError::Key));

    let ended = IdentityBinding::sign(&identity(), &client(), &device(), Timestamp(NOW.0 - DAY));
    let not_after_secs = NOW.as_secs() - DAY / 1000;
    assert_eq!(judge(|s| s.bind(&ended)), E::Binding(BindingError::Expired { not_after_secs }));
    let short = IdentityBinding::sign(&identity(), &client(), &device(), NOW.plus_ms(DAY));
    assert_eq!(judge(|s| s.bind(&short)), E::OutlivesBinding);
}

#[test]
fn lifetimes_are_judged_at_the_given_time_or_not_at_all() {
    use InvalidCredential as E;
    let der = leaf().der();
    let end = NOW.plus_ms(30 * DAY);
    let at = |now| validate(&der, &issuers(), now).err();
    assert_eq!(at(Some(Timestamp(NOW.0 - 1))), Some(E::NotYetValid { not_before: NOW }));
    assert_eq!(at(Some(NOW)), None);
    assert_eq!(at(Some(end.plus_ms(999))), None);
    assert_eq!(at(Some(end.plus_ms(1000))), Some(E::Expired { not_after: end }));
    assert_eq!(at(None), None);

    let mut over = authority();
    over.not_after = Timestamp(NOW.0 - 1000);
    let over: Issuers = [Issuer::parse(&over.der()).unwrap()].into_iter().collect();
    assert_eq!(validate(&der, &over, Some(NOW)).unwrap_err(), E::IssuerNotValid);
    assert!(validate(&der, &over, None).is_ok());

    // A joiner judges everything else.
    let unsigned = changed(|s| s.signer = identity()).der();
    assert_eq!(validate(&unsigned, &issuers(), None).unwrap_err(), E::Signature);
    let long_ago = IdentityBinding::sign(&identity(), &client(), &device(), Timestamp(NOW.0 - DAY));
    let unbound = changed(|s| s.bind(&long_ago)).der();
    assert_eq!(validate(&unbound, &issuers(), None).unwrap_err(), E::OutlivesBinding);
}

#[test]
fn dates_beyond_2049_are_read() {
    let late = Timestamp::from_secs(2_600_000_000);
    let binding = IdentityBinding::sign(&identity(), &client(), &device(), late.plus_ms(DAY));
    let sheet = changed(|s| {
        s.not_after = late;
        s.bind(&binding);
    });
    assert_eq!(validate(&sheet.der(), &issuers(), Some(NOW)).unwrap().not_after, late);
}

#[test]
fn the_same_client_is_the_same_name_and_identity_key() {
    let who = |sheet: Sheet| validate(&sheet.der(), &issuers(), Some(NOW)).unwrap();
    let base = who(leaf());
    let new_key = SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes();
    let rotated = who(changed(|s| {
        s.key = new_key.to_vec();
        s.bind(&IdentityBinding::sign(&identity(), &client(), &new_key, NOW.plus_ms(60 * DAY)));
    }));
    assert!(same_client(&base, &rotated));
    let reset = SigningKey::from_bytes(&[8; 32]);
    let reset = who(changed(|s| {
        s.bind(&IdentityBinding::sign(&reset, &client(), &device(), NOW.plus_ms(60 * DAY)));
    }));
    assert!(!same_client(&base, &reset));
    let phone: ClientUri = "mimi://example.com/d/alice/phone".parse().unwrap();
    let phone = who(changed(|s| {
        s.set(NAMES, uris(&["mimi://example.com/u/alice", "mimi://example.com/d/alice/phone"]));
        s.bind(&IdentityBinding::sign(&identity(), &phone, &device(), NOW.plus_ms(60 * DAY)));
    }));
    assert!(!same_client(&base, &phone));
}

#[test]
fn an_issuer_is_read_by_its_profile() {
    use CertificateError as C;
    let read = |change: &dyn Fn(&mut Sheet)| {
        let mut sheet = authority();
        change(&mut sheet);
        Issuer::parse(&sheet.der())
    };
    let good = read(&|_| {}).unwrap();
    assert_eq!((good.domain().as_str(), good.key_id()), ("example.com", ca_id()));
    assert_eq!(read(&|s| s.drop(NAMES)).unwrap().domain().as_str(), "example.com");
    let cross = |s: &mut Sheet| {
        s.signer = SigningKey::from_bytes(&[9; 32]);
        s.issuer = name("CN=another");
    };
    assert!(read(&cross).is_ok());

    let no_domain = read(&|s| {
        s.drop(NAMES);
        s.subject = tlv(0x30, &[]);
    });
    assert_eq!(no_domain.unwrap_err(), C::MissingExtension("domain"));
    let not_a_domain = read(&|s| {
        s.drop(NAMES);
        s.subject = name("CN=Some Body");
    });
    assert!(matches!(not_a_domain, Err(C::Name(_))));
    assert_eq!(read(&|s| s.drop(CONSTRAINTS)).unwrap_err(), C::MissingExtension("basicConstraints"));
    assert_eq!(read(&|s| s.drop(KEY_USAGE)).unwrap_err(), C::MissingExtension("keyUsage"));
    assert_eq!(read(&|s| s.signer = identity()).unwrap_err(), C::SelfSignature);
    let is_bad = |change: &dyn Fn(&mut Sheet), extension: &str| matches!(read(change), Err(C::BadExtension(name, _)) if name == extension);
    assert!(is_bad(&|s| s.set(CONSTRAINTS, tlv(0x30, &[])), "basicConstraints"));
    assert!(is_bad(&|s| s.set(KEY_USAGE, DIGITAL_SIGNATURE.to_vec()), "keyUsage"));
    assert!(is_bad(&|s| s.set(SUBJECT_KEY_ID, tlv(4, &[0; 20])), "subjectKeyIdentifier"));
    assert!(is_bad(&|s| s.set(NAMES, uris(&["mimi://example.com/u/alice"])), "subjectAltName"));
    let critical = read(&|s| s.extensions.push((UNKNOWN, true, vec![5, 0])));
    assert_eq!(critical.unwrap_err(), C::CriticalExtension(UNKNOWN.into()));
    assert!(Issuer::parse(&leaf().der()).is_err());
    assert!(LeafCertificate::parse(&authority().der()).is_err());
}

#[test]
fn issuers_keep_the_longer_lived_of_two_with_one_key_and_domain() {
    let mut renewed = authority();
    renewed.not_after = NOW.plus_ms(5000 * DAY);
    let mut other = authority();
    other.set(NAMES, tlv(0x30, &tlv(0x82, b"example.org")));
    let [old, new, other] = [authority(), renewed, other].map(|s| Issuer::parse(&s.der()).unwrap());
    for order in [[&old, &new, &other], [&other, &new, &old]] {
        let issuers: Issuers = order.into_iter().cloned().collect();
        assert_eq!(issuers.for_key_id(ca_id()).len(), 2);
        assert_eq!(issuers.domains().len(), 2);
        assert!(issuers.iter().any(|issuer| issuer.der() == new.der()));
        assert!(validate(&leaf().der(), &issuers, Some(NOW)).is_ok());
    }
    assert!(Issuers::new().for_key_id(ca_id()).is_empty());
}

/// The Authentication Service's certificates, fixed for ever: the hashes change only if the profile does.
#[test]
fn known_answer() {
    let ca = CertificateAuthority::self_signed(&"example.com".parse().unwrap(), &[7; 32], NOW).unwrap();
    let leaf = ca.issue(&client(), &device(), &binding(), NOW, NOW.plus_ms(30 * DAY), [0x45; 16]).unwrap();
    let hash = |der: &[u8]| Hash::new(Sha256::digest(der).into()).to_string();
    assert_eq!(leaf, self::leaf().der(), "both encoders agree on every byte");
    assert_eq!(hash(ca.certificate()), "fbe7e305f290508dc9dd502af8c6f8ba982ae42bf12561248ff5af78b821f52c");
    assert_eq!(hash(&leaf), "c3eaea31fd43021613afa40a87f7d4e16fd0c537e24b4f98cf01f2a5a018355e");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(validate(&bytes, &issuers(), Some(NOW)).is_err());
        prop_assert!(Issuer::parse(&bytes).is_err());
    }

    #[test]
    fn a_credential_with_one_byte_changed_is_refused(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut der = leaf().der();
        let place = place.index(der.len());
        prop_assume!(der[place] != byte);
        der[place] = byte;
        prop_assert!(validate(&der, &issuers(), None).is_err());
    }

    #[test]
    fn a_certificate_with_any_extension_value_never_panics(
        which in 0..4usize,
        value in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let sheet = changed(|s| s.extensions[which].2 = value);
        let _ = validate(&sheet.der(), &issuers(), None);
        let mut sheet = authority();
        sheet.extensions[which].2 = sheet.extensions[which].2.iter().rev().copied().collect();
        let _ = Issuer::parse(&sheet.der());
    }
}
