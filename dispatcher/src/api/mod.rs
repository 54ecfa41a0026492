//! The HTTP API: ask for a review, look at reviews and dead letters, health.
//!
//! | call | who | answer |
//! |---|---|---|
//! | `POST /v1/tenants/{t}/reviews` with `Idempotency-Key` | tenant, operator | 202 and the review |
//! | `GET /v1/tenants/{t}/reviews`, `…/reviews/{id}` | tenant, operator | the records |
//! | `POST /v1/tenants/{t}/reviews/{id}/cancel` | tenant, operator | the review, ended as cancelled |
//! | `GET /v1/tenants/{t}/explain?what=…`, `/v1/explain?what=…` | tenant, operator | what became of `gs://…` or `rv_…`, in sentences |
//! | `GET /v1/tenants/{t}/reviews/{id}/events` | tenant, operator | server-sent events: the record whenever it changes |
//! | `GET /v1/tenants/{t}/completions` | tenant, operator | completions after a cursor, oldest first |
//! | `GET /v1/tenants/{t}/events` | tenant, operator | server-sent events: completions as they are announced |
//! | `GET /v1/completions` | operator | completions of all tenants after a cursor |
//! | `GET /v1/tenants/{t}/dead-letters`, `…/{id}` | tenant, operator | its letters |
//! | `GET /v1/dead-letters`, `…/stats`, `…/{id}` | operator | letters of all tenants and of nobody, and how they group |
//! | `POST /v1/dead-letters/{id}/discard` | operator | the letter, put aside |
//! | `POST /v1/campaigns` with `Idempotency-Key` | operator | 202 and the campaign; with `dry_run`, what it would come to |
//! | `GET /v1/campaigns`, `…/{id}`, `…/{id}/letters` | operator | campaigns, and how far each letter is |
//! | `POST /v1/campaigns/{id}/pause`, `…/resume`, `…/cancel` | operator | the campaign |
//! | `GET /v1/openapi.json` | anyone | all of this as OpenAPI 3.1 |
//! | `GET /healthz`, `/readyz` | anyone | 200 |
//!
//! Lists of letters take `tenant`, `class`, `fingerprint`, `text`, `after`, `before` and `state` to choose by, and `limit`
//! and `page` to leaf through: the answer's `next` is the `page` that follows. Campaigns are leafed through alike.
//!
//! A cursor of completions that points before what is kept gets 410.
//!
//! A caller sends `Authorization: Bearer` with a key of the registry, or with an identity token (OpenID Connect) whose
//! e-mail address the registry names. Whoever calls too fast gets 429 with `Retry-After`.
//!
//! A token that is not the tenant's gets 404 whether or not the tenant exists: the answer tells nothing about others.

mod auth;
mod campaigns;
mod completions;
mod dead_letters;
mod document;
mod error;
mod events;
mod explain;
mod identity;
mod jwks;
mod reviews;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use carrel_schemas::registry::Registry;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::dead_letters::Index;
use crate::desk::Bell;
use crate::drive::Driver;
use crate::explain::Explainer;
use crate::flight::Flight;
use crate::ledger::Ledger;
use crate::pack::seal::Sealer;
use crate::replay::Replayer;

pub use auth::Paces;
pub use document::open_api;
pub use error::Refused;
pub use events::Streams;
pub use identity::Identities;

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
    pub index: Arc<Index>,
    /// How long what is over is kept.
    pub retention: Duration,
    /// Who vouches for callers, besides the registry's keys.
    pub identities: Option<Identities>,
    /// How fast they may call.
    pub paces: Paces,
    /// Streams of events that are open.
    pub streams: Streams,
    /// However many ask whether it is ready, one looks.
    pub ready: Flight<()>,
    /// Ends the streams.
    pub stop: CancellationToken,
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
    let routes = routes::calls().into_iter().fold(Router::new(), |router, call| router.route(call.path, call.handler));
    let known = from_fn_with_state(state.clone(), auth::known);
    routes.layer(known).layer(from_fn(traced)).with_state(state)
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
    state.0.ready.join(|_| state.0.ledger.answers()).await?;
    Ok("ready\n")
}
