use std::cell::Cell;

use conclave_mls::credential::IdentityBinding;
use conclave_names::limits::CLIENTS_PER_USER;
use conclave_protocol::{SigningKey, link::LinkSecret, method, v1};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{binding_to_proto, memory::MemoryStore};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DAY: u64 = 24 * 3600 * 1000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(key: &SigningKey) -> Vec<u8> {
    key.verifying_key().to_bytes().to_vec()
}

/// A request, ready to be sent.
#[derive(Clone)]
struct Sent {
    method: &'static str,
    request: SignedRequest,
}

/// Answers reduced to what every call has in common: their encoding.
type Answer = Result<Vec<u8>, Refusal>;

struct World {
    service: AuthenticationService,
    store: MemoryStore,
    nonce: Cell<u128>,
}

impl World {
    fn new(registration: Registration) -> Self {
        let domain = "example.com".parse().unwrap();
        let authority = CertificateAuthority::self_signed(&domain, &[7; 32], NOW).unwrap();
        let service = AuthenticationService::new(authority, registration);
        Self { service, store: MemoryStore::default(), nonce: Cell::new(0) }
    }

    /// With Alice (identity key 1), and her laptop (signature key 2) certified.
    fn with_alice() -> (Self, Vec<u8>) {
        let world = Self::new(Registration::Open);
        world.send(&world.register("alice", &key(1), ""), NOW).unwrap();
        let certificate = world.certify("alice/laptop", &key(1), &key(2), NOW);
        (world, certificate)
    }

    fn sign(&self, key: &SigningKey, method: &'static str, body: &impl Message, certificate: &[u8]) -> Sent {
        self.sign_at(key, method, body, certificate, NOW)
    }

    fn sign_at(
        &self,
        key: &SigningKey,
        method: &'static str,
        body: &impl Message,
        certificate: &[u8],
        at: Timestamp,
    ) -> Sent {
        self.nonce.set(self.nonce.get() + 1);
        let (nonce, body) = (self.nonce.get().to_be_bytes(), body.encode_to_vec());
        let domain = self.service.domain();
        Sent { method, request: signed::sign(key, method, domain, at, nonce, body, certificate.to_vec()) }
    }

    fn send(&self, sent: &Sent, now: Timestamp) -> Answer {
        let (service, request) = (&self.service, &sent.request);
        self.store.transaction(|tx| {
            Ok(match sent.method {
                method::REGISTER_USER => service.register_user(tx, request, now)?.encode_to_vec(),
                method::ISSUE_CREDENTIAL => service.issue_credential(tx, request, now)?.encode_to_vec(),
                method::GET_USER => service.get_user(tx, request, now)?.encode_to_vec(),
                method::PUT_LINK => service.put_link(tx, request, now)?.encode_to_vec(),
                method::GET_LINK => service.get_link(tx, request, now)?.encode_to_vec(),
                method::APPROVE_LINK => service.approve_link(tx, request, now)?.encode_to_vec(),
                _ => service.poll_link(tx, request, now)?.encode_to_vec(),
            })
        })
    }

    /// Sends what must be refused, and checks that nothing was changed.
    fn refused(&self, sent: &Sent, code: Code) -> Refusal {
        self.refused_at(sent, code, NOW)
    }

    fn refused_at(&self, sent: &Sent, code: Code, now: Timestamp) -> Refusal {
        let before = self.store.contents();
        let refusal = self.send(sent, now).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(self.store.contents() == before, "{code} changed the store");
        refusal
    }

    fn register(&self, name: &str, identity: &SigningKey, invite: &str) -> Sent {
        let body = v1::RegisterUserRequest {
            user: format!("mimi://example.com/u/{name}"),
            identity_key: public(identity),
            invite: invite.to_owned(),
        };
        self.sign(identity, method::REGISTER_USER, &body, &[])
    }

    fn issue(&self, name: &str, identity: &SigningKey, device: &SigningKey, until: Timestamp) -> Sent {
        self.sign(device, method::ISSUE_CREDENTIAL, &issue_body(name, identity, device, until), &[])
    }

    fn certify(&self, name: &str, identity: &SigningKey, device: &SigningKey, now: Timestamp) -> Vec<u8> {
        let body = issue_body(name, identity, device, now.plus_ms(400 * DAY));
        let sent = self.sign_at(device, method::ISSUE_CREDENTIAL, &body, &[], now);
        let answer = self.send(&sent, now).unwrap();
        v1::IssueCredentialResponse::decode(answer.as_slice()).unwrap().certificate
    }

    fn get_user(&self, name: &str, certificate: &[u8]) -> Sent {
        let body = v1::GetUserRequest { user: format!("mimi://example.com/u/{name}") };
        self.sign(&key(2), method::GET_USER, &body, certificate)
    }

    fn put_link(&self, id: u8, device: &SigningKey) -> Sent {
        self.sign(device, method::PUT_LINK, &link_body(id, device), &[])
    }

    fn get_link(&self, id: u8, device: &SigningKey, certificate: &[u8]) -> Sent {
        self.sign(device, method::GET_LINK, &v1::GetLinkRequest { link_id: vec![id; 16] }, certificate)
    }

    fn approve(&self, id: u8, identity: &SigningKey, binding: &IdentityBinding) -> Sent {
        let body = v1::ApproveLinkRequest {
            link_id: vec![id; 16],
            binding: Some(binding_to_proto(binding)),
            mac: vec![8; 32],
        };
        self.sign(identity, method::APPROVE_LINK, &body, &[])
    }

    fn poll(&self, id: u8, device: &SigningKey) -> Sent {
        self.sign(device, method::POLL_LINK, &v1::PollLinkRequest { link_id: vec![id; 16] }, &[])
    }
}

fn bind(name: &str, identity: &SigningKey, device: &SigningKey, until: Timestamp) -> IdentityBinding {
    let client = format!("mimi://example.com/d/{name}").parse().unwrap();
    IdentityBinding::sign(identity, &client, &device.verifying_key().to_bytes(), until)
}

fn issue_body(name: &str, identity: &SigningKey, device: &SigningKey, until: Timestamp) -> v1::IssueCredentialRequest {
    v1::IssueCredentialRequest {
        client: format!("mimi://example.com/d/{name}"),
        signature_key: public(device),
        binding: Some(binding_to_proto(&bind(name, identity, device, until))),
    }
}

fn link_body(id: u8, device: &SigningKey) -> v1::PutLinkRequest {
    v1::PutLinkRequest {
        link_id: vec![id; 16],
        client: "mimi://example.com/d/alice/phone".to_owned(),
        signature_key: public(device),
        mac: vec![9; 32],
    }
}

#[test]
fn a_request_that_is_not_to_be_believed_is_refused_by_every_call() {
    let (world, certificate) = World::with_alice();
    let binding = bind("alice/phone", &key(1), &key(3), NOW.plus_ms(DAY));
    world.send(&world.put_link(1, &key(3)), NOW).unwrap();
    for sent in [
        world.register("bob", &key(4), ""),
        world.issue("alice/tablet", &key(1), &key(5), NOW.plus_ms(DAY)),
        world.get_user("alice", &certificate),
        world.put_link(2, &key(3)),
        world.get_link(1, &key(2), &certificate),
        world.approve(1, &key(1), &binding),
        world.poll(1, &key(3)),
    ] {
        let with = |change: &dyn Fn(&mut SignedRequest)| {
            let mut sent = sent.clone();
            change(&mut sent.request);
            sent
        };
        world.refused(&with(&|r| r.signature[5] ^= 1), Code::SignatureInvalid);
        world.refused(&with(&|r| r.body.push(0)), Code::SignatureInvalid);
        world.refused(&with(&|r| r.key.truncate(31)), Code::Malformed);
        world.refused(&with(&|r| r.body = vec![0; REQUEST_MAX + 1]), Code::TooLarge);
        world.refused(&with(&|r| r.context = vec![0; REQUEST_MAX + 1]), Code::TooLarge);
        world.refused(&with(&|r| r.certificate = vec![0; CERTIFICATE_MAX + 1]), Code::TooLarge);
        let late = NOW.plus_ms(REQUEST_CLOCK_SKEW_MS + 1);
        let refusal = world.refused_at(&sent, Code::RequestExpired, late);
        assert_eq!(refusal.number("server_time_ms"), Some(late.0));
        world.refused_at(&sent, Code::RequestExpired, Timestamp(NOW.0 - REQUEST_CLOCK_SKEW_MS - 1));

        let elsewhere = "example.org".parse().unwrap();
        let foreign = signed::sign(&key(2), sent.method, &elsewhere, NOW, [99; 16], vec![], vec![]);
        world.refused(&Sent { request: foreign, ..sent }, Code::WrongAudience);
        let other_call = world.sign(&key(2), method::CLAIM, &v1::GetUserRequest::default(), &[]);
        world.refused(&Sent { method: sent.method, ..other_call }, Code::WrongAudience);
        // A varint that never ends.
        let body = vec![0xFF; 11];
        let garbage =
            signed::sign(&key(2), sent.method, world.service.domain(), NOW, [98; 16], body, certificate.clone());
        world.refused(&Sent { request: garbage, ..sent }, Code::Malformed);

        assert!(world.send(&sent, NOW).is_ok(), "{}", sent.method);
        world.refused(&sent, Code::RequestReplayed);
    }
}

#[test]
fn a_nonce_is_remembered_as_long_as_its_request_is_accepted() {
    let (world, _) = World::with_alice();
    let ahead = NOW.plus_ms(REQUEST_CLOCK_SKEW_MS);
    let body = v1::RegisterUserRequest {
        user: "mimi://example.com/u/bob".to_owned(),
        identity_key: public(&key(4)),
        invite: String::new(),
    };
    let sent = world.sign_at(&key(4), method::REGISTER_USER, &body, &[], ahead);
    world.send(&sent, NOW).unwrap();
    let prune = |now| world.store.transaction(|tx| world.service.prune(tx, now)).unwrap();
    let last = ahead.plus_ms(REQUEST_CLOCK_SKEW_MS);
    prune(last);
    world.refused_at(&sent, Code::RequestReplayed, last);
    prune(last.next());
    world.refused_at(&sent, Code::RequestExpired, last.next());
}

#[test]
fn names_that_are_none_or_of_another_domain_are_refused() {
    let (world, certificate) = World::with_alice();
    for user in ["", "alice", "mimi://example.com/u/Alice", "mimi://example.org/u/alice"] {
        let user = user.to_owned();
        let body = v1::RegisterUserRequest { user: user.clone(), identity_key: public(&key(4)), invite: String::new() };
        world.refused(&world.sign(&key(4), method::REGISTER_USER, &body, &[]), Code::NameInvalid);
        let body = v1::GetUserRequest { user };
        world.refused(&world.sign(&key(2), method::GET_USER, &body, &certificate), Code::NameInvalid);
    }
    for client in ["", "mimi://example.com/u/alice", "mimi://example.org/d/alice/laptop"] {
        let body = v1::IssueCredentialRequest {
            client: client.to_owned(),
            ..issue_body("alice/laptop", &key(1), &key(2), NOW.plus_ms(DAY))
        };
        world.refused(&world.sign(&key(2), method::ISSUE_CREDENTIAL, &body, &[]), Code::NameInvalid);
        let body = v1::PutLinkRequest { client: client.to_owned(), ..link_body(1, &key(3)) };
        world.refused(&world.sign(&key(3), method::PUT_LINK, &body, &[]), Code::NameInvalid);
    }
}

#[test]
fn a_name_belongs_to_the_identity_key_that_registered_it() {
    let (world, _) = World::with_alice();
    world.send(&world.register("alice", &key(1), ""), NOW).unwrap();
    world.refused(&world.register("alice", &key(4), ""), Code::NameTaken);
    let mut body = v1::RegisterUserRequest {
        user: "mimi://example.com/u/bob".into(),
        identity_key: public(&key(4)),
        invite: String::new(),
    };
    world.refused(&world.sign(&key(5), method::REGISTER_USER, &body, &[]), Code::SignatureInvalid);
    body.identity_key.pop();
    world.refused(&world.sign(&key(4), method::REGISTER_USER, &body, &[]), Code::Malformed);
}

#[test]
fn an_invite_is_used_as_often_as_it_allows() {
    let world = World::new(Registration::Invite);
    assert!(world.service.get_issuers(NOW).invite_required);
    let invite = |uses, expires| world.store.transaction(|tx| world.service.create_invite(tx, uses, expires, NOW));
    assert_eq!(invite(0, NOW.plus_ms(DAY)).unwrap_err().code, Code::Malformed);
    assert_eq!(invite(1, NOW).unwrap_err().code, Code::Malformed);
    let token = invite(1, NOW.plus_ms(DAY)).unwrap();
    assert_eq!(token.len(), 32);
    assert!(!format!("{:?}", world.store.contents()).contains(token.as_str()), "the token is not kept");

    world.refused(&world.register("alice", &key(1), ""), Code::InviteRequired);
    world.refused(&world.register("alice", &key(1), "0123456789abcdef"), Code::InviteInvalid);
    world.refused(&world.register("alice", &key(1), &"0".repeat(1000)), Code::InviteInvalid);
    let spent = token.get(..16).unwrap().to_uppercase() + "- " + token.get(16..).unwrap();
    world.send(&world.register("alice", &key(1), &spent), NOW).unwrap();
    // A retry uses nothing up, and works though the invite is gone.
    world.send(&world.register("alice", &key(1), &token), NOW).unwrap();
    world.refused(&world.register("bob", &key(4), &token), Code::InviteInvalid);
    // Names are probed with a good invite only.
    world.refused(&world.register("alice", &key(4), &token), Code::InviteInvalid);
    let second = invite(1, NOW.plus_ms(1)).unwrap();
    world.refused(&world.register("alice", &key(4), &second), Code::NameTaken);
    world.refused_at(&world.register("bob", &key(4), &second), Code::InviteInvalid, NOW.plus_ms(1));
    world.send(&world.register("bob", &key(4), &second), NOW).unwrap();
    world.store.transaction(|tx| world.service.prune(tx, NOW)).unwrap();
    world.refused(&world.register("carol", &key(5), &second), Code::InviteInvalid);
}

#[test]
fn a_credential_ends_with_the_service_s_lifetime_the_binding_or_the_issuer() {
    let (world, certificate) = World::with_alice();
    let issuers = world.service.issuers();
    let who = validate(&certificate, issuers, Some(NOW)).unwrap();
    assert_eq!(who.client.to_string(), "mimi://example.com/d/alice/laptop");
    assert_eq!(who.not_before, Timestamp(NOW.0 - 3600 * 1000));
    assert_eq!(who.not_after, NOW.plus_ms(30 * DAY));

    let end = |sent: &Sent, world: &World, now| {
        let answer = world.send(sent, now).unwrap();
        let certificate = v1::IssueCredentialResponse::decode(answer.as_slice()).unwrap().certificate;
        validate(&certificate, world.service.issuers(), Some(now)).unwrap().not_after
    };
    let short = world.issue("alice/laptop", &key(1), &key(2), NOW.plus_ms(DAY));
    assert_eq!(end(&short, &world, NOW), NOW.plus_ms(DAY));

    let long = World::new(Registration::Open);
    let long = World { service: long.service.with_credential_lifetime(u64::MAX), ..long };
    long.send(&long.register("alice", &key(1), ""), NOW).unwrap();
    let sent = long.issue("alice/laptop", &key(1), &key(2), NOW.plus_ms(9000 * DAY));
    assert_eq!(end(&sent, &long, NOW), NOW.plus_ms(3650 * DAY));
}

#[test]
fn renewal_and_a_device_set_up_again_keep_the_client() {
    let (world, first) = World::with_alice();
    let later = NOW.plus_ms(10 * DAY);
    let renewed = world.certify("alice/laptop", &key(1), &key(2), later);
    assert_ne!(first, renewed);
    let again = world.certify("alice/laptop", &key(1), &key(6), later.plus_ms(1));
    let [a, b] = [&renewed, &again].map(|der| validate(der, world.service.issuers(), Some(later)).unwrap());
    assert!(conclave_mls::credential::same_client(&a, &b));

    let body = v1::GetUserRequest { user: "mimi://example.com/u/alice".to_owned() };
    let sent = world.sign_at(&key(6), method::GET_USER, &body, &again, later);
    let answer = v1::GetUserResponse::decode(world.send(&sent, later).unwrap().as_slice()).unwrap();
    assert_eq!(answer.identity_key, public(&key(1)));
    let [client] = answer.clients.as_slice() else { panic!("one client") };
    assert_eq!(client.client, "mimi://example.com/d/alice/laptop");
    assert_eq!(client.signature_key, public(&key(6)));
    assert_eq!(client.not_after, later.plus_ms(30 * DAY).as_secs());
    assert_eq!(client.registered_ms, NOW.0);
}

#[test]
fn a_replaced_key_is_certified_no_more_and_signs_nothing() {
    let (world, first) = World::with_alice();
    let until = NOW.plus_ms(20 * DAY);
    let old = || world.issue("alice/laptop", &key(1), &key(2), until);
    let second = world.certify("alice/laptop", &key(1), &key(6), NOW);
    // By the same word of the identity key as before: who has stolen the old key has that, too.
    let refusal = world.refused(&old(), Code::KeyReplaced);
    assert!(refusal.message.contains("keys rotate"), "{refusal}");
    world.refused(&world.get_user("alice", &first), Code::KeyReplaced);
    // The new one is renewed, and replaced in its turn; neither comes back.
    let renewed = world.certify("alice/laptop", &key(1), &key(6), NOW.plus_ms(1));
    assert_ne!(second, renewed);
    world.certify("alice/laptop", &key(1), &key(7), NOW);
    world.refused(&old(), Code::KeyReplaced);
    world.refused(&world.issue("alice/laptop", &key(1), &key(6), until), Code::KeyReplaced);
    // Of another client, the same key is another matter.
    world.certify("alice/tablet", &key(1), &key(2), NOW);
}

#[test]
fn a_credential_needs_possession_and_the_identity_key_s_word() {
    let (world, _) = World::with_alice();
    let until = NOW.plus_ms(DAY);
    let body = || issue_body("alice/phone", &key(1), &key(3), until);
    let send = |signer: u8, body: v1::IssueCredentialRequest, code| {
        world.refused(&world.sign(&key(signer), method::ISSUE_CREDENTIAL, &body, &[]), code);
    };
    send(5, body(), Code::SignatureInvalid);
    send(3, v1::IssueCredentialRequest { binding: None, ..body() }, Code::Malformed);
    send(3, v1::IssueCredentialRequest { signature_key: vec![0; 33], ..body() }, Code::Malformed);
    send(3, issue_body("bob/phone", &key(1), &key(3), until), Code::UserUnknown);
    // Another identity, for a new client and for one that exists.
    send(3, issue_body("alice/phone", &key(4), &key(3), until), Code::IdentityMismatch);
    send(3, issue_body("alice/laptop", &key(4), &key(3), until), Code::IdentityMismatch);
    // Alice's own word, for another client, another key, and a time that is over.
    let with = |binding: v1::IdentityBinding| v1::IssueCredentialRequest { binding: Some(binding), ..body() };
    let other_client = bind("alice/laptop", &key(1), &key(3), until);
    send(3, with(binding_to_proto(&other_client)), Code::BindingInvalid);
    let other_key = bind("alice/phone", &key(1), &key(2), until);
    send(3, with(binding_to_proto(&other_key)), Code::BindingInvalid);
    send(3, issue_body("alice/phone", &key(1), &key(3), Timestamp(NOW.0 - 1000)), Code::BindingInvalid);
    let good = binding_to_proto(&bind("alice/phone", &key(1), &key(3), until));
    send(3, with(v1::IdentityBinding { purpose: 257, ..good.clone() }), Code::BindingInvalid);
    send(3, with(v1::IdentityBinding { signature: vec![0; 63], ..good.clone() }), Code::Malformed);
    send(3, with(v1::IdentityBinding { identity_key: vec![], ..good }), Code::Malformed);
}

#[test]
fn a_user_s_clients_are_counted() {
    let (world, _) = World::with_alice();
    for number in 1..CLIENTS_PER_USER {
        world.certify(&format!("alice/d{number}"), &key(1), &key(3), NOW);
    }
    let refusal = world.refused(&world.issue("alice/more", &key(1), &key(3), NOW.plus_ms(DAY)), Code::QuotaExceeded);
    assert_eq!(refusal.number("limit"), Some(CLIENTS_PER_USER));
    world.certify("alice/d1", &key(1), &key(3), NOW);
}

#[test]
fn a_directory_answers_certified_clients_only() {
    let (world, certificate) = World::with_alice();
    world.refused(&world.get_user("nobody", &certificate), Code::UserUnknown);
    world.refused(&world.get_user("alice", &[]), Code::CredentialInvalid);
    world.refused(&world.get_user("alice", &[0; 100]), Code::CredentialInvalid);
    let other = world.certify("alice/phone", &key(1), &key(3), NOW);
    world.refused(&world.get_user("alice", &other), Code::CredentialInvalid);
    // Another authority of the same name.
    let forger = CertificateAuthority::self_signed(world.service.domain(), &[8; 32], NOW).unwrap();
    let binding = bind("alice/laptop", &key(1), &key(2), NOW.plus_ms(DAY));
    let client = "mimi://example.com/d/alice/laptop".parse().unwrap();
    let public: [u8; 32] = public(&key(2)).try_into().unwrap();
    let forged = forger.issue(&client, &public, &binding, NOW, NOW.plus_ms(DAY), [1; 16]).unwrap();
    world.refused(&world.get_user("alice", &forged), Code::CredentialInvalid);
    // Our own authority, but for an identity key that nobody registered.
    let ghost = bind("alice/laptop", &key(9), &key(2), NOW.plus_ms(DAY));
    let ghost = world.service.authority.issue(&client, &public, &ghost, NOW, NOW.plus_ms(DAY), [1; 16]).unwrap();
    world.refused(&world.get_user("alice", &ghost), Code::CredentialInvalid);
    let later = NOW.plus_ms(31 * DAY);
    let body = v1::GetUserRequest { user: "mimi://example.com/u/alice".to_owned() };
    let expired = world.sign_at(&key(2), method::GET_USER, &body, &certificate, later);
    world.refused_at(&expired, Code::CredentialInvalid, later);
}

#[test]
fn a_new_device_is_linked() {
    let (world, certificate) = World::with_alice();
    let (secret, client) = (LinkSecret::new([6; 16]), "mimi://example.com/d/alice/phone");
    let mac = secret.request_mac(client, &public(&key(3))).to_vec();
    let body = v1::PutLinkRequest { mac: mac.clone(), ..link_body(1, &key(3)) };
    let put = || world.send(&world.sign(&key(3), method::PUT_LINK, &body, &[]), NOW).unwrap();
    let answer = v1::PutLinkResponse::decode(put().as_slice()).unwrap();
    assert_eq!(answer.expires_ms, NOW.0 + LINK_LIFETIME_MS);
    assert_eq!(put(), answer.encode_to_vec());

    let poll = || v1::PollLinkResponse::decode(world.send(&world.poll(1, &key(3)), NOW).unwrap().as_slice()).unwrap();
    assert_eq!(poll(), v1::PollLinkResponse::default());

    let asked = world.send(&world.get_link(1, &key(2), &certificate), NOW).unwrap();
    let asked = v1::GetLinkResponse::decode(asked.as_slice()).unwrap();
    assert_eq!((asked.client.as_str(), &asked.signature_key, &asked.mac), (client, &public(&key(3)), &mac));

    // Neither MAC is the service's to check: a wrong one passes through, and the client finds it out.
    let binding = bind("alice/phone", &key(1), &key(3), NOW.plus_ms(DAY));
    world.send(&world.approve(1, &key(1), &binding), NOW).unwrap();
    world.send(&world.approve(1, &key(1), &binding), NOW).unwrap();
    let approved = poll();
    assert_eq!(approved.binding, Some(binding_to_proto(&binding)));
    let expected = secret.approval_mac(&binding.identity_key, &binding.signature);
    assert!(!conclave_protocol::link::mac_matches(&expected, &approved.mac));

    let issue = v1::IssueCredentialRequest {
        client: client.to_owned(),
        signature_key: public(&key(3)),
        binding: approved.binding,
    };
    let issued = world.send(&world.sign(&key(3), method::ISSUE_CREDENTIAL, &issue, &[]), NOW).unwrap();
    let issued = v1::IssueCredentialResponse::decode(issued.as_slice()).unwrap();
    assert!(validate(&issued.certificate, world.service.issuers(), Some(NOW)).is_ok());
}

#[test]
fn a_link_is_nobody_else_s() {
    let (world, certificate) = World::with_alice();
    world.send(&world.register("bob", &key(4), ""), NOW).unwrap();
    let bob = world.certify("bob/laptop", &key(4), &key(5), NOW);
    world.send(&world.put_link(1, &key(3)), NOW).unwrap();
    let until = NOW.plus_ms(DAY);
    let binding = bind("alice/phone", &key(1), &key(3), until);

    world.refused(&world.put_link(1, &key(6)), Code::LinkUnknown);
    world.refused(&world.get_link(2, &key(2), &certificate), Code::LinkUnknown);
    world.refused(&world.get_link(1, &key(5), &bob), Code::LinkUnknown);
    world.refused(&world.get_link(1, &key(2), &[]), Code::CredentialInvalid);
    world.refused(&world.approve(2, &key(1), &binding), Code::LinkUnknown);
    world.refused(&world.approve(1, &key(4), &binding), Code::LinkUnknown);
    world.refused(&world.poll(2, &key(3)), Code::LinkUnknown);
    world.refused(&world.poll(1, &key(2)), Code::LinkUnknown);

    let by_bob = bind("alice/phone", &key(4), &key(3), until);
    world.refused(&world.approve(1, &key(1), &by_bob), Code::IdentityMismatch);
    let for_tablet = bind("alice/tablet", &key(1), &key(3), until);
    world.refused(&world.approve(1, &key(1), &for_tablet), Code::BindingInvalid);
    let over = bind("alice/phone", &key(1), &key(3), Timestamp(NOW.0 - 1000));
    world.refused(&world.approve(1, &key(1), &over), Code::BindingInvalid);

    let put = |body: v1::PutLinkRequest, code| {
        world.refused(&world.sign(&key(3), method::PUT_LINK, &body, &[]), code);
    };
    let body = || link_body(3, &key(3));
    put(v1::PutLinkRequest { client: "mimi://example.com/d/nobody/phone".into(), ..body() }, Code::UserUnknown);
    put(v1::PutLinkRequest { link_id: vec![1; 15], ..body() }, Code::Malformed);
    put(v1::PutLinkRequest { mac: vec![1; 31], ..body() }, Code::Malformed);
    put(v1::PutLinkRequest { signature_key: public(&key(2)), ..body() }, Code::SignatureInvalid);
    let no_mac =
        v1::ApproveLinkRequest { link_id: vec![1; 16], binding: Some(binding_to_proto(&binding)), mac: Vec::new() };
    world.refused(&world.sign(&key(1), method::APPROVE_LINK, &no_mac, &[]), Code::Malformed);
    let no_binding = v1::ApproveLinkRequest { binding: None, mac: vec![1; 32], ..no_mac };
    world.refused(&world.sign(&key(1), method::APPROVE_LINK, &no_binding, &[]), Code::Malformed);
}

#[test]
fn links_expire_and_are_limited() {
    let (world, _) = World::with_alice();
    for id in 0..u8::try_from(LINKS_PER_USER).unwrap() {
        world.send(&world.put_link(id, &key(3)), NOW).unwrap();
    }
    let end = NOW.plus_ms(LINK_LIFETIME_MS);
    let poll = world.sign_at(&key(3), method::POLL_LINK, &v1::PollLinkRequest { link_id: vec![0; 16] }, &[], end);
    assert!(world.send(&poll, Timestamp(end.0 - 1)).is_ok());
    let poll = world.sign_at(&key(3), method::POLL_LINK, &v1::PollLinkRequest { link_id: vec![0; 16] }, &[], end);
    world.refused_at(&poll, Code::LinkUnknown, end);
    // The id is free again, even for another device, before anything is pruned.
    let put = world.sign_at(&key(6), method::PUT_LINK, &link_body(0, &key(6)), &[], end);
    world.send(&put, end).unwrap();
}

#[test]
fn strangers_links_push_out_one_another_and_never_one_that_was_approved() {
    let (world, _) = World::with_alice();
    let until = NOW.plus_ms(DAY);
    let later = |n: u64| NOW.plus_ms(n);
    let put = |id: u8, at: Timestamp| {
        world.send(&world.sign_at(&key(3), method::PUT_LINK, &link_body(id, &key(3)), &[], at), at).unwrap();
    };
    let is_there = |id: u8, at: Timestamp| {
        let poll = v1::PollLinkRequest { link_id: vec![id; 16] };
        world.send(&world.sign_at(&key(3), method::POLL_LINK, &poll, &[], at), at).is_ok()
    };
    put(0, NOW);
    world.send(&world.approve(0, &key(1), &bind("alice/phone", &key(1), &key(3), until)), NOW).unwrap();
    // Strangers fill all places; a new device finds one all the same, and so does the next.
    for id in 1..128 {
        put(id, later(u64::from(id)));
    }
    put(200, later(200));
    put(201, later(201));
    for (id, there) in [(0, true), (1, false), (2, false), (3, true), (200, true), (201, true)] {
        assert_eq!(is_there(id, later(300)), there, "{id}");
    }
    // Where all were approved, nobody gives way.
    let binding = bind("alice/phone", &key(1), &key(3), until);
    for id in (3..128).chain([200, 201]) {
        world.send(&world.approve(id, &key(1), &binding), NOW).unwrap();
    }
    let refusal = world.refused(&world.put_link(250, &key(3)), Code::QuotaExceeded);
    assert_eq!(refusal.number("limit"), Some(LINKS_PER_USER));
}

#[test]
fn a_store_that_fails_is_told_without_details() {
    use crate::store::StoreError;
    let refusal = |error: StoreError| Refusal::from(error);
    assert_eq!(refusal(StoreError::Full).code, Code::StorageFull);
    let unavailable = refusal(StoreError::Unavailable("/var/lib/secret".into()));
    assert_eq!(unavailable.code, Code::Unavailable);
    let corrupt = refusal(StoreError::Corrupt("/var/lib/secret".into()));
    assert_eq!(corrupt.code, Code::Internal);
    assert!(!unavailable.message.contains("secret") && !corrupt.message.contains("secret"));
}

const CALLS: [&str; 7] = [
    method::REGISTER_USER,
    method::ISSUE_CREDENTIAL,
    method::GET_USER,
    method::PUT_LINK,
    method::GET_LINK,
    method::APPROVE_LINK,
    method::POLL_LINK,
];

proptest! {
    #[test]
    fn random_requests_change_nothing_and_never_panic(
        call in 0..CALLS.len(),
        context in prop::collection::vec(any::<u8>(), 0..80),
        body in prop::collection::vec(any::<u8>(), 0..80),
        key in prop::collection::vec(any::<u8>(), 30..34),
        signature in prop::collection::vec(any::<u8>(), 62..66),
        certificate in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let world = World::new(Registration::Open);
        let request = SignedRequest { context, body, key, signature, certificate };
        let sent = Sent { method: CALLS[call], request };
        prop_assert!(world.send(&sent, NOW).is_err());
        prop_assert_eq!(world.store.contents(), MemoryStore::default().contents());
    }

    #[test]
    fn signed_nonsense_changes_nothing_and_never_panics(
        call in 0..CALLS.len(),
        body in prop::collection::vec(any::<u8>(), 0..120),
        certificate in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let world = World::new(Registration::Open);
        let domain = world.service.domain();
        let request = signed::sign(&key(2), CALLS[call], domain, NOW, [1; 16], body, certificate);
        let sent = Sent { method: CALLS[call], request };
        prop_assert!(world.send(&sent, NOW).is_err());
        prop_assert_eq!(world.store.contents(), MemoryStore::default().contents());
    }
}
