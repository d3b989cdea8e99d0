//! Threads that read, beside the writer and without waiting for it (that is what WAL is for).

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::mpsc::Receiver;

use super::{
    failure::Failure,
    job::{self, Ended, Job, Message},
};

/// One of the readers. They take turns at one queue.
pub(super) struct Reader {
    /// Opened read-only.
    pub(super) connection: Connection,
    pub(super) queue: Arc<Mutex<Receiver<Message>>>,
}

impl Reader {
    /// Runs until nobody can queue anything more and the queue is empty.
    pub(super) fn run(self) {
        while let Some(mut job) = self.next() {
            let failure = match self.step(job.as_mut()) {
                Ok(Ended::Kept | Ended::Refused) => None,
                Ok(Ended::Failed(failure)) | Err(failure) => Some(failure),
            };
            job.answer(failure);
        }
    }

    fn next(&self) -> Option<Box<dyn Job>> {
        // A job never runs under the lock, so a poisoned lock guards nothing broken.
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match queue.blocking_recv()? {
                Message::Run(job) => return Some(job),
                Message::Close => queue.close(),
                // Readers have no limits.
                Message::Limit(..) => {}
            }
        }
    }

    /// Runs one job on one snapshot. Nothing outlives it: an old snapshot would keep the WAL from being reused.
    fn step(&self, job: &mut dyn Job) -> Result<Ended, Failure> {
        if !self.connection.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        self.execute("BEGIN DEFERRED")?;
        let (ended, _) = job::run(job, &self.connection);
        if !self.connection.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        Ok(ended)
    }

    fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.connection.prepare_cached(sql)?.execute(())?;
        Ok(())
    }
}
