//! Making an account, step by step, so that a failure at any step can be taken up again.

use conclave_engine::{
    account::{Account, Inbox},
    writes::Room,
};
use conclave_mls::credential::{IdentityBinding, same_client, validate};
use conclave_names::{ChannelId, ClientUri, Seq, Timestamp, UserUri};
use conclave_protocol::{Code, SigningKey, v1};
use zeroize::Zeroizing;

use super::{Client, ClientError, OpenError, Services, issuers::served_issuers};
use crate::{
    store::ProfileStore,
    transport::{Signer, Transport},
};

/// How long the identity key's word for a signature key is good. Certificates are shorter-lived and renewed without
/// the identity key; after this time the device is approved anew.
const BINDING_LIFE_MS: u64 = 5 * 365 * 24 * 3600 * 1000;

/// How long before its end a binding is signed anew where the identity key is, in milliseconds: a quarter of a year.
const BINDING_RENEWAL_MS: u64 = 90 * 24 * 3600 * 1000;

/// Who is to be registered.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The user's name at the server, e.g. `alice`.
    pub user: String,
    /// The name of this device, e.g. `laptop`.
    pub device: String,
    /// The operator's invite token, where the server asks for one.
    pub invite: Option<String>,
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], ClientError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| ClientError::Randomness)?;
    Ok(bytes)
}

/// A secret key that leaves no copy behind.
pub(super) fn new_key() -> Result<SigningKey, ClientError> {
    let seed = Zeroizing::new(random()?);
    Ok(SigningKey::from_bytes(&seed))
}

pub(super) fn new_inbox() -> Result<Inbox, ClientError> {
    Ok(Inbox {
        id: ChannelId::new(random()?),
        key: new_key()?,
        drop_key: Zeroizing::new(random()?),
        done: Seq(0),
        trimmed: Seq(0),
    })
}

pub(super) fn binding_to_wire(binding: &IdentityBinding) -> v1::IdentityBinding {
    v1::IdentityBinding {
        purpose: binding.purpose.as_u8().into(),
        not_after: binding.not_after_secs,
        identity_key: binding.identity_key.to_vec(),
        signature: binding.signature.to_vec(),
    }
}

pub(super) fn sign_binding(
    identity: &SigningKey,
    client: &ClientUri,
    key: &[u8; 32],
    now: Timestamp,
) -> IdentityBinding {
    IdentityBinding::sign(identity, client, key, now.plus_ms(BINDING_LIFE_MS))
}

/// Whether it is time for the identity key to sign anew: a certificate ends with the binding at the latest.
fn binding_ends_soon(binding: &IdentityBinding, now: Timestamp) -> bool {
    binding.not_after_secs < now.plus_ms(BINDING_RENEWAL_MS).as_secs()
}

impl Client {
    /// Registers a user with this as its first device, and makes everything that is needed to be added to groups.
    ///
    /// What was made is stored before it is told to the server: after a failure, the same call on the same store goes
    /// on where it stopped.
    ///
    /// # Errors
    /// [`ClientError::Call`] with the server's reason (a taken name, a missing invite), or without one if it was not
    /// reached.
    pub async fn register(
        mut store: Box<dyn ProfileStore>,
        services: &Services,
        registration: Registration,
    ) -> Result<Self, RegisterError> {
        let (delivery, authentication) = services.connect()?;
        let user = UserUri::new(delivery.domain().clone(), &registration.user)?;
        let client = user.client(&registration.device)?;
        let account = if let Some(row) = store.get(Room::ACCOUNT, Account::KEY)? {
            let account = Account::from_row(&row)?;
            if account.client != client {
                return Err(RegisterError::Other(account.client));
            }
            if !account.certificate.is_empty() {
                return Err(RegisterError::Complete(account.client));
            }
            account
        } else {
            let account = new_account(client, authentication.now())?;
            store.apply(&[account.to_write()])?;
            account
        };
        let identity = account.identity_secret.as_ref().ok_or(ClientError::NoIdentityKey)?;
        authentication
            .register_user(
                &Signer::bare(identity),
                &v1::RegisterUserRequest {
                    user: user.to_string(),
                    identity_key: identity.verifying_key().to_bytes().to_vec(),
                    invite: registration.invite.unwrap_or_default(),
                },
            )
            .await
            .map_err(ClientError::from)?;
        Self::complete(store, account, delivery, authentication).await
    }

    /// The second half of a registration, for first and for linked devices: certificate, inbox, KeyPackages.
    pub(super) async fn complete(
        mut store: Box<dyn ProfileStore>,
        mut account: Account,
        delivery: Transport,
        authentication: Transport,
    ) -> Result<Self, RegisterError> {
        certify(&mut account, &authentication).await?;
        // The inbox comes before the account is taken for complete, so that it is never missing.
        delivery
            .create_inbox(
                &Signer::bare(&account.inbox.key),
                &v1::CreateInboxRequest { inbox: account.inbox.id.to_vec(), drop_key: account.inbox.drop_key.to_vec() },
            )
            .await
            .map_err(ClientError::from)?;
        store.apply(&[account.to_write()])?;
        let mut client = Self::assemble(store, account, delivery, authentication)?;
        client.refill_key_packages().await?;
        Ok(client)
    }

    /// Renews the certificate when two thirds of its life are over, and the KeyPackages with it. Says whether it did.
    pub(super) async fn renew_if_due(&mut self) -> Result<bool, ClientError> {
        let due = self.account.renew_after().is_none_or(|after| self.authentication.now() >= after);
        if due {
            self.renew_credential().await?;
        }
        Ok(due)
    }

    /// When the certificate is to be renewed, or a change of the signature key goes on, in milliseconds from now.
    pub(super) fn renewal_in_ms(&self) -> u64 {
        if self.account.rotation.next.is_some() {
            return 0;
        }
        let due = self.account.renew_after().unwrap_or_default();
        due.0.saturating_sub(self.authentication.now().0)
    }

    /// Goes on with a change of the signature key, and renews the certificate if it is time for that. While the one there is is good, nothing has to wait for it.
    ///
    /// # Errors
    /// Why it cannot be renewed, if it has ended.
    pub(super) async fn renew_in_time(&mut self) -> Result<(), ClientError> {
        self.resume_rotation().await?;
        let Err(error) = self.renew_if_due().await else { return Ok(()) };
        let Some(ends) = self.certificate_ends().filter(|ends| self.authentication.now() < *ends) else {
            return Err(error);
        };
        tracing::warn!(%error, ends = ends.as_secs(), "the certificate could not be renewed yet");
        Ok(())
    }

    /// Has the signature key certified anew, and replaces the KeyPackages, which hold the old certificate (R50). The
    /// leaves in groups take the new certificate with the next [`Client::sync`], or at once while listening.
    pub async fn renew_credential(&mut self) -> Result<(), ClientError> {
        let mut account = self.account.clone();
        let now = self.authentication.now();
        if let Some(identity) = account.identity_secret.as_ref().filter(|_| binding_ends_soon(&account.binding, now)) {
            let public = account.signature_key.verifying_key().to_bytes();
            account.binding = sign_binding(identity, &account.client, &public, now);
        }
        self.renew_as(account).await
    }

    /// The same by a newer word of the identity key than any that this device had, if it holds that.
    pub(super) async fn vouch_anew(&mut self) -> Result<(), ClientError> {
        let mut account = self.account.clone();
        let Some(identity) = account.identity_secret.as_ref() else { return Ok(()) };
        let public = account.signature_key.verifying_key().to_bytes();
        // Which word is the newer one is told by its end, in whole seconds.
        let before = Timestamp::from_secs(account.binding.not_after_secs).plus_ms(1000);
        let until = self.authentication.now().plus_ms(BINDING_LIFE_MS).max(before);
        account.binding = IdentityBinding::sign(identity, &account.client, &public, until);
        self.renew_as(account).await
    }

    async fn renew_as(&mut self, mut account: Account) -> Result<(), ClientError> {
        match certify(&mut account, &self.authentication).await {
            Ok(()) => self.take_account(account)?,
            // This profile is an older copy, or what was to replace the key was lost on its way.
            Err(error) if error.code() == Some(Code::KeyReplaced) && self.holds_identity() => {
                self.begin_rotation()?;
                self.finish_rotation().await?;
            }
            Err(error) => return Err(error),
        }
        self.refill_key_packages().await
    }
}

/// An account of a first device, before any server knows of it.
fn new_account(client: ClientUri, now: Timestamp) -> Result<Account, ClientError> {
    account_with(new_key()?, client, now)
}

/// An account with an identity key that there is, and everything else new.
pub(super) fn account_with(identity: SigningKey, client: ClientUri, now: Timestamp) -> Result<Account, ClientError> {
    let signature_key = new_key()?;
    let binding = sign_binding(&identity, &client, &signature_key.verifying_key().to_bytes(), now);
    Ok(Account {
        rotation: conclave_engine::rotation::Rotation::default(),
        client,
        signature_key,
        identity_secret: Some(identity),
        binding,
        certificate: Vec::new(),
        issuers: Vec::new(),
        inbox: new_inbox()?,
    })
}

/// Learns the issuers and has the signature key certified; the answer is judged like anybody's credential.
pub(super) async fn certify(account: &mut Account, authentication: &Transport) -> Result<(), ClientError> {
    let issuers = served_issuers(authentication, account.client.domain()).await?;
    let answer = authentication
        .issue_credential(
            &Signer::bare(&account.signature_key),
            &v1::IssueCredentialRequest {
                client: account.client.to_string(),
                signature_key: account.signature_key.verifying_key().to_bytes().to_vec(),
                binding: Some(binding_to_wire(&account.binding)),
            },
        )
        .await?;
    let judged = |now| validate(&answer.certificate, &issuers, Some(now));
    // Where the server's word for the time is far from this machine's, one of the two is wrong.
    let identity = judged(authentication.now())
        .or_else(|error| judged(authentication.now_for_deleting()).map_err(|_| error))
        .map_err(|error| ClientError::Answer(error.to_string()))?;
    if !same_client(&identity, account) || identity.signature_key != account.signature_key.verifying_key().to_bytes() {
        return Err(ClientError::Answer("the certificate is for other keys or another name than asked".into()));
    }
    account.certificate = answer.certificate;
    account.believe(&issuers);
    Ok(())
}

/// Why a registration did not complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The server's address or the profile.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A name is no name.
    #[error(transparent)]
    Name(#[from] conclave_names::NameError),
    /// The profile is somebody else's.
    #[error("this profile belongs to {0}: use another profile (`--profile NAME`) for another account")]
    Other(ClientUri),
    /// There is nothing to do.
    #[error("this profile is registered already, as {0}")]
    Complete(ClientUri),
    /// A step failed. The same call again goes on from there.
    #[error(transparent)]
    Step(#[from] ClientError),
}

impl From<crate::store::StoreError> for RegisterError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Step(error.into())
    }
}

impl From<conclave_engine::account::RecordError> for RegisterError {
    fn from(error: conclave_engine::account::RecordError) -> Self {
        Self::Step(error.into())
    }
}
