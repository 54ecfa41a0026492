//! Completions read again: from a cursor on, oldest first. For who lost events, or does not use Pub/Sub.
//!
//! A reader keeps `next` and sends it as `after`. What it has read it may get once more and must tell by the event id:
//! [`crate::completion_log`] says why, and why it misses nothing. Who stands before what the collector has taken away is
//! refused: such a reader would miss something.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State as Extract};
use carrel_schemas::completion::Completion;
use carrel_schemas::ids::TenantId;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use schemars::JsonSchema;
use serde::Serialize;

use super::auth::Caller;
use super::{Refused, State};
use crate::completion_log::{Cursor, is_before};
use crate::ledger::LogPage;

/// Completions of a page that asks for no number, and the most of any.
const PAGE: usize = 200;
/// Tenants whose logs are listed at once.
const LISTINGS: usize = 32;

/// Completions, the oldest announcement first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CompletionPage")]
pub(super) struct Page {
    completions: Vec<Completion>,
    /// What to send as `after` next time. It is always there.
    next: String,
    /// True if more can be had at once; otherwise ask again after a while.
    more: bool,
}

pub(super) struct Look {
    /// None is from whatever the log begins with.
    after: Option<Cursor>,
    limit: usize,
}

/// Refuses a cursor that something was taken away after. Asked after the log was read, and told before anything goes:
/// no gap can open in between.
pub(super) async fn no_gap(
    state: &State,
    tenants: impl IntoIterator<Item = &TenantId>,
    after: &Cursor,
) -> Result<(), Refused> {
    // Nothing younger goes.
    if !is_before(after.earliest(), crate::now().minus(state.0.retention)) {
        return Ok(());
    }
    for tenant in tenants {
        if state.0.ledger.log_begin(tenant).await?.is_some_and(|begin| after.earliest() < begin.as_str()) {
            return Err(Refused::Gone(format!(
                "completions of tenant {tenant} after this cursor are not kept any more; read from the beginning, without \
                 `after`, and look at the list of reviews for what was before"
            )));
        }
    }
    Ok(())
}

impl Look {
    pub(super) fn parse(mut query: BTreeMap<String, String>) -> Result<Self, Refused> {
        let after = query.remove("after").map(|text| Cursor::parse(&text)).transpose();
        let after = after.map_err(|error| Refused::Bad(format!("after: {error}")))?;
        let limit = match query.remove("limit") {
            None => PAGE,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=PAGE) => limit,
                _ => return Err(Refused::Bad(format!("limit {text:?} is not between 1 and {PAGE}"))),
            },
        };
        match query.into_keys().next() {
            Some(field) => Err(Refused::Bad(format!("query: unknown field {field:?}; send after and limit"))),
            None => Ok(Self { after, limit }),
        }
    }
}

pub(super) async fn list_own(
    Extract(state): Extract<State>,
    Path(tenant): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    caller: Caller,
) -> Result<Json<Page>, Refused> {
    let tenant = caller.tenant(&state.0.registry, &tenant)?;
    let Look { after: asked, limit } = Look::parse(query)?;
    let (now, after) = (crate::now(), asked.clone().unwrap_or_else(Cursor::start));
    let LogPage { entries, last, more } = state.0.ledger.completions_after(&tenant.id, after.at(), limit).await?;
    if let Some(asked) = &asked {
        no_gap(&state, [&tenant.id], asked).await?;
    }
    let completions = entries.into_iter().map(|(_, completion)| completion).collect();
    Ok(Json(Page { completions, next: after.after(last.as_deref(), more, now).to_string(), more }))
}

/// The logs of all tenants, merged. Each is listed, however few of its entries are on the page.
pub(super) async fn list(
    Extract(state): Extract<State>,
    Query(query): Query<BTreeMap<String, String>>,
    caller: Caller,
) -> Result<Json<Page>, Refused> {
    caller.operator()?;
    let Look { after: asked, limit } = Look::parse(query)?;
    let (now, after) = (crate::now(), asked.clone().unwrap_or_else(Cursor::start));
    let tenants: Vec<TenantId> = state.0.registry.tenants().map(|tenant| tenant.id.clone()).collect();
    let (ledger, place) = (&state.0.ledger, after.at());
    let pages =
        tenants.clone().into_iter().map(|tenant| async move { ledger.completions_after(&tenant, place, limit).await });
    let pages: Vec<LogPage> = futures::stream::iter(pages).buffer_unordered(LISTINGS).try_collect().await?;
    if let Some(asked) = &asked {
        no_gap(&state, &tenants, asked).await?;
    }
    let (completions, last, more) = merged(pages, limit);
    Ok(Json(Page { completions, next: after.after(last.as_deref(), more, now).to_string(), more }))
}

/// The first `limit` entries of all pages. No page is passed beyond its own end while it has more.
fn merged(pages: Vec<LogPage>, limit: usize) -> (Vec<Completion>, Option<String>, bool) {
    let mut more = pages.iter().any(|page| page.more);
    let ends = pages.iter().filter(|page| page.more).filter_map(|page| page.last.clone()).min();
    let furthest = pages.iter().filter_map(|page| page.last.clone()).max();
    let mut entries: Vec<(String, Completion)> = pages.into_iter().flat_map(|page| page.entries).collect();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(end) = &ends {
        entries.retain(|(place, _)| place <= end);
    }
    let mut last = ends.or(furthest);
    if entries.len() > limit {
        entries.truncate(limit);
        last = entries.last().map(|(place, _)| place.clone());
        more = true;
    }
    (entries.into_iter().map(|(_, completion)| completion).collect(), last, more)
}
