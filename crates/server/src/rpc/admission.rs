//! Before a call: whether its network address may make it, and how much of it is read.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State as Shared},
    middleware::Next,
    response::Response,
};
use conclave_names::limits;
use conclave_protocol::{Code, Refusal};
use http_body::{Frame, SizeHint};
use tonic::Status;

use super::{answers::label, count};
use crate::{
    clock,
    connections::{Call, Peer},
    limits::{Address, Guard, Held, Place, Surface},
    state::State,
};

/// The metadata with a ticket.
const TICKET: &str = "conclave-ticket";

/// What a call costs besides being one.
fn surface(call: &str) -> Option<Surface> {
    Some(match call {
        "open_session" => Surface::Sessions,
        "register_user" => Surface::Registrations,
        "put_link" => Surface::Links,
        "create_channel" | "create_inbox" => Surface::Channels,
        "open_stream" => Surface::Streams,
        "issue_credential"
        | "get_user"
        | "get_link"
        | "approve_link"
        | "poll_link"
        | "upload"
        | "claim"
        | "count"
        | "purge"
        | "knock"
        | "submit_external_proposal" => Surface::Signed,
        // A session's requests cost a MAC, and are limited by its key; a handle costs as little.
        "submit" | "submit_bundle" | "fetch" | "read_group_info" | "read_tree" | "trim" | "stage_blob" | "attach"
        | "detach" | "keep_alive" => return None,
        _ => Surface::Reads,
    })
}

/// How much of a request is read, in bytes.
fn bound(call: &str) -> usize {
    match call {
        "upload" => 1024 * 1024,
        "stage_blob" => limits::BLOB_CHUNK + 64 * 1024,
        "submit" | "submit_external_proposal" => limits::INLINE_BODY + 64 * 1024,
        "issue_credential" | "register_user" | "get_issuers" | "get_user" | "put_link" | "get_link"
        | "approve_link" | "poll_link" | "get_server_info" | "create_channel" | "create_inbox" | "knock"
        | "open_session" | "fetch" | "read_group_info" | "read_tree" | "trim" | "read_blob" | "open_stream"
        | "attach" | "detach" | "keep_alive" => 64 * 1024,
        // What comes before a message of gRPC.
        _ => limits::WIRE_MESSAGE + 5,
    }
}

/// Asks the limits of the caller's network address.
pub(crate) async fn admit(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let name = label(request.uri().path().trim_start_matches('/')).unwrap_or("other");
    match admitted(&state, name, request, next).await {
        Ok(response) => response,
        Err(refusal) => {
            count(name, refusal.code.as_str());
            tracing::debug!(call = name, code = refusal.code.as_str(), "a call was not admitted");
            Status::from(refusal).into_http::<Body>()
        }
    }
}

async fn admitted(state: &Arc<State>, name: &str, request: Request, next: Next) -> Result<Response, Refusal> {
    // All connections are the listener's.
    let peer = request.extensions().get::<Peer>().cloned();
    let peer = peer.ok_or_else(|| Refusal::new(Code::Internal, "the connection is not known"))?;
    let (guard, address) = (&state.guard, peer.address());
    let surfaces = [Some(Surface::Calls), Some(Surface::ReceivedBytes), surface(name)];
    if let Err(refused) = guard.take(&surfaces.into_iter().flatten().collect::<Vec<_>>(), address) {
        with_ticket(guard, &request, refused)?;
    }
    let request_place = guard.hold(Held::Request, address)?;
    let place = match name {
        "open_stream" => Some(guard.hold(Held::Stream, address)?),
        "read_blob" => Some(guard.hold(Held::Reader, address)?),
        _ => None,
    };
    let call = peer.call();
    let over = Arc::new(AtomicBool::new(false));
    let bound = bound(name);
    let request = request.map(|inner| {
        let (guard, over) = (Arc::clone(guard), Arc::clone(&over));
        Body::new(Received { inner, guard, address, bytes: 0, bound, over })
    });
    let response = next.run(request).await;
    drop(request_place);
    if over.load(Ordering::Acquire) {
        let message = format!("the request is longer than the {bound} bytes that are read of this call: send less");
        return Err(Refusal::new(Code::TooLarge, message));
    }
    Ok(response.map(|inner| Body::new(Answered { inner, call, _place: place })))
}

/// Admits what a rate refused, if the request has a ticket.
fn with_ticket(guard: &Guard, request: &Request, refused: Refusal) -> Result<(), Refusal> {
    let Some(ticket) = request.headers().get(TICKET) else { return Err(refused) };
    // What is no text is no ticket.
    guard.spend(ticket.to_str().unwrap_or_default(), clock::now()).map_err(|why| {
        let message = format!("{}; the ticket that came with it does not help: {why}", refused.message);
        Refusal { message, ..refused }
    })
}

/// A request's body that is counted, and not read beyond its bound.
struct Received {
    inner: Body,
    guard: Arc<Guard>,
    address: Address,
    bytes: usize,
    bound: usize,
    over: Arc<AtomicBool>,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.bytes = this.bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if this.bytes > this.bound {
                this.over.store(true, Ordering::Release);
                return Poll::Ready(Some(Err(axum::Error::new("the request is too long"))));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // However the call went.
        self.guard.received(self.address, self.bytes as u64);
    }
}

/// An answer's body, during which the call counts as open.
struct Answered {
    inner: Body,
    call: Call,
    _place: Option<Place<Address>>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if polled.is_ready() {
            self.call.peer().moved_on();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
