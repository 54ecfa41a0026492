//! Why a request of Cloud Run was not done, and how Google says so over HTTP.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::store::StoreError;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// No principal, or a token that is not good.
    #[error("{0}")]
    Unauthenticated(String),
    /// A known principal without the permission; whether the thing exists is not told.
    #[error("permission '{permission}' denied on resource '{resource}' (or resource may not exist)")]
    Forbidden {
        /// The permission that is missing.
        permission: &'static str,
        /// Where it is missing.
        resource: String,
    },
    /// The caller may see it, but it is not there.
    #[error("resource '{0}' was not found")]
    NotFound(String),
    /// This cloud does not serve the method.
    #[error("method not found: {0}")]
    NoMethod(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It has completed: there is nothing to cancel.
    #[error("execution '{0}' has already completed")]
    Completed(String),
    /// The etag given is not the current one.
    #[error("etag of '{0}' does not match: read it again")]
    Conflict(String),
    /// There is such a thing already.
    #[error("resource '{0}' already exists")]
    Exists(String),
    /// As many jobs as a project is given.
    #[error("quota exceeded: the project has {0} jobs; delete one that is not used")]
    Jobs(usize),
    /// As many executions as this machine is given.
    #[error("quota exceeded: {0} executions are running; launch again when one has completed")]
    Exhausted(usize),
    /// The work was done; this reply is lost on purpose.
    #[error("the service is currently unavailable")]
    ReplyLost,
    /// No more launches.
    #[error("the service is shutting down")]
    Closing,
    /// The database failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// A launch broke off.
    #[error("the launch broke off")]
    Broken(#[from] tokio::task::JoinError),
}

impl Refusal {
    const fn http(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Self::NoMethod(_) => (StatusCode::NOT_FOUND, "UNIMPLEMENTED"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            Self::Completed(_) => (StatusCode::BAD_REQUEST, "FAILED_PRECONDITION"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "ABORTED"),
            Self::Exists(_) => (StatusCode::CONFLICT, "ALREADY_EXISTS"),
            Self::Jobs(_) | Self::Exhausted(_) => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
            Self::ReplyLost | Self::Closing => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            Self::Store(_) | Self::Broken(_) => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, status) = self.http();
        if code == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = ?self, "a request of cloud run failed");
        }
        let body = json!({ "error": { "code": code.as_u16(), "message": self.to_string(), "status": status } });
        let mut response = (code, Json(body)).into_response();
        if code == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
