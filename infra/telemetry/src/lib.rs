//! Logs and traces, set up once per process.
//!
//! Owns the subscriber ([`init`]), its two log formats, the optional OTLP export, the trace context that travels in
//! message attributes ([`inject`], [`set_parent`]) and the names of span fields ([`fields`]). Refuses the environment:
//! every setting is an argument, and without an endpoint nothing leaves the process. Refuses metrics: what we count is
//! read from the ledger.

mod cloud_json;
mod export;
pub mod fields;
mod propagate;
mod setup;

pub use export::ExportError;
pub use propagate::{ATTRIBUTE, inject, set_parent};
pub use setup::{DEFAULT_FILTER, Format, Guard, TelemetryConfig, TelemetryError, init};
