//! What waits to be looked at: each thing once, and tenants in turn. Pure.
//!
//! A thing that is pushed again keeps its place and takes the newer value, so a flood of wake-ups for one pack is one
//! entry, and a tenant with a thousand packs waits behind itself.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use carrel_schemas::ids::TenantId;

/// Values waiting under their keys.
#[derive(Debug)]
pub struct Backlog<K, V> {
    held: HashMap<K, V>,
    lanes: HashMap<TenantId, VecDeque<K>>,
    /// Tenants with something waiting, the next one first.
    ring: VecDeque<TenantId>,
}

impl<K, V> Default for Backlog<K, V> {
    fn default() -> Self {
        Self { held: HashMap::new(), lanes: HashMap::new(), ring: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Backlog<K, V> {
    /// Puts a value at the end of its tenant's lane, or in the place of an older one.
    pub fn push(&mut self, tenant: &TenantId, key: K, value: V) {
        if self.held.insert(key.clone(), value).is_some() {
            return;
        }
        let lane = self.lanes.entry(tenant.clone()).or_default();
        if lane.is_empty() {
            self.ring.push_back(tenant.clone());
        }
        lane.push_back(key);
    }

    /// The next tenant's oldest.
    pub fn pop(&mut self) -> Option<V> {
        let tenant = self.ring.pop_front()?;
        let lane = self.lanes.get_mut(&tenant)?;
        let key = lane.pop_front()?;
        if lane.is_empty() {
            self.lanes.remove(&tenant);
        } else {
            self.ring.push_back(tenant);
        }
        self.held.remove(&key)
    }

    /// Whether as much waits as may.
    pub fn is_full(&self, most: usize) -> bool {
        self.held.len() >= most
    }

    /// How much of a tenant waits.
    pub fn waiting(&self, tenant: &TenantId) -> usize {
        self.lanes.get(tenant).map_or(0, VecDeque::len)
    }

    /// Everything that waits, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.held.keys()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).expect("id")
    }

    #[test]
    fn a_flooding_tenant_delays_another_by_one_look() {
        let mut backlog = Backlog::default();
        for number in 0..1000 {
            backlog.push(&tenant("flood"), ("flood", number), number);
        }
        backlog.push(&tenant("small"), ("small", 0), 5000);
        let first_two = [backlog.pop(), backlog.pop()];
        assert!(first_two.contains(&Some(5000)), "{first_two:?}");
    }

    proptest! {
        #[test]
        fn each_thing_comes_out_once_with_its_newest_value(pushes in proptest::collection::vec((0u8..3, 0u8..5), 0..80)) {
            let mut backlog = Backlog::default();
            let mut newest = BTreeMap::new();
            for (at, (owner, number)) in pushes.into_iter().enumerate() {
                backlog.push(&tenant(["acme", "bolt", "cord"][usize::from(owner)]), (owner, number), (owner, number, at));
                newest.insert((owner, number), at);
            }
            prop_assert_eq!(backlog.keys().count(), newest.len());
            prop_assert!(backlog.is_full(newest.len()) && !backlog.is_full(newest.len() + 1));
            while let Some((owner, number, at)) = backlog.pop() {
                prop_assert_eq!(newest.remove(&(owner, number)), Some(at));
            }
            prop_assert!(newest.is_empty());
        }
    }
}
