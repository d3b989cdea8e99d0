//! The benchmark runs and prints what it promises.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::process::Command;

#[test]
fn each_operation_has_three_figures_a_size() {
    let output = Command::new(env!("CARGO_BIN_EXE_conclave-bench"))
        .args(["client-ops", "--members", "2,5", "--quick", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for members in [2, 5] {
        for operation in ["create", "add", "join", "commit", "process", "send", "receive"] {
            for suffix in ["", "-bare", "-ratio"] {
                let metric = format!("{operation}{suffix}");
                let line = lines.iter().find(|line| line["metric"] == metric && line["members"] == members).unwrap();
                assert_eq!(line["bench"], "client-ops");
                assert!(line["value"].as_f64().unwrap() > 0.0 && line["unit"].is_string());
            }
        }
    }
}

#[test]
fn sending_catching_up_and_opening_have_figures() {
    let expected = [
        ("client-send", ["send", "send-bare", "state-write", "send-growth"].as_slice()),
        ("client-catchup", &["read", "store", "messages", "messages-bare", "messages-ratio"]),
        ("client-open", &["open", "list", "load-small", "load-large", "load-all"]),
    ];
    for (bench, metrics) in expected {
        let output =
            Command::new(env!("CARGO_BIN_EXE_conclave-bench")).args([bench, "--quick", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        for metric in metrics {
            let quoted = format!("\"metric\":\"{metric}\"");
            assert!(lines.lines().any(|line| line.contains(&quoted)), "{bench} prints no {metric}: {lines}");
        }
    }
}
