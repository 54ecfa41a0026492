//! Calls as an attacker makes them: HTTP and gRPC by hand, so that no client corrects what is sent.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// What is asked.
pub(super) struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

/// What is answered: the status of HTTP, or gRPC's own code, and the words.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) text: String,
    pub(super) location: Option<String>,
}

/// gRPC's codes.
pub(super) const OK: u16 = 0;
pub(super) const INVALID_ARGUMENT: u16 = 3;
pub(super) const NOT_FOUND: u16 = 5;
pub(super) const PERMISSION_DENIED: u16 = 7;
pub(super) const FAILED_PRECONDITION: u16 = 9;
pub(super) const UNIMPLEMENTED: u16 = 12;
/// The same over HTTP.
pub(super) const NOT_SERVED: u16 = 404;

impl Call {
    fn http(method: Method, path: String, body: impl Into<Body>) -> Self {
        Self { method, path, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn get(path: String) -> Self {
        Self::http(Method::GET, path, Body::empty())
    }

    pub(super) fn post(path: String, body: impl Into<Body>) -> Self {
        Self::http(Method::POST, path, body)
    }

    pub(super) fn put(path: String, body: impl Into<Body>) -> Self {
        Self::http(Method::PUT, path, body)
    }

    pub(super) fn patch(path: String, body: impl Into<Body>) -> Self {
        Self::http(Method::PATCH, path, body)
    }

    pub(super) fn delete(path: String) -> Self {
        Self::http(Method::DELETE, path, Body::empty())
    }

    /// Whether it is one of this method and this path, in which `{…}` stands for any one thing.
    pub(super) fn is_of(&self, method: &str, path: &str) -> bool {
        let own = self.path.split('?').next().unwrap_or_default().split('/');
        let fits = |(own, wanted): (&str, &str)| own == wanted || (own.starts_with('{') && wanted.starts_with('{'));
        self.method.as_str().eq_ignore_ascii_case(method)
            && own.clone().count() == path.split('/').count()
            && own.zip(path.split('/')).all(fits)
    }

    pub(super) fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }

    /// A method of gRPC with one message, made of [`text`], [`number`] and [`nested`].
    pub(super) fn grpc(method: &str, message: &[Vec<u8>]) -> Self {
        let message = message.concat();
        let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
        let frame = [&[0], length.as_slice(), &message].concat();
        let call = Self::post(format!("/google.{method}"), frame);
        call.with("content-type", "application/grpc").with("te", "trailers")
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("seven bits"));
    bytes
}

/// Field `at` of a message, of bytes.
pub(super) fn nested(at: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(at << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// Field `at` of a message, of text.
pub(super) fn text(at: u64, text: &str) -> Vec<u8> {
    nested(at, text.as_bytes())
}

/// Field `at` of a message, a number or a flag.
pub(super) fn number(at: u64, number: u64) -> Vec<u8> {
    [varint(at << 3), varint(number)].concat()
}

/// Whoever holds a token of a service.
pub(super) struct Hand {
    client: Client<HttpConnector, Body>,
    base: String,
    token: Option<String>,
}

impl Hand {
    pub(super) fn new(base: &str, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..Self::stranger(base) }
    }

    /// Nobody.
    pub(super) fn stranger(base: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { client, base: base.to_owned(), token: None }
    }

    pub(super) async fn call(&self, call: Call) -> Answer {
        let Call { method, path, headers, body } = call;
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = self.client.request(request.body(body).expect("a request")).await.expect("an answer");
        let (head, body) = answer.into_parts();
        let location = head.headers.get("location").map(|value| value.to_str().expect("ASCII").to_owned());
        let is_grpc = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/grpc");
        let body = body.collect().await.expect("it ends");
        let trailers = body.trailers().cloned().unwrap_or_default();
        let said = |name: &str| {
            let value = head.headers.get(name).or_else(|| trailers.get(name))?;
            Some(value.to_str().expect("ASCII").to_owned())
        };
        let (code, text) = if is_grpc && head.status == StatusCode::OK {
            let code = said("grpc-status").expect("a gRPC answer has a status");
            (code.parse().expect("a number"), said("grpc-message").unwrap_or_default())
        } else {
            (head.status.as_u16(), readable(&body.to_bytes()))
        };
        Answer { code, text, location }
    }

    /// Writes an object where none is.
    pub(super) async fn create(&self, bucket: &str, name: &str, body: String) -> Answer {
        let name = escaped(name);
        let path = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&ifGenerationMatch=0&name={name}");
        self.call(Call::post(path, body).with("content-type", "application/json")).await
    }
}

fn readable(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A name as one segment of a path.
pub(super) fn escaped(name: &str) -> String {
    name.replace('/', "%2F")
}
