//! The policy hook and the validator of credentials, which rest while a group is restored from the log: what was
//! admitted once is not judged again, by issuers or rules that may have changed since.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use conclave_mls::{
    identity::{Identities, IdentityError},
    rules::{PolicyError, Rules},
};
use mls_rs::{
    ExtensionList, IdentityProvider, MlsRules,
    group::{GroupContext, Roster},
    identity::{CredentialType, SigningIdentity},
    mls_rules::{CommitDirection, CommitOptions, CommitSource, EncryptionOptions, ProposalBundle},
    time::MlsTime,
};
use mls_rs_core::identity::MemberValidationContext;

/// Whether one group's judges are awake. Copies of the group share it.
#[derive(Debug, Clone)]
pub(super) struct Awake(Arc<AtomicBool>);

impl Awake {
    pub(super) fn new(awake: bool) -> Self {
        Self(Arc::new(AtomicBool::new(awake)))
    }

    /// From now on everything is judged.
    pub(super) fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A judge that may rest.
#[derive(Debug, Clone)]
pub(super) struct Judge<T> {
    pub(super) judge: T,
    pub(super) awake: Awake,
}

impl IdentityProvider for Judge<Identities> {
    type Error = IdentityError;

    fn validate_member(
        &self,
        signing_identity: &SigningIdentity,
        time: Option<MlsTime>,
        context: MemberValidationContext<'_>,
    ) -> Result<(), IdentityError> {
        if self.awake.is() { self.judge.validate_member(signing_identity, time, context) } else { Ok(()) }
    }

    fn validate_external_sender(
        &self,
        signing_identity: &SigningIdentity,
        time: Option<MlsTime>,
        extensions: Option<&ExtensionList>,
    ) -> Result<(), IdentityError> {
        if self.awake.is() { self.judge.validate_external_sender(signing_identity, time, extensions) } else { Ok(()) }
    }

    fn identity(
        &self,
        signing_identity: &SigningIdentity,
        extensions: &ExtensionList,
    ) -> Result<Vec<u8>, IdentityError> {
        self.judge.identity(signing_identity, extensions)
    }

    fn valid_successor(
        &self,
        predecessor: &SigningIdentity,
        successor: &SigningIdentity,
        extensions: &ExtensionList,
    ) -> Result<bool, IdentityError> {
        self.judge.valid_successor(predecessor, successor, extensions)
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        self.judge.supported_types()
    }
}

impl MlsRules for Judge<Rules> {
    type Error = PolicyError;

    fn filter_proposals(
        &self,
        direction: CommitDirection,
        source: CommitSource,
        roster: &Roster<'_>,
        context: &GroupContext,
        proposals: ProposalBundle,
    ) -> Result<ProposalBundle, PolicyError> {
        if self.awake.is() {
            self.judge.filter_proposals(direction, source, roster, context, proposals)
        } else {
            Ok(proposals)
        }
    }

    fn commit_options(
        &self,
        roster: &Roster<'_>,
        context: &GroupContext,
        proposals: &ProposalBundle,
    ) -> Result<CommitOptions, PolicyError> {
        self.judge.commit_options(roster, context, proposals)
    }

    fn encryption_options(
        &self,
        roster: &Roster<'_>,
        context: &GroupContext,
    ) -> Result<EncryptionOptions, PolicyError> {
        self.judge.encryption_options(roster, context)
    }
}
