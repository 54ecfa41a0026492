//! The JSON API by hand: what the Rust clients do not send, and what exactly is answered.

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::world::World;

/// Who may do everything, without a client.
pub(crate) struct Http {
    client: Client,
    base: String,
    token: String,
}

impl Http {
    pub(crate) fn new(world: &World) -> Self {
        Self::with_token(world, world.owner())
    }

    pub(crate) fn with_token(world: &World, token: &str) -> Self {
        Self::at(world.endpoint(), token)
    }

    pub(crate) fn at(base: &str, token: &str) -> Self {
        Self { client: Client::new(), base: base.to_owned(), token: token.to_owned() }
    }

    /// A request of this path, which may have a query.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("it is one");
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    /// The status and the JSON of an answer; `Value::Null` where there is none.
    pub(crate) async fn json(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        };
        let answer = request.send().await.expect("answers");
        let (status, body) = (answer.status().as_u16(), answer.bytes().await.expect("is read"));
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// The same, where only 200 is right.
    pub(crate) async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.json(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// Writes an object of `bucket-a`.
    pub(crate) async fn write(&self, name: &str, content: &str) -> Value {
        let path = format!("/upload/storage/v1/b/bucket-a/o?uploadType=media&name={name}");
        let answer = self.request("POST", &path).body(content.to_owned()).send().await.expect("answers");
        assert_eq!(answer.status(), 200);
        answer.json().await.expect("is JSON")
    }

    /// The live content of an object of `bucket-a`.
    pub(crate) async fn read(&self, name: &str) -> String {
        let path = format!("/storage/v1/b/bucket-a/o/{name}?alt=media");
        self.request("GET", &path).send().await.expect("answers").text().await.expect("is text")
    }
}

/// A 64-bit number of the JSON API.
pub(crate) fn number(resource: &Value, field: &str) -> i64 {
    resource[field].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{field} of {resource}"))
}
