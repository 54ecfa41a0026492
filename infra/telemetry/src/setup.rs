//! The process's one subscriber: filter, log format, traces.
//!
//! Owns [`init`] and the [`Guard`] that flushes. Logs go to stderr in both formats, since stdout is for data. Refuses to
//! be called twice, and refuses a filter it cannot parse rather than log something else than asked.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{EnvFilter, Layer};

use crate::cloud_json::CloudJson;
use crate::export::{Export, ExportError};

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: one line, coloured on a terminal.
    #[default]
    Human,
    /// For Cloud Logging: one JSON object a line, with severity, trace and the span's fields as labels.
    CloudJson,
}

/// `info`, without what a library reports of itself at every start.
pub const DEFAULT_FILTER: &str = "info,opentelemetry=warn";

/// What to log and where spans go.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// The program's name: `dispatcher`, `worker`.
    pub service: String,
    /// How a log line looks.
    pub format: Format,
    /// A tracing filter: `info`, `info,carrel_worker=debug`.
    pub filter: String,
    /// Where spans are sent (gRPC, `http://HOST:4317`); `None` sends nothing.
    pub otlp_endpoint: Option<String>,
    /// The Google project whose traces JSON lines point at; `None` leaves the bare trace id.
    pub project: Option<String>,
}

impl TelemetryConfig {
    /// Human lines at `info`, nothing exported.
    pub fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            format: Format::Human,
            filter: DEFAULT_FILTER.to_owned(),
            otlp_endpoint: None,
            project: None,
        }
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log filter {filter:?} does not parse; use a level or a list like info,carrel_worker=debug")]
    Filter {
        /// The filter as given.
        filter: String,
        /// Which directive, and why.
        #[source]
        source: ParseError,
    },
    /// Spans cannot be exported as configured.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// This process has a subscriber already.
    #[error("logging is set up already in this process; call init once, in main")]
    Twice(#[source] TryInitError),
}

/// Holds the exporter; dropping it, or [`Guard::shutdown`], sends the spans that are still held.
#[must_use = "dropping the guard at once stops the export"]
pub struct Guard {
    export: Export,
}

impl Guard {
    /// Flushes now. Blocks for four seconds at most; a program calls it as its last act.
    pub fn shutdown(self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.export.finish() {
            tracing::warn!(%error, "the last spans did not reach the OTLP collector");
        }
    }
}

/// Installs the process's subscriber. Keep the guard until the end of `main`.
pub fn init(config: TelemetryConfig) -> Result<Guard, TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let (subscriber, guard) = build(&config, std::io::stderr, std::io::stderr().is_terminal())?;
    subscriber.try_init().map_err(TelemetryError::Twice)?;
    opentelemetry::global::set_text_map_propagator(opentelemetry_sdk::propagation::TraceContextPropagator::new());
    opentelemetry::global::set_tracer_provider(guard.export.provider.clone());
    Ok(guard)
}

/// Everything of [`init`] but the global state.
pub(crate) fn build<W>(
    config: &TelemetryConfig,
    writer: W,
    colours: bool,
) -> Result<(impl Subscriber + Send + Sync + use<W>, Guard), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|source| TelemetryError::Filter { filter: config.filter.clone(), source })?;
    let export = Export::start(&config.service, config.otlp_endpoint.as_deref())?;
    let spans = tracing_opentelemetry::layer().with_tracer(export.provider.tracer(config.service.clone()));
    let lines = match config.format {
        Format::Human => tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours).boxed(),
        Format::CloudJson => CloudJson::new(&config.service, config.project.as_deref(), writer).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(spans).with(lines);
    Ok((subscriber, Guard { export }))
}

#[cfg(test)]
mod tests;
