//! Metadata servers: each gives tokens of one service account, so that a program's socket is its identity.
//!
//! Serves what application-default credentials ask for. Source:
//! <https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys>. Refuses requests without
//! `Metadata-Flavor: Google` and requests that came through a proxy, as Google's does.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
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
    email: Arc<str>,
}

impl Metadata {
    /// Metadata of a project whose identities `iam` proves.
    pub fn new(iam: Iam, project: &str) -> Self {
        Self { iam, project: project.into() }
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
        let identity = Identity { iam: self.iam.clone(), project: self.project.clone(), email: service_account.into() };
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
    Router::new()
        .route("/", get(async || "computeMetadata/\n"))
        .route(&format!("{ACCOUNTS}/"), get(accounts))
        .route(&format!("{ACCOUNTS}/{{account}}/"), get(account))
        .route(&format!("{ACCOUNTS}/{{account}}/{{leaf}}"), get(leaf))
        .route(&format!("{BASE}/project/project-id"), get(async |State(me): State<Identity>| me.project.to_string()))
        .route(&format!("{BASE}/universe/universe-domain"), get(domain))
        .route(&format!("{BASE}/universe/universe_domain"), get(domain))
        .with_state(identity)
        .layer(from_fn(flavoured))
}

impl Identity {
    fn is(&self, account: &str) -> bool {
        account == "default" || account == &*self.email
    }
}

async fn accounts(State(me): State<Identity>) -> String {
    format!("default/\n{}/\n", me.email)
}

async fn account(State(me): State<Identity>, Path(account): Path<String>) -> Result<impl IntoResponse, StatusCode> {
    if !me.is(&account) {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok(Json(json!({ "aliases": ["default"], "email": &*me.email, "scopes": [SCOPE] })))
}

async fn leaf(
    State(me): State<Identity>,
    Path((account, leaf)): Path<(String, String)>,
) -> Result<Response, StatusCode> {
    if !me.is(&account) {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok(match leaf.as_str() {
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
