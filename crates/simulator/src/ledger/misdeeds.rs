//! Who broke the rules, and who noticed.

use std::collections::BTreeSet;

use conclave_channel::chain;
use conclave_delivery::store::EntryRow;
use conclave_names::{Seq, Timestamp};

use super::Ledger;
use crate::hostile::{Lie, Offence, Tamper};

/// How somebody broke the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Tampered(Tamper),
    Lied(Lie),
    Offended(Offence),
}

/// That somebody broke the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misdeed {
    pub(crate) deed: Deed,
    pub(crate) slot: usize,
    /// The client that the server lied to, or that broke the rules.
    pub(crate) client: usize,
    /// The entry that it is, if it is one.
    pub(crate) seq: Option<Seq>,
    /// The commit that it is a false word about.
    pub(crate) about: Option<Seq>,
    /// How many alarms there were before.
    pub(crate) alarms: usize,
    /// The client died before it could notice, or what came with it was lost.
    pub(crate) unseen: bool,
    /// The client has judged what it was given, or stored what it must judge later: a death excuses nothing any more.
    pub(crate) taken: bool,
    /// Nobody else was in the group's log then who could have disputed it.
    pub(crate) unwitnessed: bool,
}

/// What a client noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// The server's log is none.
    Fault,
    /// An entry is refused.
    Refused,
    /// A commit cannot be followed.
    Stuck,
    /// The server's receipts do not fit its log.
    Receipt,
    /// Another member saw another log.
    LogsDiffer,
    /// Entries are gone.
    Gone,
    /// An invitation leads nowhere.
    Invitation,
    /// A wish came to nothing.
    Wish,
    /// The server refuses what is right.
    Refusal,
    /// Somebody is in another branch of the group.
    Branch,
    /// What the server has signed for is not shown.
    Withheld,
    /// What the newest commit left for who comes back leads nowhere.
    GroupInfo,
}

impl Deed {
    /// What may be noticed of it, by anybody in the group.
    pub(super) fn explains(self, alarm: Alarm) -> bool {
        use Alarm as A;
        match self {
            // Who lives in another log may meet with anything.
            Self::Lied(lie) if lie.is_another_log() => true,
            // What it shows in the end may not fit what time alone has decided meanwhile.
            Self::Lied(Lie::Stall) => {
                matches!(alarm, A::Withheld | A::Refusal | A::Refused | A::Branch | A::Stuck)
            }
            Self::Tampered(Tamper::Rewritten) => alarm == A::Branch,
            // Who comes back past what is gone may try again what was done there, and say it in the same bytes once more when the service has
            // forgotten that it took them.
            Self::Lied(Lie::Gone) => matches!(alarm, A::Gone | A::Stuck | A::Wish | A::Refused),
            Self::Tampered(tamper) if tamper.is_about_pages() => alarm == A::Fault,
            Self::Tampered(Tamper::NoBlob) => matches!(alarm, A::Invitation | A::Stuck),
            Self::Tampered(_) => alarm == A::Receipt,
            Self::Offended(offence) if offence.is_void() || offence.bad_path_secrets().is_some() => {
                matches!(alarm, A::Stuck | A::Wish | A::Invitation)
            }
            Self::Lied(Lie::OldWelcomes | Lie::ForgedWelcome) | Self::Offended(Offence::Welcome | Offence::Tree) => {
                alarm == A::Invitation
            }
            // It may be of an epoch that is void.
            Self::Offended(Offence::Replay) => matches!(alarm, A::Refused | A::Branch),
            Self::Offended(Offence::Noise | Offence::NoiseProposal) => alarm == A::Refused,
            Self::Offended(Offence::FalseNack | Offence::FalseAck) => {
                matches!(alarm, A::Wish | A::Stuck | A::Invitation)
            }
            Self::Lied(Lie::RenamedGroupInfo | Lie::BadGroupInfo) | Self::Offended(Offence::GroupInfo) => {
                alarm == A::GroupInfo
            }
            Self::Offended(_) | Self::Lied(_) => false,
        }
    }
}

impl Ledger {
    /// Notes a misdeed.
    pub(crate) fn misdeed(&mut self, deed: Deed, slot: usize, client: usize, seq: Option<Seq>) {
        let place = seq.map(|seq| format!(", entry {seq}")).unwrap_or_default();
        self.tell(format!("    {deed:?}{place}"));
        self.misdeeds.push(Misdeed {
            deed,
            slot,
            client,
            seq,
            about: None,
            alarms: self.alarms.len(),
            unseen: false,
            taken: false,
            unwitnessed: false,
        });
    }

    /// Notes that a client could not notice what the server did in the present step, but for receipts: what came with it was lost.
    pub(crate) fn unseen_since(&mut self, misdeeds: usize) {
        for misdeed in self.misdeeds.iter_mut().skip(misdeeds).filter(|misdeed| !misdeed.taken) {
            misdeed.unseen = matches!(misdeed.deed, Deed::Tampered(tamper) if !tamper.is_about_receipts());
        }
    }

    /// A client died: of a receipt that it had not stored it knows nothing any more.
    pub(crate) fn forget_receipts(&mut self, client: usize) {
        let false_one = Deed::Tampered(Tamper::FalseReceipt);
        for misdeed in self.misdeeds.iter_mut().filter(|of| of.client == client && of.deed == false_one && !of.taken) {
            misdeed.unseen = true;
        }
    }

    /// A client has stored what it knows of a group, receipts among it, or (`pages`) judged what it was given to read.
    pub(crate) fn taken(&mut self, client: usize, slot: usize, pages: bool) {
        let about = |deed| matches!(deed, Deed::Tampered(tamper) if if pages { tamper.is_about_pages() } else { tamper.is_about_receipts() });
        let of_it = |misdeed: &&mut Misdeed| misdeed.client == client && misdeed.slot == slot && about(misdeed.deed);
        self.misdeeds.iter_mut().filter(of_it).for_each(|misdeed| misdeed.taken = true);
    }

    /// Notes that nobody was there who could have disputed what was done in the present step.
    pub(crate) fn unwitnessed_since(&mut self, misdeeds: usize) {
        self.misdeeds.iter_mut().skip(misdeeds).for_each(|misdeed| misdeed.unwitnessed = true);
    }

    /// Notes that the misdeed noted last is a word about a commit.
    pub(crate) fn is_about(&mut self, commit: Seq) {
        if let Some(misdeed) = self.misdeeds.last_mut() {
            misdeed.about = Some(commit);
        }
    }

    /// Whether a commit that nobody can apply stands by a false word, so that nobody can go on.
    pub(crate) fn is_lost(&self, slot: usize) -> bool {
        let mut acks = self.misdeeds_in(slot).filter(|misdeed| misdeed.deed == Deed::Offended(Offence::FalseAck));
        let stands = |commit| self.is_bad_commit(slot, commit) && !self.taken_back.contains(&(slot, commit));
        acks.any(|misdeed| misdeed.about.is_some_and(stands))
    }

    /// Commits that nobody can apply, and of which somebody has said falsely that they can be applied.
    pub(crate) fn vouched_for(&self, slot: usize) -> Vec<Seq> {
        let false_acks = self.misdeeds_in(slot).filter(|misdeed| misdeed.deed == Deed::Offended(Offence::FalseAck));
        false_acks.filter_map(|misdeed| misdeed.about).filter(|commit| self.is_bad_commit(slot, *commit)).collect()
    }

    /// Whether the entry at a place is a commit that nobody can apply.
    pub(crate) fn is_bad_commit(&self, slot: usize, seq: Seq) -> bool {
        self.misdeeds_in(slot).any(|misdeed| {
            misdeed.seq == Some(seq) && matches!(misdeed.deed, Deed::Offended(offence) if offence.is_void())
        })
    }

    /// Notes where commits are that only some can apply.
    pub(crate) fn find_partial(&mut self, slot: usize, entries: &[EntryRow]) {
        for row in entries.iter().filter(|row| self.partial.contains(&chain::entry_hash(&row.bytes))) {
            self.partial_commits.insert((slot, row.seq));
        }
    }

    /// Whether the entry at a place is a commit that only some can apply.
    pub(crate) fn is_partial_commit(&self, slot: usize, seq: Seq) -> bool {
        self.partial_commits.contains(&(slot, seq))
    }

    /// Whether the entry at a place is what nobody may take for a message or a proposal.
    pub(crate) fn is_noise(&self, slot: usize, seq: Seq) -> bool {
        let noise = [Offence::Noise, Offence::NoiseProposal, Offence::Replay].map(Deed::Offended);
        self.misdeeds_in(slot).any(|misdeed| misdeed.seq == Some(seq) && noise.contains(&misdeed.deed))
    }

    /// Groups in which somebody did what explains that an invitation leads nowhere.
    pub(crate) fn bad_invitations(&self, client: usize) -> BTreeSet<usize> {
        let bad = |misdeed: &&Misdeed| {
            let lie = matches!(misdeed.deed, Deed::Lied(_));
            misdeed.deed.explains(Alarm::Invitation) && (!lie || misdeed.client == client)
        };
        self.misdeeds.iter().filter(bad).map(|misdeed| misdeed.slot).collect()
    }

    pub(crate) fn misdeeds_in(&self, slot: usize) -> impl Iterator<Item = &Misdeed> {
        self.misdeeds.iter().filter(move |misdeed| misdeed.slot == slot)
    }

    /// A client reads entries. Those that break the rules it is to judge.
    pub(crate) fn reads(&mut self, client: usize, slot: usize, places: impl Iterator<Item = Seq>) {
        for seq in places {
            let of_another = |misdeed: &Misdeed| {
                misdeed.client != client && misdeed.seq == Some(seq) && matches!(misdeed.deed, Deed::Offended(_))
            };
            if self.misdeeds_in(slot).any(of_another) {
                self.to_judge.insert((client, slot, seq));
            }
        }
    }

    /// A client has said what it has to say of what it has read.
    pub(crate) fn has_judged(&mut self, client: usize, slot: usize, now: Timestamp) {
        for (.., seq) in self.to_judge.range((client, slot, Seq(0))..=(client, slot, Seq(u64::MAX))) {
            self.judged_at.entry((slot, *seq)).or_insert(now);
        }
    }
}
