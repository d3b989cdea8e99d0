//! `client-open`: opening a profile with many groups and a large one: what a list of groups costs, and what opening one.

use std::{error::Error, time::Instant};

use conclave_client::store::Store;
use conclave_engine::{
    group::{self, Group},
    intent::Wish,
};

use super::client_ops::{
    ours::{self, StoreRows},
    world::World,
};
use crate::{ds::Figures, report::Report};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Small groups
    #[arg(long, default_value_t = 500)]
    groups: usize,
    /// Members of each
    #[arg(long, default_value_t = 10)]
    members: usize,
    /// Members of the large one
    #[arg(long, default_value_t = 10_000)]
    large: usize,
    /// A smoke test
    #[arg(long)]
    quick: bool,
}

/// How often each is measured; the median counts.
const REPETITIONS: usize = 9;

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let (groups, large) = if options.quick { (5, 20) } else { (options.groups.max(1), options.large.max(2)) };
    let mut figures = Figures::new(report, "client-open");
    let world = World::new(large)?;
    let leaves = world.leaves()?;
    let mut alice = ours::Client::new(&world, "alice")?;
    // The same members in all groups.
    for count in std::iter::repeat_n(options.members.max(2), groups).chain([large]) {
        alice.create(&world)?;
        let key_packages = leaves.iter().take(count.saturating_sub(1)).cloned().collect();
        alice.group()?.wish(Wish::Add { key_packages })?;
        let added = alice.submit()?;
        alice.read(&added.incoming)?;
    }
    let name = alice.group()?.name().clone();
    let ours::Client { account, mls, store, profile, .. } = alice;
    let key = profile.unlock(None)?;
    // It has the profile's lock.
    drop(store);
    let (mut open, mut list, mut one, mut big, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), 0.0);
    for repetition in 0..REPETITIONS {
        let start = Instant::now();
        let store = Store::open(&profile, &key)?;
        open.push(ms(start));
        let start = Instant::now();
        let summaries = group::list(&StoreRows(&store))?;
        list.push(ms(start));
        if summaries.len() != groups + 1 {
            return Err("a group is missing".into());
        }
        let small = summaries.iter().find(|summary| summary.name != name).ok_or("no group")?;
        let load = |name| -> ours::Result<f64> {
            let start = Instant::now();
            Group::load(&account, &mls, &StoreRows(&store), name)?.ok_or("no group")?;
            Ok(ms(start))
        };
        one.push(load(&small.name)?);
        big.push(load(&name)?);
        if repetition == 0 {
            for summary in &summaries {
                all += load(&summary.name)?;
            }
        }
    }
    figures.add("open", groups + 1, median(&mut open), "ms");
    figures.add("list", groups + 1, median(&mut list), "ms");
    figures.add("load-small", options.members, median(&mut one), "ms");
    figures.add("load-large", large, median(&mut big), "ms");
    figures.add("load-all", groups + 1, all, "ms");
    figures.add("list-ratio", groups + 1, median(&mut list) / all.max(f64::MIN_POSITIVE), "ratio");
    Ok(())
}
