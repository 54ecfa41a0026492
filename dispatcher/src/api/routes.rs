//! Every call of the API, once: its path, what answers it, and what is to be said of it.
//!
//! The router and the OpenAPI document are both made of this table, so neither can know a call that the other does not.

use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};
use carrel_schemas::campaign::{Campaign, CreateCampaign};
use carrel_schemas::completion::Completion;
use carrel_schemas::dead_letter::{DeadLetter, DiscardLetter};
use carrel_schemas::review_request::{CancelReview, CreateReview};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{State, campaigns, completions, dead_letters, document, events, explain, ready, reviews};
use crate::dead_letters::Page as LetterPage;
use crate::replay::open::Forecast;

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Everyone, without a credential.
    Anyone,
    /// The tenant named in the path, and operators.
    Tenant,
    /// Operators.
    Operator,
}

/// How a body is described.
pub(super) type Describe = fn(&mut SchemaGenerator) -> Schema;

/// What an answer carries.
pub(super) enum Body {
    /// JSON of a type.
    Json(Describe),
    /// Server-sent events, each with JSON of a type.
    Events(Describe),
    /// Plain text.
    Text,
    /// Nothing.
    Empty,
}

/// One call.
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) handler: MethodRouter<State>,
    pub(super) who: Who,
    pub(super) says: &'static str,
    pub(super) query: Vec<(&'static str, &'static str)>,
    pub(super) has_key: bool,
    pub(super) takes: Option<Describe>,
    pub(super) answers: Vec<(u16, Body)>,
}

impl Call {
    fn new(method: &'static str, path: &'static str, handler: MethodRouter<State>, says: &'static str) -> Self {
        let who = if path.starts_with("/v1/tenants/{tenant}/") { Who::Tenant } else { Who::Operator };
        Self { method, path, handler, who, says, query: vec![], has_key: false, takes: None, answers: vec![] }
    }

    fn open(self) -> Self {
        Self { who: Who::Anyone, ..self }
    }

    fn asks(mut self, query: &[(&'static str, &'static str)]) -> Self {
        self.query.extend_from_slice(query);
        self
    }

    /// It takes an `Idempotency-Key`: asking twice is asking once.
    fn keyed(self) -> Self {
        Self { has_key: true, ..self }
    }

    fn takes<T: JsonSchema>(self) -> Self {
        Self { takes: Some(|generator| generator.subschema_for::<T>()), ..self }
    }

    fn answers<T: JsonSchema>(mut self, status: u16) -> Self {
        self.answers.push((status, Body::Json(|generator| generator.subschema_for::<T>())));
        self
    }

    fn streams<T: JsonSchema>(mut self) -> Self {
        self.answers.push((200, Body::Events(|generator| generator.subschema_for::<T>())));
        self
    }

    /// A stream that has nothing more to tell.
    fn answers_nothing(mut self) -> Self {
        self.answers.push((204, Body::Empty));
        self
    }

    fn answers_text(mut self) -> Self {
        self.answers.push((200, Body::Text));
        self
    }
}

fn reads<H, T>(path: &'static str, handler: H, says: &'static str) -> Call
where
    H: Handler<T, State>,
    T: 'static,
{
    Call::new("get", path, get(handler), says)
}

fn writes<H, T>(path: &'static str, handler: H, says: &'static str) -> Call
where
    H: Handler<T, State>,
    T: 'static,
{
    Call::new("post", path, post(handler), says)
}

const FILTER: [(&str, &str); 6] = [
    ("class", "The kind of failure."),
    ("fingerprint", "The reason with ids, numbers and paths removed."),
    ("text", "Words of the reason."),
    ("after", "Filed at this instant or later."),
    ("before", "Filed before this instant."),
    ("state", "What has become of the letter."),
];
const TENANT: [(&str, &str); 1] = [("tenant", "Whose; `_unknown` is nobody's.")];
const CURSOR: [(&str, &str); 2] = [
    ("after", "The `next` of an earlier answer, or an instant; without it, from the beginning."),
    ("limit", "How many at most, 1 to 200."),
];
const WHAT: [(&str, &str); 1] = [("what", "`gs://BUCKET/NAME` of an upload, or a review's id.")];
const PAGE: [(&str, &str); 1] = [("page", "The `next` of the page before.")];
const LEAF: [(&str, &str); 2] = [("limit", "How many at most, 1 to 1000."), ("page", "The `next` of the page before.")];

/// The table.
pub(super) fn calls() -> Vec<Call> {
    let mut calls = for_tenants();
    calls.extend(for_operators());
    calls.extend([
        reads("/v1/openapi.json", document::show, "This document.").open().answers::<serde_json::Value>(200),
        reads("/healthz", async || "ok\n", "The process runs.").open().answers_text(),
        reads("/readyz", ready, "The ledger answers.").open().answers_text(),
    ]);
    calls
}

fn for_tenants() -> Vec<Call> {
    vec![
        reads("/v1/tenants/{tenant}/reviews", reviews::list, "The tenant's reviews, 200 at a time, in order of ids.")
            .asks(&PAGE)
            .answers::<reviews::Page>(200),
        writes("/v1/tenants/{tenant}/reviews", reviews::create, "Ask for a review of a pack.")
            .keyed()
            .takes::<CreateReview>()
            .answers::<reviews::View>(202),
        reads("/v1/tenants/{tenant}/reviews/{review}", reviews::show, "One review.").answers::<reviews::View>(200),
        writes("/v1/tenants/{tenant}/reviews/{review}/cancel", reviews::cancel, "End a review that is not decided.")
            .takes::<CancelReview>()
            .answers::<reviews::View>(200),
        reads(
            "/v1/tenants/{tenant}/reviews/{review}/events",
            events::of_review,
            "The review whenever it changes, until it is over.",
        )
        .streams::<reviews::View>()
        .answers_nothing(),
        reads("/v1/tenants/{tenant}/explain", explain::own, "What became of an upload or a review, in sentences.")
            .asks(&WHAT)
            .answers::<explain::Told>(200),
        reads(
            "/v1/tenants/{tenant}/completions",
            completions::list_own,
            "The tenant's completions after a cursor, oldest first. One may come twice: tell by its event id.",
        )
        .asks(&CURSOR)
        .answers::<completions::Page>(200),
        reads(
            "/v1/tenants/{tenant}/events",
            events::of_tenant,
            "The tenant's completions as they are announced; with `Last-Event-ID`, from there on.",
        )
        .streams::<Completion>(),
        reads("/v1/tenants/{tenant}/dead-letters", dead_letters::list_own, "The tenant's dead letters, newest first.")
            .asks(&FILTER)
            .asks(&LEAF)
            .answers::<LetterPage>(200),
        reads("/v1/tenants/{tenant}/dead-letters/{letter}", dead_letters::show_own, "One dead letter of the tenant.")
            .answers::<DeadLetter>(200),
    ]
}

fn for_operators() -> Vec<Call> {
    vec![
        reads("/v1/completions", completions::list, "Completions of all tenants after a cursor, oldest first.")
            .asks(&CURSOR)
            .answers::<completions::Page>(200),
        reads("/v1/explain", explain::any, "What became of any tenant's upload or review, in sentences.")
            .asks(&WHAT)
            .answers::<explain::Told>(200),
        reads("/v1/dead-letters", dead_letters::list, "Dead letters of all tenants and of nobody, newest first.")
            .asks(&TENANT)
            .asks(&FILTER)
            .asks(&LEAF)
            .answers::<LetterPage>(200),
        reads(
            "/v1/dead-letters/stats",
            dead_letters::stats,
            "Dead letters that failed alike, the largest group first.",
        )
        .asks(&TENANT)
        .asks(&FILTER)
        .answers::<dead_letters::Groups>(200),
        reads("/v1/dead-letters/{letter}", dead_letters::show, "One dead letter.").answers::<DeadLetter>(200),
        writes("/v1/dead-letters/{letter}/discard", dead_letters::discard, "Put a dead letter aside.")
            .takes::<DiscardLetter>()
            .answers::<DeadLetter>(200),
        reads("/v1/campaigns", campaigns::list, "Campaigns, newest first.").asks(&LEAF).answers::<campaigns::Page>(200),
        writes("/v1/campaigns", campaigns::create, "Replay dead letters; 200 foresees it where `dry_run` is set.")
            .keyed()
            .takes::<CreateCampaign>()
            .answers::<Forecast>(200)
            .answers::<Campaign>(202),
        reads("/v1/campaigns/{campaign}", campaigns::show, "One campaign.").answers::<campaigns::View>(200),
        reads("/v1/campaigns/{campaign}/letters", campaigns::letters, "How far each letter of a campaign is.")
            .answers::<campaigns::Letters>(200),
        writes("/v1/campaigns/{campaign}/{wish}", campaigns::steered, "`pause`, `resume` or `cancel` a campaign.")
            .answers::<Campaign>(200),
    ]
}
