//! A refusal as HTTP says it: a status and a JSON body that names the thing, the cause and the next step.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};

use crate::drive::DriveError;
use crate::explain::ExplainError;
use crate::ledger::LedgerError;
use crate::pack::seal::SealError;
use crate::replay::ReplayError;

/// Why a call was refused.
#[derive(Debug)]
pub enum Refused {
    /// No bearer token, or none of the registry's.
    Stranger,
    /// Not for this caller.
    Forbidden,
    /// No such thing, or not the caller's: the kind of thing.
    NotFound(&'static str),
    /// The call is wrong, in words.
    Bad(String),
    /// It contradicts an earlier call, in words.
    Conflict(String),
    /// What it asks for was there once and is not kept any more, in words.
    Gone(String),
    /// Too much at once; it may be tried again after this long.
    TooMany(Duration),
    /// The cloud did not answer, in words for the log.
    Unavailable(String),
}

impl From<LedgerError> for Refused {
    fn from(error: LedgerError) -> Self {
        Self::Unavailable(crate::chain(&error))
    }
}

impl From<SealError> for Refused {
    fn from(error: SealError) -> Self {
        Self::Unavailable(crate::chain(&error))
    }
}

impl From<DriveError> for Refused {
    fn from(error: DriveError) -> Self {
        Self::Unavailable(crate::chain(&error))
    }
}

impl From<ExplainError> for Refused {
    fn from(error: ExplainError) -> Self {
        Self::Unavailable(crate::chain(&error))
    }
}

impl From<ReplayError> for Refused {
    fn from(error: ReplayError) -> Self {
        Self::Unavailable(crate::chain(&error))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::Stranger => (
                StatusCode::UNAUTHORIZED,
                "send `Authorization: Bearer` with a key of the registry, or an identity token it knows the address of"
                    .to_owned(),
            ),
            Self::Forbidden => (StatusCode::FORBIDDEN, "this call is for operators".to_owned()),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, format!("no such {what}")),
            Self::Bad(why) => (StatusCode::BAD_REQUEST, why),
            Self::Conflict(why) => (StatusCode::CONFLICT, why),
            Self::Gone(why) => (StatusCode::GONE, why),
            Self::TooMany(pause) => {
                // Rounded up: a call that comes sooner is refused again.
                let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
                let message = format!("too many at once; try again in {seconds} s");
                let body = Json(serde_json::json!({ "error": message }));
                return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds.to_string())], body).into_response();
            }
            Self::Unavailable(why) => {
                tracing::warn!(error = why, "API call failed");
                (StatusCode::SERVICE_UNAVAILABLE, "a service behind the API did not answer; try again".to_owned())
            }
        };
        (status, Json(serde_json::json!({ "error": message }))).into_response()
    }
}
