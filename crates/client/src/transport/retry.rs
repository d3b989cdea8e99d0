//! Repeating what failed for now.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use conclave_protocol::Code;

use super::CallError;

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Growing pauses between attempts: each about twice the one before, up to five seconds, shortened at random by up
/// to half, so that clients that lost the same server do not come back at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(LONGEST);
        // Without randomness every client waits the full time, which is no failure.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        full / 2 + full.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
    }

    /// To be called after a success: the next pause is a short one.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// How long what a server refuses for now is repeated in a group's turn, while other groups wait for theirs.
pub(crate) const IN_TURN: Duration = Duration::from_secs(2);

tokio::task_local! {
    static PATIENCE: Duration;
}

/// Does something in which what the server refuses for now is repeated for so long at most. What is not heard of it at all is
/// waited for as always.
pub(crate) async fn with_patience<T>(patience: Duration, what: impl Future<Output = T>) -> T {
    PATIENCE.scope(patience, what).await
}

/// Attempts a call until it succeeds, fails for good, or `limit` is over.
pub(super) async fn retry<T, F, A>(call: &'static str, limit: Duration, mut attempt: F) -> Result<T, CallError>
where
    F: FnMut() -> A,
    A: Future<Output = Result<T, CallError>>,
{
    let end = Instant::now() + limit;
    let end_of_patience = PATIENCE.try_with(|patience| Instant::now() + *patience).unwrap_or(end);
    let mut backoff = Backoff::default();
    for attempts in 1u32.. {
        let error = match timeout_at(end, attempt()).await {
            Ok(Err(error)) if error.is_short() => error,
            Ok(done) => return done,
            Err(_) => break,
        };
        // What the server asks for, and something random upon it.
        let pause = backoff.next_pause() + error.retry_after();
        let until = match error.code() {
            Some(Code::Internal | Code::RateLimited) => end.min(end_of_patience),
            _ => end,
        };
        if Instant::now() + pause >= until {
            tracing::warn!(call, attempts, %error, "gave up");
            return Err(error);
        }
        tracing::info!(call, attempts, pause_ms = pause.as_millis(), %error, "failed for now, will try again");
        sleep(pause).await;
    }
    tracing::warn!(call, "no answer in time");
    Err(CallError::unreachable(format!("no answer within {} s", limit.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_anew() {
        let mut backoff = Backoff::default();
        let mut full = FIRST;
        for _ in 0..12 {
            let pause = backoff.next_pause();
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
            full = (full * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
    }
}
