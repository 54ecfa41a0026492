//! carrel
fn main() {}
