//! What others proposed and no commit can carry out. It must stop nobody: a commit leaves it out, which ends its epoch and with that the
//! proposal (RFC 9420, section 12.2; RFC 9750, section 5.2).
//!
//! What everybody can tell is no proposal for anybody (`judge`). What only the server knows, as that a delivery address was used up, it
//! says of a commit, and of which Welcome in it: then that Add is left out. If a commit cannot be made or is refused for anything else,
//! it is made once more without all that others proposed. If that fails as well, it is not due to them, and is tried again after a
//! while. What is left out here others may commit, so it stays known; and a restart forgets what is noted here, which costs one more
//! refusal.

use std::collections::BTreeSet;

use conclave_mls::{address::DeliveryAddress, identity, rules};
use conclave_names::{Epoch, IdempotencyKey, Timestamp};
use conclave_protocol::{Code, Refusal, v1::SubmitBundleRequest};
use mls_rs::{
    MlsMessage,
    group::{CachedProposal, proposal::Proposal},
};
use prost::Message as _;

use super::Group;
use crate::{
    intent::{Prepared, Wish},
    outcome::Event,
};

/// How long others' proposals wait after committing them failed, in milliseconds: a minute, and each time twice as long, up to
/// an hour.
const RETRY_MS: u64 = 60_000;

const RETRY_MS_MOST: u64 = 3_600_000;

/// References of proposals (RFC 9420, section 5.2).
type References = BTreeSet<Vec<u8>>;

/// What commits of ours leave out in an epoch.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    epoch: Epoch,
    /// What the server refused by name.
    named: References,
    /// All that was there when a commit with it failed.
    all: References,
    /// What was added to them since a commit was made, and why.
    untold: Option<(References, String)>,
    /// How often committing what others proposed has failed.
    failures: u32,
    /// When the last of them was noticed, once the time is known.
    failed_at: Option<Timestamp>,
}

fn reference(cached: &CachedProposal) -> Vec<u8> {
    cached.proposal_ref().as_slice().to_vec()
}

/// Where a Welcome goes: the provider, and the sealed address.
type Place = (String, Vec<u8>);

fn place(address: &DeliveryAddress) -> Option<Place> {
    Some((address.domain().ok()?.to_string(), address.sealed.clone()))
}

fn place_of(proposal: &Proposal) -> Option<Place> {
    match proposal {
        Proposal::Add(add) => place(&DeliveryAddress::of(&add.key_package_extensions()).ok()?),
        _ => None,
    }
}

/// The place that a refusal of a commit names.
fn refused_place(prepared: &Prepared, refusal: &Refusal) -> Option<Place> {
    if refusal.code != Code::AddressInvalid {
        return None;
    }
    let bundle = SubmitBundleRequest::decode(prepared.bundle.as_deref()?).ok()?;
    let index = usize::try_from(refusal.number("index")?).ok()?;
    let part = bundle.welcome?.parts.into_iter().nth(index)?;
    Some((part.domain, part.address))
}

/// Whom a wish is to add there.
fn added_to(wish: &Wish, to: &Place) -> Option<String> {
    let packages = match wish {
        Wish::Add { key_packages } => key_packages.as_slice(),
        Wish::Readmit { key_package, .. } => std::slice::from_ref(key_package),
        _ => return None,
    };
    packages.iter().find_map(|bytes| {
        let message = MlsMessage::from_bytes(bytes).ok()?;
        let package = message.as_key_package()?;
        let same = place(&DeliveryAddress::of(&package.extensions).ok()?).as_ref() == Some(to);
        same.then(|| identity::read(package.signing_identity()).ok().map(|leaf| leaf.client().to_string()))?
    })
}

impl Group {
    /// Whether a proposal may be committed, as far as everybody can tell with the same result.
    pub(super) fn judge(&self, proposal: &Proposal, sender: Option<u32>) -> Result<(), rules::PolicyError> {
        rules::judge(proposal)?;
        rules::judge_key(proposal, sender, |key| self.leaf_with(key)).map(drop)
    }

    /// References of what commits in the present epoch leave out.
    pub(super) fn not_to_commit(&self) -> References {
        let LeftOut { epoch, named, all, .. } = &self.left_out;
        if *epoch == self.epoch() { named | all } else { References::new() }
    }

    fn left_out_now(&mut self) -> &mut LeftOut {
        let epoch = self.epoch();
        if self.left_out.epoch != epoch {
            self.left_out = LeftOut { epoch, ..LeftOut::default() };
        }
        &mut self.left_out
    }

    /// Has commits leave out all that others have proposed. False if they do so already.
    pub(super) fn leave_out_all(&mut self, reason: &str) -> bool {
        let all: References = self.mls.get_cached_proposals().iter().map(reference).collect();
        let more = &all - &self.not_to_commit();
        if more.is_empty() {
            return false;
        }
        let left_out = self.left_out_now();
        left_out.all = all;
        left_out.untold = Some((more, reason.to_owned()));
        true
    }

    /// Has commits leave out an Add of somebody else: one at a time, as another with the same address may be good.
    fn leave_out_added_to(&mut self, to: &Place, reason: &str) -> bool {
        let known = self.not_to_commit();
        let cached = self.mls.get_cached_proposals();
        let adds = cached.iter().filter(|cached| place_of(cached.proposal()).as_ref() == Some(to)).map(reference);
        let Some(add) = adds.filter(|add| !known.contains(add)).max() else { return false };
        let left_out = self.left_out_now();
        left_out.named.insert(add.clone());
        let (untold, _) = left_out.untold.get_or_insert_with(|| (References::new(), reason.to_owned()));
        untold.insert(add);
        true
    }

    /// A commit was made: tells what it is without.
    pub(super) fn tell_left_out(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        let Some((untold, reason)) = self.left_out_now().untold.take() else { return };
        let cached = self.mls.get_cached_proposals();
        let told = cached.iter().filter(|cached| untold.contains(&reference(cached)));
        let proposals = told.map(|cached| self.describe(cached.proposal())).collect();
        self.tell(Event::ProposalsLeftOut { proposals, reason }, now, events);
    }

    /// A commit of ours is refused for good. Says whether it is made anew without what it is refused for; else why it fails, and
    /// whose fault that is.
    pub(super) fn goes_without(&mut self, order: u64, refusal: &Refusal) -> Result<(), String> {
        let (epoch, mut reason) = (self.epoch(), refusal.to_string());
        let intent = self.intents.get(&order).filter(|of| of.wish.is_commit());
        let prepared = intent.and_then(|of| of.prepared.clone()).filter(|prepared| prepared.epoch == epoch);
        let (Some(intent), Some(prepared)) = (intent, prepared) else { return Err(reason) };
        let without = match refused_place(&prepared, refusal) {
            Some(to) => {
                if let Some(client) = added_to(&intent.wish, &to) {
                    reason.insert_str(0, &format!("{client}: "));
                    return Err(reason);
                }
                self.leave_out_added_to(&to, &reason)
            }
            None => self.leave_out_all(&reason),
        };
        if !without {
            return Err(reason);
        }
        self.withdraw(&prepared);
        self.intents.entry(order).and_modify(|intent| intent.prepared = None);
        self.save_intent(order);
        Ok(())
    }

    /// Gives a wish up that cannot be carried out. To commit what others proposed is put off only, and that is told once.
    pub(super) fn give_up(
        &mut self,
        order: u64,
        intent: IdempotencyKey,
        reason: String,
        time: Timestamp,
        events: &mut Vec<Event>,
    ) {
        let commits = self.intents.get(&order).is_some_and(|intent| intent.wish == Wish::CommitProposals);
        if let Some(wish) = self.intents.get(&order).filter(|of| of.automatic).map(|intent| intent.wish.clone()) {
            self.rest(&wish, time);
        }
        let left_out = self.left_out_now();
        left_out.untold = None;
        if commits {
            left_out.failures = left_out.failures.saturating_add(1);
            left_out.failed_at = None;
        } else {
            // It is not due to what others proposed.
            left_out.all.clear();
        }
        if commits && left_out.failures > 1 {
            self.drop_intent(order);
        } else {
            self.fail_intent(order, intent, reason, time, events);
        }
    }

    /// Takes note of the time, from which a pause counts.
    pub(super) fn note_put_off(&mut self, now: Timestamp) {
        let left_out = self.left_out_now();
        // A clock that was set back must not make it longer.
        if left_out.failures > 0 && left_out.failed_at.is_none_or(|at| at > now) {
            left_out.failed_at = Some(now);
        }
    }

    /// Until when committing what others proposed is put off.
    pub(super) fn put_off(&self) -> Option<Timestamp> {
        let LeftOut { failures, failed_at, .. } =
            Some(&self.left_out).filter(|of| of.epoch == self.epoch() && of.failures > 0)?;
        let pause = RETRY_MS.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_MS_MOST);
        failed_at.map(|at| at.plus_ms(pause))
    }

    /// The first change of our own, while messages wait for proposals that nobody can commit now: it ends the epoch, and them with it.
    pub(super) fn change_instead(&self) -> Option<u64> {
        let ends = |wish: &Wish| wish.is_commit() && !wish.is_reinit() && *wish != Wish::CommitProposals;
        self.intents.iter().find(|(_, intent)| !intent.ordered && ends(&intent.wish)).map(|(order, _)| *order)
    }
}
