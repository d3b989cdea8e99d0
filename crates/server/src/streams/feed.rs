//! What several streams read of one channel, read once.
//!
//! When a channel with several streams has news, one task reads for those that stand at the same place, keeps the
//! result here and wakes all of them. A stream that finds nothing here (it is the only one, or far behind) reads the store
//! for itself.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use conclave_delivery::Subscription;
use conclave_names::Seq;

use super::{event::Piece, lock};

/// What is kept of one channel: pieces, and bytes of them.
const PIECES: usize = 16;
const BYTES: usize = 512 * 1024;

/// Bytes that all channels together keep.
const BYTES_OF_ALL: usize = 64 * 1024 * 1024;

/// The bytes that are kept in all channels.
#[derive(Clone, Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// Takes a share of it, if there is so much left.
    fn take(&self, bytes: usize) -> Option<Share> {
        let fits = |kept: usize| kept.checked_add(bytes).filter(|kept| *kept <= BYTES_OF_ALL);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Share { budget: self.clone(), bytes })
    }
}

/// A part of the budget. Dropping it gives it back.
struct Share {
    budget: Budget,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A piece that was read for a place.
struct Kept {
    subscription: Subscription,
    after: Seq,
    piece: Piece,
    /// The last round that knew that nothing, or a kept piece, follows it.
    round: u64,
    share: Share,
}

#[derive(Default)]
struct Recent {
    pieces: VecDeque<Kept>,
    bytes: usize,
    /// Counts the readings for all.
    round: u64,
    /// There is news that no round has read.
    dirty: bool,
    /// A task reads.
    reading: bool,
}

impl Recent {
    fn at(&mut self, subscription: &Subscription, after: Seq) -> Option<&mut Kept> {
        self.pieces.iter_mut().rev().find(|kept| kept.after == after && kept.subscription == *subscription)
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.pieces.pop_front() {
            self.bytes = self.bytes.saturating_sub(oldest.share.bytes);
        }
    }
}

/// The newest of one channel, as those read it who carry it.
#[derive(Default)]
pub(super) struct Feed {
    recent: Mutex<Recent>,
    budget: Budget,
}

impl Feed {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { recent: Mutex::default(), budget: budget.clone() }
    }

    /// There is news. True if the caller is to read it, in rounds; else somebody does already.
    pub(super) fn news(&self) -> bool {
        let mut recent = lock(&self.recent);
        recent.dirty = true;
        !std::mem::replace(&mut recent.reading, true)
    }

    /// Begins a round of reading; none if no news came since the one before. Then the reader's work is done.
    pub(super) fn round(&self) -> bool {
        let mut recent = lock(&self.recent);
        if !std::mem::take(&mut recent.dirty) {
            recent.reading = false;
            return false;
        }
        recent.round += 1;
        true
    }

    /// There is news, but nobody reads it for others: what is kept is no longer known to be the newest.
    pub(super) fn outdate(&self) {
        lock(&self.recent).round += 1;
    }

    /// Where a reader ends up that takes all kept pieces from a place on.
    pub(super) fn end(&self, subscription: &Subscription, after: Seq) -> Seq {
        let mut recent = lock(&self.recent);
        let mut end = after;
        while let Some(kept) = recent.at(subscription, end).filter(|kept| kept.piece.position > end) {
            end = kept.piece.position;
        }
        end
    }

    /// Keeps what was read at a place in this round. Nothing new there is known as well: then the piece before it is the
    /// newest.
    pub(super) fn keep(&self, subscription: &Subscription, after: Seq, piece: &Piece) {
        // Each finds the end of its own access for itself: it is judged anew, and it may be taken back.
        if piece.ended.is_some() {
            return;
        }
        let mut recent = lock(&self.recent);
        let round = recent.round;
        let share = match &piece.event {
            None => None,
            // What is not kept is not known to those who come to this place.
            Some(event) => match self.budget.take(event.len()) {
                None => return,
                share => share,
            },
        };
        for kept in &mut recent.pieces {
            if kept.piece.position == after && kept.subscription == *subscription {
                kept.round = round;
            }
        }
        let Some(share) = share else { return };
        recent.bytes += share.bytes;
        recent.pieces.push_back(Kept { subscription: *subscription, after, piece: piece.clone(), round, share });
        while recent.pieces.len() > PIECES || (recent.bytes > BYTES && recent.pieces.len() > 1) {
            recent.forget_oldest();
        }
    }

    /// What follows a place, if it is kept. `more` says whether to ask again without waiting for news.
    pub(super) fn get(&self, subscription: &Subscription, after: Seq) -> Option<Piece> {
        let mut recent = lock(&self.recent);
        let round = recent.round;
        let kept = recent.at(subscription, after)?;
        let (mut piece, newest) = (kept.piece.clone(), kept.round == round);
        // A round that begins from now on wakes its readers when it has ended.
        piece.more |= !newest || recent.at(subscription, piece.position).is_some();
        Some(piece)
    }
}
