//! What the DS signs, held against what it shows.

use std::ops::Bound;

use conclave_channel::{
    Claim, Position,
    receipt::{Equivocation, Receipt},
    verdict::Signature,
};
use conclave_names::{Hash, Seq, Timestamp};
use conclave_protocol::v1::SubmitResponse;

use super::{Group, Status};
use crate::outcome::Event;

/// Receipts that are kept, so that they can be compared with those of other members.
const RECEIPTS_KEPT: usize = 64;

impl Group {
    /// Takes the DS's answer to a submission. What it signed there is held against the channel, now or when the entry is
    /// read. To be made durable with the rest.
    pub fn accepted(&mut self, reply: &SubmitResponse) -> Vec<Event> {
        let seq = Seq(reply.seq);
        self.verdict_taken(Timestamp(reply.time_ms));
        self.returned = None;
        let receipt = Hash::try_from(reply.chain.as_slice()).ok().and_then(|hash| {
            let signature = Signature(reply.receipt.as_slice().try_into().ok()?);
            let receipt = Receipt { channel: self.profile.channel, position: Position { seq, hash }, signature };
            receipt.verify(&self.profile.receipt_key).ok().map(|()| receipt)
        });
        let Some(receipt) = receipt else {
            let event = Event::ReceiptInvalid { seq };
            self.note(&event, seq, self.window.time());
            return vec![event];
        };
        let mut events = Vec::new();
        if let Some(earlier) = self.receipts.get(&seq).filter(|earlier| earlier.position != receipt.position) {
            let proof = Equivocation { one: *earlier, other: receipt };
            events.push(Event::Equivocation { seq, proof: encode(&proof) });
        } else if self.window.check(&receipt.position) == Claim::Different {
            events.push(Event::ReceiptBroken { seq, receipt: encode(&receipt) });
        }
        for event in &events {
            self.note(event, seq, self.window.time());
        }
        self.receipts.insert(seq, receipt);
        while self.receipts.len() > RECEIPTS_KEPT {
            self.receipts.pop_first();
        }
        self.withheld.retain(|seq| self.receipts.contains_key(seq));
        self.touched = true;
        events
    }

    /// What the DS signed of submissions of ours, the newest few: two of one place by two members, with two hashes, prove
    /// that the DS showed two logs ([`Equivocation`]).
    pub fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.receipts.values()
    }

    /// Entries of ours that the DS has signed for, and does not show: to be asked when there was nothing more to read, by a reading that
    /// was asked for after [`Group::accepted`]. Each is told once, also across crashes: to be made durable with the rest.
    pub fn withheld(&mut self) -> Vec<Event> {
        let end = self.window.position().seq;
        // Who stays behind has not read to the end; nor may who was removed, and is back only because by time alone that was annulled.
        if self.status != Status::Active || self.is_back_by_time() {
            return Vec::new();
        }
        let after = (Bound::Excluded(end), Bound::Unbounded);
        let missing: Vec<_> = self
            .receipts
            .range(after)
            .filter(|(seq, _)| !self.withheld.contains(seq))
            .map(|(seq, receipt)| (*seq, encode(receipt)))
            .collect();
        let mut events = Vec::new();
        for (seq, receipt) in missing {
            self.withheld.insert(seq);
            self.touched = true;
            self.tell(Event::Withheld { seq, receipt }, self.window.time(), &mut events);
        }
        events
    }

    /// Holds the entry that was just read against what the DS signed of its place.
    pub(super) fn compare_receipt(&mut self, events: &mut Vec<Event>) {
        let position = self.window.position();
        let Some(receipt) = self.receipts.get(&position.seq) else { return };
        if receipt.position == position {
            self.signs_for_our_log();
            return;
        }
        let event = Event::ReceiptBroken { seq: position.seq, receipt: encode(receipt) };
        self.tell(event, self.window.time(), events);
        self.signs_for_another_log(position.seq, events);
    }
}

/// In hexadecimal, for people to hand on.
fn encode(value: &impl mls_rs_codec::MlsEncode) -> String {
    value.mls_encode_to_vec().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
}
