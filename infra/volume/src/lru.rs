//! A map that forgets what was used longest ago once the weights of its entries exceed a bound.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

#[derive(Debug)]
struct Slot<V> {
    value: V,
    weight: usize,
    used: u64,
}

/// At most `capacity` of weight.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    slots: HashMap<K, Slot<V>>,
    by_use: BTreeMap<u64, K>,
    capacity: usize,
    weight: usize,
    clock: u64,
}

impl<K: Clone + Eq + Hash, V> Lru<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: HashMap::new(), by_use: BTreeMap::new(), capacity, weight: 0, clock: 0 }
    }

    /// Looks without counting as a use.
    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.slots.get(key).map(|slot| &slot.value)
    }

    /// Marks an entry as just used.
    pub(crate) fn touch<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(slot) = self.slots.get_mut(key)
            && let Some(key) = self.by_use.remove(&slot.used)
        {
            self.clock += 1;
            slot.used = self.clock;
            self.by_use.insert(self.clock, key);
        }
    }

    /// Takes an entry in. One that is heavier than everything allowed is not kept.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.capacity {
            return;
        }
        self.clock += 1;
        self.weight += weight;
        self.by_use.insert(self.clock, key.clone());
        self.slots.insert(key, Slot { value, weight, used: self.clock });
        while self.weight > self.capacity
            && let Some((_, oldest)) = self.by_use.pop_first()
            && let Some(slot) = self.slots.remove(&oldest)
        {
            self.weight -= slot.weight;
        }
    }

    pub(crate) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(slot) = self.slots.remove(key) {
            self.by_use.remove(&slot.used);
            self.weight -= slot.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut lru = Lru::new(3);
        for key in ["a", "b", "c"] {
            lru.insert(key, key, 1);
        }
        lru.touch("a");
        lru.insert("d", "d", 1);
        assert_eq!(["a", "b", "c", "d"].map(|key| lru.peek(key).is_some()), [true, false, true, true]);
        lru.insert("heavy", "heavy", 3);
        assert_eq!(["a", "c", "d", "heavy"].map(|key| lru.peek(key).is_some()), [false, false, false, true]);
    }

    #[test]
    fn what_is_heavier_than_all_that_is_allowed_is_not_kept_and_drives_nothing_out() {
        let mut lru = Lru::new(3);
        lru.insert("a", 1, 1);
        lru.insert("huge", 2, 4);
        assert_eq!((lru.peek("a"), lru.peek("huge")), (Some(&1), None));
        lru.insert("a", 3, 4);
        assert_eq!(lru.peek("a"), None, "what it replaces is outdated");
        assert_eq!(lru.weight, 0);
    }
}
