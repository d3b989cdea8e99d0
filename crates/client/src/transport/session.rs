//! Calls about one channel, in a session.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use conclave_channel::access::KeyPath;
use conclave_names::{ChannelId, Epoch, Seq, SessionId};
use conclave_protocol::{Code, SigningKey, method, session::SessionKey, v1};
use prost::Message;
use tokio::sync::Mutex;
use tonic::{Response, Status};
use zeroize::Zeroize;

use super::{CallError, Signer, Transport, retry::retry};

/// With what a session is opened, as often as need be.
#[derive(Clone)]
pub struct SessionOpener {
    /// The channel.
    pub channel: ChannelId,
    /// Of a group channel: the epoch whose key tree has the key. 0 for an inbox.
    pub epoch: Epoch,
    /// The channel key, or the key that owns the inbox.
    pub key: SigningKey,
    /// The key's path in that tree. `None` for an inbox.
    pub path: Option<KeyPath>,
}

impl fmt::Debug for SessionOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionOpener")
            .field("channel", &self.channel)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// An open session.
struct Open {
    id: SessionId,
    key: SessionKey,
    /// The last counter used.
    counter: AtomicU64,
    head: Seq,
}

/// Calls about one channel. The session is opened with the first call, and again when the server has forgotten it.
/// Clones share it. A session reads what its epoch may read: in a new epoch, make a new one.
#[derive(Clone)]
pub struct Session {
    transport: Transport,
    opener: Arc<SessionOpener>,
    open: Arc<Mutex<Option<Arc<Open>>>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.opener).finish()
    }
}

impl Session {
    /// A session that is not open yet. Nothing is sent.
    pub fn new(transport: &Transport, opener: SessionOpener) -> Self {
        Self { transport: transport.clone(), opener: Arc::new(opener), open: Arc::default() }
    }

    /// The same session, with calls that are repeated for so long at most.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { transport: self.transport.with_deadline(deadline), ..self.clone() }
    }

    /// The channel.
    pub fn channel(&self) -> ChannelId {
        self.opener.channel
    }

    /// The epoch that opens the session.
    pub fn epoch(&self) -> Epoch {
        self.opener.epoch
    }

    /// Opens the session if it is not open; says how far the channel went when it was opened.
    pub async fn open(&self) -> Result<Seq, CallError> {
        retry(method::OPEN_SESSION, self.transport.deadline, || async { Ok(self.current().await?.head) }).await
    }

    /// The open session. One attempt.
    async fn current(&self) -> Result<Arc<Open>, CallError> {
        let mut held = self.open.lock().await;
        if let Some(open) = &*held {
            return Ok(Arc::clone(open));
        }
        let opener = &self.opener;
        let path = opener.path.as_ref().map(|path| v1::KeyPath {
            index: path.index,
            leaves: path.leaves,
            siblings: path.siblings.iter().map(conclave_names::Hash::to_vec).collect(),
        });
        let request =
            v1::OpenSessionRequest { channel: opener.channel.to_vec(), epoch: opener.epoch.0, path }.encode_to_vec();
        let mut opened = self
            .transport
            .signed_once(method::OPEN_SESSION, &Signer::bare(&opener.key), &request, &|signed| {
                let mut client = self.transport.delivery();
                async move { client.open_session(signed).await }
            })
            .await?;
        let wrong = |what: &str| CallError::Protocol(format!("OpenSession: {what}"));
        let key = SessionKey::from_slice(&opened.mac_key);
        opened.mac_key.zeroize();
        let open = Arc::new(Open {
            id: opened.session.as_slice().try_into().map_err(|_| wrong("`session` is not 16 bytes"))?,
            key: key.map_err(|_| wrong("`mac_key` is not 32 bytes"))?,
            counter: AtomicU64::new(0),
            head: Seq(opened.head),
        });
        *held = Some(Arc::clone(&open));
        Ok(open)
    }

    /// Forgets a session that the server does not know, unless somebody opened another meanwhile.
    async fn forget(&self, unknown: &Arc<Open>) {
        let mut held = self.open.lock().await;
        if held.as_ref().is_some_and(|open| Arc::ptr_eq(open, unknown)) {
            *held = None;
        }
    }

    /// One attempt, a second one in a new session if the server does not know this one, and a second one with a new
    /// counter if this one was overtaken by too many others.
    async fn call_once<R, F, A>(&self, method: &'static str, body: &[u8], call: &F) -> Result<R, CallError>
    where
        F: Fn(v1::SessionRequest) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let (mut reopened, mut recounted) = (false, false);
        loop {
            let open = self.current().await?;
            let counter = open.counter.fetch_add(1, Ordering::Relaxed) + 1;
            let error = match call(open.key.seal(method, open.id, counter, body.to_vec())).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => CallError::from(status),
            };
            match error.code() {
                Some(Code::SessionUnknown) if !reopened => {
                    tracing::debug!(call = method, "the server does not know the session: opening a new one");
                    reopened = true;
                    self.forget(&open).await;
                }
                Some(Code::RequestReplayed) if !recounted => recounted = true,
                _ => return Err(error),
            }
        }
    }

    async fn call<M, R, F, A>(&self, method: &'static str, message: &M, call: F) -> Result<R, CallError>
    where
        M: Message,
        F: Fn(v1::SessionRequest) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let body = message.encode_to_vec();
        retry(method, self.transport.deadline, || self.call_once(method, &body, &call)).await
    }
}

/// Makes a method of [`Session`] of each call.
macro_rules! session_calls {
    ($($(#[doc = $doc:literal])* $name:ident, $method:ident, $request:ident => $response:ident;)*) => {
        impl Session {
            $(
                $(#[doc = $doc])*
                pub async fn $name(&self, request: &v1::$request) -> Result<v1::$response, CallError> {
                    self.call(method::$method, request, |sealed| {
                        let mut client = self.transport.delivery();
                        async move { client.$name(sealed).await }
                    })
                    .await
                }
            )*
        }
    };
}

session_calls! {
    /// Appends a message or a proposal.
    submit, SUBMIT, SubmitRequest => SubmitResponse;
    /// Ends an epoch: appends a commit with all that belongs to it.
    submit_bundle, SUBMIT_BUNDLE, SubmitBundleRequest => SubmitResponse;
    /// Reads entries after a position.
    fetch, FETCH, FetchRequest => FetchResponse;
    /// Reads the sealed GroupInfo of the current epoch.
    read_group_info, READ_GROUP_INFO, ReadGroupInfoRequest => ReadGroupInfoResponse;
    /// Reads a part of the ratchet tree of a visible group's current epoch.
    read_tree, READ_TREE, ReadTreeRequest => ReadTreeResponse;
    /// Removes an inbox's entries up to a position.
    trim, TRIM, TrimRequest => TrimResponse;
    /// Stages a part of a blob. [`Session::upload_blob`] does it for a whole one.
    stage_blob, STAGE_BLOB, StageBlobRequest => StageBlobResponse;
    /// Has a stream carry the channel from a position on.
    attach, ATTACH, AttachRequest => AttachResponse;
    /// Has a stream no longer carry the channel.
    detach, DETACH, DetachRequest => DetachResponse;
}
