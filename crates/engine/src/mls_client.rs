//! The mls-rs client of an account, and what it is made of.

use std::{collections::BTreeSet, time::Duration};

use conclave_channel::access::ChannelKey;
use conclave_mls::{
    components::{AppDataDictionary, ChannelKeyExtension},
    crypto::{self, CryptoProvider, SuiteProvider},
    identity::{Identities, signing_identity},
    rules::{LeavingOut, Rules},
};
use conclave_names::{Timestamp, code_points, limits};
use ed25519_dalek::SigningKey;
use mls_rs::{
    CipherSuite, Client, ExtensionList,
    client_builder::{
        BaseConfig, WithCryptoProvider, WithGroupStateStorage, WithIdentityProvider, WithKeyPackageRepo, WithMlsRules,
        WithPskStore,
    },
    crypto::SignatureSecretKey,
    extension::ExtensionType,
    time::MlsTime,
};
use mls_rs_core::crypto::CipherSuiteProvider;
use zeroize::Zeroizing;

use crate::{
    account::Account,
    group::EarlyRoom,
    stores::{GroupStates, KeyPackages, Psks},
};

/// What mls-rs is configured with.
pub(crate) type Config = WithMlsRules<
    LeavingOut<Rules>,
    WithPskStore<
        Psks,
        WithKeyPackageRepo<
            KeyPackages,
            WithGroupStateStorage<
                GroupStates,
                WithIdentityProvider<Identities, WithCryptoProvider<CryptoProvider, BaseConfig>>,
            >,
        >,
    >,
>;

pub(crate) type MlsGroup = mls_rs::Group<Config>;

/// Something MLS refused. The text names the reason; no secret is in it.
#[derive(Debug, thiserror::Error)]
#[error("MLS refused: {0}")]
pub struct MlsError(pub(crate) String);

impl From<mls_rs::error::MlsError> for MlsError {
    fn from(error: mls_rs::error::MlsError) -> Self {
        Self(error.to_string())
    }
}

/// The MLS side of an account: makes clients for a cipher suite, and holds what is not yet durable.
#[derive(Clone, Debug)]
pub struct Mls {
    pub(crate) identities: Identities,
    pub(crate) groups: GroupStates,
    pub(crate) key_packages: KeyPackages,
    pub(crate) psks: Psks,
    pub(crate) rules: LeavingOut<Rules>,
    /// Room for entries that come early, in all groups.
    pub(crate) early: EarlyRoom,
}

impl Mls {
    /// For an account.
    #[must_use]
    pub fn new(account: &Account) -> Self {
        Self {
            identities: Identities::new(account.parsed_issuers()),
            groups: GroupStates::default(),
            key_packages: KeyPackages::default(),
            psks: Psks::default(),
            rules: LeavingOut::new(Rules),
            early: EarlyRoom::default(),
        }
    }

    /// The same, with stores of its own: for a group's state that is not the one that is open.
    pub(crate) fn apart(&self) -> Self {
        Self {
            identities: self.identities.clone(),
            groups: GroupStates::default(),
            key_packages: KeyPackages::default(),
            psks: Psks::default(),
            rules: LeavingOut::new(Rules),
            early: self.early.clone(),
        }
    }

    /// Judges identities; clones share its issuers.
    #[must_use]
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Does something meanwhile, as building a commit, that leaves these proposals out.
    pub(crate) fn leaving_out<T>(&self, references: &BTreeSet<Vec<u8>>, build: impl FnOnce() -> T) -> T {
        self.rules.leave_out(references);
        let built = build();
        self.rules.take_in(references);
        built
    }

    pub(crate) fn client(&self, account: &Account, suite: CipherSuite) -> Client<Config> {
        self.client_signing(account, &account.signature_key, suite)
    }

    /// One that signs with a key that may be a former one: to join by what was made with that.
    pub(crate) fn client_signing(&self, account: &Account, key: &SigningKey, suite: CipherSuite) -> Client<Config> {
        let identity = signing_identity(account.certificate.clone(), key.verifying_key().as_bytes());
        let extensions = [
            code_points::EXTENSION_APP_DATA_DICTIONARY,
            code_points::EXTENSION_DELIVERY_ADDRESS,
            code_points::EXTENSION_CHANNEL_KEY,
            code_points::EXTENSION_LAST_RESORT,
        ];
        Client::builder()
            .crypto_provider(crypto::provider())
            .identity_provider(self.identities.clone())
            .group_state_storage(self.groups.clone())
            .key_package_repo(self.key_packages.clone())
            .psk_store(self.psks.clone())
            .mls_rules(self.rules.clone())
            .extension_types(extensions.map(ExtensionType::new))
            .key_package_lifetime(Duration::from_secs(limits::KEY_PACKAGE_LIFETIME - 3600))
            .signing_identity(identity, signature_secret(key), suite)
            .build()
    }
}

/// The suite's cryptography; the suites of open groups are ours.
pub(crate) fn suite(suite: CipherSuite) -> Result<SuiteProvider, MlsError> {
    crypto::suite(suite).map_err(|error| MlsError(error.to_string()))
}

/// mls-rs takes an Ed25519 secret as seed and public key.
pub(crate) fn signature_secret(key: &SigningKey) -> SignatureSecretKey {
    SignatureSecretKey::new(key.to_keypair_bytes().to_vec())
}

/// The time that mls-rs works with, in whole seconds.
pub(crate) fn mls_time(time: Timestamp) -> MlsTime {
    MlsTime::from_duration_since_epoch(Duration::from_secs(time.as_secs()))
}

/// Random bytes from the suite's source.
pub(crate) fn random<const N: usize>(suite: &SuiteProvider) -> Result<[u8; N], MlsError> {
    let bytes = Zeroizing::new(suite.random_bytes_vec(N).map_err(|error| MlsError(error.to_string()))?);
    bytes.as_slice().try_into().map_err(|_| MlsError("no random bytes".into()))
}

/// What a leaf of ours carries: the channel key, and which components we know.
pub(crate) fn leaf_extensions(channel_key: &SigningKey) -> Result<ExtensionList, MlsError> {
    let fault = |error: &dyn std::fmt::Display| MlsError(error.to_string());
    let mut extensions = ExtensionList::new();
    extensions
        .set_from(ChannelKeyExtension(ChannelKey(channel_key.verifying_key().to_bytes())))
        .map_err(|error| fault(&error))?;
    let dictionary = AppDataDictionary::for_leaf().map_err(|error| fault(&error))?;
    extensions.set(dictionary.to_extension().map_err(|error| fault(&error))?);
    Ok(extensions)
}
