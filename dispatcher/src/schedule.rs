//! Whose review runs next: weighted deficit round robin over tenants, charged in the time their slots were held. Pure.
//!
//! ```text
//! wait ─► (lane of the tenant) ─next─► active ─release─► forgotten
//!   ▲                                    │
//!   └────────────────wait────────────────┘
//! ```
//! In every round a tenant may use [`ROUND_MS`] for each unit of its weight. A launch is charged what the tenant's runs
//! took of late, and when its slot is released the charge becomes what it really took: so a tenant gains nothing by
//! cutting its work into many small packs, nor by a few long ones. A tenant that has used up its round waits for the
//! next; one in debt skips as many rounds as it owes. Within a round tenants take turns, one launch each, and who comes
//! back from idleness joins the round in force: nobody saves up for later. So a newcomer waits until a slot is free, and
//! for one launch of each tenant before it at most. No slot is taken back: whoever may hold all of them at once can keep
//! others waiting for as long as a run of its takes.
//!
//! What is charged is the time of a slot, from the start that the ledger knows until the dispatcher noticed the end: one
//! that nobody was woken for costs its tenant what it took to be found. Estimates and debts are kept in memory alone, so
//! a new leader begins with none. [`crate::pace`] is no part of this: it bounds launches, each alike and whosever.
//!
//! Slots follow from what the ledger says of each review, so none leaks: whatever is reported last about a review
//! replaces what was known of it. A tenant with many reviews waits behind its own lane only, where what somebody asked
//! for goes before what was uploaded. No decision looks at more than a few entries of ordered maps.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use carrel_schemas::ids::{ReviewId, TenantId};
use carrel_schemas::seal::ClosedBy;
use carrel_schemas::timestamp::Timestamp;

/// What a tenant of weight 1 may use in one round. About one run: more would let weights show later, less is only
/// rounds that are skipped.
pub const ROUND_MS: u64 = 60_000;
/// What a launch is charged before its tenant's first run has ended.
pub const FIRST_ESTIMATE_MS: u64 = 60_000;
/// No run costs less: a container is started and a launch is taken from the cloud's quota, whatever comes of it.
pub const LEAST_MS: u64 = 1_000;
/// A run that has just ended moves the estimate by one part of these.
const MEMORY: u64 = 8;
/// Charges are kept in these parts of a millisecond, so that dividing by a weight loses nothing worth having.
const PARTS: u64 = 1_000;
const ROUND: u64 = ROUND_MS * PARTS;

/// What the registry grants a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its part of the fleet beside others that have work waiting.
    pub weight: u32,
    /// Its reviews that may be active at once.
    pub concurrent: usize,
    /// No run of it can take longer: a slot held for more is a report that came late.
    pub longest: Duration,
}

/// What goes first within a tenant's lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody asked for this review and waits.
    Asked,
    /// Files arrived.
    Uploaded,
}

impl From<ClosedBy> for Urgency {
    fn from(closed_by: ClosedBy) -> Self {
        match closed_by {
            ClosedBy::Request => Self::Asked,
            ClosedBy::Marker | ClosedBy::Manifest | ClosedBy::Quiet | ClosedBy::MaxAge | ClosedBy::Each => {
                Self::Uploaded
            }
        }
    }
}

/// A place in one of the queues: first by rank, then by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    rank: u64,
    arrival: u64,
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        tests::COMPARED.with(|compared| compared.set(compared.get() + 1));
        (self.rank, self.arrival).cmp(&(other.rank, other.arrival))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The queue of everything that waits or runs.
#[derive(Debug)]
pub struct Schedule {
    capacity: usize,
    numbers: HashMap<TenantId, usize>,
    lanes: Vec<Lane>,
    /// Lanes with a review that may be launched now, by the round they are in.
    ring: BTreeMap<Place, usize>,
    /// Reviews that wait for an instant, by that instant.
    later: BTreeMap<Place, (usize, ReviewId)>,
    runs: HashMap<ReviewId, Run>,
    /// The round in force.
    round: u64,
    arrivals: u64,
}

/// One tenant's.
#[derive(Debug)]
struct Lane {
    tenant: TenantId,
    share: Share,
    ready: BTreeMap<Place, ReviewId>,
    waiting: HashMap<ReviewId, Waiting>,
    active: usize,
    /// What it was charged, divided by its weight; how far that reaches into the rounds is its deficit.
    used: u64,
    estimate_ms: Option<u64>,
    /// Its place in the ring.
    turn: Option<Place>,
}

#[derive(Debug, Clone, Copy)]
enum Waiting {
    Ready(Place),
    Later(Place, Urgency),
}

/// A slot that is held.
#[derive(Debug)]
struct Run {
    lane: usize,
    since: Timestamp,
    charged: u64,
}

impl Schedule {
    /// A schedule of at most `capacity` active reviews.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            numbers: HashMap::new(),
            lanes: Vec::new(),
            ring: BTreeMap::new(),
            later: BTreeMap::new(),
            runs: HashMap::new(),
            round: 0,
            arrivals: 0,
        }
    }

    /// The review waits, not before the given instant. One that waits already keeps its place.
    pub fn wait(
        &mut self,
        tenant: &TenantId,
        review: &ReviewId,
        share: Share,
        urgency: Urgency,
        not_before: Timestamp,
        now: Timestamp,
    ) {
        // Nothing is learnt from it: it was put off or came to nothing, and what it held is charged.
        self.release(review, now);
        let at = self.lane(tenant, share);
        if !self.lanes[at].waiting.contains_key(review) {
            if not_before <= now {
                self.make_ready(at, review.clone(), urgency);
            } else {
                let place = self.place(micros(not_before));
                self.lanes[at].waiting.insert(review.clone(), Waiting::Later(place, urgency));
                self.later.insert(place, (at, review.clone()));
            }
        }
        self.take_turn(at);
    }

    /// The review has an authorised attempt, and has held its slot since the given instant.
    pub fn activate(&mut self, tenant: &TenantId, review: &ReviewId, share: Share, since: Timestamp) {
        let at = self.lane(tenant, share);
        self.forget(at, review);
        self.hold(at, review, since);
        self.take_turn(at);
    }

    /// The review neither waits nor runs.
    pub fn remove(&mut self, tenant: &TenantId, review: &ReviewId, now: Timestamp) {
        if let Some((at, ran_ms)) = self.release(review, now) {
            self.lanes[at].learn(ran_ms);
        }
        if let Some(at) = self.numbers.get(tenant).copied() {
            self.forget(at, review);
            self.take_turn(at);
        }
    }

    /// True if the review waits here.
    pub fn is_waiting(&self, tenant: &TenantId, review: &ReviewId) -> bool {
        self.numbers.get(tenant).is_some_and(|at| self.lanes[*at].waiting.contains_key(review))
    }

    /// How many reviews are active.
    pub fn active(&self) -> usize {
        self.runs.len()
    }

    /// Every review that holds a slot, with its tenant.
    pub fn holders(&self) -> impl Iterator<Item = (&TenantId, &ReviewId)> {
        self.runs.iter().map(|(review, run)| (&self.lanes[run.lane].tenant, review))
    }

    /// Takes the next review to launch and counts it as active; `None` if nothing may be launched now.
    pub fn next(&mut self, now: Timestamp) -> Option<(TenantId, ReviewId)> {
        self.ripen(now);
        if self.runs.len() >= self.capacity {
            return None;
        }
        let (turn, at) = self.ring.pop_first()?;
        self.round = turn.rank;
        let lane = &mut self.lanes[at];
        lane.turn = None;
        let (_, review) = lane.ready.pop_first().expect("a lane in the ring has a review ready");
        lane.waiting.remove(&review);
        self.hold(at, &review, now);
        self.take_turn(at);
        Some((self.lanes[at].tenant.clone(), review))
    }

    fn lane(&mut self, tenant: &TenantId, share: Share) -> usize {
        if let Some(at) = self.numbers.get(tenant).copied() {
            self.lanes[at].share = share;
            return at;
        }
        self.lanes.push(Lane {
            tenant: tenant.clone(),
            share,
            ready: BTreeMap::new(),
            waiting: HashMap::new(),
            active: 0,
            used: 0,
            estimate_ms: None,
            turn: None,
        });
        self.numbers.insert(tenant.clone(), self.lanes.len() - 1);
        self.lanes.len() - 1
    }

    fn place(&mut self, rank: u64) -> Place {
        self.arrivals += 1;
        Place { rank, arrival: self.arrivals }
    }

    fn make_ready(&mut self, at: usize, review: ReviewId, urgency: Urgency) {
        let place = self.place(urgency as u64);
        let lane = &mut self.lanes[at];
        lane.waiting.insert(review.clone(), Waiting::Ready(place));
        lane.ready.insert(place, review);
    }

    /// Makes ready whatever's time has come: each review once, however many decisions that is spread over.
    fn ripen(&mut self, now: Timestamp) {
        let now = micros(now);
        while let Some(first) = self.later.first_entry().filter(|first| first.key().rank <= now) {
            let (at, review) = first.remove();
            let Some(Waiting::Later(_, urgency)) = self.lanes[at].waiting.get(&review).copied() else { continue };
            self.make_ready(at, review, urgency);
            self.take_turn(at);
        }
    }

    fn forget(&mut self, at: usize, review: &ReviewId) {
        let lane = &mut self.lanes[at];
        match lane.waiting.remove(review) {
            Some(Waiting::Ready(place)) => drop(lane.ready.remove(&place)),
            Some(Waiting::Later(place, _)) => drop(self.later.remove(&place)),
            None => {}
        }
    }

    /// The review holds a slot from now on, and its tenant is charged the estimate.
    fn hold(&mut self, at: usize, review: &ReviewId, since: Timestamp) {
        if let Some(run) = self.runs.get_mut(review) {
            run.since = since;
            return;
        }
        let lane = &mut self.lanes[at];
        let charged = lane.charge(lane.estimate_ms.unwrap_or(FIRST_ESTIMATE_MS));
        lane.active += 1;
        lane.used = lane.used.saturating_add(charged);
        self.runs.insert(review.clone(), Run { lane: at, since, charged });
    }

    /// The slot is free again, and what it was held for takes the place of the estimate: returns whose, and how long.
    fn release(&mut self, review: &ReviewId, now: Timestamp) -> Option<(usize, u64)> {
        let run = self.runs.remove(review)?;
        let lane = &mut self.lanes[run.lane];
        let held = now.since(run.since).min(lane.share.longest);
        let ran_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX).max(LEAST_MS);
        lane.active -= 1;
        lane.used = lane.used.saturating_add(lane.charge(ran_ms)).saturating_sub(run.charged);
        self.take_turn(run.lane);
        Some((run.lane, ran_ms))
    }

    /// Puts the lane where it belongs in the ring: out of it if nothing of it may be launched, at the end of another
    /// round if its charge has moved it there. What it did not use of past rounds is gone.
    fn take_turn(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let may_launch = !lane.ready.is_empty() && lane.active < lane.share.concurrent;
        if may_launch {
            lane.used = lane.used.max(self.round * ROUND);
        }
        let round = may_launch.then_some(lane.used / ROUND);
        if lane.turn.map(|turn| turn.rank) == round {
            return;
        }
        if let Some(turn) = lane.turn.take() {
            self.ring.remove(&turn);
        }
        if let Some(round) = round {
            let turn = self.place(round);
            self.lanes[at].turn = Some(turn);
            self.ring.insert(turn, at);
        }
    }
}

impl Lane {
    fn charge(&self, ms: u64) -> u64 {
        ms.saturating_mul(PARTS) / u64::from(self.share.weight.max(1))
    }

    fn learn(&mut self, ran_ms: u64) {
        self.estimate_ms = Some(self.estimate_ms.map_or(ran_ms, |mean| (mean * (MEMORY - 1) + ran_ms) / MEMORY));
    }
}

fn micros(instant: Timestamp) -> u64 {
    let epoch = Timestamp::from_unix_seconds(0).expect("1970 is in range");
    u64::try_from(instant.since(epoch).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
