//! What readers cost that take nothing.
#![cfg(target_os = "linux")]

use std::process::Stdio;

use conclave_protocol::v1::stream_event::Event;

use super::{client::*, process::Program};

/// Resident memory of a process, in bytes.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_take_nothing_cost_bounded_memory_and_slow_nobody() {
    const SLOW: u64 = 20;
    const MESSAGES: u64 = 240;
    const SIZE: usize = 60_000;
    let directory = tempfile::tempdir().unwrap();
    let mut program = Program::start_with(directory.path(), &[], Stdio::inherit());
    let ca = std::fs::read_to_string(directory.path().join("tls/ca.pem")).unwrap();
    let client = Client::to(&program.addr, &ca).await;
    let session = client.channel(1).await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let (handle, events) = Client::to(&program.addr, &ca).await.stream().await;
        session.attach(&handle, 0).await.unwrap();
        slow.push(events);
    }
    let (handle, mut events) = client.stream().await;
    session.attach(&handle, 0).await.unwrap();
    // The store's caches fill as well, whether somebody listens or not: a first round fills them.
    let mut seen = 0;
    let mut before = 0;
    for n in 1..=MESSAGES {
        session.submit(n, vec![0; SIZE]).await;
        while seen < n {
            match next(&mut events).await {
                Event::Entries(new) => seen = new.entries.last().unwrap().seq,
                Event::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        }
        if n == MESSAGES / 4 {
            before = resident(program.id());
        }
    }
    // 10 MB were sent since, 200 MB for all slow readers. Each may cost two batches of 256 KiB and its connection.
    let grown = resident(program.id()).saturating_sub(before);
    let bound = SLOW * (2 * 256 + 128) * 1024 + 16 * 1024 * 1024;
    assert!(grown < bound, "{grown} bytes for {SLOW} slow readers");

    // And they miss nothing.
    for mut events in slow {
        let mut position = 0;
        while position < MESSAGES {
            match next(&mut events).await {
                Event::Entries(new) => {
                    for entry in new.entries {
                        assert_eq!(entry.seq, position + 1);
                        position = entry.seq;
                    }
                }
                Event::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(program.signal("-TERM"), Some(0));
}
