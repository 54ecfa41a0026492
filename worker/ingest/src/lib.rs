//! carrel-ingest
