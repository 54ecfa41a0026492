//! carrel-analyst
