//! What telemetry promises: the shape of a line, a trace that survives the wire, and silence without an endpoint.

use std::io::Write;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use serde_json::Value;
use tracing::subscriber::with_default;
use tracing::{error, info, info_span};

use super::*;
use crate::{fields, inject, set_parent};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("UTF-8")
    }
}

/// Runs `work` under a subscriber of this config and returns what it logged.
fn logged(config: &TelemetryConfig, work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let (subscriber, guard) = build(config, move || writer.clone(), false).expect("a valid config");
    with_default(subscriber, work);
    guard.shutdown();
    lines.text()
}

fn json() -> TelemetryConfig {
    TelemetryConfig {
        format: Format::CloudJson,
        project: Some("carrel-local".into()),
        ..TelemetryConfig::new("worker")
    }
}

#[test]
fn a_cloud_line_carries_severity_trace_and_the_fields_of_its_spans() {
    let text = logged(&json(), || {
        let outer = info_span!("review", { fields::TENANT_ID } = "acme", { fields::ATTEMPT } = 1u64);
        assert!(set_parent(&outer, PARENT));
        let _outer = outer.enter();
        let inner = info_span!("deliver", { fields::ATTEMPT } = 2u64, { fields::OBJECT_NAME } = tracing::field::Empty);
        inner.record(fields::OBJECT_NAME, "deck.html");
        let _inner = inner.enter();
        let cause = std::io::Error::other("connection reset");
        error!(error = &cause as &dyn std::error::Error, bytes = 12, "write failed");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(line["severity"], "ERROR");
    assert_eq!(line["message"], "write failed");
    assert_eq!(line["error"], "connection reset");
    assert_eq!(line["bytes"], 12);
    assert_eq!(line["service"], "worker");
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    assert_eq!(line["logging.googleapis.com/trace"], "projects/carrel-local/traces/0af7651916cd43dd8448eb211c80319c");
    assert_eq!(line["logging.googleapis.com/spanId"].as_str().map(str::len), Some(16), "{line}");
    let labels = &line["logging.googleapis.com/labels"];
    assert_eq!(labels["tenant.id"], "acme");
    assert_eq!(labels["attempt"], "2", "the innermost span wins, and labels are strings");
    assert_eq!(labels["object.name"], "deck.html");
}

#[test]
fn a_line_outside_every_span_names_no_trace() {
    let text = logged(&json(), || info!("ready"));
    let line: Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(line["message"], "ready");
    assert!(line.get("logging.googleapis.com/trace").is_none());
}

#[test]
fn a_human_line_reads_alone_and_the_filter_holds() {
    let text = logged(&TelemetryConfig::new("worker"), || {
        let _span = info_span!("review", { fields::TENANT_ID } = "acme").entered();
        info!("claimed");
        tracing::debug!("not asked for");
    });
    assert!(text.contains("claimed") && text.contains("tenant.id=\"acme\""), "{text}");
    assert!(!text.contains("not asked for"));
}

#[test]
fn a_traceparent_goes_out_and_comes_back() {
    logged(&TelemetryConfig::new("dispatcher"), || {
        assert_eq!(inject(), None, "outside every span");
        let sender = info_span!("publish");
        let sent = sender.in_scope(|| inject().expect("inside a span"));
        assert_eq!(sent.len(), PARENT.len());
        let receiver = info_span!("message");
        assert!(set_parent(&receiver, &sent));
        let back = receiver.in_scope(|| inject().expect("inside a span"));
        assert_eq!(back[..35], sent[..35], "one trace");
        assert_ne!(back[36..52], sent[36..52], "two spans");
    });
}

#[test]
fn a_strangers_traceparent_is_ignored() {
    logged(&TelemetryConfig::new("dispatcher"), || {
        let long = "00-".repeat(9000);
        for bad in
            ["", "00", "00-0-0-00", "00-00000000000000000000000000000000-0000000000000000-01", "\u{1F4A3}", &long]
        {
            let span = info_span!("message");
            assert!(!set_parent(&span, bad), "{bad:.40}");
            assert!(span.in_scope(inject).is_some(), "the span has a trace of its own");
        }
    });
}

#[test]
fn a_mistake_is_refused_by_name() {
    let refusal =
        |config: TelemetryConfig| build(&config, std::io::sink, false).map(|_| ()).expect_err("refused").to_string();
    let filter = TelemetryConfig { filter: "carrel=loud".into(), ..TelemetryConfig::new("worker") };
    assert!(refusal(filter).contains("\"carrel=loud\""));
    let https = TelemetryConfig { otlp_endpoint: Some("https://x:4317".into()), ..TelemetryConfig::new("worker") };
    assert!(refusal(https).contains("only http:// is spoken"));
}

/// A collector that keeps the span names it was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<String>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|of| of.scope_spans);
        let names = spans.flat_map(|of| of.spans).map(|span| span.name);
        self.0.lock().expect("no export panics").extend(names);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn spans_leave_only_with_an_endpoint_and_all_of_them_before_the_end() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let routes = tonic::service::Routes::new(TraceServiceServer::new(collector.clone())).into_axum_router();
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });

    for otlp_endpoint in [None, Some(endpoint)] {
        let name = if otlp_endpoint.is_some() { "exported" } else { "kept" };
        let config = TelemetryConfig { otlp_endpoint, ..TelemetryConfig::new("worker") };
        // The guard's flush blocks, as at the end of `main`.
        tokio::task::spawn_blocking(move || {
            logged(&config, || drop(info_span!("span", otel.name = name).entered()));
        })
        .await
        .expect("no panic");
    }
    assert_eq!(*collector.0.lock().expect("no export panics"), ["exported"]);
    server.abort();
}
