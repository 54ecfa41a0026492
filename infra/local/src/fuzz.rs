//! Parsers of hostile bytes in this crate, as functions over bytes: for fuzzing, and for nothing else.
//!
//! A target returns on any bytes at all, soon and in bounded memory, whatever it makes of them.

/// The filter of a subscription.
pub fn pubsub_filter(bytes: &[u8]) {
    crate::pubsub::filter::fuzz(bytes);
}

/// What a task says to the door before clamd.
pub fn door_clamd(bytes: &[u8]) {
    crate::run::clamd::fuzz(bytes);
}

pub use carrel_egress::fuzz::{egress_again, egress_answer, egress_head, egress_hello};
