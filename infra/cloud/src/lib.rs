//! carrel-cloud
