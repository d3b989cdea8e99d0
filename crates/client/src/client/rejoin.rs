//! Coming back into a group that this client cannot follow any more.

use conclave_channel::Position;
use conclave_engine::{
    group::{ChannelEnd, RejoinError, WayBack},
    invitation::TreeFetch,
    outcome::Event,
};
use conclave_names::{ClientUri, Epoch, GroupUri, Hash, Seq, limits};
use conclave_protocol::{Code, Refusal, v1};

use super::{Client, ClientError, ClientEvent};
use crate::transport::CallError;

/// How often a way back is begun in one call: others may commit meanwhile.
const TRIES: usize = 4;

/// Why a try ended.
enum Ended {
    /// The channel went on, or begins elsewhere for us: read it and try again.
    ReadOn,
    /// Not now, or not without somebody's help.
    Blocked {
        by: Blocked,
        /// Whether not even a member could help.
        helpless: bool,
    },
}

/// What stands in the way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocked {
    reason: String,
    doubtful: bool,
    /// Who signed the GroupInfo.
    signer: Option<ClientUri>,
}

impl From<RejoinError> for Ended {
    fn from(error: RejoinError) -> Self {
        match error {
            RejoinError::ReadOn | RejoinError::Epoch { .. } | RejoinError::NotNeeded => Self::ReadOn,
            error => Self::Blocked {
                by: Blocked {
                    doubtful: matches!(error, RejoinError::Doubtful(_)),
                    signer: match &error {
                        RejoinError::Misled(signer) | RejoinError::Doubtful(signer) => Some(signer.clone()),
                        _ => None,
                    },
                    reason: error.to_string(),
                },
                helpless: matches!(error, RejoinError::NoMember),
            },
        }
    }
}

fn blocked(reason: String) -> Ended {
    Ended::Blocked { by: Blocked { reason, doubtful: false, signer: None }, helpless: false }
}

/// What a way back needs, and the server does not give out: whether it cannot, for now or for good, or gives out nonsense, a member can help
/// (RFC 9750, section 5.3). Only if nothing is heard of the server, nobody can be asked either.
fn not_served(what: &str, error: ClientError) -> Result<Result<(), Ended>, ClientError> {
    match error {
        ClientError::Call(CallError::Unreachable { .. }) | ClientError::Store(_) => Err(error),
        error if error.code() == Some(Code::Unavailable) || error.code() == Some(Code::RateLimited) => Err(error),
        error => Ok(Err(blocked(format!("the group's {what} is not to be had: {error}")))),
    }
}

impl Client {
    /// Takes the way back into a group that this client cannot follow any more, as [`Client::sync`] and listeners do by themselves, and says
    /// what stands in the way.
    ///
    /// # Errors
    /// [`ClientError::Doubtful`] if the only word for the group's present members is that of somebody whom this client did not know as one;
    /// [`ClientError::Dropped`] with the reason if there is no way back, also where the client was removed or has given the group up.
    pub async fn rejoin(&mut self, group: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        self.rejoin_by(group, None).await
    }

    /// The same, also by the word of this one: call it if the user, told whom to decide about by [`Event::RejoinBlocked`] or
    /// [`ClientError::Doubtful`], wants it. If another vouches by now, the user is to be asked again.
    ///
    /// # Errors
    /// As [`Client::rejoin`].
    pub async fn rejoin_trusting(
        &mut self,
        group: &GroupUri,
        client: &ClientUri,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        self.rejoin_by(group, Some(client)).await
    }

    async fn rejoin_by(
        &mut self,
        group: &GroupUri,
        approved: Option<&ClientUri>,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        self.still_in(group)?;
        let read = self.sync_group(group).await?;
        let back = self.come_back(group, approved).await;
        let events = self.joined(read, back)?;
        self.still_in(group)?;
        if self.group(group)?.wants_rejoin() {
            return Err(match self.blocked.get(group).cloned() {
                Some(Blocked { doubtful: true, signer: Some(signer), .. }) => ClientError::Doubtful(signer),
                Some(blocked) => ClientError::Dropped(blocked.reason),
                None => ClientError::Dropped("others were faster".to_owned()),
            });
        }
        Ok(events)
    }

    /// Comes back by an external commit, if that is what the group wants.
    pub(super) async fn come_back(
        &mut self,
        name: &GroupUri,
        approved: Option<&ClientUri>,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        let mut events = Vec::new();
        let done = self.come_back_by(name, approved, &mut events).await;
        self.told(done, events)
    }

    async fn come_back_by(
        &mut self,
        name: &GroupUri,
        approved: Option<&ClientUri>,
        events: &mut Vec<ClientEvent>,
    ) -> Result<(), ClientError> {
        if self.is_over(name)? {
            return Ok(());
        }
        let mut helpless = false;
        let mut ended = None;
        for _ in 0..TRIES {
            if !self.group(name)?.wants_rejoin() {
                self.blocked.remove(name);
                break;
            }
            match self.begin_rejoin(name, approved).await? {
                Ok(()) => events.extend(Box::pin(self.drive(name, None)).await?),
                Err(Ended::ReadOn) => {
                    ended = Some(blocked(
                        "the server's GroupInfo is of another epoch than its channel each time, or others were faster"
                            .into(),
                    ));
                    events.extend(self.sync_group(name).await?);
                }
                Err(stopped) => {
                    ended = Some(stopped);
                    break;
                }
            }
        }
        let still = self.group(name)?.wants_rejoin();
        if let Some(Ended::Blocked { by, helpless: alone }) = ended.filter(|_| still) {
            helpless = alone;
            // It is told once, and not at each sync.
            if self.blocked.insert(name.clone(), by.clone()).as_ref() != Some(&by) {
                let Blocked { reason, doubtful, signer } = by;
                let event = ClientEvent::of(name, Event::RejoinBlocked { reason, doubtful, signer });
                self.note(std::slice::from_ref(&event))?;
                events.push(event);
            }
        }
        if still && !self.give_up(name, events)? {
            events.extend(self.knock(name, helpless).await?);
        }
        Ok(())
    }

    /// Makes the commit, and makes it durable.
    async fn begin_rejoin(
        &mut self,
        name: &GroupUri,
        approved: Option<&ClientUri>,
    ) -> Result<Result<(), Ended>, ClientError> {
        let session = self.session(name)?;
        let mut served = session.read_group_info(&v1::ReadGroupInfoRequest {}).await;
        let mut before = self.group(name)?.epoch();
        while matches!(&served, Err(error) if error.code() == Some(Code::AccessRefused))
            && let Some((epoch, session)) = self.earlier_session(name, before)?
        {
            // The epoch that we are in is none of the server's: it was annulled, or is of another branch.
            before = epoch;
            served = session.read_group_info(&v1::ReadGroupInfoRequest {}).await;
        }
        let served = match served {
            Ok(served) => served,
            Err(CallError::Refused(Refusal { code: Code::AccessRefused, .. })) => {
                self.sessions.remove(name);
                let reason = "no key of this client opens the channel: somebody was removed since it lost the group, be it this client or \
                              another, or what it joined by is void, or the server has lost part of the log";
                return Ok(Err(blocked(reason.to_owned())));
            }
            Err(error) => return not_served("GroupInfo", error.into()),
        };
        let (epoch, now) = (Epoch(served.epoch), self.delivery.now());
        let hash = |bytes: &[u8]| {
            Hash::try_from(bytes).map_err(|_| ClientError::Answer("`chain` or `ledger` is not 32 bytes".into()))
        };
        let (chain, ledger) = match (hash(&served.chain), hash(&served.ledger)) {
            (Ok(chain), Ok(ledger)) => (chain, ledger),
            (Err(error), _) | (_, Err(error)) => return not_served("GroupInfo", error),
        };
        let end = ChannelEnd { place: Position { seq: Seq(served.head), hash: chain }, ledger };
        let way = self.group(name)?.way_back(epoch, &served.group_info, end, now);
        self.save(name)?;
        let way = match way {
            Ok(way) => way,
            Err(error) => return Ok(Err(error.into())),
        };
        let tree = match self.tree_of(name, &way).await {
            Ok(tree) => tree,
            Err(error) => return not_served("tree", error),
        };
        let mut begun = self.group(name)?.rejoin(&way, &tree, approved, now);
        if matches!(begun, Err(RejoinError::Mls(_))) && self.learn_issuers().await? {
            begun = self.group(name)?.rejoin(&way, &tree, approved, now);
        }
        self.save(name)?;
        if begun == Err(RejoinError::Outdated) {
            // This profile is an older copy than the one that renewed it last.
            self.renew_credential().await?;
            return Ok(Err(Ended::ReadOn));
        }
        Ok(begun.map(drop).map_err(Ended::from))
    }

    /// Looks at what the newest commit left for who comes back, where that falls to this client. What it finds wrong it mends by a commit.
    pub(super) async fn vet_group_info(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        if !self.group(name)?.wants_group_info() {
            return Ok(Vec::new());
        }
        let session = self.session(name)?;
        // Where it is not to be had, the next one is looked at.
        let Ok(served) = session.read_group_info(&v1::ReadGroupInfoRequest {}).await else { return Ok(Vec::new()) };
        let (now, mut told) = (self.delivery.now(), Vec::new());
        self.group(name)?.vet_group_info(Epoch(served.epoch), &served.group_info, now, &mut told)?;
        self.save(name)?;
        Ok(ClientEvent::all_of(name, told).collect())
    }

    /// Fetches the tree that a way back needs.
    async fn tree_of(&mut self, name: &GroupUri, way: &WayBack) -> Result<TreeFetch, ClientError> {
        let mut tree = way.tree()?;
        if !tree.wants_whole() {
            return self.fetch_chunks(tree).await;
        }
        let session = self.session(name)?;
        let mut whole = Vec::new();
        loop {
            let offset = whole.len() as u64;
            let part = session.read_tree(&v1::ReadTreeRequest { epoch: way.epoch().0, offset }).await?;
            whole.extend_from_slice(&part.data);
            if whole.len() as u64 > limits::BLOB {
                return Err(ClientError::Answer("the group's tree is larger than any".into()));
            }
            if whole.len() as u64 >= part.size || part.data.is_empty() {
                break;
            }
        }
        tree.give(&whole).map_err(|error| ClientError::Answer(error.to_string()))?;
        Ok(tree)
    }
}
