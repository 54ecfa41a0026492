//! What befalls requests and answers on their way, whatever they are about: refusals, stillness, reads that break off.
//!
//! It lies in front of all services, so that a fault of the wire is the same over JSON and over gRPC. Refuses nothing
//! that is not in the plan; without one it is not there at all.

use std::io;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use futures::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Uri};
use http_body_util::{BodyStream, StreamBody};

use crate::error::ApiError;
use crate::faults::{Faults, Refused};

/// Long enough for a server that has nothing to wait for to write what it has.
const FLUSHED: Duration = Duration::from_millis(2);

/// Lets the plan have its way with one request.
pub(crate) async fn befall(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    if let Some(how) = faults.refusal() {
        let grpc = is_grpc(request.headers());
        if !grpc {
            // Who still writes when the answer comes sees a broken connection in its place. A stream of gRPC never ends.
            BodyStream::new(request.into_body()).for_each(async |piece| drop(piece)).await;
        }
        return refused(how, grpc);
    }
    let reads = is_read(request.uri());
    let (parts, body) = next.run(request).await.into_parts();
    let cut = if reads && parts.status.is_success() { cut(&faults, &parts.headers, &body) } else { None };
    Response::from_parts(parts, slowed(faults, body, cut))
}

/// Whether a request speaks gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn refused(how: Refused, grpc: bool) -> Response {
    let error = match how {
        Refused::TooMany => ApiError::exhausted("too many requests, by the configured fault plan"),
        Refused::Unavailable => ApiError::unavailable("the service is unavailable, by the configured fault plan"),
    };
    if grpc { tonic::Status::from(error).into_http() } else { error.into_response() }
}

/// Whether it asks for the content of an object.
fn is_read(uri: &Uri) -> bool {
    let media = uri.query().is_some_and(|query| query.split('&').any(|word| word == "alt=media"));
    let grpc = ["/google.storage.v2.Storage/ReadObject", "/google.storage.v2.Storage/BidiReadObject"];
    (uri.path().contains("/storage/v1/") && media) || grpc.contains(&uri.path())
}

/// After how many bytes a read breaks off. Of a stream nobody knows how long it is: then within its first piece.
fn cut(faults: &Faults, headers: &HeaderMap, body: &Body) -> Option<u64> {
    const PIECE: u64 = 64 << 10;
    let said = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    faults.truncation(said.or_else(|| body.size_hint().exact()).unwrap_or(PIECE))
}

fn slowed(faults: Faults, body: Body, cut: Option<u64>) -> Body {
    let begun = Some((BodyStream::new(body), cut));
    Body::new(StreamBody::new(stream::unfold(begun, move |state| {
        let faults = faults.clone();
        async move {
            let (mut frames, cut) = state?;
            let frame = match frames.next().await? {
                Ok(frame) => frame,
                Err(error) => return Some((Err(error), None)),
            };
            if let Some(still) = faults.stall() {
                tokio::time::sleep(still).await;
            }
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match cut {
                Some(0) => {
                    // What came before must be on its way first, or it goes down with the connection, headers and all.
                    tokio::time::sleep(FLUSHED).await;
                    Some((Err(axum::Error::new(io::Error::other("cut short by the fault plan"))), None))
                }
                Some(left) if length > left => {
                    let kept = usize::try_from(left).unwrap_or(usize::MAX);
                    Some((Ok(frame.map_data(|data| data.slice(..kept))), Some((frames, Some(0)))))
                }
                left => Some((Ok(frame), Some((frames, left.map(|left| left - length))))),
            }
        }
    })))
}
