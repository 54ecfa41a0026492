//! Many JSON calls of Cloud Storage in one request, `POST /batch/storage/v1`, as its clients for Python and Java send them.
//!
//! Each part is an HTTP request in text; it is answered as if it had come alone, with the batch's own `Authorization`
//! where it brings none. Source: <https://cloud.google.com/storage/docs/batch>. Refuses uploads and downloads, as Google
//! does, and more than 100 calls.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use tonic::codegen::Service as _;

use crate::error::ApiError;

/// Calls of one batch at most.
const MAX_CALLS: usize = 100;
const MAX_BYTES: usize = 10 << 20;

/// The endpoint, in front of the services that answer the calls.
pub(crate) fn router(services: Router) -> Router {
    let answer = post(answer).layer(DefaultBodyLimit::max(MAX_BYTES));
    Router::new().route("/batch/storage/v1", answer).with_state(services)
}

async fn answer(State(services): State<Router>, headers: HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = boundary(kind)
        .ok_or_else(|| ApiError::invalid(format!("a batch is multipart/mixed with a boundary, not {kind:?}")))?;
    let text = std::str::from_utf8(&body).map_err(|_| ApiError::invalid("a batch is UTF-8"))?;
    let calls = parts(text, boundary);
    if calls.is_empty() || calls.len() > MAX_CALLS {
        return Err(ApiError::invalid(format!("a batch has 1 to {MAX_CALLS} calls, not {}", calls.len())));
    }
    let divider = format!("batch_{:032x}", rand::random::<u128>());
    let mut told = String::new();
    for (number, part) in calls.iter().enumerate() {
        let id = header(part, "content-id").map_or_else(|| (number + 1).to_string(), str::to_owned);
        let id = id.trim_start_matches('<').trim_end_matches('>');
        let (status, answer) = match call(part, headers.get(AUTHORIZATION)) {
            Some(request) => collect(services.clone(), request).await?,
            None => {
                collected(ApiError::invalid("a call of a batch is an HTTP request of the JSON API").into_response())
                    .await?
            }
        };
        let reason = status.canonical_reason().unwrap_or("Unknown");
        told += &format!(
            "--{divider}\r\nContent-Type: application/http\r\nContent-ID: <response-{id}>\r\n\r\nHTTP/1.1 {} {reason}\r\n\
             Content-Type: application/json; charset=UTF-8\r\nContent-Length: {}\r\n\r\n{answer}\r\n",
            status.as_u16(),
            answer.len(),
        );
    }
    told += &format!("--{divider}--\r\n");
    Ok(([(CONTENT_TYPE, format!("multipart/mixed; boundary={divider}"))], told).into_response())
}

async fn collect(mut services: Router, request: Request<Body>) -> Result<(StatusCode, String), ApiError> {
    match services.call(request).await {
        Ok(response) => collected(response).await,
        Err(never) => match never {},
    }
}

async fn collected(response: Response) -> Result<(StatusCode, String), ApiError> {
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), MAX_BYTES).await;
    let body = body.map_err(|error| ApiError::invalid(format!("the answer to a call of a batch: {error}")))?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    let named = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    let named = named.trim_matches('"');
    (kind.trim().eq_ignore_ascii_case("multipart/mixed") && !named.is_empty()).then_some(named)
}

/// What lies between the boundaries. Clients end lines as their libraries do, with or without a carriage return.
fn parts<'a>(text: &'a str, boundary: &str) -> Vec<&'a str> {
    let divider = format!("--{boundary}");
    let mut parts = text.split(divider.as_str());
    // Before the first boundary is nobody's, behind the last are two hyphens.
    parts.next();
    parts.take_while(|part| !part.starts_with("--")).collect()
}

/// Headers and the rest.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches(['\r', '\n']);
    let ends = ["\r\n\r\n", "\n\n"].iter().filter_map(|gap| text.find(gap).map(|at| (at, at + gap.len())));
    ends.min().map_or((text, ""), |(end, begin)| (&text[..end], &text[begin..]))
}

fn header<'a>(part: &'a str, name: &str) -> Option<&'a str> {
    split(part).0.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn call(part: &str, authorization: Option<&HeaderValue>) -> Option<Request<Body>> {
    let (head, body) = split(split(part).1);
    let mut lines = head.lines();
    let mut words = lines.next()?.split_ascii_whitespace();
    let method = Method::from_bytes(words.next()?.as_bytes()).ok()?;
    let uri: Uri = words.next()?.parse().ok()?;
    let path = uri.path_and_query()?.as_str();
    if !path.starts_with("/storage/v1/") || path.contains("alt=media") {
        return None;
    }
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        // The part says how long it is, not the client: it counts letters where bytes are meant.
        if !name.trim().eq_ignore_ascii_case("content-length") {
            request = request.header(HeaderName::try_from(name.trim()).ok()?, value.trim());
        }
    }
    let mut request = request.body(Body::from(body.trim_end_matches(['\r', '\n']).to_owned())).ok()?;
    if let Some(authorization) = authorization {
        request.headers_mut().entry(AUTHORIZATION).or_insert_with(|| authorization.clone());
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_taken_apart_whatever_ends_its_lines() {
        let text = "--x==\nContent-Type: application/http\nContent-ID: <7>\n\nPATCH http://h:1/storage/v1/b/a/o/n?x=1 HTTP/1.1\r\n\
                    Content-Length: 2\r\nContent-Type: application/json\r\n\r\n{\"a\": 1}\n--x==\n\
                    Content-Type: application/http\n\nDELETE /storage/v1/b/a/o/m HTTP/1.1\r\n\r\n\n--x==--\n";
        let parts = parts(text, boundary("multipart/mixed; boundary=\"x==\"").expect("a boundary"));
        assert_eq!(parts.len(), 2);
        assert_eq!(header(parts[0], "content-id"), Some("<7>"));
        let token = HeaderValue::from_static("Bearer t");
        let first = call(parts[0], Some(&token)).expect("a call");
        assert_eq!((first.method(), first.uri().to_string().as_str()), (&Method::PATCH, "/storage/v1/b/a/o/n?x=1"));
        assert_eq!(first.headers()[AUTHORIZATION], "Bearer t");
        assert!(!first.headers().contains_key("content-length"));
        let second = call(parts[1], None).expect("a call");
        assert_eq!((second.method(), second.headers().len()), (&Method::DELETE, 0));
    }

    #[test]
    fn what_is_no_call_of_the_json_api_is_refused() {
        for line in ["GET /v1/projects/p/topics HTTP/1.1", "GET /storage/v1/b/a/o/n?alt=media HTTP/1.1", "nothing"] {
            assert!(call(&format!("\nContent-Type: application/http\n\n{line}\r\n\r\n"), None).is_none(), "{line}");
        }
        assert_eq!(boundary("multipart/related; boundary=x"), None);
    }
}
