//! What the server does by itself.

use std::{sync::Arc, time::Duration};

use conclave_mls::identity::Identities;
use conclave_names::Domain;
use conclave_protocol::Refusal;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    clock,
    config::IssuerSource,
    issuers,
    state::{State, stopped},
    telemetry,
};

/// How often what has expired is forgotten.
const MAINTAIN: Duration = Duration::from_secs(300);

/// How often the outbox is looked at even if nobody told of it.
const OUTBOX: Duration = Duration::from_secs(5);

/// How often histograms are summed up: without it every call's time would be kept until somebody asks for metrics.
const SUM_UP: Duration = Duration::from_secs(10);

/// How often idle connections are looked for.
const IDLE: Duration = Duration::from_secs(15);

/// How often issuers are asked for anew.
const ISSUERS: Duration = Duration::from_secs(600);

pub(crate) async fn maintain(state: &State) -> Result<(), Refusal> {
    if let Some(service) = state.delivery.clone() {
        // In small transactions, so that calls come in between; and not longer than until the next round.
        let until = Instant::now() + MAINTAIN;
        loop {
            let service = Arc::clone(&service);
            let done = state.database.delivery().write(move |tx| service.maintain(tx, clock::now())).await?;
            if !state.settle(done) || *state.stopping.borrow() || Instant::now() >= until {
                break;
            }
        }
    }
    if let Some(service) = state.authentication.clone() {
        state.database.authentication().write(move |tx| service.prune(tx, clock::now())).await?;
    }
    Ok(())
}

pub(crate) fn spawn(state: &Arc<State>, idle: Duration, refresh: Option<(IssuerSource, Domain, Identities)>) {
    let stopping = state.stopping.subscribe();
    let shared = Arc::clone(state);
    every(stopping.clone(), IDLE, move || {
        let state = Arc::clone(&shared);
        async move {
            state.connections.close_idle(idle);
            state.guard.forget(clock::now());
        }
    });
    let shared = Arc::clone(state);
    every(stopping.clone(), MAINTAIN, move || {
        let state = Arc::clone(&shared);
        async move {
            if let Err(error) = maintain(&state).await {
                tracing::warn!(%error, "maintenance failed; it is tried again");
            }
        }
    });
    if let Some(metrics) = telemetry::metrics() {
        every(stopping.clone(), SUM_UP, move || {
            let metrics = metrics.clone();
            async move { metrics.run_upkeep() }
        });
    }
    let shared = Arc::clone(state);
    let mut stopped_rx = stopping.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = shared.outbox.notified() => {}
                () = sleep(OUTBOX) => {}
                () = stopped(&mut stopped_rx) => return,
            }
            if let Err(error) = shared.deliver_outbox().await {
                tracing::warn!(%error, "the outbox was not delivered; it is tried again");
            }
        }
    });
    if let Some((source, domain, identities)) = refresh {
        every(stopping, ISSUERS, move || {
            let (source, domain, identities) = (source.clone(), domain.clone(), identities.clone());
            async move {
                match issuers::learn(&source, &domain).await {
                    Ok(issuers) => identities.set_issuers(issuers),
                    Err(error) => tracing::warn!(%error, "the issuers known so far are kept"),
                }
            }
        });
    }
}

fn every<F, W>(mut stopping: watch::Receiver<bool>, pause: Duration, work: F)
where
    F: Fn() -> W + Send + 'static,
    W: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sleep(pause) => work().await,
                () = stopped(&mut stopping) => return,
            }
        }
    });
}
