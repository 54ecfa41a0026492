//! Dead letters over HTTP: looking never disturbs.

use axum::Json;
use axum::extract::{Path, State as Extract};
use axum::http::HeaderMap;
use carrel_schemas::dead_letter::DeadLetter;
use carrel_schemas::ids::DeadLetterId;
use serde::Serialize;

use super::{Refused, State, auth};

/// A page of letters; there is one page for now.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    dead_letters: Vec<DeadLetter>,
}

pub(super) async fn list(
    Extract(state): Extract<State>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Page>, Refused> {
    let tenant = auth::tenant(&state.0.registry, &headers, &tenant)?;
    Ok(Json(Page { dead_letters: state.0.ledger.dead_letters(Some(&tenant.id)).await? }))
}

pub(super) async fn show(
    Extract(state): Extract<State>,
    Path((tenant, letter)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<DeadLetter>, Refused> {
    let tenant = auth::tenant(&state.0.registry, &headers, &tenant)?;
    let letter = parse(&letter)?;
    state.0.ledger.dead_letter(Some(&tenant.id), &letter).await?.map(Json).ok_or(Refused::NotFound("dead letter"))
}

pub(super) async fn list_unknown(Extract(state): Extract<State>, headers: HeaderMap) -> Result<Json<Page>, Refused> {
    auth::operator(&state.0.registry, &headers)?;
    Ok(Json(Page { dead_letters: state.0.ledger.dead_letters(None).await? }))
}

pub(super) async fn show_unknown(
    Extract(state): Extract<State>,
    Path(letter): Path<String>,
    headers: HeaderMap,
) -> Result<Json<DeadLetter>, Refused> {
    auth::operator(&state.0.registry, &headers)?;
    let letter = parse(&letter)?;
    state.0.ledger.dead_letter(None, &letter).await?.map(Json).ok_or(Refused::NotFound("dead letter"))
}

fn parse(text: &str) -> Result<DeadLetterId, Refused> {
    DeadLetterId::parse(text).map_err(|error| Refused::Bad(error.to_string()))
}
