use conclave_channel::access::{ChannelKey, KeyPath};
use conclave_names::{Epoch, Hash, Seq, SessionId, Timestamp, limits};
use conclave_protocol::{
    Refusal, method,
    session::SessionKey,
    v1::{self, OpenSessionRequest, OpenSessionResponse, SignedRequest},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    DeliveryService, Done, Incoming,
    access::{Access, stranger},
    request::{Signed, channel_id, field, malformed},
};
use crate::{
    keyed::{Purpose, random},
    session::{Caller, Origin, Place},
    store::{ChannelKind, Tx},
};

/// What a path is compared with where there is no root. Nobody knows a path to it.
const NO_ROOT: Hash = Hash::new([0; 32]);

/// What an owner is compared with where there is none.
const NO_OWNER: [u8; 32] = [0; 32];

impl DeliveryService {
    /// Opens a session on a channel for the holder of one of its keys.
    ///
    /// Absent channels, wrong epochs, wrong paths and foreign keys are refused in the same words, after the same work.
    pub fn open_session(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        now: Timestamp,
    ) -> Result<Done<OpenSessionResponse>, Refusal> {
        self.open_session_from(tx, request, Origin::default(), now)
    }

    /// [`open_session`](Self::open_session) for a caller at a place. Where sessions are too many, those of one place
    /// give way to one another before they do to other places'.
    pub fn open_session_from(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Done<OpenSessionResponse>, Refusal> {
        let Signed { verified, message, keyed } =
            self.signed::<OpenSessionRequest>(tx, request, method::OPEN_SESSION, now)?;
        let id = channel_id(&message.channel)?;
        let path = key_path(message.path.unwrap_or_default())?;
        let epoch = Epoch(message.epoch);
        let key = verified.key.to_bytes();

        let kind = tx.channel(&id)?.map(|row| row.kind);
        let (root, started) = tx.epoch(&id, epoch)?.map_or((NO_ROOT, Seq(0)), |row| (row.key_root, row.started));
        let owner = match &kind {
            Some(ChannelKind::Inbox { owner, .. }) => owner,
            _ => &NO_OWNER,
        };
        let member = path.verify(&ChannelKey(key), &root).is_ok();
        let owns = bool::from(owner.ct_eq(&key));
        let info = tx.group_info(&id)?.filter(|row| row.epoch == epoch && row.join_key.len() == key.len());
        let joins = info.is_some_and(|row| bool::from(row.join_key.as_slice().ct_eq(&key)));
        let place = match kind {
            Some(ChannelKind::Group { .. }) if member => Place::Member { epoch, started },
            Some(ChannelKind::Group { .. }) if joins => Place::Joiner { epoch, started },
            Some(ChannelKind::Inbox { .. }) if owns => Place::Owner,
            _ => return Err(stranger()),
        };

        let access = Access::of_any(tx, &id, place)?;
        let session = SessionId::new(random()?);
        let mac_key = Zeroizing::new(random::<32>()?);
        let pseudonym = keyed.hash(Purpose::Submitter, &[id.as_bytes(), &key]);
        self.sessions.open(session, SessionKey::new(*mac_key), Caller { channel: id, place, pseudonym }, origin, now);
        Ok(Done::quiet(OpenSessionResponse {
            session: session.to_vec(),
            mac_key: mac_key.to_vec(),
            idle_ms: self.config.session_idle_ms,
            head: access.head().0,
        }))
    }
}

pub(super) fn key_path(path: v1::KeyPath) -> Result<KeyPath, Refusal> {
    // A tree of 2^n leaves has paths of n nodes.
    if path.siblings.len() as u64 > u64::from(limits::MEMBERS.ilog2()) {
        return Err(malformed("`path` is longer than that of any group"));
    }
    let node = |bytes: &Vec<u8>| field(bytes, "a node of `path` is not 32 bytes");
    let siblings = path.siblings.iter().map(node).collect::<Result<_, _>>()?;
    Ok(KeyPath { index: path.index, leaves: path.leaves, siblings })
}
