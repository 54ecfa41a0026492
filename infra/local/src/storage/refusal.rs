//! Why a request of Cloud Storage was not done, and how Google says so over HTTP and over gRPC.

use super::generation::Violation;
use super::name::NameError;
use crate::store::StoreError;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use std::io;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// No principal, or a token that is not good.
    #[error("{0}")]
    Unauthenticated(String),
    /// A known principal without the permission; whether the thing exists is not told.
    #[error("{who} does not have {permission} access to {resource} (or it may not exist)")]
    Forbidden {
        /// The principal.
        who: String,
        /// The permission that is missing.
        permission: &'static str,
        /// Where it is missing.
        resource: String,
    },
    /// The caller might list the bucket, but there is none.
    #[error("the specified bucket does not exist: {0}")]
    NoBucket(String),
    /// No live object, or another generation than the one asked for.
    #[error("no such object: {0}")]
    NoObject(String),
    /// A precondition did not hold; the flag tells a read from a write.
    #[error("{violation}")]
    Precondition {
        /// Which one.
        violation: Violation,
        /// A read answers 304 to a `…NotMatch`.
        read: bool,
    },
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The range lies behind the end of an object of this size.
    #[error("the requested range cannot be satisfied: the object has {0} bytes")]
    Range(u64),
    /// No such resumable upload.
    #[error("no such resumable upload: {0}")]
    NoUpload(String),
    /// A resumable upload that was cancelled, or that is too old.
    #[error("this resumable upload was cancelled or has expired: start another one")]
    UploadOver,
    /// A bucket of this name is there already.
    #[error("a bucket of this name is there already: {0}")]
    Exists(String),
    /// A bucket that holds something is not deleted.
    #[error("the bucket you tried to delete is not empty: {0}")]
    NotEmpty(String),
    /// No such notification configuration.
    #[error("no such notification configuration: {0}")]
    NoNotification(String),
    /// The topic that a notification names is not there.
    #[error("no such topic: {0}")]
    NoTopic(String),
    /// Somebody else has set the policy since it was read.
    #[error("the policy has changed since it was read: read it again")]
    PolicyChanged,
    /// `If-Match` or `If-None-Match` did not hold; the flag tells the latter.
    #[error("the object has another etag than the one you asked for")]
    Etag {
        /// It is the one that the caller has.
        same: bool,
    },
    /// The change was made; this reply is lost on purpose.
    #[error("backend error: the reply was lost by the configured fault plan")]
    ReplyLost,
    /// Another request works on the same upload.
    #[error("another request is writing to this upload: ask for its status and go on from there")]
    Busy,
    /// The database failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Reading the request or a file failed.
    #[error("cannot move the content of the object: {0}")]
    Io(#[source] io::Error),
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Invalid(error.to_string()),
            _ => Self::Io(error),
        }
    }
}

impl Refusal {
    fn http(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "authError"),
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden"),
            Self::NoBucket(_) | Self::NoObject(_) | Self::NoUpload(_) | Self::NoNotification(_) | Self::NoTopic(_) => {
                (StatusCode::NOT_FOUND, "notFound")
            }
            Self::UploadOver => (StatusCode::GONE, "gone"),
            Self::Exists(_) | Self::NotEmpty(_) => (StatusCode::CONFLICT, "conflict"),
            Self::Precondition { violation: Violation::NotMatch(_), read: true } | Self::Etag { same: true } => {
                (StatusCode::NOT_MODIFIED, "notModified")
            }
            Self::Precondition { .. } | Self::PolicyChanged | Self::Etag { .. } => {
                (StatusCode::PRECONDITION_FAILED, "conditionNotMet")
            }
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
            Self::Range(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "requestedRangeNotSatisfiable"),
            Self::ReplyLost | Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "backendError"),
            Self::Store(_) | Self::Io(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internalError"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, reason) = self.http();
        if code == StatusCode::NOT_MODIFIED {
            return code.into_response();
        }
        if code == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = ?self, "a request of cloud storage failed");
        }
        let message = self.to_string();
        let body = json!({ "error": {
            "code": code.as_u16(),
            "message": message,
            "errors": [{ "message": message, "domain": "global", "reason": reason }],
        }});
        let mut response = (code, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Self::Range(size) = self
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        if code == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\""),
            );
        }
        response
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Unauthenticated(_) => Self::unauthenticated(message),
            Refusal::Forbidden { .. } => Self::permission_denied(message),
            Refusal::NoBucket(_)
            | Refusal::NoObject(_)
            | Refusal::NoUpload(_)
            | Refusal::UploadOver
            | Refusal::NoNotification(_)
            | Refusal::NoTopic(_) => Self::not_found(message),
            Refusal::Exists(_) => Self::already_exists(message),
            Refusal::Precondition { violation: Violation::Match(_), .. }
            | Refusal::NotEmpty(_)
            | Refusal::PolicyChanged
            | Refusal::Etag { .. } => Self::failed_precondition(message),
            Refusal::Precondition { violation: Violation::NotMatch(_), .. } => Self::aborted(message),
            Refusal::Invalid(_) => Self::invalid_argument(message),
            Refusal::Range(_) => Self::out_of_range(message),
            Refusal::ReplyLost | Refusal::Busy => Self::unavailable(message),
            Refusal::Store(_) | Refusal::Io(_) => {
                tracing::error!(error = message, "a request of cloud storage failed");
                Self::internal(message)
            }
        }
    }
}
