//! What the server decodes before it knows who speaks: a signed request, and the messages in it.
#![no_main]

use conclave_names::Timestamp;
use conclave_protocol::{SigningKey, method, signed, v1};
use libfuzzer_sys::fuzz_target;
use prost::Message;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fuzz_target!(|data: &[u8]| {
    let Ok(domain) = "example.com".parse() else { return };
    // Whatever it is, without the signature it is not believed.
    if let Ok(request) = v1::SignedRequest::decode(data) {
        assert!(signed::verify(&request, method::CLAIM, &domain, NOW).is_err());
    }
    // With a good one around it, each call's message is decoded.
    let key = SigningKey::from_bytes(&[7; 32]);
    let request = signed::sign(&key, method::CLAIM, &domain, NOW, [1; 16], data.to_vec(), Vec::new());
    let Ok(verified) = signed::verify(&request, method::CLAIM, &domain, NOW) else {
        panic!("a genuine request was refused");
    };
    assert_eq!(verified.body, data);
    let _ = verified.decode::<v1::RegisterUserRequest>();
    let _ = verified.decode::<v1::IssueCredentialRequest>();
    let _ = verified.decode::<v1::PutLinkRequest>();
    let _ = verified.decode::<v1::ApproveLinkRequest>();
    let _ = verified.decode::<v1::UploadRequest>();
    let _ = verified.decode::<v1::ClaimRequest>();
    let _ = verified.decode::<v1::CreateChannelRequest>();
    let _ = verified.decode::<v1::CreateInboxRequest>();
    let _ = verified.decode::<v1::OpenSessionRequest>();
});
