//! Google's canonical errors, as Cloud Run's and Pub/Sub's REST and gRPC say them.
//!
//! Owns the mapping from a refusal to HTTP and to gRPC. Refuses details and stack traces: a message names the thing,
//! the cause and the next step.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use tonic::{Code, Status};

use crate::iam::{PermissionDenied, Unauthenticated};
use crate::store::StoreError;

/// A refused call: its canonical code and what to tell the caller.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: Code,
    message: String,
}

impl ApiError {
    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, message: message.into() }
    }

    /// There is no such thing.
    pub fn not_found(resource: impl std::fmt::Display) -> Self {
        Self { code: Code::NotFound, message: format!("resource not found: {resource}") }
    }

    /// There is such a thing already.
    pub fn already_exists(resource: impl std::fmt::Display) -> Self {
        Self { code: Code::AlreadyExists, message: format!("resource already exists: {resource}") }
    }

    /// The thing is in no state for it.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self { code: Code::FailedPrecondition, message: message.into() }
    }

    /// Nothing here does it.
    pub fn unserved(call: impl std::fmt::Display) -> Self {
        Self { code: Code::Unimplemented, message: format!("this cloud does not serve {call}") }
    }

    /// A page of a browser asks, for whoever looks at it.
    pub fn foreign_page() -> Self {
        let message =
            "callers without a token are let in here, and so no page of a browser is; send no Origin".to_owned();
        Self { code: Code::PermissionDenied, message }
    }

    /// Too much was asked for.
    pub fn exhausted(message: impl Into<String>) -> Self {
        Self { code: Code::ResourceExhausted, message: message.into() }
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: Code::Unavailable, message: message.into() }
    }

    /// The change was made; this reply is lost on purpose.
    pub fn reply_lost() -> Self {
        Self::unavailable("backend error: the reply was lost by the configured fault plan")
    }

    /// The canonical code.
    pub fn code(&self) -> Code {
        self.code
    }

    fn http(&self) -> (StatusCode, &'static str) {
        match self.code {
            Code::InvalidArgument => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            Code::FailedPrecondition => (StatusCode::BAD_REQUEST, "FAILED_PRECONDITION"),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
            Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Code::AlreadyExists => (StatusCode::CONFLICT, "ALREADY_EXISTS"),
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
            Code::Unimplemented => (StatusCode::NOT_FOUND, "UNIMPLEMENTED"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        }
    }
}

impl From<Unauthenticated> for ApiError {
    fn from(error: Unauthenticated) -> Self {
        Self { code: Code::Unauthenticated, message: error.to_string() }
    }
}

impl From<PermissionDenied> for ApiError {
    fn from(error: PermissionDenied) -> Self {
        Self { code: Code::PermissionDenied, message: format!("{error} (or it may not exist)") }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Closed) {
            return Self::unavailable("the cloud is shutting down");
        }
        tracing::error!(error = &error as &dyn std::error::Error, "the database failed a call");
        Self { code: Code::Internal, message: "the store failed; the cloud's log says why".to_owned() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, status) = self.http();
        let body = json!({ "error": { "code": code.as_u16(), "message": self.message, "status": status } });
        (code, Json(body)).into_response()
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        Self::new(error.code, error.message)
    }
}
