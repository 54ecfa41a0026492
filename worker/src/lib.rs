//! carrel-worker
