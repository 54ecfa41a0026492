//! The name of one delivery, as clients hand it back.
//!
//! A message is acknowledged by any delivery of it from the same subscription, however late, unless it is to be delivered
//! exactly once. Its lease is changed by the delivery that holds it alone: what a former one gives back is not taken from
//! the next.

use std::fmt;

use super::core::MessageId;

/// A message, its delivery from 1, and the life of the subscription that counted it: counts begin anew with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AckId {
    /// Which message.
    pub(super) message: MessageId,
    /// Which delivery of it.
    pub(super) delivery: u32,
    /// A random number of the subscription since it was last opened or sent elsewhere in time.
    pub(super) life: u32,
    /// Which subscription: the checksum of its name, which outlives a restart as its life does not.
    pub(super) of: u32,
}

impl fmt::Display for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:08x}-{:08x}", self.message, self.delivery, self.life, self.of)
    }
}

impl AckId {
    /// `None` if it is none of ours, which is as good as one that has expired.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (message, delivery) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let mut number = || u32::from_str_radix(parts.next()?, 16).ok();
        let (life, of) = (number()?, number()?);
        parts.next().is_none().then_some(Self { message, delivery, life, of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_out_is_understood_and_nothing_else() {
        let id = AckId { message: 7, delivery: 2, life: 0xAB, of: 0xCD };
        assert_eq!(AckId::parse(&id.to_string()), Some(id));
        for text in ["", "7", "7-2-ab", "7-2-ab-", "7-2-ab-xy", "7-2-ab-cd-1", "-7-2-ab-cd"] {
            assert_eq!(AckId::parse(text), None, "{text}");
        }
    }
}
