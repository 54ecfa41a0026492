//! Log lines as Cloud Logging reads them from a container: one JSON object a line.
//!
//! `severity`, `message`, `time` and the `logging.googleapis.com/*` members are Google's
//! (cloud.google.com/logging/docs/structured-logging). An event's own fields stand at the top level; the fields of all
//! spans around it become labels, the innermost winning, so that a line reads alone. Refuses nesting and duplicates.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;

use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The layer that writes the lines.
pub(crate) struct CloudJson<W> {
    service: String,
    traces: String,
    writer: W,
}

impl<W> CloudJson<W> {
    pub(crate) fn new(service: &str, project: Option<&str>, writer: W) -> Self {
        let traces = project.map(|project| format!("projects/{project}/traces/")).unwrap_or_default();
        Self { service: service.to_owned(), traces, writer }
    }
}

/// A span's fields, kept beside the span.
#[derive(Default)]
struct Labels(BTreeMap<&'static str, Value>);

impl<S, W> Layer<S> for CloudJson<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut labels = Labels::default();
        attributes.record(&mut Fields(&mut labels.0));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(labels);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(labels) = span.extensions_mut().get_mut::<Labels>()
        {
            values.record(&mut Fields(&mut labels.0));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let mut line: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        line.entry("message").or_insert_with(|| json!(event.metadata().name()));
        line.insert("severity".into(), json!(severity(event.metadata().level())));
        line.insert("time".into(), json!(OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()));
        line.insert("service".into(), json!(self.service));
        line.insert("target".into(), json!(event.metadata().target()));

        let mut labels = Map::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(own) = span.extensions().get::<Labels>() {
                labels.extend(own.0.iter().map(|(name, value)| ((*name).to_owned(), json!(text(value)))));
            }
        }
        if !labels.is_empty() {
            line.insert("logging.googleapis.com/labels".into(), Value::Object(labels));
        }
        let current = opentelemetry::Context::current();
        let current = current.span().span_context().clone();
        if current.is_valid() {
            let trace = format!("{}{}", self.traces, current.trace_id());
            line.insert("logging.googleapis.com/trace".into(), json!(trace));
            line.insert("logging.googleapis.com/spanId".into(), json!(current.span_id().to_string()));
            line.insert("logging.googleapis.com/trace_sampled".into(), json!(current.is_sampled()));
        }
        let mut bytes = Value::Object(line).to_string().into_bytes();
        bytes.push(b'\n');
        if self.writer.make_writer_for(event.metadata()).write_all(&bytes).is_err() {
            // The place where this would be reported is the one that does not take it.
        }
    }
}

fn severity(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// Labels are strings by Google's contract.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, Value>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name(), json!(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut chain = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            chain.push_str(": ");
            chain.push_str(&error.to_string());
            cause = error.source();
        }
        self.0.insert(field.name(), json!(chain));
    }
}
