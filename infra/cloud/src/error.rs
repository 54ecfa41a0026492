//! What went wrong in one call: which call on which thing.

use std::time::Duration;

use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::Code;

/// A call to the cloud that failed after its retries.
#[derive(Debug, thiserror::Error)]
#[error("{what} {target}")]
pub struct CallError {
    /// The verb: `create object`, `publish to`.
    pub what: &'static str,
    /// What it was done to: `gs://bucket/name`, a topic, a job.
    pub target: String,
    /// What the client library said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl CallError {
    pub(crate) fn new(what: &'static str, target: impl Into<String>, source: Error) -> Self {
        Self { what, target: target.into(), source: Box::new(source) }
    }

    pub(crate) fn local(
        what: &'static str,
        target: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { what, target: target.into(), source: source.into() }
    }

    /// True if the service refused the call as one that makes no sense: the same call would meet it again.
    pub fn is_malformed(&self) -> bool {
        self.source.downcast_ref::<Error>().is_some_and(|error| status(error) == Some(400))
    }
}

/// The answer of `call`, or an error once `limit` is over: a server that holds the line must not hold its caller.
pub(crate) async fn in_time<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    // Boxed: the clients' futures nest so deep that the compiler gives up on whatever holds them.
    match tokio::time::timeout(limit, Box::pin(call)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::timeout(format!("no answer within {limit:?}"))),
    }
}

/// The status in HTTP's numbers, whichever transport the call took.
pub(crate) fn status(error: &Error) -> Option<u16> {
    if let Some(code) = error.http_status_code() {
        return Some(code);
    }
    Some(match error.status()?.code {
        Code::NotFound => 404,
        Code::AlreadyExists => 409,
        Code::FailedPrecondition => 412,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::InvalidArgument | Code::OutOfRange => 400,
        Code::ResourceExhausted => 429,
        Code::Aborted => 409,
        Code::Unavailable => 503,
        _ => return None,
    })
}

pub(crate) fn is(error: &Error, wanted: u16) -> bool {
    status(error) == Some(wanted)
}
