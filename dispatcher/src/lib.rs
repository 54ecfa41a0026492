//! carrel-dispatcher
