//! Bare mls-rs as the baselines have it: the same version, suite, credentials and validator as ours, private handshakes, and the
//! tree out of band.

use std::time::Duration;

use conclave_engine::account::Account;
use conclave_mls::{
    crypto::{self, CryptoProvider},
    identity::Identities,
};
use mls_rs::{
    Client, GroupStateStorage,
    client_builder::{
        BaseConfig, PaddingMode, WithCryptoProvider, WithGroupStateStorage, WithIdentityProvider, WithMlsRules,
    },
    crypto::SignatureSecretKey,
    mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions},
    storage_provider::in_memory::InMemoryGroupStateStorage,
};

/// With a store of groups.
pub(crate) type Config<S> = WithMlsRules<
    DefaultMlsRules,
    WithCryptoProvider<CryptoProvider, WithIdentityProvider<Identities, WithGroupStateStorage<S, BaseConfig>>>,
>;

/// In memory.
pub(crate) type InMemory = Config<InMemoryGroupStateStorage>;

/// A client whose commits bring a path always, or where RFC 9420 wants one.
pub(crate) fn client<S: GroupStateStorage + Clone>(account: &Account, states: S, path: bool) -> Client<Config<S>> {
    let options = CommitOptions::new()
        .with_path_required(path)
        .with_ratchet_tree_extension(false)
        .with_single_welcome_message(true);
    let rules = DefaultMlsRules::new()
        .with_commit_options(options)
        .with_encryption_options(EncryptionOptions::new(true, PaddingMode::None));
    Client::builder()
        .group_state_storage(states)
        .identity_provider(Identities::new(account.parsed_issuers()))
        .crypto_provider(crypto::provider())
        .mls_rules(rules)
        .key_package_lifetime(Duration::from_secs(90 * 24 * 3600))
        .signing_identity(
            account.signing_identity(),
            SignatureSecretKey::new(account.signature_key.to_keypair_bytes().to_vec()),
            crypto::DEFAULT_SUITE,
        )
        .build()
}
