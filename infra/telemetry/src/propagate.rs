//! Trace context across processes: the W3C `traceparent` of a span, out and back in.
//!
//! Owns the attribute that carries it over Pub/Sub, the one Google's own clients use. Refuses `tracestate` and baggage:
//! nothing here reads them, and attributes of a message are few and small.

use std::collections::HashMap;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The Pub/Sub attribute that carries a `traceparent`.
pub const ATTRIBUTE: &str = "googclient_traceparent";

const HEADER: &str = "traceparent";

/// The current span's `traceparent` (`00-<trace>-<span>-<flags>`); `None` outside every span or before [`crate::init`].
pub fn inject() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(HEADER)
}

/// Makes `span` a child of the span that `traceparent` names. Call it before the span is first entered.
///
/// `false`: the text is not a `traceparent`, or the span has begun already; the span then keeps the parent it had, and
/// nothing else is lost, so that a stranger's bad attribute never stops a message.
pub fn set_parent(span: &Span, traceparent: &str) -> bool {
    let carrier = HashMap::from([(HEADER.to_owned(), traceparent.to_owned())]);
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    parent.span().span_context().is_valid() && span.set_parent(parent).is_ok()
}
