//! A group whose members all commit at once, and what must hold of its log whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::{Body, Entry, EntryKind, chain, size_class};
use conclave_mls::{
    address::{DropToken, SealedAddress},
    crypto,
    welcome::InboxWelcome,
};
use conclave_names::{ChannelId, Hash, Seq, Timestamp};
use conclave_protocol::{Code, Refusal, method, v1};
use tonic::Status;

use super::client::*;

const INBOX: ChannelId = ChannelId::new([0xDD; 16]);
const OWNER: u8 = 200;
const DROP: [u8; 32] = [0xB3; 32];
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Random numbers that a seed determines.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Where Welcomes go: one inbox of somebody whom every commit claims to add.
pub(crate) struct Invitee {
    address_key: Vec<u8>,
    address_key_id: [u8; 8],
}

impl Invitee {
    pub(crate) async fn new(client: &Client) -> Self {
        let message = v1::CreateInboxRequest { inbox: INBOX.to_vec(), drop_key: DROP.to_vec() };
        client.delivery().create_inbox(sign(&key(OWNER), method::CREATE_INBOX, &message)).await.unwrap();
        let info = client.delivery().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
        let address_key_id = info.address_key_id.as_slice().try_into().unwrap();
        Self { address_key: info.address_key, address_key_id }
    }

    /// An address for one Welcome.
    fn address(&self) -> Vec<u8> {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let token = DropToken::mint(&DROP, INBOX, nonce(), 1, now().plus_ms(30 * DAY_MS));
        let sealed = SealedAddress::seal(&suite, &self.address_key.clone().into(), self.address_key_id, &token);
        sealed.unwrap().to_bytes().unwrap()
    }

    pub(crate) async fn session(client: &Client) -> Session {
        let open = v1::OpenSessionRequest { channel: INBOX.to_vec(), epoch: 0, path: None };
        client.open(OWNER, &open).await.unwrap()
    }

    /// A bundle with which `n` ends an epoch; its Welcome says so.
    pub(crate) fn bundle(&self, n: u8, epoch: u64, members: &[u8]) -> v1::SubmitBundleRequest {
        let mut message = by(n, &bundle(n, epoch, members, false));
        message.idempotency_key = [tag(n, epoch), vec![0; 7]].concat();
        message.welcome = Some(v1::WelcomeBundle {
            cipher_suite: 1,
            encrypted_group_info: vec![0xE1; 200],
            attachment: vec![0xA7; 50],
            parts: vec![v1::WelcomePart {
                domain: domain().to_string(),
                address: self.address(),
                secrets: tag(n, epoch),
            }],
        });
        message
    }
}

/// Whose commit of which epoch a Welcome belongs to.
fn tag(n: u8, epoch: u64) -> Vec<u8> {
    [epoch.to_be_bytes().as_slice(), &[n]].concat()
}

/// The tag in an inbox's entry.
pub(crate) fn welcomed(entry: &[u8]) -> (u8, u64) {
    let Body::Inline(body) = Entry::parse(entry).unwrap().body else { panic!("not inline") };
    let secrets = InboxWelcome::parse(&size_class::unpad(body).unwrap()).unwrap().secrets;
    (secrets[8], u64::from_be_bytes(secrets[..8].try_into().unwrap()))
}

/// What one submission was answered with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Won(v1::SubmitResponse),
    /// The group's epoch and the winner's place, as the loser was told.
    Lost {
        epoch: u64,
        winner: u64,
    },
    /// No answer came.
    Unknown,
}

impl Answer {
    pub(crate) fn of(result: Result<v1::SubmitResponse, Status>) -> Self {
        match result {
            Ok(reply) => Self::Won(reply),
            Err(status) => match Refusal::from_status(&status) {
                Some(refusal) if refusal.code == Code::EpochConflict => {
                    let number = |name| refusal.number(name).unwrap_or_else(|| panic!("no {name}: {refusal}"));
                    Self::Lost { epoch: number("epoch"), winner: number("winner") }
                }
                Some(refusal) if refusal.code == Code::Unavailable => Self::Unknown,
                Some(refusal) => panic!("{refusal}"),
                None => Self::Unknown,
            },
        }
    }

    pub(crate) fn won(&self) -> Option<&v1::SubmitResponse> {
        match self {
            Self::Won(reply) => Some(reply),
            _ => None,
        }
    }
}

/// A log as a member reads it.
pub(crate) struct Log {
    /// The entry that ended each epoch.
    pub(crate) ended: BTreeMap<u64, (u64, Vec<u8>)>,
    /// The running hash with each entry.
    chain: BTreeMap<u64, Hash>,
}

impl Log {
    /// Reads all of it, and checks that it is one: no gap, each epoch ended once.
    pub(crate) async fn read(session: &Session) -> Self {
        let mut log = Self { ended: BTreeMap::new(), chain: BTreeMap::new() };
        let mut hash = chain::start(&session.channel);
        let mut after = 0;
        loop {
            let page = session.fetch(after).await;
            if page.entries.is_empty() {
                assert_eq!(page.head, after);
                return log;
            }
            for logged in page.entries {
                assert_eq!(logged.seq, after + 1, "a gap");
                after = logged.seq;
                let entry = Entry::parse(&logged.entry).unwrap();
                let of = chain::entry_hash(&logged.entry);
                hash = chain::next(&hash, Seq(after), entry.kind, Timestamp(logged.time_ms), &of);
                log.chain.insert(after, hash);
                if entry.kind == EntryKind::Commit {
                    let before = log.ended.insert(entry.epoch.0, (after, logged.entry));
                    assert!(before.is_none(), "two commits ended epoch {}", entry.epoch.0);
                }
            }
        }
    }

    /// The epoch that the group is in.
    pub(crate) fn epoch(&self) -> u64 {
        self.ended.len() as u64
    }

    /// Who ended which epoch, from the first that 64 members could end.
    pub(crate) fn winners(&self) -> impl Iterator<Item = (u8, u64)> {
        self.ended.iter().filter(|(epoch, _)| **epoch > 0).map(|(epoch, (_, entry))| {
            let Body::Inline(body) = Entry::parse(entry).unwrap().body else { panic!("not inline") };
            (body[0], *epoch)
        })
    }

    /// Checks that a submission was answered with what the log shows.
    pub(crate) fn confirm(&self, message: &v1::SubmitBundleRequest, answer: &Answer) {
        let epoch = Entry::parse(&message.entry).unwrap().epoch.0;
        let Some((seq, entry)) = self.ended.get(&epoch) else {
            assert_eq!(*answer, Answer::Unknown, "an answer about epoch {epoch}, which has not ended");
            return;
        };
        let ours = *entry == message.entry;
        match answer {
            Answer::Won(reply) => {
                assert!(ours, "an acknowledged commit of epoch {epoch} is not the one in the log");
                assert_eq!(reply.seq, *seq);
                assert_eq!(reply.chain, self.chain[seq].to_vec(), "the log's history was changed");
            }
            Answer::Lost { epoch: now, winner } => {
                assert!(!ours, "the winner of epoch {epoch} was told that it lost");
                assert_eq!(winner, seq);
                assert!(*now > epoch && *now <= self.epoch());
            }
            Answer::Unknown => {}
        }
    }
}

/// Checks that an inbox has the Welcome of each commit in the log, once, and no other.
pub(crate) fn check_welcomes(log: &Log, welcomes: &[(u8, u64)]) {
    let unique: BTreeSet<_> = welcomes.iter().copied().collect();
    assert_eq!(unique.len(), welcomes.len(), "a Welcome came twice");
    let winners: BTreeSet<_> = log.winners().collect();
    assert_eq!(unique, winners, "a Welcome of a loser is readable, or one of a winner is missing");
}
