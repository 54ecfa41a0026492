//! Bodies that do not go on: who sends nothing for a while in the middle of one is no longer waited for.
//!
//! An upload holds a thread as long as its body lasts. Streams of gRPC may be silent for as long as they like: a
//! subscriber has nothing to say between two messages, and none of them holds a thread.

use std::io;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::time::timeout;

/// A client that waits for a disk of its own is back sooner.
const IDLE: Duration = Duration::from_secs(30);

/// Ends a body that stands still.
pub(crate) async fn impatient(request: Request, next: Next) -> Response {
    // By the path: anybody may call any content by the type of gRPC.
    if request.uri().path().starts_with("/google.") || request.body().is_end_stream() {
        return next.run(request).await;
    }
    next.run(request.map(|body| Body::from_stream(moving(body.into_data_stream(), IDLE)))).await
}

fn moving<E: std::error::Error + Send + Sync + 'static>(
    body: impl Stream<Item = Result<Bytes, E>> + Unpin + Send + 'static,
    idle: Duration,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let parts = stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match timeout(idle, body.next()).await {
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(body))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Ok(None) => None,
            Err(_) => {
                let words = format!("the body did not go on for {idle:?}");
                Some((Err(io::Error::new(io::ErrorKind::TimedOut, words)), None))
            }
        }
    });
    // Whoever drains a body asks again at its end.
    parts.fuse()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(body: impl Stream<Item = Result<Bytes, io::Error>> + Unpin + Send + 'static) -> Vec<String> {
        let mut body = std::pin::pin!(moving(body, Duration::from_millis(20)));
        let mut read = Vec::new();
        while let Some(chunk) = body.next().await {
            read.push(match chunk {
                Ok(chunk) => String::from_utf8_lossy(&chunk).into_owned(),
                Err(error) => format!("{:?}", error.kind()),
            });
        }
        assert!(body.next().await.is_none(), "the end stays the end");
        read
    }

    #[tokio::test]
    async fn a_body_that_stands_still_ends_with_an_error_and_any_other_as_it_does() {
        let chunks = || stream::iter([Ok(Bytes::from("a")), Ok(Bytes::from("b"))]);
        assert_eq!(read(chunks()).await, ["a", "b"]);
        assert_eq!(read(chunks().chain(stream::pending())).await, ["a", "b", "TimedOut"]);
        let broken = stream::iter([Err(io::ErrorKind::ConnectionReset.into())]);
        assert_eq!(read(chunks().chain(broken)).await, ["a", "b", "Other"]);
    }
}
