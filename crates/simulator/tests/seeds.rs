//! Many seeds, and faults planted on purpose.

use conclave_simulator::{Plan, Sabotage, simulate};

#[test]
fn no_seed_violates_anything() {
    let (mut epochs, mut sent, mut read) = (0, 0, 0);
    for seed in 0..60 {
        match simulate(&Plan::new(seed)) {
            Ok(report) => {
                epochs += report.epochs;
                sent += report.sent;
                read += report.read;
            }
            Err(violation) => panic!("{violation}"),
        }
    }
    // The programs do something.
    assert!(epochs > 300 && sent > 300 && read > sent, "{epochs} epochs, {sent} messages, read {read} times");
}

#[test]
fn a_seed_is_the_same_program_with_the_same_end_each_time() {
    for seed in [3, 11] {
        let [once, again] = [0, 1].map(|_| simulate(&Plan::new(seed)));
        assert_eq!(once, again);
    }
}

#[test]
fn each_planted_fault_is_caught() {
    for sabotage in Sabotage::ALL {
        let caught = (0..200).find(|seed| simulate(&Plan { sabotage, ..Plan::new(*seed) }).is_err());
        let seed = caught.unwrap_or_else(|| panic!("{sabotage} was not noticed"));
        // It is the fault that is caught, and not the program.
        simulate(&Plan::new(seed)).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[test]
fn a_violation_names_the_command_that_repeats_it() {
    let plan = |seed| Plan { sabotage: Sabotage::LoseInvitation, ..Plan::new(seed) };
    let violation = (0..40).find_map(|seed| simulate(&plan(seed)).err()).expect("it is caught");
    let text = violation.to_string();
    let seed = format!("--seed {} ", violation.plan.seed);
    assert!(text.contains(&seed) && text.contains("--sabotage lose-invitation"), "{text}");
}
