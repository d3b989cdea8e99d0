//! `ds-commit-storm`: all members of a group commit on the same epoch, again and again, in one group and in many. The log
//! is read afterwards: each epoch was ended once, by whom the server said, and no accepted commit is missing. Accepted
//! commits are acknowledged by another member, as by real ones.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use conclave_channel::{Entry, EntryKind, Position, chain};
use conclave_names::Seq;
use conclave_protocol::{Code, Refusal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::{
    ds::{Common, Connection, Failure, Figures, Group, Process, Session, number, quantile, random},
    report::Report,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Numbers of groups
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    groups: Vec<usize>,
    /// Members of each group, all of whom commit
    #[arg(long, default_value_t = 64)]
    members: usize,
    /// Connections that the members share
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of storm, for each number of groups
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// An accepted commit: who made it, and where it stands.
struct Accepted {
    member: usize,
    ended: u64,
    place: Position,
}

/// What one member was told.
#[derive(Default)]
struct Told {
    /// Sequence number and bytes of each accepted commit.
    won: Vec<(u64, Vec<u8>)>,
    /// Lost epoch, the epoch that the group was in then, and the winner's sequence number.
    lost: Vec<(u64, u64, u64)>,
    times: Vec<Duration>,
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Failure> {
    let mut figures = Figures::new(report, "ds-commit-storm");
    for &groups in &options.groups {
        let (groups, members, seconds) = if options.common.quick {
            (groups.min(4), options.members.min(8), 0.5)
        } else {
            (groups, options.members, options.seconds)
        };
        let mut server = Process::start(&options.common)?;
        let work = storm(&server, groups, members, options.connections.max(1), seconds);
        let (accepted, refused, mut times) = Common::block_on(work)?;
        server.stop()?;
        times.sort_unstable();
        let mut add =
            |metric: &str, value, unit| figures.add(format!("{metric}-groups-{groups}"), members, value, unit);
        add("accepted", number(accepted) / seconds, "per second");
        add("refused", number(refused) / seconds, "per second");
        add("p50", quantile(&times, 500), "ms");
        add("p99", quantile(&times, 990), "ms");
        // The checks of the log have passed, or there would be no figures.
        add("lost-or-double", 0.0, "commits");
    }
    Ok(())
}

async fn storm(
    server: &Process,
    groups: usize,
    members: usize,
    connections: usize,
    seconds: f64,
) -> Result<(usize, usize, Vec<Duration>), Failure> {
    let mut open = Vec::new();
    for _ in 0..connections.min(groups * members) {
        open.push(Connection::open(server).await?);
    }
    let mut connections = open.iter().cycle();
    let mut all = Vec::new();
    for _ in 0..groups {
        let group = Arc::new(Group::new(members)?);
        let mut sessions = Vec::new();
        for member in 0..members {
            let connection = connections.next().ok_or("there is no connection")?;
            if member == 0 {
                connection.create(&group).await?;
            }
            sessions.push(Arc::new(connection.session(&group, member).await?));
        }
        all.push((group, sessions));
    }
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let (mut storms, mut storms_acks) = (Vec::new(), Vec::new());
    for (group, sessions) in &all {
        let (accepted, commits) = mpsc::unbounded_channel();
        storms_acks.push(tokio::spawn(acknowledge(Arc::clone(group), sessions.clone(), commits)));
        let tasks: Vec<_> = sessions
            .iter()
            .enumerate()
            .map(|(member, session)| {
                tokio::spawn(commit(Arc::clone(group), member, Arc::clone(session), accepted.clone(), end))
            })
            .collect();
        storms.push(tasks);
    }
    let (mut accepted, mut refused, mut times) = (0, 0, Vec::new());
    for (tasks, (_, sessions)) in storms.into_iter().zip(&all) {
        let mut told = Vec::new();
        for task in tasks {
            told.push(task.await??);
        }
        let reader = sessions.first().ok_or("a group without members")?;
        verify(reader, &told).await?;
        for one in told {
            accepted += one.won.len();
            refused += one.lost.len();
            times.extend(one.times);
        }
    }
    for acks in storms_acks {
        acks.await??;
    }
    Ok((accepted, refused, times))
}

/// Commits until the end, each time on the newest epoch that it was told of.
async fn commit(
    group: Arc<Group>,
    member: usize,
    session: Arc<Session>,
    accepted: UnboundedSender<Accepted>,
    end: Instant,
) -> Result<Told, Failure> {
    let mut told = Told::default();
    // A commit ended epoch 0, at place 1.
    let (mut epoch, base) = (1, 1);
    loop {
        let bundle = group.commit(member, epoch, base, random::<1024>()?.to_vec())?;
        let start = Instant::now();
        if start >= end {
            return Ok(told);
        }
        let answer = session.commit(&bundle).await;
        told.times.push(start.elapsed());
        match answer {
            Ok(reply) => {
                let place = Position { seq: Seq(reply.seq), hash: chain::entry_hash(&bundle.entry) };
                // Once nobody acknowledges any more, the acknowledging has failed, and says why.
                let _ = accepted.send(Accepted { member, ended: epoch, place });
                told.won.push((reply.seq, bundle.entry));
                epoch += 1;
            }
            Err(status) => {
                let refusal = Refusal::from_status(&status).ok_or_else(|| format!("no refusal: {status}"))?;
                if refusal.code == Code::QuotaExceeded {
                    // Too many commits wait to be acknowledged.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                if refusal.code != Code::EpochConflict {
                    return Err(format!("a commit was refused otherwise: {refusal}").into());
                }
                let number = |key| refusal.number(key).ok_or_else(|| format!("a loser was not told the {key}"));
                let (current, winner) = (number("epoch")?, number("winner")?);
                told.lost.push((epoch, current, winner));
                epoch = current;
            }
        }
    }
}

/// Acknowledges a group's commits in their order, by a member that did not make them.
async fn acknowledge(
    group: Arc<Group>,
    sessions: Vec<Arc<Session>>,
    mut commits: UnboundedReceiver<Accepted>,
) -> Result<(), Failure> {
    let mut waiting = BTreeMap::new();
    let mut next = 1;
    while let Some(accepted) = commits.recv().await {
        waiting.insert(accepted.ended, accepted);
        while let Some(accepted) = waiting.remove(&next) {
            let member = usize::from(accepted.member == 0);
            let session = sessions.get(member).ok_or("a group has two members")?;
            session.submit(group.acknowledge(member, accepted.ended, &accepted.place)?).await?;
            next += 1;
        }
    }
    Ok(())
}

/// Compares what members were told with the log.
async fn verify(reader: &Session, told: &[Told]) -> Result<(), Failure> {
    let mut log = BTreeMap::new();
    let mut after = 0;
    loop {
        let reply = reader.fetch(after).await?;
        for logged in reply.entries {
            if logged.seq != after + 1 && after > 0 {
                return Err(format!("the log goes on with {} after {after}", logged.seq).into());
            }
            after = logged.seq;
            log.insert(logged.seq, logged.entry);
        }
        if after >= reply.head {
            break;
        }
    }
    let mut epoch_of = BTreeMap::new();
    // What acknowledges a commit stands between commits.
    let mut commits = Vec::new();
    for (seq, bytes) in &log {
        let entry = Entry::parse(bytes)?;
        if !entry.kind.is_verdict() {
            commits.push((seq, entry));
        }
    }
    for (expected, (seq, entry)) in (0..).zip(commits) {
        if entry.kind != EntryKind::Commit || entry.epoch.0 != expected {
            return Err(format!("the entry at {seq} does not end epoch {expected}: a double or missing winner").into());
        }
        epoch_of.insert(*seq, entry.epoch.0);
    }
    let mut winners = 0;
    for one in told {
        for (seq, bytes) in &one.won {
            if log.get(seq) != Some(bytes) {
                return Err(format!("the accepted commit at {seq} is not in the log").into());
            }
            winners += 1;
        }
        for (lost, current, winner) in &one.lost {
            if epoch_of.get(winner) != Some(lost) || current <= lost {
                return Err(format!("a loser of epoch {lost} was told that {winner} won and {current} is now").into());
            }
        }
    }
    // The first made the group, before the storm.
    let storms = epoch_of.keys().filter(|seq| **seq > 1).count();
    if winners != storms {
        return Err(format!("{winners} commits were accepted, and {storms} are in the log").into());
    }
    Ok(())
}
