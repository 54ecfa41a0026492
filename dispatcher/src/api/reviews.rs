//! Reviews over HTTP: ask for one, look at them, end one.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use carrel_schemas::ids::{IdempotencyKey, ReviewId};
use carrel_schemas::outcome::Verdict;
use carrel_schemas::review_request::{CancelReview, CreateReview};
use schemars::JsonSchema;
use serde::Serialize;

use super::auth::Caller;
use super::{Refused, State};
use crate::desk::Wake;
use crate::ledger::ReviewRecord;
use crate::pack::seal::Requested;

/// Characters of a reason that an outcome keeps.
const MAX_REASON: usize = 1000;

/// A record with the word for its state.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Review")]
pub(super) struct View {
    status: &'static str,
    #[serde(flatten)]
    record: ReviewRecord,
}

impl From<ReviewRecord> for View {
    fn from(record: ReviewRecord) -> Self {
        Self { status: record.state.word(), record }
    }
}

/// A page of reviews, in order of ids.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ReviewPage")]
pub(super) struct Page {
    reviews: Vec<View>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<ReviewId>,
}

/// Records on a page, at most: each is read.
const PAGE: usize = 200;

pub(super) async fn create(
    Extract(state): Extract<State>,
    Path(tenant): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<(StatusCode, Json<View>), Refused> {
    let tenant = caller.tenant(&state.0.registry, &tenant)?;
    if tenant.deleting {
        return Err(Refused::Conflict(format!("tenant {} is being deleted; nothing of it is taken in", tenant.id)));
    }
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let key =
        key.ok_or_else(|| Refused::Bad("send an `Idempotency-Key` header: asking twice is asking once".into()))?;
    let key = IdempotencyKey::parse(key).map_err(|error| Refused::Bad(error.to_string()))?;
    let wish: CreateReview = serde_json::from_slice(&body)
        .map_err(|error| Refused::Bad(format!("body: {error}; send {{\"pack\": \"…\"}}")))?;
    let traceparent = carrel_telemetry::inject();
    let sealed =
        state.0.sealer.seal_request(tenant, &wish.pack, &key, wish.deadline_seconds, traceparent, crate::now());
    let review = match sealed.await? {
        Requested::Review(review) => review,
        Requested::NoFile => return Err(Refused::NotFound("pack")),
        Requested::Excess => {
            return Err(Refused::Bad("the pack holds too many files; upload it as smaller packs".into()));
        }
        Requested::KeyTaken(other) => {
            let why =
                format!("idempotency key {key} stands for a review of pack {:?}; send another key", other.as_str());
            return Err(Refused::Conflict(why));
        }
    };
    state.0.bell.ring(Wake::Review(tenant.id.clone(), review.clone())).await;
    let held = state.0.ledger.review(&tenant.id, &review).await?.ok_or(Refused::NotFound("review"))?;
    Ok((StatusCode::ACCEPTED, Json(held.value.into())))
}

pub(super) async fn list(
    Extract(state): Extract<State>,
    Path(tenant): Path<String>,
    Query(mut query): Query<BTreeMap<String, String>>,
    caller: Caller,
) -> Result<Json<Page>, Refused> {
    let tenant = caller.tenant(&state.0.registry, &tenant)?;
    let page = query.remove("page").map(ReviewId::parse).transpose();
    let page = page.map_err(|error| Refused::Bad(format!("page: {error}; send the `next` of the page before")))?;
    if let Some(field) = query.into_keys().next() {
        return Err(Refused::Bad(format!("query: unknown field {field:?}; send page")));
    }
    let (records, next) = state.0.ledger.reviews_after(&tenant.id, page.as_ref(), PAGE).await?;
    Ok(Json(Page { reviews: records.into_iter().map(View::from).collect(), next }))
}

pub(super) async fn show(
    Extract(state): Extract<State>,
    Path((tenant, review)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<View>, Refused> {
    let tenant = caller.tenant(&state.0.registry, &tenant)?;
    let review = ReviewId::parse(review).map_err(|error| Refused::Bad(error.to_string()))?;
    let held = state.0.ledger.review(&tenant.id, &review).await?.ok_or(Refused::NotFound("review"))?;
    Ok(Json(held.value.into()))
}

pub(super) async fn cancel(
    Extract(state): Extract<State>,
    Path((tenant, review)): Path<(String, String)>,
    caller: Caller,
    body: axum::body::Bytes,
) -> Result<Json<View>, Refused> {
    let tenant = caller.tenant(&state.0.registry, &tenant)?;
    let review = ReviewId::parse(review).map_err(|error| Refused::Bad(error.to_string()))?;
    let CancelReview { reason } = serde_json::from_slice(&body)
        .map_err(|error| Refused::Bad(format!("body: {error}; send {{\"reason\": \"…\"}}")))?;
    let reason: String = reason.chars().take(MAX_REASON).collect();
    match state.0.driver.cancel(tenant, &review, reason).await? {
        Some(Verdict::Cancelled { .. }) => {}
        Some(verdict) => return Err(Refused::Conflict(format!("review {review} is {} already", verdict.state()))),
        None => return Err(Refused::NotFound("review")),
    }
    state.0.bell.ring(Wake::Review(tenant.id.clone(), review.clone())).await;
    let held = state.0.ledger.review(&tenant.id, &review).await?.ok_or(Refused::NotFound("review"))?;
    Ok(Json(held.value.into()))
}
