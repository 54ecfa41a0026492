//! Parsers of hostile bytes in this crate, as functions over bytes: for fuzzing, and for nothing else.
//!
//! A target returns on any bytes at all, soon and in bounded memory, whatever it makes of them.

/// The filter of a subscription.
pub fn pubsub_filter(bytes: &[u8]) {
    crate::pubsub::filter::fuzz(bytes);
}
