//! Server-sent events: one review until it is over, and a tenant's completions as they are announced.
//!
//! Owns no memory of who was told what: a stream looks at the ledger at a fixed pace, so any replica may serve it and a
//! client that comes back with `Last-Event-ID` goes on at another. Refuses more than a few streams for one caller, and
//! ends when the dispatcher drains or the ledger does not answer; clients of server-sent events come back by themselves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use carrel_schemas::ids::{ReviewId, TenantId};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::auth::Caller;
use super::completions::no_gap;
use super::reviews::View;
use super::{Refused, State};
use crate::completion_log::Cursor;
use crate::ledger::{LedgerError, ReviewRecord, State as Stands};

/// Between two looks at the ledger: one small read, or one listing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A comment is sent into silence, so that proxies keep the line open.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream ends after this long, so that the credential it was opened with is looked at again.
const LASTS: Duration = Duration::from_secs(60 * 60);
/// Streams that one caller may have open on this replica.
const STREAMS: usize = 16;
/// Completions read at once.
const PAGE: usize = 100;

/// How many streams each caller has open.
#[derive(Debug, Clone, Default)]
pub struct Streams(Arc<Mutex<BTreeMap<String, usize>>>);

/// One of them; gone when it is dropped.
#[derive(Debug)]
struct Open {
    streams: Streams,
    caller: String,
}

impl Streams {
    fn open(&self, caller: String) -> Result<Open, Refused> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(caller.clone()).or_default();
        if *count >= STREAMS {
            return Err(Refused::TooMany(HEARTBEAT));
        }
        *count += 1;
        Ok(Open { streams: self.clone(), caller })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.caller);
            }
        }
    }
}

/// What a stream looks at.
enum Watch {
    /// A review; the generation that was told last.
    Review { review: ReviewId, told: Option<i64> },
    /// The log, and the places told since the cursor, which the overlap shows again.
    Completions { cursor: Cursor, told: BTreeSet<String> },
}

struct Stream {
    state: State,
    tenant: TenantId,
    watch: Watch,
    pace: Interval,
    until: Instant,
    ready: VecDeque<Event>,
    is_over: bool,
    _open: Open,
}

pub(super) async fn of_review(
    Extract(state): Extract<State>,
    Path((tenant, review)): Path<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let tenant = caller.tenant(&state.0.registry, &tenant)?.id.clone();
    let review = ReviewId::parse(review).map_err(|error| Refused::Bad(error.to_string()))?;
    let held = state.0.ledger.review(&tenant, &review).await?.ok_or(Refused::NotFound("review"))?;
    let told = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    if told == Some(held.generation) && is_over(&held.value) {
        // By the standard of server-sent events: do not come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    serve(&state, tenant, Watch::Review { review, told }, caller.name())
}

pub(super) async fn of_tenant(
    Extract(state): Extract<State>,
    Path(tenant): Path<String>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let tenant = caller.tenant(&state.0.registry, &tenant)?.id.clone();
    let cursor = match headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default()) {
        Some(id) => {
            let cursor = Cursor::parse(id).map_err(|error| Refused::Bad(format!("Last-Event-ID: {error}")))?;
            no_gap(&state, [&tenant], &cursor).await?;
            cursor
        }
        None => Cursor::since(crate::now()),
    };
    serve(&state, tenant, Watch::Completions { cursor, told: BTreeSet::new() }, caller.name())
}

fn serve(state: &State, tenant: TenantId, watch: Watch, caller: String) -> Result<Response, Refused> {
    let open = state.0.streams.open(caller)?;
    // An event without data sets the id that a client comes back with, though it was told nothing yet.
    let ready = match &watch {
        Watch::Completions { cursor, .. } => VecDeque::from([Event::default().id(cursor.to_string())]),
        Watch::Review { .. } => VecDeque::new(),
    };
    let mut pace = tokio::time::interval(LOOK_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = Stream {
        state: state.clone(),
        tenant,
        watch,
        pace,
        until: Instant::now() + LASTS,
        ready,
        is_over: false,
        _open: open,
    };
    let events = futures::stream::unfold(stream, async |mut stream| {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

impl Stream {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            let stop = self.state.0.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                _ = self.pace.tick() => {}
            }
            if let Err(error) = self.look().await {
                tracing::warn!(error = crate::chain(&error), "a stream of events ended");
                return None;
            }
        }
    }

    async fn look(&mut self) -> Result<(), LedgerError> {
        let ledger = &self.state.0.ledger;
        match &mut self.watch {
            Watch::Review { review, told } => {
                let Some(held) = ledger.review(&self.tenant, review).await? else {
                    self.is_over = true;
                    return Ok(());
                };
                self.is_over = is_over(&held.value);
                if *told != Some(held.generation) {
                    *told = Some(held.generation);
                    let event = Event::default().event("review").id(held.generation.to_string());
                    self.ready.push_back(with(event, &View::from(held.value)));
                }
            }
            Watch::Completions { cursor, told } => {
                let now = crate::now();
                let page = ledger.completions_after(&self.tenant, cursor.at(), PAGE).await?;
                for (place, completion) in page.entries {
                    if !told.contains(&place) {
                        // Who comes back here reads from this place on, and then what the overlap holds.
                        let here = cursor.after(Some(&place), true, now);
                        let event = Event::default().event("completion").id(here.to_string());
                        self.ready.push_back(with(event, &completion));
                        told.insert(place);
                    }
                }
                *cursor = cursor.after(page.last.as_deref(), page.more, now);
                if !page.more {
                    told.retain(|place| place.as_str() > cursor.at());
                }
            }
        }
        Ok(())
    }
}

fn is_over(record: &ReviewRecord) -> bool {
    matches!(record.state, Stands::Settled { announced_at: Some(_), .. })
}

fn with<T: serde::Serialize>(event: Event, data: &T) -> Event {
    event.json_data(data).expect("what the API answers is plain JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_streams_and_takes_none_from_another() {
        let streams = Streams::default();
        let mut held: Vec<Open> = (0..STREAMS).map(|_| streams.open("acme".to_owned()).expect("a stream")).collect();
        assert!(matches!(streams.open("acme".to_owned()), Err(Refused::TooMany(_))));
        streams.open("bolt".to_owned()).expect("its own");
        held.pop();
        streams.open("acme".to_owned()).expect("one is free again");
        drop(held);
        assert!(streams.0.lock().expect("unpoisoned").is_empty());
    }
}
