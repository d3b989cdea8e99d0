//! Many seeds, and faults planted on purpose.

use std::ops::Range;

use conclave_simulator::{Hostile, Plan, Report, Sabotage, Violation, shrink, simulate};

/// Programs that are tried to cut a failing one, so that the message can be read.
const TRIES: u32 = 150;

/// What all seeds of a part came to.
#[derive(Default)]
struct Sums {
    epochs: u64,
    sent: usize,
    read: usize,
    witnessed: u64,
    void: usize,
    misdeeds: usize,
    alarms: usize,
}

fn run(plans: impl Iterator<Item = Plan>) -> Sums {
    let mut sums = Sums::default();
    for plan in plans {
        let report = simulate(&plan).unwrap_or_else(|violation| panic!("{}", shrink(violation, TRIES)));
        let Report { epochs, sent, read, witnessed, void, misdeeds, alarms, .. } = report;
        sums.epochs += epochs;
        sums.sent += sent;
        sums.read += read;
        sums.witnessed += witnessed;
        sums.void += void;
        sums.misdeeds += misdeeds;
        sums.alarms += alarms;
    }
    sums
}

/// The seeds of a part in which this is who breaks the rules: with all parts, 520.
fn part(seeds: Range<u64>, hostile: Hostile) -> Sums {
    run(seeds.map(|seed| Plan { hostile, ..Plan::new(seed) }))
}

#[test]
fn nobody_breaks_the_rules_and_nothing_is_violated() {
    let sums = part(0..130, Hostile::Nobody);
    // The programs do something.
    let Sums { epochs, sent, read, witnessed, void, misdeeds, alarms } = sums;
    assert!(epochs > 900 && sent > 600 && read > 2 * sent && witnessed > 300, "{epochs}, {sent}, {read}, {witnessed}");
    assert_eq!((void, misdeeds, alarms), (0, 0, 0));
}

#[test]
fn the_network_is_bad_and_nothing_is_violated() {
    let plans = (1000..1130).map(|seed| Plan { hostile: Hostile::Nobody, fault_percent: 50, ..Plan::new(seed) });
    let sums = run(plans);
    assert!(sums.epochs > 500 && sums.sent > 300, "{}, {}", sums.epochs, sums.sent);
    assert_eq!(sums.alarms, 0);
}

#[test]
fn the_server_breaks_the_rules_and_it_is_harmless_or_noticed() {
    let sums = part(2000..2130, Hostile::Server);
    assert!(sums.misdeeds > 50 && sums.alarms > sums.misdeeds, "{}, {}", sums.misdeeds, sums.alarms);
}

#[test]
fn members_break_the_rules_and_it_is_harmless_or_noticed() {
    let sums = part(3000..3130, Hostile::Members);
    assert!(sums.misdeeds > 50 && sums.void > 10, "{}, {}", sums.misdeeds, sums.void);
}

#[test]
fn server_and_members_break_the_rules_and_it_is_harmless_or_noticed() {
    let sums = part(4000..4060, Hostile::Both);
    assert!(sums.misdeeds > 50, "{}", sums.misdeeds);
}

#[test]
fn a_seed_is_the_same_program_with_the_same_end_each_time() {
    for seed in [3, 11, 17, 21, 24] {
        let [once, again] = [0, 1].map(|_| simulate(&Plan::new(seed)));
        assert_eq!(once, again, "{seed}");
    }
}

fn planted(sabotage: Sabotage) -> Option<Box<Violation>> {
    // That a key is used twice must be seen as such: what comes of it would be seen by others, too.
    let word = if sabotage == Sabotage::ReuseKey { "uses a key" } else { "" };
    let caught = |seed| simulate(&Plan { sabotage, hostile: sabotage.needs(), ..Plan::new(seed) }).err();
    (0..300).find_map(|seed| caught(seed).filter(|violation| violation.what.contains(word)))
}

#[test]
fn each_planted_fault_is_caught() {
    for sabotage in Sabotage::ALL {
        let violation = planted(sabotage).unwrap_or_else(|| panic!("{sabotage} was not noticed"));
        // It is the fault that is caught, and not the program.
        let plan = Plan { sabotage: Sabotage::None, ..violation.plan };
        simulate(&plan).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[test]
fn a_violation_is_cut_to_what_is_needed_and_names_the_command_that_repeats_it() {
    let violation = planted(Sabotage::LoseInvitation).expect("it is caught");
    let whole = violation.trace.len();
    let cut = shrink(violation, 300);
    let steps = cut.plan.cut.keep.as_ref().map_or(0, |keep| keep.0.len());
    // A group, somebody who is added, and somebody who does not come.
    assert!(steps > 0 && steps < 12 && cut.trace.len() < whole / 4, "{steps} steps are left: {cut}");
    let again = simulate(&cut.plan).expect_err("the plan says it all");
    assert_eq!(again, cut);
    let text = cut.to_string();
    assert!(text.contains("--sabotage lose-invitation --keep ") && text.contains("--without death,"), "{text}");
}
