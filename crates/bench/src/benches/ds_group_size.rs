//! `ds-group-size`: what one message costs with nobody listening, in a small group and in a large one.

use std::time::{Duration, Instant};

use crate::{
    ds::{Common, Connection, Failure, Figures, Group, Process, Session, message, quantile, random},
    report::Report,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Sizes of the groups, the smallest first; the ratio is of the last to the first
    #[arg(long, value_delimiter = ',', default_values_t = [2, 10_000])]
    members: Vec<usize>,
    /// Members of a group who have a session open
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// Messages in each group, sent one after the other; the groups take turns
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
}

/// Messages of one group before the other has its turn.
const TURN: usize = 100;

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Failure> {
    let mut figures = Figures::new(report, "ds-group-size");
    let mut server = Process::start(&options.common)?;
    let times = Common::block_on(measure(&server, options))?;
    server.stop()?;
    let mut medians = Vec::new();
    for (members, mut times) in times {
        times.sort_unstable();
        let median = quantile(&times, 500);
        figures.add("message", members, median, "ms");
        figures.add("message-p99", members, quantile(&times, 990), "ms");
        medians.push((members, median));
    }
    if let [(_, small), .., (members, large)] = *medians {
        figures.add("ratio", members, large / small, "ratio");
    }
    Ok(())
}

/// One group under measurement.
struct Subject {
    members: usize,
    session: Session,
    times: Vec<Duration>,
}

async fn measure(server: &Process, options: &Options) -> Result<Vec<(usize, Vec<Duration>)>, Failure> {
    let quick = options.common.quick;
    let connection = Connection::open(server).await?;
    let mut subjects = Vec::new();
    for &members in &options.members {
        if members < 2 {
            return Err("a group to measure has at least two members".into());
        }
        let group = Group::new(if quick { members.min(200) } else { members })?;
        connection.create(&group).await?;
        for member in 2..group.len().min(options.sessions) {
            connection.session(&group, member).await?;
        }
        subjects.push(Subject { members, session: connection.session(&group, 1).await?, times: Vec::new() });
    }
    let body = random::<1024>()?.to_vec();
    let turns = if quick { 2 } else { options.messages.div_ceil(TURN) };
    // The first turn warms up.
    for turn in 0..=turns {
        for subject in &mut subjects {
            for _ in 0..TURN {
                let entry = message(1, body.clone())?;
                let start = Instant::now();
                subject.session.submit(entry).await?;
                if turn > 0 {
                    subject.times.push(start.elapsed());
                }
            }
        }
    }
    Ok(subjects.into_iter().map(|subject| (subject.members, subject.times)).collect())
}
