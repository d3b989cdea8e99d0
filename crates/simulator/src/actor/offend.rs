//! A member that breaks the rules. Its engine does not know: what leaves it is changed on the way, or made by hand.

use conclave_channel::{
    Body, Entry, EntryKind, Position, access::ChannelKey, chain, law::OpenCommit, verdict::Verdict,
};
use conclave_delivery::store::{ChannelKind, EntryRow};
use conclave_engine::{
    group::{Status, SubmissionBody},
    intent::Wish,
};
use conclave_mls::content::MessageId;
use conclave_names::{IdempotencyKey, Seq};

use conclave_protocol::{
    Code,
    v1::{SubmitBundleRequest, SubmitRequest, SubmitResponse},
};

use super::{Actor, Surroundings, random};
use crate::{hostile::Offence, ledger::Deed, network::Stop, server::Session};

/// A bundle that is not what it should be.
pub(super) struct Spoilt {
    offence: Offence,
    body: SubmissionBody,
    /// A blob to stage before.
    blob: Option<Vec<u8>>,
}

/// An entry that breaks the rules, and the commit that it is a word about.
type BadEntry = (Vec<u8>, Option<Seq>);

/// What is no message of anybody's.
const NOISE: [u8; 200] = [0x5A; 200];

impl Actor {
    /// A commit in place of ours that is not what it should be. Not of somebody who is alone (nobody could dispute it),
    /// nor a removal (the removed would be counted out).
    pub(super) fn spoil(&mut self, slot: usize, body: &SubmissionBody) -> Option<Spoilt> {
        let SubmissionBody::Bundle(bundle) = body else { return None };
        let offence = self.offence.filter(|offence| offence.is_commit())?;
        let members = self.group(slot)?.members().ok()?.len();
        let mut spoilt = bundle.as_ref().clone();
        let mut blob = None;
        match offence {
            Offence::Welcome => {
                let welcome = spoilt.welcome.as_mut()?;
                welcome.encrypted_group_info.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            }
            // Of visible groups the service checks both.
            Offence::GroupInfo => spoilt.group_info = NOISE.to_vec(),
            Offence::Tree if spoilt.tree.is_empty() => return None,
            Offence::Tree => {
                let garbage = NOISE.to_vec();
                let name = chain::entry_hash(&garbage).to_vec();
                spoilt.tree.clone_from(&name);
                spoilt.tree_added.push(name);
                blob = Some(garbage);
            }
            // The removed whom it claims could not dispute it, so there must be enough others.
            Offence::Flags if members < 5 => return None,
            // It was made so.
            Offence::PathSecret | Offence::PathSecrets => return None,
            _ => spoil_entry(&mut spoilt, offence, members)?,
        }
        spoilt.idempotency_key.iter_mut().for_each(|byte| *byte = !*byte);
        self.offence = None;
        Some(Spoilt { offence, body: SubmissionBody::Bundle(Box::new(spoilt)), blob })
    }

    pub(super) fn send_spoilt(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        mut session: Session,
        spoilt: Spoilt,
    ) -> Result<SubmitResponse, Stop> {
        let Spoilt { offence, body, blob } = spoilt;
        around.ledger.tell(format!("    {} sends a bad commit: {offence:?}", self.name()));
        around.server.crash = None;
        if let Some(blob) = blob {
            let _may_fail = around.server.stage(&mut session, &blob);
        }
        let submission = session.submission(&body);
        let sent = around.server.submit(&submission);
        self.close_session(slot);
        match sent {
            Ok(reply) => around.ledger.misdeed(Deed::Offended(offence), slot, self.index, Some(Seq(reply.seq))),
            Err(refusal) => around.ledger.tell(format!("    the service refuses it: {}", refusal.code)),
        }
        // Who does so hides it from its own program.
        Err(Stop::Unreachable)
    }

    /// The commit that we have made cannot be applied by all.
    pub(super) fn commit_is_partial(&mut self, around: &mut Surroundings, slot: usize, body: &SubmissionBody) {
        if let (Some(offence), SubmissionBody::Bundle(bundle)) = (self.offence.take(), body) {
            around.ledger.partial.insert(chain::entry_hash(&bundle.entry));
            around.ledger.misdeed(Deed::Offended(offence), slot, self.index, None);
        }
    }

    /// Breaks the rules by something that is no commit.
    pub(crate) fn offend(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let Some(offence) = self.offence.take().filter(|offence| !offence.is_commit()) else { return Ok(()) };
        if offence == Offence::Repeat {
            return self.repeat(around, slot);
        }
        let Some((entry, about)) = self.bad_entry(around, slot, offence)? else { return Ok(()) };
        let mut session = match self.session(around, slot) {
            // Its epoch may be void, as it has yet to read.
            Err(Stop::Refused(refusal)) if refusal.code == Code::AccessRefused => return Ok(()),
            session => session?,
        };
        around.server.crash = None;
        let idempotency_key = IdempotencyKey::new(random()?).to_vec();
        let submission = session.submission(&SubmissionBody::Entry(SubmitRequest { idempotency_key, entry }));
        let sent = around.server.submit(&submission);
        self.close_session(slot);
        match sent {
            Ok(reply) => {
                around.ledger.misdeed(Deed::Offended(offence), slot, self.index, Some(Seq(reply.seq)));
                if let Some(commit) = about {
                    around.ledger.is_about(commit);
                }
            }
            Err(refusal) => around.ledger.tell(format!("    the service refuses it: {}", refusal.code)),
        }
        Ok(())
    }

    /// Says again under its name what it said last.
    fn repeat(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let Some(known) = around.ledger.slot(slot).cloned() else { return Ok(()) };
        let own = self.client.to_string();
        let said = self.disk.messages(&known.group.to_string()).filter(|stored| stored.sender == own).last().cloned();
        let (Some(said), Some(group)) = (said, self.active(slot)) else { return Ok(()) };
        let id = MessageId::new(said.id);
        if group.wish(Wish::Send { content: said.body, id }).is_err() {
            return Ok(());
        }
        around.ledger.said.iter_mut().filter(|of| of.id == id).for_each(|of| of.repeated = true);
        around.ledger.misdeed(Deed::Offended(Offence::Repeat), slot, self.index, None);
        self.save(around, slot)?;
        self.drive(around, slot)
    }

    fn bad_entry(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        offence: Offence,
    ) -> Result<Option<BadEntry>, Stop> {
        let Some(known) = around.ledger.slot(slot).cloned() else { return Ok(None) };
        let Some(group) = self.group(slot).filter(|group| *group.status() != Status::Removed) else { return Ok(None) };
        let epoch = group.epoch();
        let noise = |kind| Entry::new(kind, epoch, Body::Inline(NOISE.to_vec()));
        let (row, entries) = around.server.log(&known.channel).map_err(Stop::Refused)?;
        let mut word = None;
        let entry = match offence {
            Offence::Noise => noise(EntryKind::Message),
            Offence::NoiseProposal if group.is_visible() => return Ok(None),
            Offence::NoiseProposal => noise(EntryKind::Proposal),
            Offence::Replay => {
                let old = |row: &&EntryRow| row.kind == EntryKind::Message && row.epoch <= epoch;
                return Ok(entries.iter().rev().find(old).map(|row| (row.bytes.clone(), None)));
            }
            Offence::FalseNack | Offence::FalseAck => {
                let ChannelKind::Group { ledger } = &row.kind else { return Ok(None) };
                let Ok(access) = group.access() else { return Ok(None) };
                let (kind, open) = if offence == Offence::FalseNack {
                    // It can be proven only by a key of the epoch that the commit ended, which we have if we stay there.
                    (EntryKind::Nack, ledger.open().last())
                } else {
                    // Best of one that nobody can apply.
                    let bad = |open: &&OpenCommit| around.ledger.is_bad_commit(slot, open.seq);
                    (EntryKind::Ack, ledger.open().iter().find(bad).or_else(|| ledger.open().first()))
                };
                let Some(open) = open else { return Ok(None) };
                let Some((ended, _)) = ledger.find(open.seq) else { return Ok(None) };
                let own = ChannelKey(access.key.verifying_key().to_bytes());
                if ended != epoch || open.committer == own {
                    return Ok(None);
                }
                word = Some(open.seq);
                let about = Position { seq: open.seq, hash: open.hash };
                Verdict::sign(&known.channel, kind, ended, &about, &access.key, access.path, vec![0; 16])
            }
            _ => return Ok(None),
        };
        let bytes = entry.to_bytes().map_err(Stop::violation)?;
        Ok(Some((bytes, word)))
    }
}

/// Makes of a commit one that nobody can apply.
fn spoil_entry(bundle: &mut SubmitBundleRequest, offence: Offence, members: usize) -> Option<()> {
    let mut entry = Entry::parse(&bundle.entry).ok()?;
    let header = entry.commit.as_mut().filter(|header| header.removed == 0)?;
    if members < 2 {
        return None;
    }
    match offence {
        Offence::Root => header.key_root = chain::entry_hash(&bundle.entry),
        Offence::Flags => header.removed += 1,
        Offence::Members => header.members += 1,
        Offence::Alone => header.members = 1,
        Offence::Body => match &mut entry.body {
            Body::Inline(body) => body.last_mut().into_iter().for_each(|byte| *byte ^= 1),
            Body::Staged { .. } => return None,
        },
        _ => entry.body = Body::Inline(NOISE.to_vec()),
    }
    bundle.entry = entry.to_bytes().ok()?;
    Some(())
}
