//! Stopping in the middle of work.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use conclave_channel::{Body, Entry};
use tokio::sync::Notify;

use super::client::*;

/// Connections that submit at the same time.
const WRITERS: u8 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_while_the_server_stops_is_there_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let (acknowledged, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut writers = Vec::new();
    for writer in 1..=WRITERS {
        let session = Client::of(&running).await.channel(writer).await;
        let (acknowledged, enough) = (Arc::clone(&acknowledged), Arc::clone(&enough));
        writers.push(tokio::spawn(async move {
            let mut mine = HashMap::new();
            for n in 0_u64.. {
                let request = session.submission(n, n.to_be_bytes().repeat(32));
                let Ok(reply) = session.client.delivery().submit(request).await else { break };
                mine.insert(reply.into_inner().seq, n);
                if acknowledged.fetch_add(1, Ordering::Relaxed) == 200 {
                    enough.notify_one();
                }
            }
            (writer, mine)
        }));
    }
    enough.notified().await;
    running.shutdown().await;

    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let mut total = 0;
    for writer in writers {
        let (writer, mine) = writer.await.unwrap();
        let session = client.session(writer, conclave_names::ChannelId::new([writer; 16])).await;
        let mut there = HashMap::new();
        let mut after = 0;
        loop {
            let page = session.fetch(after).await;
            let Some(last) = page.entries.last() else { break };
            after = last.seq;
            for logged in page.entries {
                let Body::Inline(body) = Entry::parse(&logged.entry).unwrap().body else { panic!("not inline") };
                there.insert(logged.seq, u64::from_be_bytes(body[..8].try_into().unwrap()));
            }
        }
        for (seq, n) in &mine {
            assert_eq!(there.get(seq), Some(n), "writer {writer}, entry {seq}");
        }
        // At most the one whose answer was cut off.
        assert!(there.len() - mine.len() <= 1, "writer {writer}");
        total += mine.len();
    }
    assert!(total > 200, "{total}");
    running.shutdown().await;
}
