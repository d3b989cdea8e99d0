//! Metrics and health over HTTP, for operators.

use std::sync::Arc;

use axum::{Router, extract::State as Shared, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};

use crate::{state::State, telemetry};

/// A count as a gauge holds it. There are never so many that it matters how.
fn number(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

async fn render(Shared(state): Shared<Arc<State>>) -> Result<String, StatusCode> {
    metrics::gauge!("conclave_streams").set(number(state.streams.count()));
    metrics::gauge!("conclave_connections").set(number(state.connections.count()));
    metrics::gauge!("conclave_limit_buckets", "by" => "address").set(number(state.guard.buckets()));
    if let Some(delivery) = &state.delivery {
        let followed = number(delivery.followed_bytes() / 1024) * 1024.0;
        metrics::gauge!("conclave_followed_bytes").set(followed);
        metrics::gauge!("conclave_sessions").set(number(delivery.open_sessions()));
        metrics::gauge!("conclave_limit_buckets", "by" => "caller").set(number(delivery.limit_buckets()));
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
