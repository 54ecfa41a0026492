//! The HTTP API: ask for a review, look at reviews and dead letters, health.
//!
//! | call | who | answer |
//! |---|---|---|
//! | `POST /v1/tenants/{t}/reviews` with `Idempotency-Key` | tenant, operator | 202 and the review |
//! | `GET /v1/tenants/{t}/reviews`, `…/reviews/{id}` | tenant, operator | the records |
//! | `POST /v1/tenants/{t}/reviews/{id}/cancel` | tenant, operator | the review, ended as cancelled |
//! | `GET /v1/tenants/{t}/explain?what=…`, `/v1/explain?what=…` | tenant, operator | what became of `gs://…` or `rv_…`, in sentences |
//! | `GET /v1/tenants/{t}/dead-letters`, `…/{id}` | tenant, operator | its letters |
//! | `GET /v1/dead-letters`, `…/stats`, `…/{id}` | operator | letters of all tenants and of nobody, and how they group |
//! | `POST /v1/dead-letters/{id}/discard` | operator | the letter, put aside |
//! | `POST /v1/campaigns` with `Idempotency-Key` | operator | 202 and the campaign; with `dry_run`, what it would come to |
//! | `GET /v1/campaigns`, `…/{id}`, `…/{id}/letters` | operator | campaigns, and how far each letter is |
//! | `POST /v1/campaigns/{id}/pause`, `…/resume`, `…/cancel` | operator | the campaign |
//! | `GET /healthz`, `/readyz` | anyone | 200 |
//!
//! Lists of letters take `tenant`, `class`, `fingerprint`, `text`, `after`, `before` and `state` to choose by, and `limit`
//! and `page` to leaf through: the answer's `next` is the `page` that follows.
//!
//! A token that is not the tenant's gets 404 whether or not the tenant exists: the answer tells nothing about others.

mod auth;
mod campaigns;
mod dead_letters;
mod error;
mod explain;
mod reviews;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use carrel_schemas::registry::Registry;
use tracing::Instrument as _;

use crate::dead_letters::Index;
use crate::desk::Bell;
use crate::drive::Driver;
use crate::explain::Explainer;
use crate::ledger::Ledger;
use crate::pack::seal::Sealer;
use crate::replay::Replayer;

pub use error::Refused;

/// What every call needs.
#[derive(Debug, Clone)]
pub struct State(Arc<Inner>);

/// What it is made of.
#[derive(Debug)]
pub struct Inner {
    /// The ledger.
    pub ledger: Ledger,
    /// The tenants.
    pub registry: Arc<Registry>,
    /// Seals what is asked for.
    pub sealer: Sealer,
    /// Where it rings.
    pub bell: Bell,
    /// Ends reviews.
    pub driver: Arc<Driver>,
    /// Explains uploads and reviews.
    pub explainer: Explainer,
    /// Finds dead letters.
    pub index: Index,
    /// Foresees replays.
    pub replayer: Arc<Replayer>,
}

impl State {
    /// The state of one dispatcher.
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

/// Every route.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/v1/tenants/{tenant}/reviews", get(reviews::list).post(reviews::create))
        .route("/v1/tenants/{tenant}/reviews/{review}", get(reviews::show))
        .route("/v1/tenants/{tenant}/reviews/{review}/cancel", post(reviews::cancel))
        .route("/v1/tenants/{tenant}/explain", get(explain::own))
        .route("/v1/explain", get(explain::any))
        .route("/v1/tenants/{tenant}/dead-letters", get(dead_letters::list_own))
        .route("/v1/tenants/{tenant}/dead-letters/{letter}", get(dead_letters::show_own))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters/stats", get(dead_letters::stats))
        .route("/v1/dead-letters/{letter}", get(dead_letters::show))
        .route("/v1/dead-letters/{letter}/discard", post(dead_letters::discard))
        .route("/v1/campaigns", get(campaigns::list).post(campaigns::create))
        .route("/v1/campaigns/{campaign}", get(campaigns::show))
        .route("/v1/campaigns/{campaign}/letters", get(campaigns::letters))
        .route("/v1/campaigns/{campaign}/{wish}", post(campaigns::steered))
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
