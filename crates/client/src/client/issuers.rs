//! Whose certificates are believed: those of the issuers that the Authentication Service serves, or has served.
//!
//! Nobody else introduces one: neither the Delivery Service nor who sends a certificate is asked. An issuer that is not known here is
//! learnt where a certificate names it, so that all members judge alike when the Authentication Service has a new one: a renewal under it
//! would else be disputed by everybody who renewed before (RFC 9750, section 5.3.1).

use std::time::Duration;

use conclave_engine::account::ISSUERS_MAX;
use conclave_mls::credential::{Issuer, Issuers, LeafCertificate};
use conclave_names::{Domain, Timestamp};
use conclave_protocol::Code;
use mls_rs::MlsMessage;

use super::{Client, ClientError};
use crate::transport::Transport;

/// How often at most the Authentication Service is asked because of an issuer that is not known, in milliseconds: strangers can name one.
const ASK_MS: u64 = 60_000;

/// How long its answer is waited for: what is to be judged waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// The issuers that an Authentication Service certifies by, all of its own domain.
pub(super) async fn served_issuers(authentication: &Transport, domain: &Domain) -> Result<Issuers, ClientError> {
    let served = authentication.get_issuers().await?.issuers;
    if served.len() > ISSUERS_MAX {
        return Err(ClientError::Answer(format!(
            "it names {} issuers; {ISSUERS_MAX} are believed at most",
            served.len()
        )));
    }
    let issuer = |der: &Vec<u8>| {
        let issuer = Issuer::parse(der).map_err(|error| ClientError::Answer(error.to_string()))?;
        if issuer.domain() != domain {
            return Err(ClientError::Answer("it names an issuer of another domain".into()));
        }
        Ok(issuer)
    };
    served.iter().map(issuer).collect()
}

/// What the Authentication Service said when it was last asked because of an issuer.
pub(super) struct Said {
    at: Timestamp,
    /// None if it was not reached.
    served: Option<Issuers>,
}

impl Client {
    /// Asks the Authentication Service for its issuers, if a certificate was refused since the last call whose issuer is not known here,
    /// and it was not asked within the last minute. Says whether that one is known now: then what was refused is to be judged again.
    ///
    /// # Errors
    /// [`ClientError::Store`] alone. An Authentication Service that is away leaves the judgement as it was.
    pub(super) async fn learn_issuers(&mut self) -> Result<bool, ClientError> {
        let Some(missing) = self.mls.identities().take_missing() else { return Ok(false) };
        if self.has_asked() {
            return Ok(false);
        }
        let Some(served) = self.ask_for_issuers().await else { return Ok(false) };
        let mut account = self.account.clone();
        account.believe(&served);
        let known = !account.parsed_issuers().for_key_id(missing).is_empty();
        if known {
            tracing::info!(issuer = %missing, "the Authentication Service has another issuer");
            self.take_account(account)?;
        }
        Ok(known)
    }

    /// Whether the Authentication Service was asked within the last minute.
    fn has_asked(&self) -> bool {
        let now = self.authentication.now();
        self.issuers_said.as_ref().is_some_and(|said| said.at.is_within_ms(ASK_MS, now))
    }

    async fn ask_for_issuers(&mut self) -> Option<Issuers> {
        let authentication = self.authentication.within(PATIENCE);
        let asked = served_issuers(&authentication, self.account.client.domain()).await;
        let served = asked.inspect_err(|error| tracing::warn!(%error, "the issuers cannot be asked for")).ok();
        self.issuers_said = Some(Said { at: self.authentication.now(), served: served.clone() });
        served
    }

    /// Whether a server has refused this client's certificate, by the code of what it said, as the Authentication Service does not serve its issuer
    /// any more. Only that one's own word counts: who else refuses a certificate has nobody renew it.
    pub(super) async fn outlives_issuer(&mut self, refused: Option<Code>) -> bool {
        if refused != Some(Code::CredentialInvalid) {
            return false;
        }
        let served = match &self.issuers_said {
            Some(said) if self.has_asked() => said.served.clone(),
            _ => self.ask_for_issuers().await,
        };
        let own = LeafCertificate::parse(&self.account.certificate).map(|leaf| leaf.authority_key_id());
        let (Some(served), Ok(own)) = (served, own) else { return false };
        served.for_key_id(own).is_empty()
    }

    /// The same for the issuers of KeyPackages (MLSMessages), before each is judged.
    pub(super) async fn learn_issuers_of(
        &mut self,
        key_packages: impl Iterator<Item = &[u8]>,
    ) -> Result<(), ClientError> {
        for message in key_packages.filter_map(|bytes| MlsMessage::from_bytes(bytes).ok()) {
            let Some(package) = message.as_key_package() else { continue };
            // Whoever uses it says why it is refused.
            let _ = self.mls.identities().identify(package.signing_identity(), None);
        }
        self.learn_issuers().await.map(drop)
    }
}
