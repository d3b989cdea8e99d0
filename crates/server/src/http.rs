//! Metrics and health over HTTP, for operators.

use std::sync::Arc;

use axum::{Router, extract::State as Shared, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};

use crate::{state::State, telemetry};

async fn render(Shared(state): Shared<Arc<State>>) -> Result<String, StatusCode> {
    metrics::gauge!("conclave_streams").set(state.streams.count() as f64);
    if let Some(delivery) = &state.delivery {
        metrics::gauge!("conclave_sessions").set(delivery.open_sessions() as f64);
    }
    telemetry::metrics().map(|handle| handle.render()).ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

async fn health(Shared(state): Shared<Arc<State>>) -> (StatusCode, &'static str) {
    if *state.stopping.borrow() { (StatusCode::SERVICE_UNAVAILABLE, "stopping\n") } else { (StatusCode::OK, "ok\n") }
}

pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, mut stopping: watch::Receiver<bool>) {
    let router = Router::new().route("/metrics", get(render)).route("/healthz", get(health)).with_state(state);
    let stopped = async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
        tracing::warn!(%error, "metrics are no longer offered");
    }
}
