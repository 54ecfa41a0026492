//! Campaigns over HTTP: ask what one would come to, open it, look at it, steer it. All of it is an operator's.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use carrel_schemas::campaign::{Campaign, CampaignItem, CreateCampaign, ItemState, LetterFilter};
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterState};
use carrel_schemas::ids::{CampaignId, IdempotencyKey};
use schemars::JsonSchema;
use serde::Serialize;

use super::auth::Caller;
use super::{Refused, State};
use crate::ledger::Versioned;
use crate::place::Place;
use crate::replay::open::{asked_sha256, chosen, drawn_up};
use crate::replay::plan::{Wish, steer};

/// Campaigns of a page that asks for no number, and the most of any.
const PAGE: usize = 1000;

/// Campaigns, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CampaignPage")]
pub(super) struct Page {
    campaigns: Vec<Campaign>,
    /// What to send as `page` for the next one; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

fn place(campaign: &Campaign) -> Place<CampaignId> {
    Place::new(campaign.created_at, campaign.id.clone())
}

/// A campaign and how far its letters are.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CampaignView")]
pub(super) struct View {
    #[serde(flatten)]
    campaign: Campaign,
    /// How many letters are `pending`, `begun`, `passed`, `failed`, `skipped`.
    counts: BTreeMap<&'static str, usize>,
}

/// How far each letter is.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CampaignLetters")]
pub(super) struct Letters {
    letters: Vec<CampaignItem>,
}

pub(super) async fn create(
    Extract(state): Extract<State>,
    caller: Caller,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Response, Refused> {
    caller.operator()?;
    let wish: CreateCampaign = serde_json::from_slice(&body).map_err(|error| Refused::Bad(format!("body: {error}")))?;
    if wish.per_minute == 0 {
        return Err(Refused::Bad("per_minute is 0, must be at least 1".into()));
    }
    if !wish.all && wish.letters.is_empty() && wish.filter == LetterFilter::default() {
        let why = "say which: a filter, letters, or `\"all\": true` for every open letter of everybody";
        return Err(Refused::Bad(why.into()));
    }
    if wish.dry_run {
        let letters = letters_of(&state, &wish).await?;
        return Ok(Json(state.0.replayer.forecast(&letters, &wish).await?).into_response());
    }
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let key =
        key.ok_or_else(|| Refused::Bad("send an `Idempotency-Key` header: asking twice is asking once".into()))?;
    let key = IdempotencyKey::parse(key).map_err(|error| Refused::Bad(error.to_string()))?;
    let asked = asked_sha256(&wish);
    let campaign = match state.0.ledger.campaign(&CampaignId::of(&key)).await? {
        Some(held) => held.value,
        None => {
            let letters = letters_of(&state, &wish).await?;
            if let Some(closed) = letters.iter().find(|letter| letter.state != DeadLetterState::Open) {
                return Err(Refused::Bad(format!("dead letter {} is not open; leave it out", closed.id)));
            }
            if letters.is_empty() || letters.len() < wish.letters.len() {
                return Err(Refused::NotFound("open dead letter"));
            }
            let (campaign, chunks) = drawn_up(wish, &key, &letters, crate::now());
            state.0.ledger.open_campaign(campaign, &chunks).await?
        }
    };
    if asked != campaign.asked_sha256 {
        return Err(Refused::Conflict(format!("idempotency key {key} stands for another campaign; send another key")));
    }
    Ok((StatusCode::ACCEPTED, Json(campaign)).into_response())
}

async fn letters_of(state: &State, wish: &CreateCampaign) -> Result<Vec<Arc<DeadLetter>>, Refused> {
    let letters = chosen(&state.0.index, wish).await?;
    if letters.len() > Campaign::MOST {
        let why = format!("{} letters fit, a campaign takes {}; narrow the filter", letters.len(), Campaign::MOST);
        return Err(Refused::Bad(why));
    }
    Ok(letters)
}

pub(super) async fn list(
    Extract(state): Extract<State>,
    Query(mut query): Query<BTreeMap<String, String>>,
    caller: Caller,
) -> Result<Json<Page>, Refused> {
    caller.operator()?;
    let after = query.remove("page").map(|page| page.parse::<Place<CampaignId>>()).transpose().map_err(Refused::Bad)?;
    let limit = match query.remove("limit") {
        None => PAGE,
        Some(text) => match text.parse() {
            Ok(limit @ 1..=PAGE) => limit,
            _ => return Err(Refused::Bad(format!("limit {text:?} is not between 1 and {PAGE}"))),
        },
    };
    if let Some(field) = query.into_keys().next() {
        return Err(Refused::Bad(format!("query: unknown field {field:?}; send limit and page")));
    }
    let mut campaigns = state.0.ledger.campaigns().await?;
    campaigns.retain(|campaign| after.as_ref().is_none_or(|after| place(campaign) > *after));
    let more = campaigns.len() > limit;
    campaigns.truncate(limit);
    let next = campaigns.last().filter(|_| more).map(|campaign| place(campaign).to_string());
    Ok(Json(Page { campaigns, next }))
}

pub(super) async fn show(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Json<View>, Refused> {
    caller.operator()?;
    let campaign = held(&state, &id).await?.value;
    let mut counts = BTreeMap::new();
    for item in items(&state, &campaign).await? {
        let word = match item.state {
            ItemState::Pending => "pending",
            ItemState::Begun => "begun",
            ItemState::Passed => "passed",
            ItemState::Failed { .. } => "failed",
            ItemState::Skipped { .. } => "skipped",
        };
        *counts.entry(word).or_default() += 1;
    }
    Ok(Json(View { campaign, counts }))
}

pub(super) async fn letters(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Json<Letters>, Refused> {
    caller.operator()?;
    let campaign = held(&state, &id).await?.value;
    Ok(Json(Letters { letters: items(&state, &campaign).await? }))
}

pub(super) async fn steered(
    Extract(state): Extract<State>,
    Path((id, wish)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<Campaign>, Refused> {
    caller.operator()?;
    let wish = match wish.as_str() {
        "pause" => Wish::Pause,
        "resume" => Wish::Resume,
        "cancel" => Wish::Cancel,
        _ => return Err(Refused::NotFound("call; a campaign takes pause, resume and cancel")),
    };
    loop {
        let Versioned { value, generation } = held(&state, &id).await?;
        let stood = value.state;
        let Some(next) = steer(value, wish, crate::now()) else {
            return Err(Refused::Conflict(format!("campaign {id} is over")));
        };
        if next.state == stood || state.0.ledger.move_campaign(generation, &next).await? {
            return Ok(Json(next));
        }
    }
}

async fn held(state: &State, id: &str) -> Result<Versioned<Campaign>, Refused> {
    let id = CampaignId::parse(id).map_err(|error| Refused::Bad(error.to_string()))?;
    state.0.ledger.campaign(&id).await?.ok_or(Refused::NotFound("campaign"))
}

async fn items(state: &State, campaign: &Campaign) -> Result<Vec<CampaignItem>, Refused> {
    let mut items = Vec::new();
    for at in 0..campaign.chunks as usize {
        items.extend(state.0.ledger.chunk(campaign, at).await?.value.items);
    }
    Ok(items)
}
