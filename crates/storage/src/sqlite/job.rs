//! A closure on its way to a thread with a connection, and the answer on its way back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    failure::Failure,
    transaction::{Transaction, Undo},
};

/// What goes to the thread of the writer or of a reader.
pub(super) enum Message {
    /// Run this.
    Run(Box<dyn Job>),
    /// Let the database file grow to so many bytes, or without limit.
    Limit(Option<u64>, oneshot::Sender<Result<(), Failure>>),
    /// Run what is queued, take nothing more, and end.
    Close,
}

/// How a job ended.
pub(super) enum Ended {
    /// Its caller wants the writes.
    Kept,
    /// Its caller wants them undone.
    Refused,
    /// The store or a panic decided: they are undone, and the caller is told this.
    Failed(Failure),
}

/// A transaction of a service, with its types hidden.
pub(super) trait Job: Send {
    /// Runs the closure, once.
    fn run(&mut self, transaction: &mut Transaction<'_>) -> Ended;

    /// Tells the caller: the closure's result, or `failure` in its place.
    fn answer(self: Box<Self>, failure: Option<Failure>);

    /// What it may do.
    fn kind(&self) -> Kind;
}

/// What a job may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only reads: writing fails.
    Reads,
    /// It writes as well.
    Writes,
}

/// Runs a job; says how it ended, and how it is undone. A panic ends the job, not the thread.
pub(super) fn run(job: &mut dyn Job, connection: &Connection) -> (Ended, Undo) {
    let mut transaction = Transaction::new(connection);
    let result = catch_unwind(AssertUnwindSafe(|| job.run(&mut transaction)));
    let undo = transaction.undo();
    let Ok(ended) = result else {
        tracing::error!("a transaction panicked; it is undone");
        return (Ended::Failed(Failure::Unavailable("the transaction panicked".to_owned())), undo);
    };
    // Where the store failed, part of the closure's writes is missing, whatever the closure made of it.
    (transaction.into_failure().map_or(ended, Ended::Failed), undo)
}

/// The one implementation of [`Job`].
pub(super) struct Task<F, T, E> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
    fail: fn(Failure) -> E,
    kind: Kind,
}

impl<F, T, E> Task<F, T, E>
where
    F: FnOnce(&mut Transaction<'_>) -> Result<T, E>,
{
    /// `fail` says a failure of the store in the caller's error type.
    pub(super) fn new(work: F, fail: fn(Failure) -> E, kind: Kind) -> (Self, oneshot::Receiver<Result<T, E>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work: Some(work), result: None, reply, fail, kind }, answer)
    }
}

impl<F, T, E> Job for Task<F, T, E>
where
    F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send,
    T: Send,
    E: Send,
{
    fn run(&mut self, transaction: &mut Transaction<'_>) -> Ended {
        let Some(work) = self.work.take() else {
            return Ended::Refused;
        };
        let result = work(transaction);
        let ended = if result.is_ok() { Ended::Kept } else { Ended::Refused };
        self.result = Some(result);
        ended
    }

    fn answer(self: Box<Self>, failure: Option<Failure>) {
        let result = match (failure, self.result) {
            (None, Some(result)) => result,
            (Some(failure), _) => Err((self.fail)(failure)),
            (None, None) => Err((self.fail)(Failure::Unavailable("the transaction did not run".to_owned()))),
        };
        // A caller that no longer waits is no error: the transaction is complete without it.
        drop(self.reply.send(result));
    }

    fn kind(&self) -> Kind {
        self.kind
    }
}
