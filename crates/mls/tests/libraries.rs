//! Both libraries of cryptography give the same results, and take what the other made.

#![allow(clippy::unwrap_used)]

use conclave_mls::crypto::{self, Library, SUITES, SuiteProvider, with_library};
use mls_rs_core::crypto::{
    CipherSuite, CipherSuiteProvider, HpkeContextR, HpkeContextS, HpkePsk, HpkePublicKey, HpkeSecretKey,
    SignatureSecretKey,
};
use proptest::{collection::vec, prelude::*};

fn both(suite: CipherSuite) -> [SuiteProvider; 2] {
    [Library::AwsLc, Library::RustCrypto].map(|library| {
        let provider = with_library(library, || crypto::suite(suite).unwrap());
        assert_eq!(provider.library(), library);
        provider
    })
}

/// MLS seals nothing that is empty, nor extracts from it; the libraries differ there (see below).
fn some() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..200)
}

fn suites() -> impl Strategy<Value = CipherSuite> {
    proptest::sample::select(SUITES.to_vec())
}

#[test]
fn a_thread_goes_back_to_its_library_also_after_a_panic() {
    let library = || crypto::suite(crypto::DEFAULT_SUITE).unwrap().library();
    assert_eq!(library(), Library::AwsLc);
    let panicked = std::panic::catch_unwind(|| {
        with_library(Library::RustCrypto, || {
            assert_eq!(library(), Library::RustCrypto);
            std::panic::resume_unwind(Box::new(()));
        })
    });
    assert!(panicked.is_err());
    assert_eq!(library(), Library::AwsLc);
}

/// RustCrypto's provider refuses what is empty, which AWS-LC takes. Nothing that Conclave encodes is: what a malicious
/// member makes so is refused by members of both, by one as a ciphertext and by the other as a plaintext.
#[test]
fn emptiness_is_where_they_differ() {
    for suite in SUITES {
        let [aws_lc, rustcrypto] = both(suite);
        let (key, nonce) = (vec![1; aws_lc.aead_key_size()], [2; 12]);
        let sealed = aws_lc.aead_seal(&key, &[], None, &nonce).unwrap();
        assert!(aws_lc.aead_open(&key, &sealed, None, &nonce).unwrap().is_empty());
        assert!(rustcrypto.aead_open(&key, &sealed, None, &nonce).is_err());
        assert!(rustcrypto.aead_seal(&key, &[], None, &nonce).is_err());
        assert!(rustcrypto.kdf_extract(&[3; 32], &[]).is_err());
    }
}

proptest! {
    #[test]
    fn what_has_one_result_has_the_same(suite in suites(), key: [u8; 32], salt: Vec<u8>, data in some(), length in 1_usize..200) {
        let [a, b] = both(suite);
        prop_assert_eq!(a.hash(&data).unwrap(), b.hash(&data).unwrap());
        prop_assert_eq!(a.mac(&key, &data).unwrap(), b.mac(&key, &data).unwrap());
        prop_assert_eq!(a.kdf_extract(&salt, &data).unwrap(), b.kdf_extract(&salt, &data).unwrap());
        prop_assert_eq!(a.kdf_expand(&key, &data, length).unwrap(), b.kdf_expand(&key, &data, length).unwrap());
        prop_assert_eq!(a.kdf_extract_size(), b.kdf_extract_size());
        let (secret, public) = a.kem_derive(&key).unwrap();
        prop_assert_eq!((secret, public), b.kem_derive(&key).unwrap());
    }

    #[test]
    fn what_one_seals_the_other_opens(suite in suites(), key: [u8; 32], nonce: [u8; 12], aad: Option<Vec<u8>>, data in some(), flip: usize) {
        let [a, b] = both(suite);
        prop_assert_eq!((a.aead_key_size(), a.aead_nonce_size()), (b.aead_key_size(), b.aead_nonce_size()));
        let (key, aad) = (&key[..a.aead_key_size()], aad.as_deref());
        let sealed = a.aead_seal(key, &data, aad, &nonce).unwrap();
        prop_assert_eq!(&sealed, &b.aead_seal(key, &data, aad, &nonce).unwrap());
        prop_assert_eq!(&b.aead_open(key, &sealed, aad, &nonce).unwrap()[..], &data[..]);
        let mut damaged = sealed;
        let place = flip % damaged.len();
        damaged[place] ^= 1;
        prop_assert!(a.aead_open(key, &damaged, aad, &nonce).is_err() && b.aead_open(key, &damaged, aad, &nonce).is_err());
    }

    #[test]
    fn signatures_are_the_same(suite in suites(), data: Vec<u8>, other: Vec<u8>) {
        let [a, b] = both(suite);
        for (one, another) in [(&a, &b), (&b, &a)] {
            let (secret, public) = one.signature_key_generate().unwrap();
            prop_assert_eq!(&another.signature_key_derive_public(&secret).unwrap(), &public);
            let signature = one.sign(&secret, &data).unwrap();
            prop_assert_eq!(&signature, &another.sign(&SignatureSecretKey::from(secret.to_vec()), &data).unwrap());
            prop_assert!(another.verify(&public, &signature, &data).is_ok());
            if other != data {
                prop_assert!(another.verify(&public, &signature, &other).is_err());
            }
        }
    }

    #[test]
    fn hpke_goes_from_one_to_the_other(suite in suites(), info: Vec<u8>, aad: Option<Vec<u8>>, data in some()) {
        let [a, b] = both(suite);
        let aad = aad.as_deref();
        for (one, another) in [(&a, &b), (&b, &a)] {
            let (secret, public): (HpkeSecretKey, HpkePublicKey) = one.kem_generate().unwrap();
            another.kem_public_key_validate(&public).unwrap();
            let sealed = another.hpke_seal(&public, &info, aad, &data).unwrap();
            prop_assert_eq!(&one.hpke_open(&sealed, &secret, &public, &info, aad).unwrap()[..], &data[..]);

            let psk = HpkePsk { id: b"id", value: &[7; 32] };
            let sealed = another.hpke_seal_psk(&public, &info, aad, &data, psk.clone()).unwrap();
            prop_assert_eq!(&one.hpke_open_psk(&sealed, &secret, &public, &info, aad, psk).unwrap()[..], &data[..]);
            prop_assert!(one.hpke_open(&sealed, &secret, &public, &info, aad).is_err());

            let (output, mut sender) = another.hpke_setup_s(&public, &info).unwrap();
            let mut receiver = one.hpke_setup_r(&output, &secret, &public, &info).unwrap();
            let sealed = sender.seal(aad, &data).unwrap();
            prop_assert_eq!(&receiver.open(aad, &sealed).unwrap()[..], &data[..]);
            prop_assert_eq!(sender.export(b"context", 40).unwrap(), receiver.export(b"context", 40).unwrap());
        }
    }
}
