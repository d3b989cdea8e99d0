//! What the calls share.

use std::sync::Arc;

use conclave_authentication::AuthenticationService;
use conclave_delivery::{DeliveryService, Done};
use conclave_names::ChannelId;
use conclave_protocol::Refusal;
use conclave_storage::Database;
use tokio::sync::Notify;

use crate::{
    clock,
    connections::Connections,
    invites::Spool,
    limits::Guard,
    streams::{Source, Streams},
};

/// The services, their stores, and what wakes streams.
pub(crate) struct State {
    pub(crate) database: Database,
    pub(crate) authentication: Option<Arc<AuthenticationService>>,
    pub(crate) delivery: Option<Arc<DeliveryService>>,
    pub(crate) streams: Streams,
    /// What network addresses may ask for.
    pub(crate) guard: Arc<Guard>,
    pub(crate) connections: Connections,
    pub(crate) spool: Spool,
    /// Told when the outbox has rows.
    pub(crate) outbox: Notify,
    /// Told to stop: streams end.
    pub(crate) stopping: tokio::sync::watch::Sender<bool>,
}

impl State {
    /// Does what a durable transaction leads to, and gives its reply.
    pub(crate) fn settle<R>(&self, done: Done<R>) -> R {
        self.wake(&done.wake);
        if done.outbox {
            self.outbox.notify_one();
        }
        done.reply
    }

    pub(crate) fn wake(&self, channels: &[ChannelId]) {
        let Some(source) = self.source() else { return };
        for channel in channels {
            self.streams.wake(channel, &source);
        }
    }

    /// Where streams read, if there is a Delivery Service.
    pub(crate) fn source(&self) -> Option<Source> {
        Some(Source { delivery: self.delivery.clone()?, database: self.database.clone() })
    }

    /// Delivers what the outbox holds, until it is empty.
    pub(crate) async fn deliver_outbox(&self) -> Result<(), Refusal> {
        let Some(delivery) = &self.delivery else { return Ok(()) };
        loop {
            let service = Arc::clone(delivery);
            let done = self.database.delivery().write(move |tx| service.deliver_outbox(tx, clock::now())).await?;
            self.wake(&done.wake);
            if !done.outbox {
                return Ok(());
            }
        }
    }
}

/// Ends when the server is told to stop.
pub(crate) async fn stopped(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // The sender lives as long as the server; without it, the server has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
