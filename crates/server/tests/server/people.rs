//! Clients with certificates, and their KeyPackages.

use std::time::Duration;

use conclave_channel::access::ChannelKey;
use conclave_mls::{
    address::{DeliveryAddress, DropToken, SealedAddress},
    components::ChannelKeyExtension,
    credential::IdentityBinding,
    crypto,
    identity::{Identities, signing_identity},
};
use conclave_names::{ChannelId, ClientUri, code_points};
use conclave_protocol::{SigningKey, method, signed, v1};
use mls_rs::{ExtensionList, extension::ExtensionType, time::MlsTime};
use mls_rs_core::crypto::CipherSuiteProvider;
use prost::Message;
use tonic::Status;

use super::client::*;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// The certified key of a client.
pub(crate) struct Certified {
    pub(crate) uri: ClientUri,
    pub(crate) key: SigningKey,
    pub(crate) certificate: Vec<u8>,
}

/// A request to certify key `n + 100` as `name` (user/device), bound by identity key `n`.
pub(crate) fn issue(name: &str, n: u8, until_ms: u64) -> v1::SignedRequest {
    let uri: ClientUri = format!("mimi://example.com/d/{name}").parse().unwrap();
    let signer = key(n + 100);
    let public = signer.verifying_key().to_bytes();
    let binding = IdentityBinding::sign(&key(n), &uri, &public, conclave_names::Timestamp(until_ms));
    let message = v1::IssueCredentialRequest {
        client: uri.to_string(),
        signature_key: public.to_vec(),
        binding: Some(conclave_authentication::binding_to_proto(&binding)),
    };
    sign(&signer, method::ISSUE_CREDENTIAL, &message)
}

impl Certified {
    /// Registers a user with identity key `n` and certifies one device (`name` is user/device).
    pub(crate) async fn new(client: &Client, name: &str, n: u8, invite: &str) -> Result<Self, Status> {
        let (user, _) = name.split_once('/').unwrap();
        client.register(user, n, invite).await?;
        let request = issue(name, n, now().0 + 60 * DAY_MS);
        let certificate = client.authentication().issue_credential(request).await?.into_inner().certificate;
        Ok(Self { uri: format!("mimi://example.com/d/{name}").parse().unwrap(), key: key(n + 100), certificate })
    }

    pub(crate) fn sign(&self, method: &str, message: &impl Message) -> v1::SignedRequest {
        let body = message.encode_to_vec();
        signed::sign(&self.key, method, &domain(), now(), nonce(), body, self.certificate.clone())
    }

    /// A KeyPackage whose Welcome goes to an inbox.
    pub(crate) async fn key_package(&self, client: &Client, inbox: ChannelId, drop_key: [u8; 32]) -> Vec<u8> {
        self.make(client, inbox, drop_key, false).await
    }

    /// One that may be served many times.
    pub(crate) async fn last_resort(&self, client: &Client, inbox: ChannelId, drop_key: [u8; 32]) -> Vec<u8> {
        self.make(client, inbox, drop_key, true).await
    }

    async fn make(&self, client: &Client, inbox: ChannelId, drop_key: [u8; 32], last_resort: bool) -> Vec<u8> {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let mut leaf = ExtensionList::new();
        let channel_key = suite.random_bytes_vec(32).unwrap().try_into().unwrap();
        leaf.set_from(ChannelKeyExtension(ChannelKey(channel_key))).unwrap();
        let mut extensions = ExtensionList::new();
        let sealed = address(client, inbox, drop_key).await;
        extensions.set_from(DeliveryAddress::new(&domain(), &sealed).unwrap()).unwrap();
        if last_resort {
            let marker = ExtensionType::new(code_points::EXTENSION_LAST_RESORT);
            extensions.set(mls_rs::Extension::new(marker, Vec::new()));
        }
        let public = self.key.verifying_key().to_bytes();
        let maker = mls_rs::Client::builder()
            .crypto_provider(crypto::provider())
            .identity_provider(Identities::default())
            .extension_type(ExtensionType::new(code_points::EXTENSION_CHANNEL_KEY))
            .key_package_lifetime(Duration::from_millis(30 * DAY_MS))
            .signing_identity(
                signing_identity(self.certificate.clone(), &public),
                [self.key.to_bytes(), public].concat().into(),
                crypto::DEFAULT_SUITE,
            )
            .build();
        let time = MlsTime::from(now().as_secs());
        maker.generate_key_package_message(extensions, leaf, Some(time)).unwrap().to_bytes().unwrap()
    }
}

/// The address of an inbox, sealed to the server's key, for one post.
pub(crate) async fn address(client: &Client, inbox: ChannelId, drop_key: [u8; 32]) -> SealedAddress {
    let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
    let token = DropToken::mint(&drop_key, inbox, nonce(), 1, now().plus_ms(30 * DAY_MS));
    let info = client.delivery().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    let key_id = info.address_key_id.as_slice().try_into().unwrap();
    SealedAddress::seal(&suite, &info.address_key.into(), key_id, &token).unwrap()
}

pub(crate) async fn upload(client: &Client, who: &Certified, key_packages: Vec<Vec<u8>>) -> Result<u64, Status> {
    let message = v1::UploadRequest { key_packages, last_resort: Vec::new() };
    client.directory().upload(who.sign(method::UPLOAD, &message)).await.map(|reply| reply.into_inner().available)
}

/// How many KeyPackages the directory has of a client.
pub(crate) async fn available(client: &Client, who: &Certified) -> u64 {
    let request = who.sign(method::COUNT, &v1::CountRequest {});
    let reply = client.directory().count(request).await.unwrap().into_inner();
    reply.suites.iter().map(|suite| suite.available).sum()
}
