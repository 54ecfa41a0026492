//! The HTTP API: ask for a review, look at reviews and dead letters, health.
//!
//! | call | who | answer |
//! |---|---|---|
//! | `POST /v1/tenants/{t}/reviews` with `Idempotency-Key` | tenant, operator | 202 and the review |
//! | `GET /v1/tenants/{t}/reviews`, `…/reviews/{id}` | tenant, operator | the records |
//! | `GET /v1/tenants/{t}/dead-letters`, `…/{id}` | tenant, operator | its letters |
//! | `GET /v1/dead-letters`, `…/{id}` | operator | letters of nobody |
//! | `GET /healthz`, `/readyz` | anyone | 200 |
//!
//! A token that is not the tenant's gets 404 whether or not the tenant exists: the answer tells nothing about others.

mod auth;
mod dead_letters;
mod error;
mod reviews;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use carrel_schemas::registry::Registry;
use tracing::Instrument as _;

use crate::desk::Bell;
use crate::ledger::Ledger;
use crate::pack::seal::Sealer;

pub use error::Refused;

/// What every call needs.
#[derive(Debug, Clone)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    registry: Arc<Registry>,
    sealer: Sealer,
    bell: Bell,
}

impl State {
    /// The state of one dispatcher.
    pub fn new(ledger: Ledger, registry: Arc<Registry>, sealer: Sealer, bell: Bell) -> Self {
        Self(Arc::new(Inner { ledger, registry, sealer, bell }))
    }
}

/// Every route.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/v1/tenants/{tenant}/reviews", get(reviews::list).post(reviews::create))
        .route("/v1/tenants/{tenant}/reviews/{review}", get(reviews::show))
        .route("/v1/tenants/{tenant}/dead-letters", get(dead_letters::list))
        .route("/v1/tenants/{tenant}/dead-letters/{letter}", get(dead_letters::show))
        .route("/v1/dead-letters", get(dead_letters::list_unknown))
        .route("/v1/dead-letters/{letter}", get(dead_letters::show_unknown))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .layer(from_fn(traced))
        .with_state(state)
}

/// One span per call, a part of the caller's trace if it sends one.
async fn traced(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let span = tracing::info_span!("call", http.request.method = %request.method(), http.route = route);
    if let Some(parent) = request.headers().get("traceparent").and_then(|value| value.to_str().ok()) {
        carrel_telemetry::set_parent(&span, parent);
    }
    next.run(request).instrument(span).await
}

/// Ready means: the ledger answers.
async fn ready(axum::extract::State(state): axum::extract::State<State>) -> Result<&'static str, Refused> {
    state.0.ledger.answers().await?;
    Ok("ready\n")
}
