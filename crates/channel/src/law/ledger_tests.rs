use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::{CommitHeader, Position, access::KeyTree, chain, law::Refused};

const CHANNEL: ChannelId = ChannelId::new([1; 16]);

fn signer(member: u8) -> SigningKey {
    SigningKey::from_bytes(&[member; 32])
}

fn key(member: u8) -> ChannelKey {
    ChannelKey(signer(member).verifying_key().to_bytes())
}

fn tree(members: &[u8]) -> KeyTree {
    KeyTree::new(members.iter().map(|member| key(*member))).unwrap()
}

/// A log with a ledger, and the bytes that were admitted, to be read again by others.
#[derive(Clone)]
struct Log {
    ledger: Ledger,
    seq: u64,
    entries: Vec<(Seq, Timestamp, Entry, Hash)>,
    /// Members of each epoch of the branch that stands.
    rosters: Vec<Vec<u8>>,
    changes: Vec<Change>,
}

impl Log {
    fn new(members: &[u8]) -> Self {
        let tree = tree(members);
        Self {
            ledger: Ledger::new(Epoch(0), tree.root(), tree.len()),
            seq: 0,
            entries: Vec::new(),
            rosters: vec![members.to_vec()],
            changes: Vec::new(),
        }
    }

    fn submit(&mut self, time: u64, entry: Entry) -> Result<Vec<Change>, Refused> {
        let time = Timestamp(time);
        // As the DS does: what is refused leaves no trace, what the time decided included.
        let mut ledger = self.ledger.clone();
        let mut changes = ledger.advance(time);
        let hash = chain::entry_hash(&entry.to_bytes().unwrap());
        let seq = Seq(self.seq + 1);
        changes.extend(ledger.admit(&CHANNEL, seq, time, &entry, hash)?);
        self.ledger = ledger;
        self.seq += 1;
        self.entries.push((seq, time, entry, hash));
        self.changes.extend(changes.clone());
        self.rosters.truncate(usize::try_from(self.ledger.epoch().0).unwrap() + 1);
        Ok(changes)
    }

    fn commit(&mut self, time: u64, by: u8, members: &[u8]) -> Result<Vec<Change>, Refused> {
        let epoch = self.ledger.at(Timestamp(time)).epoch();
        let before = &self.rosters[usize::try_from(epoch.0).unwrap()];
        let removed = before.iter().filter(|member| !members.contains(member)).count();
        let tree = tree(members);
        let header = CommitHeader {
            committer: key(by),
            removed: removed.try_into().unwrap(),
            members: tree.len(),
            key_root: tree.root(),
        };
        let entry = Entry::commit(epoch, header, Body::Inline(time.to_be_bytes().to_vec()));
        let done = self.submit(time, entry);
        if done.is_ok() {
            self.rosters.truncate(usize::try_from(epoch.0).unwrap() + 1);
            self.rosters.push(members.to_vec());
        }
        done
    }

    fn verdict(&mut self, time: u64, kind: EntryKind, by: u8, commit: u64) -> Result<Vec<Change>, Refused> {
        let ledger = self.ledger.at(Timestamp(time));
        let ended = ledger.find(Seq(commit)).map_or(ledger.settled(), |(ended, _)| ended);
        let members = &self.rosters[usize::try_from(ended.0).unwrap()];
        let path = tree(members).path(&key(by)).or_else(|_| tree(&[by]).path(&key(by))).unwrap();
        let (epoch, hash) =
            ledger.find(Seq(commit)).map_or((Epoch(0), Hash::new([0; 32])), |(epoch, open)| (epoch, open.hash));
        let about = Position { seq: Seq(commit), hash };
        self.submit(time, Verdict::sign(&CHANNEL, kind, epoch, &about, &signer(by), path, vec![9]))
    }

    fn nack(&mut self, time: u64, by: u8, commit: u64) -> Result<Vec<Change>, Refused> {
        self.verdict(time, EntryKind::Nack, by, commit)
    }

    fn ack(&mut self, time: u64, by: u8, commit: u64) -> Result<Vec<Change>, Refused> {
        self.verdict(time, EntryKind::Ack, by, commit)
    }

    fn message(&mut self, time: u64) -> Result<Vec<Change>, Refused> {
        let epoch = self.ledger.at(Timestamp(time)).epoch();
        self.submit(time, Entry::new(EntryKind::Message, epoch, Body::Inline(vec![])))
    }
}

fn annulled(commits: &[u64], epoch: u64) -> Change {
    Change::Annulled { commits: commits.iter().copied().map(Seq).collect(), epoch: Epoch(epoch) }
}

fn settled(commit: u64, began: u64) -> Change {
    Change::Settled { commit: Seq(commit), began: Epoch(began) }
}

#[test]
fn a_commit_that_nobody_can_apply_is_annulled_and_the_epoch_takes_another() {
    let mut log = Log::new(&[1, 2, 3]);
    log.commit(0, 1, &[1, 2, 3]).unwrap();
    assert_eq!(log.ledger.epoch(), Epoch(1));
    assert_eq!(log.nack(10, 2, 1), Ok(vec![Change::Disputed { commit: Seq(1) }]));
    assert_eq!(log.nack(11, 3, 1), Err(VerdictError::Repeated.into()));
    assert_eq!(log.message(10 + DISPUTE_MS), Ok(vec![]), "at the bound an Ack would still count");
    assert_eq!(log.commit(11 + DISPUTE_MS, 2, &[1, 2, 3]), Ok(vec![annulled(&[1], 0)]));
    assert_eq!(log.ledger.epoch(), Epoch(1));
    assert_eq!(log.ledger.find(Seq(1)), None);
}

#[test]
fn messages_of_the_epoch_before_follow_for_an_hour() {
    let mut log = Log::new(&[1, 2]);
    let of = |epoch| Entry::new(EntryKind::Message, Epoch(epoch), Body::Inline(vec![]));
    let late = |current| Err(Refused::Epoch { found: Epoch(current - 1), current: Epoch(current) });
    log.commit(10, 1, &[1, 2]).unwrap();
    log.submit(10 + LATE_MS, of(0)).unwrap();
    assert_eq!(log.submit(11 + LATE_MS, of(0)), late(1));
    log.submit(11 + LATE_MS, of(1)).unwrap();
    // The same once the commit is settled, and after the next.
    log.ack(12 + LATE_MS, 2, 1).unwrap();
    assert_eq!(log.submit(13 + LATE_MS, of(0)), late(1));
    log.commit(5 * LATE_MS, 2, &[1, 2]).unwrap();
    log.submit(6 * LATE_MS, of(1)).unwrap();
    assert_eq!(log.submit(6 * LATE_MS + 1, of(1)), late(2));
    // An epoch that comes back began when it began.
    log.nack(6 * LATE_MS + 2, 1, log.ledger.open()[0].seq.0).unwrap();
    let later = 7 * LATE_MS;
    log.message(later).unwrap();
    assert_eq!((log.ledger.epoch(), log.ledger.began()), (Epoch(1), Timestamp(10)));
    assert_eq!(log.submit(later, of(0)), late(1));
}

#[test]
fn an_ack_of_another_member_beats_every_nack() {
    let mut log = Log::new(&[1, 2, 3, 4]);
    log.commit(0, 1, &[1, 2, 3, 4]).unwrap();
    log.nack(1, 2, 1).unwrap();
    assert_eq!(log.ack(2, 1, 1), Err(VerdictError::Own.into()), "the committer's word does not count");
    assert_eq!(log.ack(3, 9, 1), Err(VerdictError::Key.into()), "a stranger's neither");
    assert_eq!(log.ack(1 + DISPUTE_MS, 3, 1), Ok(vec![settled(1, 1)]));
    assert_eq!(log.nack(2 + DISPUTE_MS, 4, 1), Err(VerdictError::NotOpen.into()));
    assert_eq!(log.message(5 * DISPUTE_MS), Ok(vec![]));
    assert_eq!(log.ledger.epoch(), Epoch(1));
}

#[test]
fn a_late_ack_comes_too_late() {
    let mut log = Log::new(&[1, 2, 3]);
    log.commit(0, 1, &[1, 2, 3]).unwrap();
    log.nack(1, 2, 1).unwrap();
    assert_eq!(log.ack(2 + DISPUTE_MS, 3, 1), Err(VerdictError::NotOpen.into()));
    assert_eq!(log.message(2 + DISPUTE_MS), Ok(vec![annulled(&[1], 0)]));
}

#[test]
fn annulling_a_commit_annuls_what_followed_and_keeps_what_came_before() {
    let mut log = Log::new(&[1, 2, 3]);
    for time in 0..4 {
        log.commit(time, 1, &[1, 2, 3]).unwrap();
    }
    log.nack(5, 3, 3).unwrap();
    assert_eq!(log.message(10 + DISPUTE_MS), Ok(vec![annulled(&[3, 4], 2)]));
    assert_eq!(log.ack(11 + DISPUTE_MS, 2, 2), Err(VerdictError::NotOldest.into()));
    assert_eq!(log.ack(11 + DISPUTE_MS, 2, 1), Ok(vec![settled(1, 1)]));
    assert_eq!(log.ack(12 + DISPUTE_MS, 2, 2), Ok(vec![settled(2, 2)]));
}

#[test]
fn the_removed_cannot_dispute_their_removal_alone() {
    let mut log = Log::new(&[1, 2, 3, 4]);
    log.commit(0, 1, &[1, 2]).unwrap(); // removes 3 and 4
    assert_eq!(log.nack(1, 3, 1), Ok(vec![]));
    assert_eq!(log.nack(2, 3, 1), Err(VerdictError::Repeated.into()));
    assert_eq!(log.nack(3, 4, 1), Ok(vec![]));
    assert_eq!(log.ledger.nacks_missing(Seq(1)), Some(1));
    assert_eq!(log.message(10 * DISPUTE_MS), Ok(vec![]), "the removal stands");
    assert_eq!(log.nack(10 * DISPUTE_MS, 2, 1), Ok(vec![Change::Disputed { commit: Seq(1) }]));
}

#[test]
fn who_joined_in_an_open_epoch_disputes_and_does_not_acknowledge() {
    let mut log = Log::new(&[1, 2]);
    log.commit(0, 1, &[1, 2, 3]).unwrap();
    log.commit(1, 1, &[1, 2, 3]).unwrap();
    assert_eq!(log.ack(2, 3, 1), Err(VerdictError::Key.into()), "its committer vouches for 3, and nobody else");
    assert_eq!(log.nack(3, 3, 1), Err(VerdictError::Key.into()));
    assert_eq!(log.nack(4, 3, 2), Ok(vec![Change::Disputed { commit: Seq(2) }]));
}

#[test]
fn silence_settles_after_a_week_and_not_before() {
    let mut log = Log::new(&[1, 2]);
    log.commit(0, 1, &[1, 2]).unwrap();
    assert_eq!(log.message(SETTLED_MS), Ok(vec![]));
    assert_eq!(log.message(SETTLED_MS + 1), Ok(vec![settled(1, 1)]));
    assert_eq!(log.nack(SETTLED_MS + 2, 2, 1), Err(VerdictError::NotOpen.into()));
}

#[test]
fn who_is_alone_settles_at_once_and_others_wait_for_an_ack() {
    let mut log = Log::new(&[1]);
    assert_eq!(log.commit(0, 1, &[1]), Ok(vec![settled(1, 1)]));
    assert_eq!(log.commit(1, 1, &[1, 2]), Ok(vec![settled(2, 2)]));
    assert_eq!(log.commit(1, 1, &[1, 2]), Ok(vec![]));
    assert_eq!(log.commit(1, 1, &[1]), Ok(vec![settled(3, 3), settled(4, 4)]), "left alone");
    assert_eq!(log.commit(1, 1, &[1, 2]), Ok(vec![settled(5, 5)]));
    for time in 0..OPEN_MAX as u64 {
        assert_eq!(log.commit(2 + time, 1, &[1, 2]), Ok(vec![]));
    }
    assert_eq!(log.commit(100, 1, &[1, 2]), Err(Refused::Unsettled));
    log.ack(101, 2, 6).unwrap();
    log.commit(102, 1, &[1, 2]).unwrap();
}

impl Log {
    /// A commit that says what it likes of the epoch that it begins.
    fn claim(&mut self, time: u64, removed: u32, members: u32) -> Result<Vec<Change>, Refused> {
        let epoch = self.ledger.at(Timestamp(time)).epoch();
        let header = CommitHeader { committer: key(1), removed, members, key_root: tree(&[1]).root() };
        let done = self.submit(time, Entry::commit(epoch, header, Body::Inline(time.to_be_bytes().to_vec())));
        if done.is_ok() {
            self.rosters.push(vec![1]);
        }
        done
    }
}

#[test]
fn who_vanishes_without_being_removed_counts_on() {
    let mut log = Log::new(&[1, 2, 3, 4]);
    assert_eq!(log.claim(0, 0, 1), Ok(vec![]), "three others can say what it is");
    assert_eq!(log.ledger.members(), 4);
    assert_eq!(log.nack(1, 2, 1), Ok(vec![Change::Disputed { commit: Seq(1) }]));
    // Nor step by step, nor by saying to remove fewer than it has vanish.
    assert_eq!(log.claim(2, 0, 2), Ok(vec![]));
    assert_eq!(log.claim(3, 2, 1), Ok(vec![]));
    assert_eq!(log.ledger.members(), 2);
    assert_eq!(log.message(2 + DISPUTE_MS), Ok(vec![annulled(&[1, 3, 4], 0)]));
    assert_eq!((log.ledger.epoch(), log.ledger.members()), (Epoch(0), 4));
    // Who says to remove all others could do so in truth: nobody is left who could acknowledge it.
    assert_eq!(log.claim(3 + DISPUTE_MS, 3, 1), Ok(vec![settled(6, 1)]));
    assert_eq!(log.ledger.members(), 1);
}

#[test]
fn a_false_count_that_stands_shuts_out_no_true_commit() {
    let mut log = Log::new(&[1, 2, 3]);
    log.claim(0, 0, 900).unwrap();
    log.ack(1, 2, 1).unwrap();
    assert_eq!(log.ledger.members(), 900);
    assert_eq!(log.commit(2, 1, &[1, 2, 3]), Ok(vec![]));
    assert_eq!(log.claim(3, 0, 0), Err(Refused::Counts));
    assert_eq!(log.claim(3, 0, u32::MAX), Err(Refused::Counts));
    assert_eq!(log.ledger.open().len(), 1, "what is refused leaves no trace");
}

#[test]
fn an_epoch_takes_so_many_proposals_and_one_that_comes_back_remembers_its_own() {
    let propose = |log: &mut Log, time: u64, bytes: usize| {
        let epoch = log.ledger.at(Timestamp(time)).epoch();
        log.submit(time, Entry::new(EntryKind::Proposal, epoch, Body::Inline(vec![0; bytes])))
    };
    let unit = usize::try_from(PROPOSAL_UNIT).unwrap();
    let mut log = Log::new(&[1, 2]);
    for _ in 0..PROPOSALS_MAX / 2 {
        propose(&mut log, 0, unit + 1).unwrap();
    }
    assert_eq!(propose(&mut log, 0, 0), Err(Refused::Proposals));
    log.message(0).unwrap();
    // Another epoch takes as many.
    log.commit(1, 1, &[1, 2]).unwrap();
    let commit = log.seq;
    for _ in 0..PROPOSALS_MAX {
        propose(&mut log, 1, unit).unwrap();
    }
    assert_eq!(propose(&mut log, 1, 1), Err(Refused::Proposals));
    log.nack(2, 2, commit).unwrap();
    let later = 3 + DISPUTE_MS;
    assert_eq!(propose(&mut log, later, 1), Err(Refused::Proposals), "they are those of before the void commit");
    assert_eq!(log.commit(later, 1, &[1, 2]), Ok(vec![annulled(&[commit], 0)]));
    propose(&mut log, later, 1).unwrap();
}

#[test]
fn only_what_grows_with_the_group_may_be_large() {
    let mut log = Log::new(&[1, 2]);
    let staged = |kind, size| Entry::new(kind, Epoch(0), Body::Staged { hash: Hash::new([1; 32]), size });
    let commit = |size| {
        let header = CommitHeader { committer: key(1), removed: 0, members: 2, key_root: tree(&[1, 2]).root() };
        Entry::commit(Epoch(0), header, Body::Staged { hash: Hash::new([1; 32]), size })
    };
    log.submit(0, staged(EntryKind::Message, limits::STAGED_BODY)).unwrap();
    assert_eq!(log.submit(0, staged(EntryKind::Successor, limits::BLOB)), Err(Refused::Body));
    log.submit(0, staged(EntryKind::Successor, limits::STAGED_BODY + 2 * limits::KEY_PACKAGE as u64)).unwrap();
    assert_eq!(log.submit(0, commit(limits::HANDSHAKE + 257)), Err(Refused::Body));
    log.submit(0, commit(limits::HANDSHAKE + 256)).unwrap();
    // What is too large in any group is no entry.
    let (large, never) = (staged(EntryKind::Message, limits::STAGED_BODY + 1), staged(EntryKind::Proposal, 1));
    assert_eq!((large.to_bytes(), never.to_bytes()), (Err(EntryError::TooLarge), Err(EntryError::Kind)));
}

#[test]
fn a_verdict_about_other_bytes_another_epoch_or_kind_does_not_count() {
    let mut log = Log::new(&[1, 2]);
    log.commit(0, 1, &[1, 2]).unwrap();
    let (epoch, open) = log.ledger.find(Seq(1)).unwrap();
    let about = Position { seq: Seq(1), hash: open.hash };
    let path = tree(&[1, 2]).path(&key(2)).unwrap();
    let sign =
        |kind, epoch, about: &Position| Verdict::sign(&CHANNEL, kind, epoch, about, &signer(2), path.clone(), vec![1]);
    let other = Position { seq: Seq(1), hash: Hash::new([5; 32]) };
    let refused = |log: &mut Log, entry: Entry| log.submit(1, entry).unwrap_err();
    assert_eq!(refused(&mut log, sign(EntryKind::Nack, epoch, &other)), VerdictError::Signature.into());
    assert_eq!(refused(&mut log, sign(EntryKind::Nack, Epoch(1), &about)), VerdictError::NotOpen.into());
    let mut turned = sign(EntryKind::Nack, epoch, &about);
    turned.kind = EntryKind::Ack;
    assert_eq!(refused(&mut log, turned), VerdictError::Signature.into());
    let mut changed = sign(EntryKind::Nack, epoch, &about);
    changed.body = Body::Inline(vec![2]);
    assert_eq!(refused(&mut log, changed), VerdictError::Signature.into());
    assert!(log.submit(1, sign(EntryKind::Nack, epoch, &about)).is_ok());
}

/// What a member may do in the property test.
#[derive(Debug, Clone)]
enum Step {
    Commit { by: u8 },
    Nack { by: u8, which: prop::sample::Index },
    Ack { by: u8 },
    Message,
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let step = prop_oneof![
        3 => (1..=4u8).prop_map(|by| Step::Commit { by }),
        3 => (1..=4u8, any::<prop::sample::Index>()).prop_map(|(by, which)| Step::Nack { by, which }),
        2 => (1..=4u8).prop_map(|by| Step::Ack { by }),
        1 => Just(Step::Message),
    ];
    // Times around the bounds, so that both sides are met.
    let wait = prop_oneof![3 => 0..1000u64, 1 => DISPUTE_MS - 2..DISPUTE_MS + 2, 1 => SETTLED_MS - 2..SETTLED_MS + 2];
    prop::collection::vec((step, wait), 0..40)
}

fn play(steps: &[(Step, u64)]) -> Log {
    let mut log = Log::new(&[1, 2, 3, 4]);
    let mut time = 0;
    for (step, wait) in steps {
        time += wait;
        let _ = match step {
            Step::Commit { by } => log.commit(time, *by, &[1, 2, 3, 4]),
            Step::Nack { by, which } => match log.ledger.at(Timestamp(time)).open() {
                [] => log.message(time),
                open => {
                    let commit = open[which.index(open.len())].seq.0;
                    log.nack(time, *by, commit)
                }
            },
            Step::Ack { by } => {
                let commit = log.ledger.at(Timestamp(time)).open().first().map_or(0, |open| open.seq.0);
                log.ack(time, *by, commit)
            }
            Step::Message => log.message(time),
        };
    }
    log
}

proptest! {
    /// Whoever reads the log, in whatever pieces and whenever, ends where the DS is.
    #[test]
    fn every_reader_ends_on_the_same_commits(steps in steps(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        let log = play(&steps);
        let mut reader = Log::new(&[1, 2, 3, 4]).ledger;
        let mut changes = Vec::new();
        for (index, (seq, time, entry, hash)) in log.entries.iter().enumerate() {
            if cuts.iter().any(|cut| cut.index(log.entries.len()) == index) {
                // Stored and loaded again, and the time looked at in between.
                reader = Ledger::parse(&reader.to_bytes().unwrap()).unwrap();
                let half = Timestamp(time.0 - 1.min(time.0));
                let _ = reader.at(half);
            }
            changes.extend(reader.advance(*time));
            changes.extend(reader.admit(&CHANNEL, *seq, *time, entry, *hash).unwrap());
        }
        prop_assert_eq!(&reader, &log.ledger);
        prop_assert_eq!(changes, log.changes);
    }

    /// What is settled stays; what is annulled was disputed, and nobody else had said that it applies.
    #[test]
    fn settled_commits_are_never_annulled(steps in steps()) {
        let log = play(&steps);
        let (mut settled, mut disputed, mut epoch) = (Vec::new(), Vec::new(), 0);
        for change in &log.changes {
            match change {
                Change::Settled { commit, began } => {
                    prop_assert_eq!(began.0, epoch + 1, "epochs settle one after the other");
                    epoch = began.0;
                    settled.push(*commit);
                }
                Change::Disputed { commit } => disputed.push(*commit),
                Change::Annulled { commits, epoch: back } => {
                    prop_assert!(disputed.contains(&commits[0]));
                    prop_assert!(commits.iter().all(|commit| !settled.contains(commit)));
                    prop_assert!(back.0 >= epoch);
                }
            }
        }
        prop_assert!(settled.is_sorted());
    }

    /// A member that disputes everything rolls nothing back while another one is online to answer, and jams nothing.
    #[test]
    fn one_jammer_changes_nothing_while_another_answers(commits in 1..20u64, gap in 1..DISPUTE_MS) {
        let mut log = Log::new(&[1, 2, 3]);
        for round in 0..commits {
            let time = round * 3 * DISPUTE_MS;
            log.commit(time, 1, &[1, 2, 3]).unwrap();
            let commit = log.seq;
            log.nack(time + 1, 3, commit).unwrap();
            log.ack(time + 1 + gap, 2, commit).unwrap();
        }
        prop_assert_eq!(log.ledger.settled(), Epoch(commits));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(mut ledger) = Ledger::parse(&bytes) {
            ledger.advance(Timestamp(u64::MAX));
        }
    }
}
