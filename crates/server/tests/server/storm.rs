//! Storms: all members commit on one epoch at once (RFC 9750, section 5.2.1).

use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use conclave_names::ChannelId;
use conclave_protocol::v1::{self, stream_event::Event};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    client::*,
    process::Program,
    storm_group::{Answer, Dice, Invitee, Log, check_welcomes, welcomed},
};

const MEMBERS: u8 = 64;

fn members() -> Vec<u8> {
    (1..=MEMBERS).collect()
}

fn channel(n: u8) -> ChannelId {
    ChannelId::new([n; 16])
}

/// A group of 64 in epoch 1, and a session of each. They share some connections.
async fn group(clients: &[Client], channel: ChannelId) -> Vec<Arc<Session>> {
    clients[0].create(channel, 1).await.unwrap();
    let alone = clients[0].session(1, channel).await;
    alone.commit(&bundle(1, 0, &members(), false)).await.unwrap();
    sessions(clients, channel).await
}

async fn sessions(clients: &[Client], channel: ChannelId) -> Vec<Arc<Session>> {
    let mut opening = JoinSet::new();
    for n in members() {
        let client = clients[usize::from(n) % clients.len()].clone();
        opening.spawn(async move { client.open(n, &member_of(channel, n, 1, &members())).await.unwrap() });
    }
    opening.join_all().await.into_iter().map(Arc::new).collect()
}

async fn connections(addr: &str, ca_pem: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::to(addr, ca_pem).await);
    }
    clients
}

/// How a member sends its bundle.
#[derive(Debug, Clone, Copy)]
enum Way {
    Once,
    /// Twice at the same time.
    Doubled,
    /// The call is given up after so many microseconds, and made again with the same idempotency key.
    ReplyLost(u64),
}

async fn send(session: &Session, message: &v1::SubmitBundleRequest, way: Way) -> Answer {
    let call = async || Answer::of(session.submit_bundle(message).await);
    match way {
        Way::Once => call().await,
        Way::Doubled => {
            let (one, other) = tokio::join!(call(), call());
            match (&one, &other) {
                // The same answer, or at least the same end: a loser may be told of different epochs.
                (Answer::Won(a), Answer::Won(b)) => assert_eq!(a, b),
                (Answer::Lost { winner: a, .. }, Answer::Lost { winner: b, .. }) => assert_eq!(a, b),
                _ => panic!("one bundle sent twice was answered with {one:?} and {other:?}"),
            }
            one
        }
        Way::ReplyLost(micros) => {
            let _ = timeout(Duration::from_micros(micros), call()).await;
            call().await
        }
    }
}

/// Sends of every member one bundle for the epoch. Gives each with its answer.
async fn storm(
    sessions: &[Arc<Session>],
    invitee: &Arc<Invitee>,
    epoch: u64,
    mut way: impl FnMut() -> Way,
) -> Vec<(v1::SubmitBundleRequest, Answer)> {
    let mut calls = JoinSet::new();
    for session in sessions {
        let (session, invitee, way) = (Arc::clone(session), Arc::clone(invitee), way());
        calls.spawn(async move {
            let message = invitee.bundle(session.member, epoch, &members());
            let answer = send(&session, &message, way).await;
            (message, answer)
        });
    }
    calls.join_all().await
}

/// Reads the inbox until the Welcome of the last commit is there. Those that came before it are all that come.
async fn welcomes(client: &Client, last: (u8, u64)) -> Vec<(u8, u64)> {
    let owner = Invitee::session(client).await;
    let (handle, mut events) = client.stream().await;
    owner.attach(&handle, 0).await.unwrap();
    let mut found = Vec::new();
    while found.last() != Some(&last) {
        if let Event::Entries(entries) = next(&mut events).await {
            found.extend(entries.entries.iter().map(|logged| welcomed(&logged.entry)));
        }
    }
    found
}

async fn storms(seed: u64, rounds: u64, way: impl Fn(&mut Dice) -> Way) {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let clients = connections(&running.addr().to_string(), running.ca_pem().unwrap()).await;
    let invitee = Arc::new(Invitee::new(&clients[0]).await);
    let sessions = group(&clients, channel(1)).await;
    let mut dice = Dice::new(seed);
    let mut all = Vec::new();
    let mut last = (0, 0);
    for epoch in 1..=rounds {
        let answers = storm(&sessions, &invitee, epoch, || way(&mut dice)).await;
        let winners: Vec<_> = answers.iter().filter_map(|(_, answer)| answer.won()).collect();
        assert_eq!(winners.len(), 1, "epoch {epoch}");
        let seq = winners[0].seq;
        for (_, answer) in &answers {
            match answer {
                Answer::Won(_) => {}
                Answer::Lost { epoch: now, winner } => assert_eq!((*now, *winner), (epoch + 1, seq)),
                Answer::Unknown => panic!("no answer"),
            }
        }
        let (message, _) = answers.iter().find(|(_, answer)| answer.won().is_some()).unwrap();
        last = (message.group_info[0], epoch);
        assert_eq!(sessions[0].group_info().await.group_info, message.group_info);
        all.extend(answers);
    }
    // Every member reads the same log, which is the one that the answers spoke of.
    let log = Log::read(&sessions[0]).await;
    assert_eq!(log.epoch(), rounds + 1);
    for session in &sessions[1..] {
        assert_eq!(Log::read(session).await.ended, log.ended);
    }
    for (message, answer) in &all {
        log.confirm(message, answer);
    }
    check_welcomes(&log, &welcomes(&clients[0], last).await);
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_commit_at_once_and_one_wins_each_epoch() {
    storms(1, 12, |_| Way::Once).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_sent_twice_at_once_counts_once() {
    storms(2, 6, |_| Way::Doubled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_reply_asks_again_and_gets_it() {
    storms(3, 8, |dice| Way::ReplyLost(dice.below(20_000))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_mixture_of_these_ends_the_same() {
    storms(4, 8, |dice| match dice.below(3) {
        0 => Way::Once,
        1 => Way::Doubled,
        _ => Way::ReplyLost(dice.below(20_000)),
    })
    .await;
}

/// What members sent and were told, over all lives of the server.
type Sent = Arc<Mutex<Vec<(v1::SubmitBundleRequest, Answer)>>>;

/// Commits from this epoch on, until the server is gone or `until` is reached.
async fn commit_on(
    session: Arc<Session>,
    invitee: Arc<Invitee>,
    mut epoch: u64,
    until: u64,
    sent: Sent,
    acknowledged: watch::Sender<u64>,
) {
    while epoch < until {
        let message = invitee.bundle(session.member, epoch, &members());
        let answer = Answer::of(session.submit_bundle(&message).await);
        sent.lock().unwrap().push((message, answer.clone()));
        match answer {
            Answer::Won(_) => {
                acknowledged.send_modify(|count| *count += 1);
                epoch += 1;
            }
            Answer::Lost { epoch: now, .. } => epoch = now,
            Answer::Unknown => return,
        }
    }
}

fn quiet(directory: &Path) -> Program {
    Program::start_with(directory, &["--log", "error"], Stdio::inherit())
}

/// Not more than may be open in a channel at once.
const EPOCHS: u64 = 60;

/// Lives of the server; the environment may ask for more.
fn lives() -> u64 {
    std::env::var("CONCLAVE_STORM_LIVES").ok().and_then(|text| text.parse().ok()).unwrap_or(16)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_at_any_point_loses_nothing_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(5);
    let mut invitee = None;
    // What was sent on each channel, and how its log looked when it was left.
    let mut all: BTreeMap<u8, Sent> = BTreeMap::new();
    let mut current = 0_u8;
    let mut full = true;
    let mut killed = (0, 0);
    for life in 0..=lives() {
        let mut program = quiet(directory.path());
        let ca = std::fs::read_to_string(directory.path().join("tls/ca.pem")).unwrap();
        let clients = connections(&program.addr, &ca).await;
        if invitee.is_none() {
            invitee = Some(Arc::new(Invitee::new(&clients[0]).await));
        }
        let invitee = Arc::clone(invitee.as_ref().unwrap());
        if full {
            current += 1;
            group(&clients, channel(current)).await;
            all.insert(current, Sent::default());
        }
        let sessions = sessions(&clients, channel(current)).await;
        let sent = Arc::clone(&all[&current]);

        // Whoever got no answer asks again, with the same bytes: it won or lost, and either is in the log.
        let unknown: Vec<_> =
            sent.lock().unwrap().iter().filter(|(_, answer)| *answer == Answer::Unknown).cloned().collect();
        for (message, _) in unknown {
            let session = sessions.iter().find(|session| session.member == message.group_info[0]).unwrap();
            let answer = Answer::of(session.submit_bundle(&message).await);
            let mut sent = sent.lock().unwrap();
            let known = sent.iter_mut().find(|(before, _)| *before == message).unwrap();
            killed = (killed.0 + 1, killed.1 + u32::from(answer.won().is_some()));
            known.1 = answer;
        }
        let log = Log::read(&sessions[0]).await;
        for (message, answer) in sent.lock().unwrap().iter() {
            assert_ne!(*answer, Answer::Unknown);
            log.confirm(message, answer);
        }
        if life == lives() {
            break;
        }

        full = log.epoch() + 20 > EPOCHS;
        let (acknowledged, mut acks) = watch::channel(0);
        let mut storm = JoinSet::new();
        for session in sessions {
            storm.spawn(commit_on(
                session,
                Arc::clone(&invitee),
                log.epoch(),
                log.epoch() + 20,
                Arc::clone(&sent),
                acknowledged.clone(),
            ));
        }
        // At a random moment after a random number of commits.
        let (count, micros) = (dice.below(6), dice.below(3000));
        acks.wait_for(|acks| *acks >= count).await.unwrap();
        tokio::time::sleep(Duration::from_micros(micros)).await;
        assert_eq!(program.signal("-KILL"), None);
        storm.join_all().await;
    }
    // In the end, with the last server still running: nothing of any channel is lost, doubled or stuck.
    let mut program = quiet(directory.path());
    let ca = std::fs::read_to_string(directory.path().join("tls/ca.pem")).unwrap();
    let clients = connections(&program.addr, &ca).await;
    let invitee = invitee.unwrap();
    let owner = Invitee::session(&clients[0]).await;
    let mut expected = 0;
    for (n, sent) in &all {
        let sessions = sessions(&clients, channel(*n)).await;
        let log = Log::read(&sessions[0]).await;
        for (message, answer) in sent.lock().unwrap().iter() {
            log.confirm(message, answer);
        }
        let message = invitee.bundle(2, log.epoch(), &members());
        let session = sessions.iter().find(|session| session.member == 2).unwrap();
        session.submit_bundle(&message).await.unwrap();
        expected += log.epoch();
    }
    let (handle, mut events) = clients[0].stream().await;
    owner.attach(&handle, 0).await.unwrap();
    let mut found: Vec<(u8, u64)> = Vec::new();
    while (found.len() as u64) < expected {
        if let Event::Entries(entries) = next(&mut events).await {
            found.extend(entries.entries.iter().map(|logged| welcomed(&logged.entry)));
        }
    }
    let mut winners = Vec::new();
    for n in all.keys() {
        let sessions = sessions(&clients, channel(*n)).await;
        let log = Log::read(&sessions[0]).await;
        winners.extend(log.winners());
    }
    found.sort_unstable();
    winners.sort_unstable();
    assert_eq!(found, winners, "a Welcome of a loser is readable, came twice, or one of a winner is missing");
    assert!(killed.0 > 0, "the server was always killed between two calls");
    println!("{} calls without an answer, {} of them had won", killed.0, killed.1);
    assert_eq!(program.signal("-TERM"), Some(0));
}
