//! Spans to an OTLP collector, in batches.
//!
//! Owns the tracer provider and, when an endpoint is given, the exporter with a small runtime of its own: the flush at
//! the end works from any thread and whatever runtime the program uses. Refuses TLS: a collector beside the program
//! takes the spans in plain text and speaks to the world itself.

use std::time::Duration;

use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::runtime::Runtime;

/// How long the last flush may take: a task has 10 s between SIGTERM and SIGKILL.
const FLUSH: Duration = Duration::from_secs(4);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The endpoint is not one this build can speak to.
    #[error(
        "OTLP endpoint {0:?}: only http:// is spoken; run a collector beside the program and name it as http://HOST:4317"
    )]
    Scheme(String),
    /// The exporter refused its settings.
    #[error("OTLP endpoint {endpoint:?}: the exporter could not be built")]
    Build {
        /// The endpoint as given.
        endpoint: String,
        /// What the exporter said.
        #[source]
        source: ExporterBuildError,
    },
    /// The exporter's thread could not be started.
    #[error("OTLP export: its runtime could not be started")]
    Runtime(#[source] std::io::Error),
}

/// The tracer provider, and what must outlive it.
pub(crate) struct Export {
    pub(crate) provider: SdkTracerProvider,
    runtime: Option<Runtime>,
}

impl Export {
    /// Ids are made with or without an endpoint, so that context travels; spans leave only with one.
    pub(crate) fn start(service: &str, endpoint: Option<&str>) -> Result<Self, ExportError> {
        let builder = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(Resource::builder_empty().with_service_name(service.to_owned()).build());
        let Some(endpoint) = endpoint else {
            return Ok(Self { provider: builder.build(), runtime: None });
        };
        if !endpoint.starts_with("http://") {
            return Err(ExportError::Scheme(endpoint.to_owned()));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp-export")
            .enable_all()
            .build()
            .map_err(ExportError::Runtime)?;
        let exporter = {
            let _inside = runtime.enter();
            SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .build()
                .map_err(|source| ExportError::Build { endpoint: endpoint.to_owned(), source })?
        };
        Ok(Self { provider: builder.with_batch_exporter(exporter).build(), runtime: Some(runtime) })
    }

    /// Sends what is still held, within [`FLUSH`].
    pub(crate) fn finish(&mut self) -> Result<(), OTelSdkError> {
        let Some(runtime) = self.runtime.take() else {
            return Ok(());
        };
        let flushed = self.provider.shutdown_with_timeout(FLUSH);
        // Dropping a runtime inside another one panics; this one holds nothing once the provider is shut down.
        runtime.shutdown_background();
        flushed
    }
}
