//! A line between a process and the loopback cloud that fails once, at a chosen call.
//!
//! A reverse proxy over real sockets. Calls that count are numbered from the moment the line is armed; streams, and
//! whatever does not count, pass through untouched.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use carrel::fleet::Setup;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::world::{Prepared, World};

/// A fleet of these tenants whose dispatcher reaches the cloud by a line.
pub(crate) async fn fleet_by_line(
    counts: Counts,
    tenants: Vec<Value>,
    change: impl FnOnce(&mut Setup),
) -> (World, Line) {
    let line = Line::open(counts).await;
    let prepared = Prepared::new(tenants, |setup| {
        for service in ["CARREL_STORAGE_ENDPOINT", "CARREL_PUBSUB_ENDPOINT", "CARREL_RUN_ENDPOINT"] {
            setup.dispatcher.push((service.to_owned(), line.address()));
        }
        change(setup);
    });
    line.lead_to(&prepared.fleet.address().cloud);
    (prepared.start().await, line)
}

/// What happens to the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is answered "unavailable" and not done.
    Refused,
    /// It is done and answered "unavailable".
    Lost,
    /// It is done twice; the second answer is given.
    Twice,
    /// It is answered "forbidden" and not done.
    Forbidden,
    /// It is answered "too many requests" and not done.
    Throttled,
    /// It is answered "bad request" and not done.
    Malformed,
    /// It hangs and is not done: whoever called is killed now.
    HeldBefore,
    /// It is done and its answer hangs: whoever called is killed now.
    HeldAfter,
}

impl Fault {
    /// What every caller must get over by itself, or by its successor.
    pub(crate) const ALL: [Self; 6] =
        [Self::Refused, Self::Throttled, Self::Lost, Self::Twice, Self::HeldBefore, Self::HeldAfter];
}

/// Which calls are numbered.
pub(crate) type Counts = fn(&Parts) -> bool;

/// Every call that has one answer.
pub(crate) fn every_call(call: &Parts) -> bool {
    !call.uri.path().ends_with("/StreamingPull")
}

/// Every call that changes something others see.
pub(crate) fn every_effect(call: &Parts) -> bool {
    const READS: [&str; 7] =
        ["StreamingPull", "ModifyAckDeadline", "ListObjects", "GetObject", "ReadObject", "BidiReadObject", "GetBucket"];
    let method = call.uri.path().rsplit('/').next().unwrap_or_default();
    call.method != Method::GET && !READS.contains(&method)
}

/// Every effect but what the leader notes at its own pace, however little there is to do.
pub(crate) fn every_lasting_effect(call: &Parts) -> bool {
    let uri = call.uri.to_string();
    every_effect(call) && !["leader.json", "sweep.json", "collector.json"].iter().any(|name| uri.contains(name))
}

/// Every effect on the way of uploads that a sweep finds: the mark, where the sweep stands, the packs it opens; and all
/// deletions, whose addresses name no object.
pub(crate) fn every_effect_of_a_sweep(call: &Parts) -> bool {
    let uri = call.uri.to_string().replace("%2F", "/");
    let counts = ["open/sweeps/", "/sweep.json", "open/packs/", "/DeleteObject"];
    every_effect(call) && counts.iter().any(|part| uri.contains(part))
}

/// Acknowledgements of uploads.
pub(crate) fn acknowledged_uploads(call: &Parts) -> bool {
    acknowledges(call, "uploads-dispatcher")
}

/// Acknowledgements of requests.
pub(crate) fn acknowledged_requests(call: &Parts) -> bool {
    acknowledges(call, "review-requests-dispatcher")
}

fn acknowledges(call: &Parts, subscription: &str) -> bool {
    let of = call.headers.get("x-goog-request-params").and_then(|of| of.to_str().ok());
    call.uri.path().ends_with("/Acknowledge") && of.is_some_and(|of| of.ends_with(&format!("/{subscription}")))
}

/// Launches of executions.
pub(crate) fn launches(call: &Parts) -> bool {
    call.method == Method::POST && call.uri.path().ends_with(":run")
}

/// Marks of tenants whose uploads are found by a sweep.
pub(crate) fn sweep_marks(call: &Parts) -> bool {
    call.method == Method::POST && call.uri.to_string().replace("%2F", "/").contains("open/sweeps/")
}

/// Notes that a pack is open.
pub(crate) fn openings(call: &Parts) -> bool {
    call.method == Method::POST && call.uri.to_string().replace("%2F", "/").contains("open/packs/")
}

/// Reads of outcomes.
pub(crate) fn reads_of_outcomes(call: &Parts) -> bool {
    call.method == Method::GET && call.uri.path().contains("/o/outcomes%2F")
}

#[derive(Default)]
struct Plan {
    seen: usize,
    armed: Option<(usize, Fault)>,
    holding: bool,
}

/// What became of the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Armed {
    /// It never came.
    Unused,
    /// It failed, and its caller went on.
    Failed,
    /// It hangs, and so does its caller.
    Holding,
}

struct Inner {
    upstream: OnceLock<String>,
    counts: Counts,
    plan: watch::Sender<Plan>,
    client: Client<HttpConnector, Body>,
}

/// A line; it falls silent when dropped.
pub(crate) struct Line {
    address: SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

impl Line {
    /// A line that numbers the calls that count, and leads nowhere yet.
    pub(crate) async fn open(counts: Counts) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let inner = Arc::new(Inner { upstream: OnceLock::new(), counts, plan: watch::Sender::default(), client });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let app = Router::new().fallback(call).with_state(inner.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { address, inner, server }
    }

    /// Where it leads.
    pub(crate) fn lead_to(&self, upstream: &str) {
        let authority = upstream.strip_prefix("http://").expect("plain HTTP").to_owned();
        self.inner.upstream.set(authority).expect("it leads to one place");
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Fails the `at`-th call from now on that counts, from 0.
    pub(crate) fn arm(&self, at: usize, fault: Fault) {
        self.inner.plan.send_replace(Plan { seen: 0, armed: Some((at, fault)), holding: false });
    }

    /// How many calls that count have come since it was last armed, or ever.
    pub(crate) fn seen(&self) -> usize {
        self.inner.plan.borrow().seen
    }

    /// Fails no call from now on.
    pub(crate) fn disarm(&self) -> Armed {
        let plan = self.inner.plan.send_replace(Plan::default());
        match plan.armed {
            Some(_) => Armed::Unused,
            None if plan.holding => Armed::Holding,
            None => Armed::Failed,
        }
    }

    /// Returns once a call is held.
    pub(crate) async fn holds(&self) {
        self.inner.plan.subscribe().wait_for(|plan| plan.holding).await.expect("the line is open");
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Inner {
    /// The fault of this call, if it is the chosen one.
    fn fault(&self, call: &Parts) -> Option<Fault> {
        if !(self.counts)(call) {
            return None;
        }
        let mut chosen = None;
        self.plan.send_modify(|plan| {
            chosen = plan.armed.take_if(|(at, _)| *at == plan.seen);
            plan.seen += 1;
        });
        chosen.map(|(_, fault)| fault)
    }

    async fn forward(&self, parts: &Parts, body: Body) -> Response {
        let authority = self.upstream.get().expect("it leads somewhere").as_str();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path).build().expect("a URI");
        let mut request = Request::builder().method(parts.method.clone()).uri(uri).body(body).expect("a request");
        *request.headers_mut() = parts.headers.clone();
        for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING] {
            request.headers_mut().remove(name);
        }
        match self.client.request(request).await {
            Ok(answer) => answer.map(Body::new),
            Err(_) => refuse(parts, StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// From here on the call hangs.
    async fn hold(&self) -> Response {
        self.plan.send_modify(|plan| plan.holding = true);
        std::future::pending().await
    }

    async fn do_it(&self, parts: &Parts, body: &Bytes) -> Response {
        let (head, body) = self.forward(parts, Body::from(body.clone())).await.into_parts();
        let whole = body.collect().await.expect("the cloud answers whole");
        Response::from_parts(head, Body::new(whole))
    }
}

async fn call(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(fault) = inner.fault(&parts) else { return inner.forward(&parts, body).await };
    let body = body.collect().await.expect("the caller sends whole").to_bytes();
    match fault {
        Fault::Refused => refuse(&parts, StatusCode::SERVICE_UNAVAILABLE),
        Fault::Forbidden => refuse(&parts, StatusCode::FORBIDDEN),
        Fault::Throttled => refuse(&parts, StatusCode::TOO_MANY_REQUESTS),
        Fault::Malformed => refuse(&parts, StatusCode::BAD_REQUEST),
        Fault::Lost => {
            inner.do_it(&parts, &body).await;
            refuse(&parts, StatusCode::SERVICE_UNAVAILABLE)
        }
        Fault::Twice => {
            inner.do_it(&parts, &body).await;
            inner.do_it(&parts, &body).await
        }
        Fault::HeldBefore => inner.hold().await,
        Fault::HeldAfter => {
            inner.do_it(&parts, &body).await;
            inner.hold().await
        }
    }
}

/// A refusal in the caller's language.
fn refuse(call: &Parts, status: StatusCode) -> Response {
    let grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if call.headers.get(header::CONTENT_TYPE).is_some_and(grpc) {
        let code = match status {
            StatusCode::BAD_REQUEST => "3",
            StatusCode::FORBIDDEN => "7",
            StatusCode::TOO_MANY_REQUESTS => "8",
            _ => "14",
        };
        let headers = [(header::CONTENT_TYPE.as_str(), "application/grpc"), ("grpc-status", code)];
        return (headers, ()).into_response();
    }
    status.into_response()
}
