//! carrel-local
