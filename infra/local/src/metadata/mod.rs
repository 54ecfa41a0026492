//! Metadata servers: each gives tokens of one service account, so that a program's socket is its identity.
//!
//! Serves what application-default credentials and the libraries of Go, Java, Node and Python ask for. Sources:
//! <https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys>,
//! <https://cloud.google.com/run/docs/container-contract#metadata-server>. Refuses requests without
//! `Metadata-Flavor: Google` and requests that came through a proxy, as Google's does, and identity tokens: nobody on this
//! machine publishes the keys that would prove them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::bounded::Bounded;
use crate::iam::{Iam, Principal};

const LIFETIME: Duration = Duration::from_secs(3600);
/// Connections to one server: a room's is nobody else's.
const PLACES: usize = 32;
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Starts metadata servers; clones share everything.
#[derive(Debug, Clone)]
pub struct Metadata {
    iam: Iam,
    project: Arc<str>,
    location: Arc<str>,
}

/// One running metadata server; it stops when dropped.
#[derive(Debug)]
pub struct MetadataServer {
    host: String,
    serving: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Identity {
    iam: Iam,
    project: Arc<str>,
    location: Arc<str>,
    email: Arc<str>,
}

impl Metadata {
    /// Metadata of a project at a location, whose identities `iam` proves.
    pub fn new(iam: Iam, project: &str, location: &str) -> Self {
        Self { iam, project: project.into(), location: location.into() }
    }

    /// Serves the metadata of one service account on a free loopback port.
    pub async fn start(&self, service_account: &str) -> io::Result<MetadataServer> {
        self.start_at(service_account, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Serves the metadata of one service account at an address.
    pub async fn start_at(&self, service_account: &str, listen: SocketAddr) -> io::Result<MetadataServer> {
        self.answer(service_account, TcpListener::bind(listen).await?)
    }

    /// Serves the metadata of one service account at a socket that listens, such as one in a room.
    pub fn serve(&self, service_account: &str, listener: std::net::TcpListener) -> io::Result<MetadataServer> {
        self.answer(service_account, TcpListener::from_std(listener)?)
    }

    fn answer(&self, service_account: &str, listener: TcpListener) -> io::Result<MetadataServer> {
        let Self { iam, project, location } = self.clone();
        let identity = Identity { iam, project, location, email: service_account.into() };
        let host = listener.local_addr()?.to_string();
        let app = router(identity);
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(Bounded::new(listener, PLACES), app).await {
                tracing::error!(%error, "a metadata server ended");
            }
        });
        Ok(MetadataServer { host, serving })
    }
}

impl MetadataServer {
    /// `127.0.0.1:PORT`, for `GCE_METADATA_HOST`.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl Drop for MetadataServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn router(identity: Identity) -> Router {
    const BASE: &str = "/computeMetadata/v1";
    const ACCOUNTS: &str = "/computeMetadata/v1/instance/service-accounts";
    let domain = async || "googleapis.com";
    let instance = async |State(me): State<Identity>, Query(asked): Query<Asked>| {
        asked.shown("attributes/\nid\nregion\nservice-accounts/\nzone\n", &me.instance())
    };
    Router::new()
        .route("/", get(async || "computeMetadata/\n"))
        .route(&format!("{ACCOUNTS}/"), get(accounts))
        .route(&format!("{ACCOUNTS}/{{account}}/"), get(account))
        .route(&format!("{ACCOUNTS}/{{account}}/{{leaf}}"), get(leaf))
        .route(&format!("{BASE}/"), get(async || "instance/\nproject/\nuniverse/\n"))
        .route(&format!("{BASE}/instance"), get(instance))
        .route(&format!("{BASE}/instance/"), get(instance))
        .route(&format!("{BASE}/instance/attributes/"), get(async || ""))
        .route(&format!("{BASE}/instance/id"), get(async |State(me): State<Identity>| me.id()))
        .route(&format!("{BASE}/instance/region"), get(async |State(me): State<Identity>| me.region()))
        .route(&format!("{BASE}/instance/zone"), get(async |State(me): State<Identity>| me.zone()))
        .route(&format!("{BASE}/project/"), get(async || "numeric-project-id\nproject-id\n"))
        .route(&format!("{BASE}/project/numeric-project-id"), get(async |State(me): State<Identity>| me.number()))
        .route(&format!("{BASE}/project/project-id"), get(async |State(me): State<Identity>| me.project.to_string()))
        .route(&format!("{BASE}/universe/universe-domain"), get(domain))
        .route(&format!("{BASE}/universe/universe_domain"), get(domain))
        .with_state(identity)
        .layer(from_fn(flavoured))
}

/// `?recursive=true` asks for JSON in the place of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    recursive: String,
}

impl Asked {
    fn shown(&self, listing: &'static str, whole: &Value) -> Response {
        if self.recursive.eq_ignore_ascii_case("true") { Json(whole).into_response() } else { listing.into_response() }
    }
}

impl Identity {
    /// A number that stands for the project, as Google has one beside every id.
    fn number(&self) -> String {
        format!("{:012}", crc32c::crc32c(self.project.as_bytes()))
    }

    fn id(&self) -> String {
        format!("{:019}", u64::from(crc32c::crc32c(self.email.as_bytes())))
    }

    fn region(&self) -> String {
        format!("projects/{}/regions/{}", self.number(), self.location)
    }

    fn zone(&self) -> String {
        format!("projects/{}/zones/{}-1", self.number(), self.location)
    }

    fn account(&self) -> Value {
        json!({ "aliases": ["default"], "email": &*self.email, "scopes": [SCOPE] })
    }

    fn instance(&self) -> Value {
        let accounts = json!({ "default": self.account(), &*self.email: self.account() });
        json!({
            "attributes": {}, "id": self.id(), "region": self.region(), "zone": self.zone(), "serviceAccounts": accounts,
        })
    }

    fn is(&self, account: &str) -> bool {
        account == "default" || account == &*self.email
    }
}

async fn accounts(State(me): State<Identity>) -> String {
    format!("default/\n{}/\n", me.email)
}

async fn account(
    State(me): State<Identity>,
    Path(account): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, StatusCode> {
    if !me.is(&account) {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok(asked.shown("aliases\nemail\nscopes\ntoken\n", &me.account()))
}

async fn leaf(
    State(me): State<Identity>,
    Path((account, leaf)): Path<(String, String)>,
) -> Result<Response, StatusCode> {
    if !me.is(&account) {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok(match leaf.as_str() {
        "aliases" => "default\n".into_response(),
        "email" => me.email.to_string().into_response(),
        "scopes" => format!("{SCOPE}\n").into_response(),
        "token" => {
            let token = me.iam.mint(&Principal::service_account(&me.email), LIFETIME);
            let seconds = LIFETIME.as_secs();
            Json(json!({ "access_token": token, "expires_in": seconds, "token_type": "Bearer" })).into_response()
        }
        _ => return Err(StatusCode::NOT_FOUND),
    })
}

/// A browser that was lured here cannot send this header.
async fn flavoured(request: Request, next: Next) -> Response {
    const FLAVOUR: &str = "metadata-flavor";
    let headers: &HeaderMap = request.headers();
    let asked = headers.get(FLAVOUR).is_some_and(|value| value == "Google");
    let is_ping = request.uri().path() == "/";
    let mut response = if (asked || is_ping) && !headers.contains_key("x-forwarded-for") {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "Missing Metadata-Flavor:Google header.\n").into_response()
    };
    response.headers_mut().insert(FLAVOUR, HeaderValue::from_static("Google"));
    response
}
