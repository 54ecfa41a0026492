//! What became of an upload or a review, over HTTP.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State as Extract};
use carrel_schemas::registry::Tenant;
use schemars::JsonSchema;
use serde::Serialize;

use super::auth::Caller;
use super::{Refused, State};
use crate::explain::Question;

/// The query; what is missing is told only to whom the call is open.
type Asked = BTreeMap<String, String>;

/// The answer, a sentence a line.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Told {
    told: Vec<String>,
}

pub(super) async fn own(
    Extract(state): Extract<State>,
    Path(tenant): Path<String>,
    Query(asked): Query<Asked>,
    caller: Caller,
) -> Result<Json<Told>, Refused> {
    let tenant = caller.tenant(&state.0.registry, &tenant)?;
    explain(&state, &asked, Some(tenant)).await
}

pub(super) async fn any(
    Extract(state): Extract<State>,
    Query(asked): Query<Asked>,
    caller: Caller,
) -> Result<Json<Told>, Refused> {
    caller.operator()?;
    explain(&state, &asked, None).await
}

async fn explain(state: &State, asked: &Asked, asker: Option<&Tenant>) -> Result<Json<Told>, Refused> {
    let what = asked.get("what").ok_or_else(|| Refused::Bad("say what: gs://BUCKET/NAME or a review's id".into()))?;
    let question = Question::parse(what).map_err(|why| Refused::Bad(format!("what: {why}")))?;
    let told = state.0.explainer.explain(question, asker).await?;
    Ok(Json(Told { told: told.ok_or(Refused::NotFound("upload or review"))? }))
}
