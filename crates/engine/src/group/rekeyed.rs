//! Members that sign with another key than before (RFC 9420, sections 5.3.1, 7.3 and 12.4.3.2), and what was on its way meanwhile.
//!
//! A commit by which a leaf changes its signature key names the same client and identity key, or it is refused. MLS takes no message of an
//! epoch before it any more, whoever reads it: the key that it was signed with is not the sender's now. All readers are in the same
//! epoch at a place of the log, so they agree on that, and so does the sender: what it said comes again in the new epoch, under its
//! name.

use conclave_mls::{
    credential::{OfClient, same_client},
    identity,
};
use conclave_names::{ClientUri, Epoch};
use mls_rs::{
    group::{CommitEffect, CommitMessageDescription, GroupState, Sender, proposal::Proposal},
    identity::SigningIdentity,
};

use super::{Group, submit::is_message};
use crate::mls_client::MlsGroup;

/// Who a leaf is, and what it signs with.
#[derive(PartialEq, Eq)]
struct Signs {
    client: ClientUri,
    identity_key: [u8; 32],
    signature_key: Vec<u8>,
}

impl OfClient for Signs {
    fn client(&self) -> &ClientUri {
        &self.client
    }

    fn identity_key(&self) -> [u8; 32] {
        self.identity_key
    }
}

impl Signs {
    fn of(signing_identity: &SigningIdentity) -> Option<Self> {
        let leaf = identity::read(signing_identity).ok()?;
        Some(Self {
            client: leaf.client().clone(),
            identity_key: leaf.identity_key(),
            signature_key: signing_identity.signature_key.as_bytes().to_vec(),
        })
    }

    fn before(state: &GroupState, leaf: u32) -> Option<Self> {
        Self::of(&state.member_at_index(leaf)?.signing_identity)
    }

    fn after(mls: &MlsGroup, leaf: u32) -> Option<Self> {
        Self::of(&mls.member_at_index(leaf)?.signing_identity)
    }
}

/// The clients that a commit leaves in the group with the same identity key and another signature key.
pub(super) fn rekeyed(description: &CommitMessageDescription, after: &MlsGroup) -> Vec<ClientUri> {
    let CommitEffect::NewEpoch(epoch) = &description.effect else { return Vec::new() };
    let prior = &epoch.prior_state;
    let (mut were, mut are) = (Vec::new(), vec![Signs::after(after, description.committer)]);
    if !description.is_external {
        were.push(Signs::before(prior, description.committer));
    }
    for info in &epoch.applied_proposals {
        match (&info.proposal, &info.sender) {
            (Proposal::Update(_), Sender::Member(leaf)) => {
                were.push(Signs::before(prior, *leaf));
                are.push(Signs::after(after, *leaf));
            }
            (Proposal::Remove(remove), _) => were.push(Signs::before(prior, remove.to_remove())),
            (Proposal::Add(add), _) => are.push(Signs::of(add.signing_identity())),
            _ => {}
        }
    }
    let changed =
        |is: &Signs| were.iter().flatten().any(|was| same_client(was, is) && was.signature_key != is.signature_key);
    are.into_iter().flatten().filter(changed).map(|is| is.client).collect()
}

/// Our leaf's place in the tree and its signature key.
#[derive(PartialEq, Eq)]
pub(super) struct Place {
    leaf: u32,
    key: Option<Vec<u8>>,
}

impl Group {
    pub(super) fn own_place(&self) -> Place {
        let own = self.mls.current_member_signing_identity().ok();
        Place { leaf: self.mls.current_member_index(), key: own.map(|own| own.signature_key.as_bytes().to_vec()) }
    }

    /// An epoch began. What we sent before it is read in it only by our place and key of then.
    pub(super) fn note_own_place(&mut self, before: &Place, began: Epoch) {
        if self.own_place() != *before || self.is_in_wrong_branch() {
            self.signs_since = began;
        }
    }

    /// Whether a message of ours that was made in an epoch is read by nobody who is in the present one.
    pub(super) fn is_read_by_none(&self, made_in: Epoch) -> bool {
        made_in < self.signs_since
    }

    /// Has messages made anew that nobody would read as they are. Those may be ordered all the same.
    pub(super) fn say_again_what_none_reads(&mut self) {
        let since = self.signs_since;
        let mut taken = Vec::new();
        for (order, intent) in self.intents.iter_mut().filter(|(_, intent)| is_message(&intent.wish)) {
            if let Some(prepared) = intent.prepared.take_if(|prepared| prepared.epoch < since) {
                taken.push((*order, intent.wish.clone(), prepared));
            }
        }
        for (order, wish, prepared) in taken {
            self.overtake(&wish, &prepared, false);
            self.save_intent(order);
        }
    }

    /// Whether the group may know us by a signature key: our leaf has it, or may have it again, as a commit may be annulled.
    #[must_use]
    pub fn may_sign_with(&self, public: &[u8; 32]) -> bool {
        let own = self.mls.current_member_signing_identity();
        !self.ledger.open().is_empty() || own.is_ok_and(|own| own.signature_key.as_bytes() == public)
    }

    /// Whether our leaf has another signature key than our account: the next commit that renews our keys changes that.
    #[must_use]
    pub fn owes_rotation(&self) -> bool {
        let own = self.mls.current_member_signing_identity();
        let public = self.account.signature_key.verifying_key();
        own.is_ok_and(|own| own.signature_key.as_bytes() != public.as_bytes())
    }
}
