//! The schedule's promises, one by one, and whole fleets simulated against them.
//!
//! Costs are counted, not timed: every comparison of two places in a queue is one.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use proptest::prelude::*;

use super::*;

thread_local! {
    /// Comparisons of places by this thread so far.
    pub(super) static COMPARED: Cell<u64> = const { Cell::new(0) };
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds).expect("in range")
}

fn after(ms: u64) -> Timestamp {
    at(0).plus(Duration::from_millis(ms))
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("id")
}

fn review(number: u32) -> ReviewId {
    ReviewId::parse(format!("rv_{number:032x}")).expect("id")
}

fn share(weight: u32, concurrent: usize) -> Share {
    Share { weight, concurrent, longest: Duration::from_secs(3600) }
}

fn upload(schedule: &mut Schedule, tenant: &TenantId, number: u32, share: Share, now: Timestamp) {
    schedule.wait(tenant, &review(number), share, Urgency::Uploaded, now, now);
}

/// A fleet whose runs take as long as they are told: what every tenant got, in milliseconds of slots.
struct Fleet {
    schedule: Schedule,
    now: u64,
    /// Ends of runs, the next one first.
    running: BinaryHeap<(std::cmp::Reverse<u64>, TenantId, ReviewId)>,
    got: BTreeMap<TenantId, u64>,
}

impl Fleet {
    fn of(capacity: usize) -> Self {
        Self { schedule: Schedule::new(capacity), now: 0, running: BinaryHeap::new(), got: BTreeMap::new() }
    }

    /// Launches all that may be, each for as long as `ms` says.
    fn launch(&mut self, ms: impl Fn(&TenantId) -> u64) -> Vec<TenantId> {
        let mut launched = Vec::new();
        while let Some((tenant, review)) = self.schedule.next(after(self.now)) {
            launched.push(tenant.clone());
            self.running.push((std::cmp::Reverse(self.now + ms(&tenant)), tenant.clone(), review));
            *self.got.entry(tenant.clone()).or_default() += ms(&tenant);
        }
        launched
    }

    /// Lets the next run end.
    fn end_one(&mut self) {
        let (std::cmp::Reverse(end), tenant, review) = self.running.pop().expect("something runs");
        self.now = end;
        self.schedule.remove(&tenant, &review, after(end));
    }

    fn got(&self, name: &str) -> u64 {
        self.got.get(&tenant(name)).copied().unwrap_or_default()
    }
}

#[test]
fn a_flooding_tenant_delays_another_by_one_launch_at_most_however_it_splits_its_work() {
    let cases = [1, 1_000, 60_000, 900_000].into_iter().flat_map(|ms| [(ms, 1), (ms, 10)]);
    for (flood_ms, capacity) in cases {
        let mut fleet = Fleet::of(capacity);
        let (flood, small) = (tenant("flood"), tenant("small"));
        for number in 0..1000 {
            upload(&mut fleet.schedule, &flood, number, share(1, 1000), at(0));
        }
        for _ in 0..100 {
            fleet.launch(|_| flood_ms);
            fleet.end_one();
        }
        fleet.launch(|_| flood_ms);
        upload(&mut fleet.schedule, &small, 5000, share(1, 1), after(fleet.now));
        let mut launches = 0;
        let waited_from = fleet.now;
        loop {
            fleet.end_one();
            let launched = fleet.launch(|_| flood_ms);
            launches += launched.len();
            if launched.contains(&small) {
                break;
            }
        }
        assert!(launches <= 2, "{launches} launches until the small tenant's, runs of {flood_ms} ms");
        let waited = fleet.now - waited_from;
        assert!(waited <= 2 * flood_ms, "waited {waited} ms of slots behind runs of {flood_ms} ms");
    }
}

#[test]
fn of_many_flooding_tenants_each_is_launched_once_before_a_newcomer_at_most() {
    let mut fleet = Fleet::of(1);
    for number in 0..50_000 {
        let flood = tenant(&format!("flood-{}", number % 100));
        upload(&mut fleet.schedule, &flood, number, share(100, 1000), at(0));
    }
    for _ in 0..5_000 {
        fleet.launch(|_| 1);
        fleet.end_one();
    }
    upload(&mut fleet.schedule, &tenant("small"), 100_000, share(1, 1), after(fleet.now));
    let mut launches = 0;
    while !fleet.launch(|_| 1).contains(&tenant("small")) {
        launches += 1;
        fleet.end_one();
    }
    assert!(launches <= 100, "{launches} launches of a hundred others came first");
}

#[test]
fn a_tenant_gains_nothing_by_cutting_its_work_into_tiny_packs() {
    let mut fleet = Fleet::of(10);
    for number in 0..200_000 {
        upload(&mut fleet.schedule, &tenant("tiny"), number, share(1, 1000), at(0));
    }
    for number in 0..2_000 {
        upload(&mut fleet.schedule, &tenant("whole"), 1_000_000 + number, share(1, 1000), at(0));
    }
    let ms = |tenant: &TenantId| if tenant.as_str() == "tiny" { 2_000 } else { 120_000 };
    while fleet.now < 3_600_000 {
        fleet.launch(ms);
        fleet.end_one();
    }
    let (tiny, whole) = (fleet.got("tiny"), fleet.got("whole"));
    let most = 3_600_000 / 10;
    assert!(tiny.abs_diff(whole) < most, "tiny packs got {tiny} ms, whole ones {whole} ms");
}

#[test]
fn runs_that_last_a_moment_are_charged_what_a_launch_costs() {
    let mut fleet = Fleet::of(1);
    for number in 0..20_000 {
        upload(&mut fleet.schedule, &tenant("moments"), number, share(1, 10), at(0));
        upload(&mut fleet.schedule, &tenant("seconds"), 100_000 + number, share(1, 10), at(0));
    }
    let ms = |tenant: &TenantId| if tenant.as_str() == "moments" { 1 } else { LEAST_MS };
    let mut launches = BTreeMap::<TenantId, u64>::new();
    for _ in 0..10_000 {
        for tenant in fleet.launch(ms) {
            *launches.entry(tenant).or_default() += 1;
        }
        fleet.end_one();
    }
    let (moments, seconds) = (launches[&tenant("moments")], launches[&tenant("seconds")]);
    assert!(moments.abs_diff(seconds) < 200, "{moments} launches of a moment, {seconds} of a second");
}

#[test]
fn time_is_shared_by_weight_to_within_a_twentieth() {
    let weights = [("one", 1), ("two", 2), ("five", 5), ("ten", 10)];
    let mut fleet = Fleet::of(20);
    for (index, (name, weight)) in (0u32..).zip(weights) {
        for number in 0..8_000 {
            upload(&mut fleet.schedule, &tenant(name), index * 100_000 + number, share(weight, 1000), at(0));
        }
    }
    // Each tenant's runs take another time.
    let ms = |tenant: &TenantId| match tenant.as_str() {
        "one" => 45_000,
        "two" => 10_000,
        "five" => 90_000,
        _ => 30_000,
    };
    while fleet.now < 4 * 3_600_000 {
        fleet.launch(ms);
        fleet.end_one();
    }
    let all: u64 = fleet.got.values().sum();
    for (name, weight) in weights {
        let (got, due) = (fleet.got(name), all * u64::from(weight) / 18);
        assert!(got.abs_diff(due) < due / 20, "{name} got {got} ms of {due} ms due");
    }
}

#[test]
fn an_idle_tenant_saves_nothing_up() {
    let mut fleet = Fleet::of(1);
    let (busy, late) = (tenant("busy"), tenant("late"));
    upload(&mut fleet.schedule, &late, 9_000, share(1, 10), at(0));
    for number in 0..1000 {
        upload(&mut fleet.schedule, &busy, number, share(1, 10), at(0));
    }
    // It runs once, and then an hour of the other's passes.
    while fleet.now < 3_600_000 {
        fleet.launch(|_| 10_000);
        fleet.end_one();
    }
    for number in 10_000..11_000 {
        upload(&mut fleet.schedule, &late, number, share(1, 10), after(fleet.now));
    }
    let (mut turns, from) = (Vec::new(), fleet.now);
    while fleet.now < from + 600_000 {
        turns.extend(fleet.launch(|_| 10_000));
        fleet.end_one();
    }
    let its = turns.iter().filter(|tenant| **tenant == late).count();
    // Half, and at most what is left of the round in force besides.
    assert!(its <= turns.len() / 2 + 6, "{its} of {}", turns.len());
}

#[test]
fn a_tenant_does_not_shed_its_debt_by_emptying_its_queue() {
    let mut fleet = Fleet::of(1);
    for number in 0..5_000 {
        upload(&mut fleet.schedule, &tenant("steady"), number, share(1, 10), at(0));
    }
    let ms = |tenant: &TenantId| if tenant.as_str() == "steady" { 10_000 } else { 600_000 };
    let mut number = 10_000;
    while fleet.now < 8 * 3_600_000 {
        // One long run at a time, asked for whenever none of its waits.
        if !fleet.schedule.is_waiting(&tenant("bursts"), &review(number)) {
            number += 1;
            upload(&mut fleet.schedule, &tenant("bursts"), number, share(1, 10), after(fleet.now));
        }
        fleet.launch(ms);
        fleet.end_one();
    }
    let (steady, bursts) = (fleet.got("steady"), fleet.got("bursts"));
    assert!(steady.abs_diff(bursts) < (steady + bursts) / 20, "steady {steady} ms, bursts {bursts} ms");
}

#[test]
fn an_estimate_that_was_wrong_is_set_right_when_the_run_ends() {
    let mut fleet = Fleet::of(1);
    for number in 0..2_000 {
        upload(&mut fleet.schedule, &tenant("even"), number, share(1, 10), at(0));
        upload(&mut fleet.schedule, &tenant("odd"), 10_000 + number, share(1, 10), at(0));
    }
    // One run of ten takes a hundred times as long, so that no estimate is ever right.
    let odd_runs = Cell::new(0u64);
    let ms = |tenant: &TenantId| match tenant.as_str() {
        "even" => 20_000,
        _ if odd_runs.replace(odd_runs.get() + 1) % 20 < 2 => 180_000,
        _ => 2_000,
    };
    while fleet.now < 4 * 3_600_000 {
        while let Some((tenant, review)) = fleet.schedule.next(after(fleet.now)) {
            let ms = ms(&tenant);
            fleet.running.push((std::cmp::Reverse(fleet.now + ms), tenant.clone(), review));
            *fleet.got.entry(tenant).or_default() += ms;
        }
        fleet.end_one();
    }
    let (even, odd) = (fleet.got("even"), fleet.got("odd"));
    assert!(even.abs_diff(odd) < (even + odd) / 20, "even {even} ms, odd {odd} ms");
}

#[test]
fn within_a_lane_requests_go_first_and_never_across_lanes() {
    let mut schedule = Schedule::new(10);
    let (acme, bolt) = (tenant("acme"), tenant("bolt"));
    for number in 0..3 {
        upload(&mut schedule, &acme, number, share(1, 10), at(0));
    }
    upload(&mut schedule, &bolt, 10, share(1, 10), at(0));
    for number in 3..5 {
        schedule.wait(&acme, &review(number), share(1, 10), Urgency::Asked, at(0), at(0));
    }
    let picks: Vec<_> = std::iter::from_fn(|| schedule.next(at(0))).map(|(_, review)| review).collect();
    assert_eq!(picks, [3, 10, 4, 0, 1, 2].map(review));
}

#[test]
fn a_review_that_waits_is_not_launched_early() {
    let mut schedule = Schedule::new(4);
    schedule.wait(&tenant("acme"), &review(1), share(1, 1), Urgency::Uploaded, at(10), at(0));
    assert_eq!(schedule.next(at(9)), None);
    assert_eq!(schedule.next(at(10)), Some((tenant("acme"), review(1))));
}

#[test]
fn a_slot_that_the_ledger_reports_is_counted_and_charged_once() {
    let mut schedule = Schedule::new(2);
    let acme = tenant("acme");
    for _ in 0..3 {
        schedule.activate(&acme, &review(1), share(1, 2), at(5));
    }
    assert_eq!(schedule.active(), 1);
    assert_eq!(schedule.lanes[0].used, FIRST_ESTIMATE_MS * PARTS);
    schedule.remove(&acme, &review(1), at(35));
    assert_eq!((schedule.active(), schedule.lanes[0].used), (0, 30_000 * PARTS));
    assert_eq!(schedule.lanes[0].estimate_ms, Some(30_000));
}

#[test]
fn a_report_that_came_late_is_charged_no_more_than_a_run_may_take() {
    let mut schedule = Schedule::new(2);
    let share = Share { longest: Duration::from_secs(900), ..share(1, 2) };
    schedule.activate(&tenant("acme"), &review(1), share, at(0));
    schedule.remove(&tenant("acme"), &review(1), at(100_000));
    assert_eq!(schedule.lanes[0].used, 900_000 * PARTS);
}

/// Comparisons that one decision may take where so many tenants and so many packs wait: a few operations on ordered
/// maps, each of a few nodes of eleven keys.
fn bound(tenants: u64, packs: u64) -> u64 {
    let depth = |entries: u64| u64::from(entries.max(2).ilog2());
    4 * (depth(tenants) + depth(packs))
}

#[test]
fn ten_thousand_tenants_with_a_million_packs_cost_each_decision_its_logarithm() {
    const TENANTS: u32 = 10_000;
    const PACKS: u32 = 1_000_000;
    let names: Vec<TenantId> = (0..TENANTS).map(|number| tenant(&format!("tenant-{number}"))).collect();
    let most = bound(u64::from(TENANTS), u64::from(PACKS));
    let mut schedule = Schedule::new(100);
    let mut worst = 0;
    let mut counted = |what: &mut dyn FnMut()| {
        let before = COMPARED.get();
        what();
        worst = worst.max(COMPARED.get() - before);
    };
    // Half of everything is the first tenant's, and a few wait for an instant.
    let owner = |number: u32| &names[if number.is_multiple_of(2) { 0 } else { (number / 2 % TENANTS) as usize }];
    for number in 0..PACKS {
        let not_before = at(if number % 1000 == 1 { i64::from(number) / 1000 } else { 0 });
        counted(&mut || {
            schedule.wait(owner(number), &review(number), share(1, 2), Urgency::Uploaded, not_before, at(0));
        });
    }
    let mut running = std::collections::VecDeque::new();
    let mut served = BTreeSet::new();
    for step in 0..50_000u32 {
        // A decision makes one review ready at most here: whatever becomes ready is paid by its own wait.
        let now = after(u64::from(step) * 1000);
        let mut picked = None;
        counted(&mut || picked = schedule.next(now));
        match picked {
            Some((tenant, review)) => {
                served.insert(tenant.clone());
                running.push_back((tenant, review));
            }
            None => panic!("a hundred slots, and nothing to launch"),
        }
        if running.len() == 100 {
            let (tenant, review) = running.pop_front().expect("a hundred run");
            counted(&mut || schedule.remove(&tenant, &review, now));
        }
    }
    // What waits is taken out anywhere, too.
    for number in (0..PACKS).rev().step_by(997) {
        counted(&mut || schedule.remove(owner(number), &review(number), at(60_000)));
    }
    assert!(worst <= most, "{worst} comparisons for one decision, {most} allowed");
    assert!(worst > 10, "{worst} comparisons: are they still counted?");
    assert_eq!(served.len(), TENANTS as usize, "every tenant was served within fifty thousand launches");
}

proptest! {
    #[test]
    fn limits_hold_and_nothing_is_lost_or_launched_twice(
        steps in proptest::collection::vec((0u8..5, 0u32..12, 0i64..4), 1..200),
    ) {
        let mut schedule = Schedule::new(3);
        let mut waiting: BTreeSet<u32> = BTreeSet::new();
        let mut active: BTreeSet<u32> = BTreeSet::new();
        let owner = |number: u32| tenant(["acme", "bolt", "cord"][number as usize % 3]);
        let share = |number: u32| share(1 + number % 3 * 7, 2);
        let mut now = 0;
        for (action, number, step) in steps {
            now += step;
            match action {
                0 | 1 => {
                    let urgency = if action == 0 { Urgency::Asked } else { Urgency::Uploaded };
                    schedule.wait(&owner(number), &review(number), share(number), urgency, at(now + step), at(now));
                    active.remove(&number);
                    waiting.insert(number);
                }
                2 => {
                    schedule.remove(&owner(number), &review(number), at(now));
                    active.remove(&number);
                    waiting.remove(&number);
                }
                3 if active.contains(&number) => {
                    schedule.activate(&owner(number), &review(number), share(number), at(now));
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
            for number in 0..12 {
                prop_assert_eq!(schedule.is_waiting(&owner(number), &review(number)), waiting.contains(&number));
            }
            let in_ring: Vec<usize> = schedule.ring.values().copied().collect();
            for (at, lane) in schedule.lanes.iter().enumerate() {
                let may = !lane.ready.is_empty() && lane.active < lane.share.concurrent;
                prop_assert_eq!(in_ring.contains(&at), may, "a lane stands in the ring while it may launch, and once");
            }
        }
        // Drain: whatever waits is launched in the end.
        let mut drained = 0;
        for number in active.clone() { schedule.remove(&owner(number), &review(number), at(now)); }
        while let Some((tenant, review)) = schedule.next(at(now + 100)) {
            schedule.remove(&tenant, &review, at(now + 100));
            drained += 1;
        }
        prop_assert_eq!(drained, waiting.len());
    }
}
