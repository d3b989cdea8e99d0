//! The benchmarks of the Delivery Service run, against a real server, and print what they promise.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::process::Command;

use serde_json::Value;

fn figures(bench: &str, more: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_conclave-bench"))
        .args([bench, "--quick", "--json"])
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["bench"] == bench && line["unit"].is_string()));
    lines
}

#[track_caller]
fn value(figures: &[Value], metric: &str) -> f64 {
    let line = figures.iter().find(|line| line["metric"] == metric).unwrap_or_else(|| panic!("no {metric}"));
    line["value"].as_f64().unwrap()
}

#[test]
fn appends_are_measured_beside_sqlite() {
    for tls in [&[][..], &["--plaintext"]] {
        let figures = figures("ds-append", tls);
        for metric in ["messages", "p50", "p99", "batch", "server-cpu", "sqlite"] {
            assert!(value(&figures, metric) > 0.0, "{metric}");
        }
        let ratio = value(&figures, "messages") / value(&figures, "sqlite");
        assert!((value(&figures, "ratio") - ratio).abs() < 1e-6);
        assert!(value(&figures, "p50") <= value(&figures, "p99"));
    }
}

#[test]
fn deliveries_are_counted_for_each_window() {
    let figures = figures("ds-fanout", &["--window", "1,4"]);
    for window in [1, 4] {
        assert!(value(&figures, &format!("deliveries-window-{window}")) > 0.0);
        let entries = value(&figures, &format!("entries-per-event-window-{window}"));
        assert!(entries > 0.0 && entries <= f64::from(window));
    }
}

#[test]
fn groups_of_both_sizes_are_measured() {
    let figures = figures("ds-group-size", &["--members", "2,60"]);
    let of = |members| {
        let line = figures.iter().find(|line| line["metric"] == "message" && line["members"] == members).unwrap();
        line["value"].as_f64().unwrap()
    };
    assert!((value(&figures, "ratio") - of(60) / of(2)).abs() < 1e-6);
}

#[test]
fn a_storm_has_winners_and_losers() {
    let figures = figures("ds-commit-storm", &["--groups", "1,2"]);
    for groups in [1, 2] {
        assert!(value(&figures, &format!("accepted-groups-{groups}")) > 0.0);
        assert!(value(&figures, &format!("refused-groups-{groups}")) > 0.0);
    }
}

#[test]
fn idle_streams_are_weighed() {
    let figures = figures("ds-idle", &["--streams", "150"]);
    assert!(value(&figures, "server-after") > value(&figures, "server-before"));
    assert!(value(&figures, "memory") > 0.0);
}
