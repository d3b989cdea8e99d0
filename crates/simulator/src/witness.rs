//! That no key is used twice: members beside the ones that are simulated, which are given everything that leaves a
//! device, whether or not it arrives.
//!
//! A receiver deletes a message's key once it has read the message, so it refuses another under the same key (epoch,
//! leaf, generation). Witnesses are copies of members, made when these come to an epoch, that never leave it. What
//! they cannot see is keys of commits, which would end their epoch: see `keys`.

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::{Entry, EntryKind, chain};
use conclave_engine::{
    Mls,
    account::Account,
    group::{Group, Incoming, SubmissionBody},
    outcome::{Outcome, Rejection},
};
use conclave_names::{Epoch, GroupUri, Hash, Seq, Timestamp};

use crate::{disk::Disk, network::Stop};

/// Witnesses of an epoch: one would be silent about its own messages.
const WITNESSES: usize = 2;

struct Witness {
    actor: usize,
    made: Timestamp,
    group: Group,
}

/// Witnesses of all epochs of all groups.
#[derive(Default)]
pub(crate) struct Witnesses {
    seen: BTreeSet<Hash>,
    /// By the epochs' authenticators: of two epochs with one number, one is void.
    by_epoch: BTreeMap<Vec<u8>, Vec<Witness>>,
    /// Messages and proposals that were read by a witness.
    pub(crate) heard: u64,
}

impl Witnesses {
    /// Makes a witness of a member, if its epoch has too few.
    pub(crate) fn meet(
        &mut self,
        actor: usize,
        account: &Account,
        disk: &Disk,
        name: &GroupUri,
        (authenticator, now): (&[u8], Timestamp),
    ) -> Result<(), Stop> {
        let witnesses = self.by_epoch.entry(authenticator.to_vec()).or_default();
        if witnesses.len() >= WITNESSES || witnesses.iter().any(|witness| witness.actor == actor) {
            return Ok(());
        }
        let mls = Mls::new(account);
        if let Some(group) = Group::load(account, &mls, disk, name).map_err(Stop::violation)? {
            witnesses.push(Witness { actor, made: now, group });
        }
        Ok(())
    }

    /// Takes what leaves a device.
    pub(crate) fn hear(
        &mut self,
        actor: usize,
        authenticator_of: impl Fn(Epoch) -> Option<Vec<u8>>,
        body: &SubmissionBody,
        blobs: &[Vec<u8>],
    ) -> Result<(), Stop> {
        let SubmissionBody::Entry(request) = body else { return Ok(()) };
        if !self.seen.insert(chain::entry_hash(&request.entry)) {
            return Ok(());
        }
        let Ok(entry) = Entry::parse(&request.entry) else { return Ok(()) };
        if !matches!(entry.kind, EntryKind::Message | EntryKind::Proposal) {
            return Ok(());
        }
        let Some(authenticator) = authenticator_of(entry.epoch) else { return Ok(()) };
        let witnesses = self.by_epoch.get_mut(&authenticator).into_iter().flatten();
        for witness in witnesses.filter(|witness| witness.actor != actor && witness.group.epoch() == entry.epoch) {
            let seq = witness.group.position().seq.next();
            let blob = blobs.first().cloned();
            let incoming = Incoming { seq, time: witness.made, entry: request.entry.clone(), blob };
            let done = witness.group.process(&[incoming]);
            // What a witness would store is nobody's.
            let _ = witness.group.take_writes().map_err(Stop::violation)?;
            match done.outcomes.first() {
                Some((_, Outcome::Rejected(Rejection::Mls(reason)))) => {
                    return Err(Stop::violation(format!(
                        "client {actor} uses a key of epoch {} twice: {reason}",
                        entry.epoch
                    )));
                }
                Some((_, Outcome::Applied)) => self.heard += 1,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Commits of a batch, by the epochs that they begin.
pub(crate) fn commits<'a>(batch: impl IntoIterator<Item = &'a Incoming>) -> BTreeMap<Epoch, Seq> {
    let commit = |incoming: &Incoming| {
        let entry = Entry::parse(&incoming.entry).ok().filter(|entry| entry.kind == EntryKind::Commit)?;
        Some((entry.epoch.next(), incoming.seq))
    };
    batch.into_iter().filter_map(commit).collect()
}
