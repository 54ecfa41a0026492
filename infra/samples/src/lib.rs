//! carrel-samples
