//! Dead letters over HTTP. Looking never disturbs; putting aside is an operator's.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State as Extract};
use carrel_schemas::campaign::LetterFilter;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterState, DiscardLetter};
use carrel_schemas::ids::{CampaignId, DeadLetterId, TenantId};
use schemars::JsonSchema;
use serde::Serialize;

use super::auth::Caller;
use super::{Refused, State};
use crate::dead_letters::{Group, Page};
use crate::ledger::Versioned;
use crate::place::Place;

/// Letters of a page that asks for no number.
const PAGE: usize = 1000;

/// Letters that failed alike, the largest group first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeadLetterGroups")]
pub(super) struct Groups {
    groups: Vec<Group>,
}

/// What a list is asked for in its query.
struct Look {
    filter: LetterFilter,
    page: Option<Place<DeadLetterId>>,
    limit: usize,
}

impl Look {
    fn parse(mut query: BTreeMap<String, String>) -> Result<Self, Refused> {
        let page =
            query.remove("page").map(|page| page.parse::<Place<DeadLetterId>>()).transpose().map_err(Refused::Bad)?;
        let limit = query.remove("limit").map(|text| text.parse::<usize>().map_err(|_| text)).transpose();
        let limit = match limit {
            Ok(None) => PAGE,
            Ok(Some(limit @ 1..=PAGE)) => limit,
            Ok(Some(limit)) => return Err(Refused::Bad(format!("limit {limit} is not between 1 and {PAGE}"))),
            Err(text) => return Err(Refused::Bad(format!("limit {text:?} is no number"))),
        };
        Ok(Self { filter: filter(query)?, page, limit })
    }
}

/// A filter from a query of its fields.
fn filter(query: BTreeMap<String, String>) -> Result<LetterFilter, Refused> {
    let fields = query.into_iter().map(|(field, value)| (field, value.into())).collect();
    serde_json::from_value(serde_json::Value::Object(fields)).map_err(|error| Refused::Bad(format!("query: {error}")))
}

type Fields = Query<BTreeMap<String, String>>;

pub(super) async fn list_own(
    Extract(state): Extract<State>,
    Path(tenant): Path<String>,
    Query(query): Fields,
    caller: Caller,
) -> Result<Json<Page>, Refused> {
    let tenant = caller.tenant(&state.0.registry, &tenant)?;
    let mut look = Look::parse(query)?;
    look.filter.tenant = Some(tenant.id.to_string());
    Ok(Json(state.0.index.page(&look.filter, look.page.as_ref(), look.limit).await?))
}

pub(super) async fn show_own(
    Extract(state): Extract<State>,
    Path((tenant, letter)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<DeadLetter>, Refused> {
    let tenant = caller.tenant(&state.0.registry, &tenant)?;
    let held = state.0.ledger.dead_letter(Some(&tenant.id), &parse(&letter)?).await?;
    Ok(Json(held.ok_or(Refused::NotFound("dead letter"))?.value))
}

pub(super) async fn list(
    Extract(state): Extract<State>,
    Query(query): Fields,
    caller: Caller,
) -> Result<Json<Page>, Refused> {
    caller.operator()?;
    let look = Look::parse(query)?;
    Ok(Json(state.0.index.page(&look.filter, look.page.as_ref(), look.limit).await?))
}

pub(super) async fn stats(
    Extract(state): Extract<State>,
    Query(query): Fields,
    caller: Caller,
) -> Result<Json<Groups>, Refused> {
    caller.operator()?;
    Ok(Json(Groups { groups: state.0.index.groups(&filter(query)?).await? }))
}

pub(super) async fn show(
    Extract(state): Extract<State>,
    Path(letter): Path<String>,
    caller: Caller,
) -> Result<Json<DeadLetter>, Refused> {
    caller.operator()?;
    Ok(Json(whole(&state, &parse(&letter)?).await?.value))
}

pub(super) async fn discard(
    Extract(state): Extract<State>,
    Path(letter): Path<String>,
    caller: Caller,
    body: axum::body::Bytes,
) -> Result<Json<DeadLetter>, Refused> {
    caller.operator()?;
    let DiscardLetter { reason } = serde_json::from_slice(&body)
        .map_err(|error| Refused::Bad(format!("body: {error}; send {{\"reason\": \"…\"}}")))?;
    let id = parse(&letter)?;
    loop {
        let Versioned { value: letter, generation } = whole(&state, &id).await?;
        match letter.state {
            DeadLetterState::Open => {
                let resolution = Some(format!("put aside by an operator: {reason}"));
                let next = DeadLetter { state: DeadLetterState::Discarded, resolution, ..letter };
                if state.0.ledger.move_letter(generation, &next).await? {
                    return Ok(Json(next));
                }
            }
            DeadLetterState::Discarded => return Ok(Json(letter)),
            DeadLetterState::Replaying => {
                let campaign = letter.campaign.as_ref().map_or("-", CampaignId::as_str);
                return Err(Refused::Conflict(format!(
                    "letter {id} is being replayed; see: carrel campaigns show {campaign}"
                )));
            }
            DeadLetterState::Resolved => {
                return Err(Refused::Conflict(format!("letter {id} was dealt with by a replay")));
            }
        }
    }
}

/// A letter whosever it is, with the bytes of its message.
async fn whole(state: &State, id: &DeadLetterId) -> Result<Versioned<DeadLetter>, Refused> {
    let none = Refused::NotFound("dead letter");
    let Some(found) = state.0.index.owner_of(id).await? else { return Err(none) };
    let owner: Option<&TenantId> = found.tenant.as_ref();
    state.0.ledger.dead_letter(owner, id).await?.ok_or(none)
}

fn parse(text: &str) -> Result<DeadLetterId, Refused> {
    DeadLetterId::parse(text).map_err(|error| Refused::Bad(error.to_string()))
}
