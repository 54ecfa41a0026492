//! Bytes that may still pass: one budget for each connection, one for the room.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only shrinks.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// Takes as much of `wanted` as is left.
    pub(crate) fn take(&self, wanted: u64) -> u64 {
        let shrink = |left: u64| Some(left.saturating_sub(wanted));
        // The order of two connections does not matter, the sum does, and each step is atomic by itself.
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shrink).unwrap_or_default();
        left.min(wanted)
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_what_it_has_and_no_more() {
        let budget = Budget::new(10);
        assert_eq!([budget.take(4), budget.take(0), budget.take(7), budget.take(1)], [4, 0, 6, 0]);
        assert!(budget.is_spent());
    }
}
