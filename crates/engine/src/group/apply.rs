//! Applying commits: every check, and what follows from one that passes.

use std::sync::Arc;

use conclave_channel::{Entry, chain};
use conclave_mls::{components::HandshakeAad, rules::PATHLESS_ADDS_FROM, seal::EXPORTER_LABEL};
use conclave_names::Epoch;
use mls_rs::{
    MlsMessage,
    group::{CommitEffect, CommitMessageDescription, CommitSecrets, ReceivedMessage, proposal::Proposal},
};

use super::{
    Group, Status,
    access::{Keys, channel_key_at},
    create::export_key,
    process::{Checkpoint, Incoming},
    reinit::Frozen,
    rekeyed::rekeyed,
    step::Step,
    tree::TREE_KEY_LABEL,
    view::client_in,
};
use crate::{
    intent::Wish,
    mls_client::{MlsError, MlsGroup, mls_time},
    outcome::{Event, Outcome, Rejection},
};

impl Group {
    /// A commit of ours.
    pub(super) fn apply_own(
        &mut self,
        secrets: &[u8],
        step: Option<Step>,
        entry: &Entry,
        incoming: &Incoming,
        stays_open: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), Rejection> {
        let apply = |mls: &mut MlsGroup| {
            CommitSecrets::from_bytes(secrets)
                .and_then(|secrets| mls.apply_detached_commit(secrets))
                .map_err(|error| Rejection::Mls(error.to_string()))
        };
        self.advance(entry, incoming, stays_open, events, apply, step)
    }

    /// Somebody's commit.
    pub(super) fn follow(
        &mut self,
        entry: &Entry,
        message: MlsMessage,
        incoming: &Incoming,
        stays_open: bool,
        checkpoint: &mut Option<Checkpoint>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let (outside, time) = (Self::is_outside(&message), mls_time(incoming.time));
        let step = message.to_bytes().ok().map(|message| Step::Read(message, incoming.time));
        let process = |mls: &mut MlsGroup| match mls.process_incoming_message_with_time(message, time) {
            Ok(ReceivedMessage::Commit(description)) => Ok(description),
            Ok(_) => Err(Rejection::Mismatch),
            Err(mls_rs::error::MlsError::ProposalNotFound) => Err(Rejection::UnknownProposal),
            Err(error) => Err(Rejection::Mls(error.to_string())),
        };
        *checkpoint = None;
        let advanced = if outside {
            match self.rejoin_psk(entry.epoch) {
                Ok((id, psk)) => {
                    let psks = self.shared.psks.clone();
                    psks.during(id, psk, || self.advance(entry, incoming, stays_open, events, process, None))
                }
                Err(error) => Err(Rejection::Mls(error.to_string())),
            }
        } else {
            self.advance(entry, incoming, stays_open, events, process, step)
        };
        match advanced {
            Ok(()) => Outcome::Applied,
            Err(rejection) => Outcome::NeedsRecovery(rejection),
        }
    }

    /// Applies a commit, with every check. The group goes on only if all pass.
    ///
    /// A commit is applied to a copy. Where the store has the group as it is, and nobody goes, whose name would be looked
    /// up in the group before, the store's is the copy: copying takes as long as applying where members are many. And
    /// where it has that, the state after the commit is not written at once, but the commit (`step`).
    fn advance(
        &mut self,
        entry: &Entry,
        incoming: &Incoming,
        stays_open: bool,
        events: &mut Vec<Event>,
        apply: impl FnOnce(&mut MlsGroup) -> Result<CommitMessageDescription, Rejection>,
        step: Option<Step>,
    ) -> Result<(), Rejection> {
        self.remember_epoch();
        let removes = entry.commit.is_none_or(|header| header.removed > 0) || self.mls.commit_required();
        let fault = |error: MlsError| Rejection::Mls(error.to_string());
        if stays_open && !removes && self.lags() {
            // It would be written anyway, to go back to if the commit is annulled.
            self.write_state().map_err(fault)?;
        }
        // They are of the group before.
        let keys = Arc::clone(self.keys().map_err(fault)?);
        let (ended, step) = (self.epoch(), step.filter(|_| !self.lags()));
        let place = self.own_place();
        if self.lags() || removes {
            let mut next = self.mls.clone();
            let description = apply(&mut next)?;
            self.accept(Some(next), &keys, &description, entry, incoming, stays_open, events)?;
        } else {
            let applied = apply(&mut self.mls)
                .and_then(|description| self.accept(None, &keys, &description, entry, incoming, stays_open, events));
            if applied.is_err() {
                self.fall_back(None);
            }
            applied?;
        }
        if self.status != Status::Removed && self.epoch() > ended {
            self.note_own_place(&place, self.epoch());
            self.say_again_what_none_reads();
        }
        if let Some(step) = step.filter(|_| self.epoch() == ended.next() && self.frozen.is_none()) {
            self.take_step(step);
        }
        Ok(())
    }

    /// The checks of every commit, and what follows from it. `next` is the group after it, or none if ours is that
    /// already; but for that, nothing has changed if a check fails.
    #[allow(clippy::too_many_arguments)]
    fn accept(
        &mut self,
        next: Option<MlsGroup>,
        keys: &Keys,
        description: &CommitMessageDescription,
        entry: &Entry,
        incoming: &Incoming,
        stays_open: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), Rejection> {
        let header = entry.commit.ok_or(Rejection::Mismatch)?;
        let (position, aad) = HandshakeAad::of_commit(&description.authenticated_data)
            .map_err(|error| Rejection::AuthenticatedData(error.to_string()))?;
        if aad.key_root != header.key_root {
            return Err(Rejection::KeyRoot);
        }
        let none = Vec::new();
        let (applied, removed_us, reinit) = match &description.effect {
            CommitEffect::NewEpoch(epoch) => (&epoch.applied_proposals, false, None),
            CommitEffect::Removed { new_epoch, .. } => (&new_epoch.applied_proposals, true, None),
            CommitEffect::ReInit(info) => (&none, false, Some(&info.proposal)),
        };
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for info in applied {
            match &info.proposal {
                Proposal::Add(add) => {
                    let identity = self
                        .shared
                        .identities
                        .identify(add.signing_identity(), Some(incoming.time))
                        .map_err(|error| Rejection::Credential(error.to_string()))?;
                    added.push(identity.client);
                }
                // Its own old leaf.
                Proposal::Remove(_) if description.is_external => {}
                // Whom it removes stands in the group before.
                Proposal::Remove(_) if next.is_none() => return Err(Rejection::Flags),
                Proposal::Remove(remove) => {
                    removed.push(self.client_at(remove.to_remove()).map_err(|_| Rejection::Mismatch)?);
                }
                _ => {}
            }
        }
        let outside = description.is_external;
        if outside && removed_us {
            // It came in our name and took our leaf's place.
            return Err(Rejection::OwnKeys);
        }
        if outside {
            Self::check_outside(description, &header, &aad)?;
        }
        let back = self.readmitted(applied);
        let rekeyed = rekeyed(description, next.as_ref().unwrap_or(&self.mls));
        if header.removed as usize != removed.len() || (header.removed > 0 && !aad.renews_seed) {
            return Err(Rejection::Flags);
        }
        let after = next.as_ref().unwrap_or(&self.mls);
        // Who comes from outside has its leaf afterwards only; others are the same client before and after.
        let committer =
            if outside { channel_key_at(after, description.committer).ok() } else { keys.at(description.committer) };
        if committer != Some(header.committer) {
            return Err(Rejection::Committer);
        }
        let by = if outside { client_in(after, description.committer) } else { self.client_at(description.committer) };
        let by = by.map_err(|_| Rejection::Mismatch)?;
        self.compare(&position, &by, incoming.time, events);
        if removed_us {
            // Should the commit be annulled, we still want to leave.
            let leaves = self.intents.iter().find(|(_, intent)| intent.wish == Wish::Leave);
            if let Some((order, intent)) = leaves.map(|(order, intent)| (*order, intent.clone())).filter(|_| stays_open)
            {
                self.keep_done(order, &intent, entry.epoch.next(), None);
            }
            let failed = self.end();
            self.removed_at = stays_open.then_some(incoming.seq);
            events.push(Event::RemovedFromGroup { by });
            events.extend(failed);
            return Ok(());
        }
        let after = next.as_ref().unwrap_or(&self.mls);
        let keys = keys.after(after).map_err(|_| Rejection::KeyRoot)?;
        if keys.tree.root() != header.key_root || keys.tree.len() != header.members {
            return Err(Rejection::KeyRoot);
        }
        let new_epoch = Epoch(after.current_epoch());
        let export = |label| {
            let key = export_key(after, label, &self.profile.channel);
            key.map_err(|error| Rejection::Mls(error.to_string()))
        };
        let frozen = reinit.map(|proposal| Frozen::new(new_epoch, proposal)).transpose();
        let frozen = frozen.map_err(|error| Rejection::Mls(error.to_string()))?;
        let seed = aad.renews_seed.then(|| export(EXPORTER_LABEL)).transpose()?;
        let tree_key = aad.renews_tree_key.then(|| export(TREE_KEY_LABEL)).transpose()?;
        if stays_open {
            let gone = removed.iter().filter(|client| !back.contains(client)).cloned().collect();
            self.keep_parent((incoming.seq, entry.epoch), &added, gone)
                .map_err(|error| Rejection::Mls(error.to_string()))?;
        }
        if let Some(seed) = seed {
            self.add_seed(new_epoch, seed);
        }
        if let Some(key) = tree_key {
            self.add_tree_key(new_epoch, key);
        }
        if let Some(next) = next {
            self.mls = next;
        }
        self.first_generation();
        self.keys = Arc::new(keys).into();
        self.dirty = true;
        self.unsaved_proposals = false;
        self.proposed_at = None;
        self.forget_generations();
        self.epoch_ended(entry.epoch, incoming.time);
        self.tree_began(&chain::entry_hash(&incoming.entry));
        if by == self.account.client {
            let only_adds = !added.is_empty() && applied.len() == added.len();
            let before = header.members.saturating_sub(u32::try_from(added.len()).unwrap_or(u32::MAX));
            // Those of large groups bring no path, and so leave our keys as they are.
            if !only_adds || before < PATHLESS_ADDS_FROM {
                self.refreshed_by(incoming.seq, incoming.time);
            }
        } else {
            self.confirm_member(&by);
        }
        self.members_changed(&added, &removed, incoming.time);
        if let Some(frozen) = frozen {
            self.frozen = Some(frozen);
            events.push(Event::Frozen { by: by.clone(), epoch: new_epoch });
        }
        if !back.is_empty() {
            added.retain(|client| !back.contains(client));
            removed.retain(|client| !back.contains(client));
            events.push(Event::Readmitted { by: by.clone(), members: back.clone(), epoch: new_epoch });
        }
        let replaced = back.iter().chain(outside.then_some(&by)).cloned();
        self.note_replacements((incoming.seq, incoming.time), replaced, added.iter().chain(&removed).cloned());
        if outside {
            events.push(Event::Rejoined { member: by.clone(), epoch: new_epoch });
        } else if self.frozen.is_none() && added.is_empty() && removed.is_empty() && back.is_empty() {
            events.push(Event::Updated { by: by.clone(), epoch: new_epoch });
        }
        if !added.is_empty() {
            // Whom we added ourselves we know of. Who came back as it was is not among them; with another identity key, it is new.
            if by != self.account.client {
                self.last_added = new_epoch;
            }
            events.push(Event::Added { by: by.clone(), members: added, epoch: new_epoch });
        }
        if !removed.is_empty() {
            events.push(Event::Removed { by, members: removed, epoch: new_epoch });
        }
        events.extend(rekeyed.into_iter().map(|member| Event::KeyChanged { member, epoch: new_epoch }));
        self.rebase();
        Ok(())
    }
}
