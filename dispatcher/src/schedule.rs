//! Whose review runs next: round robin over tenants, within each tenant's and the fleet's concurrency. Pure.
//!
//! ```text
//! wait ─► (lane of the tenant) ─next─► active ─release─► forgotten
//!   ▲                                    │
//!   └────────────────wait────────────────┘
//! ```
//! Slots follow from what the ledger says of each review, so none leaks: whatever is reported last about a review
//! replaces what was known of it. A tenant with many reviews waits behind its own lane only.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use carrel_schemas::ids::{ReviewId, TenantId};
use carrel_schemas::timestamp::Timestamp;

/// The queue of everything that waits or runs.
#[derive(Debug)]
pub struct Schedule {
    capacity: usize,
    lanes: BTreeMap<TenantId, Lane>,
    /// Tenants with waiting reviews, the next one first.
    ring: VecDeque<TenantId>,
    active: HashMap<ReviewId, TenantId>,
}

#[derive(Debug, Default)]
struct Lane {
    ready: VecDeque<ReviewId>,
    later: BTreeSet<(Timestamp, ReviewId)>,
    known: HashMap<ReviewId, Option<Timestamp>>,
    active: usize,
    limit: usize,
}

impl Schedule {
    /// A schedule of at most `capacity` active reviews.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, lanes: BTreeMap::new(), ring: VecDeque::new(), active: HashMap::new() }
    }

    /// The review waits, not before the given instant; `limit` is its tenant's concurrency.
    pub fn wait(&mut self, tenant: &TenantId, review: &ReviewId, not_before: Timestamp, limit: usize, now: Timestamp) {
        self.release(review);
        let lane = self.lanes.entry(tenant.clone()).or_default();
        lane.limit = limit;
        if lane.known.contains_key(review) {
            return;
        }
        if not_before <= now {
            lane.known.insert(review.clone(), None);
            lane.ready.push_back(review.clone());
        } else {
            lane.known.insert(review.clone(), Some(not_before));
            lane.later.insert((not_before, review.clone()));
        }
        if !self.ring.contains(tenant) {
            self.ring.push_back(tenant.clone());
        }
    }

    /// The review has an authorised attempt.
    pub fn activate(&mut self, tenant: &TenantId, review: &ReviewId) {
        let lane = self.lanes.entry(tenant.clone()).or_default();
        lane.forget(review);
        if self.active.insert(review.clone(), tenant.clone()).is_none() {
            lane.active += 1;
        }
    }

    /// The review neither waits nor runs.
    pub fn remove(&mut self, tenant: &TenantId, review: &ReviewId) {
        self.release(review);
        if let Some(lane) = self.lanes.get_mut(tenant) {
            lane.forget(review);
        }
    }

    fn release(&mut self, review: &ReviewId) {
        if let Some(tenant) = self.active.remove(review)
            && let Some(lane) = self.lanes.get_mut(&tenant)
        {
            lane.active -= 1;
        }
    }

    /// True if the review waits here.
    pub fn is_waiting(&self, tenant: &TenantId, review: &ReviewId) -> bool {
        self.lanes.get(tenant).is_some_and(|lane| lane.known.contains_key(review))
    }

    /// How many reviews are active.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Takes the next review to launch and counts it as active; `None` if nothing may be launched now.
    pub fn next(&mut self, now: Timestamp) -> Option<(TenantId, ReviewId)> {
        if self.active.len() >= self.capacity {
            return None;
        }
        for _ in 0..self.ring.len() {
            let tenant = self.ring.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&tenant) else { continue };
            lane.ripen(now);
            let picked = if lane.active < lane.limit { lane.ready.pop_front() } else { None };
            if lane.known.len() > usize::from(picked.is_some()) {
                self.ring.push_back(tenant.clone());
            }
            if let Some(review) = picked {
                lane.known.remove(&review);
                self.activate(&tenant, &review);
                return Some((tenant, review));
            }
        }
        None
    }
}

impl Lane {
    fn forget(&mut self, review: &ReviewId) {
        match self.known.remove(review) {
            Some(Some(not_before)) => {
                self.later.remove(&(not_before, review.clone()));
            }
            Some(None) => self.ready.retain(|waiting| waiting != review),
            None => {}
        }
    }

    /// Moves reviews whose time has come to the end of the lane.
    fn ripen(&mut self, now: Timestamp) {
        while self.later.first().is_some_and(|(not_before, _)| *not_before <= now) {
            let Some((_, review)) = self.later.pop_first() else { return };
            self.known.insert(review.clone(), None);
            self.ready.push_back(review);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds).expect("in range")
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).expect("id")
    }

    fn review(number: u32) -> ReviewId {
        ReviewId::parse(format!("rv_{number:032x}")).expect("id")
    }

    #[test]
    fn a_flooding_tenant_delays_another_by_one_launch_at_most() {
        let mut schedule = Schedule::new(1);
        let (flood, small) = (tenant("flood"), tenant("small"));
        for number in 0..1000 {
            schedule.wait(&flood, &review(number), at(0), 1000, at(0));
        }
        let (_, first) = schedule.next(at(0)).expect("a slot is free");
        schedule.wait(&small, &review(5000), at(0), 1, at(0));
        schedule.remove(&flood, &first);
        let picks: Vec<_> = (0..2)
            .map(|_| {
                let (tenant, review) = schedule.next(at(0)).expect("a slot is free");
                schedule.remove(&tenant, &review);
                tenant
            })
            .collect();
        assert!(picks.contains(&small), "{picks:?}");
    }

    #[test]
    fn a_review_that_waits_is_not_launched_early() {
        let mut schedule = Schedule::new(4);
        schedule.wait(&tenant("acme"), &review(1), at(10), 1, at(0));
        assert_eq!(schedule.next(at(9)), None);
        assert_eq!(schedule.next(at(10)), Some((tenant("acme"), review(1))));
    }

    proptest! {
        #[test]
        fn limits_hold_and_nothing_is_lost_or_launched_twice(
            steps in proptest::collection::vec((0u8..4, 0u32..12, 0i64..4), 1..200),
        ) {
            let mut schedule = Schedule::new(3);
            let mut waiting: BTreeSet<u32> = BTreeSet::new();
            let mut active: BTreeSet<u32> = BTreeSet::new();
            let owner = |number: u32| tenant(["acme", "bolt", "cord"][number as usize % 3]);
            let mut now = 0;
            for (action, number, step) in steps {
                now += step;
                match action {
                    0 | 1 => {
                        schedule.wait(&owner(number), &review(number), at(now + step), 2, at(now));
                        active.remove(&number);
                        waiting.insert(number);
                    }
                    2 => {
                        schedule.remove(&owner(number), &review(number));
                        active.remove(&number);
                        waiting.remove(&number);
                    }
                    _ => {
                        if let Some((_, picked)) = schedule.next(at(now)) {
                            let number = (0..12).find(|n| review(*n) == picked).expect("one of ours");
                            prop_assert!(waiting.remove(&number), "launched what did not wait");
                            prop_assert!(active.insert(number), "launched twice");
                        }
                    }
                }
                prop_assert_eq!(schedule.active(), active.len());
                prop_assert!(active.len() <= 3);
                for first in 0..3 {
                    prop_assert!(active.iter().filter(|n| **n % 3 == first).count() <= 2);
                }
            }
            // Drain: whatever waits is launched in the end.
            let mut drained = 0;
            for number in active.clone() { schedule.remove(&owner(number), &review(number)); }
            while let Some((tenant, review)) = schedule.next(at(now + 100)) {
                schedule.remove(&tenant, &review);
                drained += 1;
            }
            prop_assert_eq!(drained, waiting.len());
        }
    }
}
