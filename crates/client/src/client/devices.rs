//! Further devices of a user: linked by a code that a person carries from the new device to the first one.

use std::{fmt, str::FromStr};

use conclave_engine::account::Account;
use conclave_mls::credential::{IdentityBinding, Purpose};
use conclave_names::{ClientUri, UserUri};
use conclave_protocol::{
    SigningKey,
    link::{LinkSecret, mac_matches},
    v1,
};
use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use super::{
    Client, ClientError, RegisterError, Services,
    register::{binding_to_wire, new_inbox, new_key, random, sign_binding},
};
use crate::{
    store::ProfileStore,
    transport::{Signer, Transport},
};

/// What the new device shows: a random link id and a secret that the server never learns.
#[derive(Clone)]
pub struct LinkCode {
    id: [u8; 16],
    secret: LinkSecret,
}

/// A text that is no link code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no link code: it has 52 letters and digits, as the new device shows them")]
pub struct LinkCodeError;

impl fmt::Debug for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkCode(..)")
    }
}

impl LinkCode {
    pub(super) fn new() -> Result<Self, ClientError> {
        Ok(Self { id: random()?, secret: LinkSecret::new(random()?) })
    }

    /// The code as a person reads it: groups of four.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([self.id, *self.secret.expose()].concat());
        let text = Zeroizing::new(BASE32_NOPAD.encode(&bytes));
        let mut shown = Zeroizing::new(String::with_capacity(64));
        for (index, character) in text.chars().enumerate() {
            if index > 0 && index % 4 == 0 {
                shown.push('-');
            }
            shown.push(character);
        }
        shown
    }
}

impl FromStr for LinkCode {
    type Err = LinkCodeError;

    fn from_str(text: &str) -> Result<Self, LinkCodeError> {
        let clean: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect());
        let bytes = Zeroizing::new(BASE32_NOPAD.decode(clean.as_bytes()).map_err(|_| LinkCodeError)?);
        let (id, secret) = bytes.split_first_chunk::<16>().ok_or(LinkCodeError)?;
        let secret: [u8; 16] = secret.try_into().map_err(|_| LinkCodeError)?;
        Ok(Self { id: *id, secret: LinkSecret::new(secret) })
    }
}

/// A new device that waits for approval.
pub struct PendingLink {
    store: Box<dyn ProfileStore>,
    delivery: Transport,
    authentication: Transport,
    client: ClientUri,
    signature_key: SigningKey,
    code: LinkCode,
}

impl fmt::Debug for PendingLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLink").field("client", &self.client).finish_non_exhaustive()
    }
}

/// What a new device asks, as the approving device found it.
#[derive(Debug, Clone)]
pub struct LinkRequest {
    /// The new device.
    pub client: ClientUri,
    signature_key: [u8; 32],
    code: LinkCode,
}

/// What a poll for the approval found.
#[derive(Debug)]
pub enum Approval {
    /// Not yet.
    Waiting(Box<PendingLink>),
    /// The device is linked and ready.
    Linked(Box<Client>),
}

impl Client {
    /// On the new device: asks to be linked as a device of a user. Show [`PendingLink::code`] to the person, who takes
    /// it to the first device.
    pub async fn start_link(
        store: Box<dyn ProfileStore>,
        services: &Services,
        user: &str,
        device: &str,
    ) -> Result<PendingLink, RegisterError> {
        let (delivery, authentication) = services.connect()?;
        let user = UserUri::new(delivery.domain().clone(), user)?;
        let client = user.client(device)?;
        let signature_key = new_key()?;
        let code = LinkCode::new()?;
        put_link(&authentication, &client, &signature_key, &code).await?;
        Ok(PendingLink { store, delivery, authentication, client, signature_key, code })
    }

    /// On the first device: what the new device with this code asks. Show it to the person before approving.
    ///
    /// # Errors
    /// [`ClientError::Answer`] if the server's answer was not made by who made the code.
    pub async fn link_request(&mut self, code: &LinkCode) -> Result<LinkRequest, ClientError> {
        let answer = self
            .authentication
            .get_link(&Self::signer(&self.account), &v1::GetLinkRequest { link_id: code.id.to_vec() })
            .await?;
        let expected = code.secret.request_mac(&answer.client, &answer.signature_key);
        if !mac_matches(&expected, &answer.mac) {
            return Err(ClientError::Answer("the request was not made by the device that shows this code".into()));
        }
        let wrong = |what: &str| ClientError::Answer(what.to_owned());
        let client: ClientUri = answer.client.parse().map_err(|_| wrong("the new device's name is none"))?;
        if client.user() != self.user() {
            return Err(wrong("the new device is another user's"));
        }
        let signature_key =
            answer.signature_key.as_slice().try_into().map_err(|_| wrong("the new device's key is none"))?;
        Ok(LinkRequest { client, signature_key, code: code.clone() })
    }

    /// On the first device: approves, by the identity key's signature.
    ///
    /// # Errors
    /// [`ClientError::NoIdentityKey`] on a device that was itself linked.
    pub async fn approve_link(&mut self, request: &LinkRequest) -> Result<(), ClientError> {
        let identity = self.account.identity_secret.as_ref().ok_or(ClientError::NoIdentityKey)?;
        let binding = sign_binding(identity, &request.client, &request.signature_key, self.authentication.now());
        let mac = request.code.secret.approval_mac(&binding.identity_key, &binding.signature);
        self.authentication
            .approve_link(
                &Signer::bare(identity),
                &v1::ApproveLinkRequest {
                    link_id: request.code.id.to_vec(),
                    binding: Some(binding_to_wire(&binding)),
                    mac: mac.to_vec(),
                },
            )
            .await?;
        Ok(())
    }
}

/// Asks the Authentication Service to keep a key that waits for the identity key's word.
pub(super) async fn put_link(
    authentication: &Transport,
    client: &ClientUri,
    key: &SigningKey,
    code: &LinkCode,
) -> Result<(), ClientError> {
    let public = key.verifying_key().to_bytes();
    let request = v1::PutLinkRequest {
        link_id: code.id.to_vec(),
        client: client.to_string(),
        signature_key: public.to_vec(),
        mac: code.secret.request_mac(&client.to_string(), &public).to_vec(),
    };
    authentication.put_link(&Signer::bare(key), &request).await?;
    Ok(())
}

/// Asks once whether the device that has the identity key has given its word for a key.
pub(super) async fn poll_link(
    authentication: &Transport,
    client: &ClientUri,
    key: &SigningKey,
    code: &LinkCode,
) -> Result<Option<IdentityBinding>, ClientError> {
    let answer =
        authentication.poll_link(&Signer::bare(key), &v1::PollLinkRequest { link_id: code.id.to_vec() }).await?;
    let Some(wire) = answer.binding else { return Ok(None) };
    let wrong = |what: &str| ClientError::Answer(what.to_owned());
    let binding = IdentityBinding {
        purpose: Purpose::Signing,
        not_after_secs: wire.not_after,
        identity_key: wire.identity_key.as_slice().try_into().map_err(|_| wrong("the identity key is none"))?,
        signature: wire.signature.as_slice().try_into().map_err(|_| wrong("the signature is none"))?,
    };
    let expected = code.secret.approval_mac(&binding.identity_key, &binding.signature);
    if !mac_matches(&expected, &answer.mac) {
        return Err(wrong("the approval was not made by who has this device's code"));
    }
    let public = key.verifying_key().to_bytes();
    binding.verify(client, &public, Some(authentication.now())).map_err(|error| wrong(&error.to_string()))?;
    Ok(Some(binding))
}

impl PendingLink {
    /// What the person takes to the first device.
    #[must_use]
    pub fn code(&self) -> &LinkCode {
        &self.code
    }

    /// This device.
    #[must_use]
    pub fn client(&self) -> &ClientUri {
        &self.client
    }

    /// Asks once whether the link was approved, and if so completes it.
    ///
    /// # Errors
    /// [`ClientError::Answer`] if the approval was not made by who has the code.
    pub async fn poll(self) -> Result<Approval, RegisterError> {
        let polled = poll_link(&self.authentication, &self.client, &self.signature_key, &self.code).await?;
        let Some(binding) = polled else { return Ok(Approval::Waiting(Box::new(self))) };
        let account = Account {
            rotation: conclave_engine::rotation::Rotation::default(),
            client: self.client,
            signature_key: self.signature_key,
            identity_secret: None,
            binding,
            certificate: Vec::new(),
            issuers: Vec::new(),
            inbox: new_inbox()?,
        };
        let client = Client::complete(self.store, account, self.delivery, self.authentication).await?;
        Ok(Approval::Linked(Box::new(client)))
    }
}
