//! carrel-telemetry
