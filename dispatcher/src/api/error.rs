//! A refusal as HTTP says it: a status and a JSON body that names the thing, the cause and the next step.

use axum::Json;
use axum::http::StatusCode;
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
                "send `Authorization: Bearer <token>` with a token of the registry".to_owned(),
            ),
            Self::Forbidden => (StatusCode::FORBIDDEN, "this call is for operators".to_owned()),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, format!("no such {what}")),
            Self::Bad(why) => (StatusCode::BAD_REQUEST, why),
            Self::Conflict(why) => (StatusCode::CONFLICT, why),
            Self::Unavailable(why) => {
                tracing::warn!(error = why, "API call failed");
                (StatusCode::SERVICE_UNAVAILABLE, "the ledger did not answer; try again".to_owned())
            }
        };
        (status, Json(serde_json::json!({ "error": message }))).into_response()
    }
}
