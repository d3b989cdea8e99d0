//! The one thread that writes.
//!
//! A durable commit costs a flush of the disk, whatever it commits. So everything that has queued up during one
//! flush is committed with the next: one SQLite transaction, a savepoint for each job that may have to be undone alone,
//! and the answers only when the commit is durable.

use rusqlite::Connection;
use tokio::sync::mpsc::Receiver;

use super::{
    failure::Failure,
    job::{self, Ended, Job, Kind, Message},
    transaction::{Undo, number},
};

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) queue: Receiver<Message>,
    /// Most jobs of one commit: it bounds how long the first of them waits.
    pub(super) batch: usize,
}

/// A job whose closure has run, and what its caller is told in place of the closure's result.
type Done = (Box<dyn Job>, Option<Failure>);

impl Writer {
    /// Runs until nobody can queue anything more and the queue is empty.
    pub(super) fn run(mut self) {
        while let Some(message) = self.queue.blocking_recv() {
            let mut jobs = Vec::new();
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Run(job) => jobs.push(job),
                    Message::Limit(bytes, done) => {
                        drop(done.send(limit(&self.connection, bytes).map_err(Failure::from)));
                    }
                    Message::Close => self.queue.close(),
                }
                next = if jobs.len() < self.batch { self.queue.try_recv().ok() } else { None };
            }
            self.commit(jobs);
        }
        self.checkpoint();
    }

    /// Runs jobs in one transaction and answers them.
    fn commit(&self, jobs: Vec<Box<dyn Job>>) {
        let mut done: Vec<Done> = Vec::with_capacity(jobs.len());
        let mut begun = false;
        for mut job in jobs {
            match self.step(job.as_mut(), &mut begun) {
                Ok(Ended::Kept | Ended::Refused) => done.push((job, None)),
                Ok(Ended::Failed(failure)) => done.push((job, Some(failure))),
                // SQLite undid the whole transaction (it does when the disk is full), so what ran before this job
                // is gone as well. What follows gets a new transaction.
                Err(failure) => {
                    self.roll_back();
                    tracing::error!(?failure, jobs = done.len() + 1, "the store failed; the jobs were undone");
                    done.push((job, Some(failure.clone())));
                    fail(done, &failure);
                    done = Vec::new();
                    begun = false;
                }
            }
        }
        if done.is_empty() {
            return;
        }
        match self.execute("COMMIT") {
            Ok(()) => {
                metrics::counter!("conclave_store_commits_total").increment(1);
                metrics::counter!("conclave_store_transactions_total").increment(done.len() as u64);
                for (job, failure) in done {
                    job.answer(failure);
                }
            }
            Err(failure) => {
                self.roll_back();
                tracing::error!(?failure, jobs = done.len(), "a commit failed; its jobs were undone");
                // Also those that refused: they may have judged by what the others wrote.
                fail(done, &failure);
            }
        }
    }

    /// Runs one job so that it can be undone by itself. An error is one of the whole transaction.
    fn step(&self, job: &mut dyn Job, begun: &mut bool) -> Result<Ended, Failure> {
        if !*begun {
            // After a rollback that failed, nothing may join what is left of that transaction.
            if !self.connection.is_autocommit() {
                self.execute("ROLLBACK")?;
            }
            self.execute("BEGIN IMMEDIATE")?;
            *begun = true;
        }
        let (ended, undo) = if job.kind() == Kind::Reads {
            // Never through the statement cache: SQLite carries this pragma out when it compiles it.
            self.connection.pragma_update(None, "query_only", true)?;
            let ended = job::run(job, &self.connection);
            self.connection.pragma_update(None, "query_only", false)?;
            ended
        } else {
            job::run(job, &self.connection)
        };
        if self.connection.is_autocommit() {
            return Err(match ended {
                Ended::Failed(failure) => failure,
                _ => Failure::Unavailable("the database undid the transaction".to_owned()),
            });
        }
        let kept = matches!(ended, Ended::Kept);
        match undo {
            Undo::Nothing => {}
            Undo::Savepoint => {
                if !kept {
                    self.execute("ROLLBACK TO job")?;
                }
                self.execute("RELEASE job")?;
            }
            Undo::All if kept => {}
            Undo::All => {
                return Err(match ended {
                    Ended::Failed(failure) => failure,
                    _ => Failure::Unavailable("a transaction refused after it had decided".to_owned()),
                });
            }
        }
        Ok(ended)
    }

    fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.connection.prepare_cached(sql)?.execute(())?;
        Ok(())
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(failure) = self.execute("ROLLBACK")
        {
            tracing::error!(?failure, "a rollback failed");
        }
    }

    /// Moves what the WAL holds into the database file. Not needed for durability: it makes a copy of the single
    /// file a whole one, and leaves no old page in the WAL.
    fn checkpoint(&self) {
        let busy = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, i64>(0));
        match busy {
            Ok(0) => {}
            Ok(_) => tracing::warn!("another program reads the database; its WAL stays, which is harmless"),
            Err(error) => tracing::warn!(%error, "the WAL was not checkpointed; the next start reads it"),
        }
    }
}

fn fail(done: Vec<Done>, failure: &Failure) {
    for (job, own) in done {
        job.answer(Some(own.unwrap_or_else(|| failure.clone())));
    }
}

/// Sets how large the database file may become. It is never made smaller than it is.
pub(super) fn limit(connection: &Connection, bytes: Option<u64>) -> rusqlite::Result<()> {
    /// SQLite's own bound.
    const PAGES_MAX: u64 = 0xffff_fffe;
    let page_size = connection.query_row("PRAGMA page_size", (), |row| number(row, 0))?;
    let pages = bytes.map_or(PAGES_MAX, |bytes| (bytes / page_size.max(1)).clamp(1, PAGES_MAX));
    // The pragma answers with the limit, so it is a query.
    connection.query_row(&format!("PRAGMA max_page_count = {pages}"), (), |_| Ok(()))?;
    Ok(())
}
