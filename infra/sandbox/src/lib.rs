//! carrel-sandbox
