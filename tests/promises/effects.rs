//! Every effect of the dispatcher, on every way that a pack takes to its end: refused, throttled, lost, done twice, and
//! the dispatcher killed before and after it. Whichever it is, the pack ends as it would have without. All the while the
//! cloud repeats and reorders messages.
//!
//! An acknowledgement is an effect like any other. What has not been acknowledged comes again only when its pack has
//! ended, so that is watched apart.
//!
//! On the usual way every effect fails in every manner; on those that share most of their effects with it, once by an
//! error and once by a death. All manners on all ways are walked on demand.
//!
//! Owns the ways ([`Course`]); how a call fails is the line's, and how each way must end stands in `ends`.

mod ends;

use carrel::fleet::Setup;
use carrel_local::faults::FaultPlan;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass};
use carrel_schemas::outcome::{FailureClass, Verdict};
use carrel_schemas::review_request::REVIEW_REQUESTED;
use futures::future::{FutureExt as _, LocalBoxFuture, join_all};
use rustix::process::{Signal, kill_process_group};
use serde_json::{Value, json};

use self::ends::{
    ends_as_cancelled, ends_as_changed, ends_as_collected, ends_as_crashed, ends_as_empty, ends_as_expired,
    ends_as_flooded, ends_as_superseded, ends_in_epoch,
};
use crate::files::sales;
use crate::gate::{Gate, agents, worker_above};
use crate::line::{
    Armed, Counts, Fault, Line, acknowledged_requests, acknowledged_uploads, every_effect, every_effect_of_a_sweep,
    every_lasting_effect, fleet_by_line, launches, reads_of_outcomes,
};
use crate::steps::ends_as_ever;
use crate::world::{World, eventually, program, tenant};

/// The faults that effects fail by, each effect by the next.
pub(crate) type Round = &'static [Fault];
/// Every effect by every fault.
const EVERY_FAULT: [Round; 6] = [
    &[Fault::Refused],
    &[Fault::Throttled],
    &[Fault::Lost],
    &[Fault::Twice],
    &[Fault::HeldBefore],
    &[Fault::HeldAfter],
];
/// Every effect by an error, by a death before it, and by a death after it.
const THRICE: [Round; 3] =
    [&[Fault::Lost, Fault::Refused, Fault::Twice, Fault::Throttled], &[Fault::HeldBefore], &[Fault::HeldAfter]];
/// Every effect once, by an error or a death: what a course has in common with others is failed in those as well.
pub(crate) const ONCE: [Round; 1] = [&[
    Fault::Lost,
    Fault::HeldAfter,
    Fault::Refused,
    Fault::HeldBefore,
    Fault::Twice,
    Fault::HeldAfter,
    Fault::Throttled,
]];

/// Messages that come twice, late, and once more after they were acknowledged.
pub(crate) fn unruly() -> FaultPlan {
    FaultPlan { seed: 20_260_401, duplicate: 0.2, delay: 0.3, delay_ms: 200, redeliver: 0.2, ..FaultPlan::default() }
}

/// One way of a pack of acme's: how it comes in, and how it must end whatever fails in between.
#[derive(Clone, Copy)]
struct Course {
    /// What the tenant is, besides its name.
    acme: fn() -> Value,
    /// Which calls are effects.
    counts: Counts,
    /// What else is special about the fleet.
    setup: fn(&mut Setup),
    /// The name of a pack, from the number of the effect that fails on its way.
    name: fn(usize) -> String,
    /// The first effect that fails; those before it are another course's too.
    from: usize,
    /// Fleets that share out the effects: the more of a pack's time is pauses, the more of them.
    fleets: usize,
    comes: for<'a> fn(&'a World, &'a str) -> LocalBoxFuture<'a, ()>,
    ends: for<'a> fn(&'a World, &'a str, &'a str) -> LocalBoxFuture<'a, ()>,
}

impl Course {
    /// A folder with a file and a marker, which is delivered.
    const USUAL: Self = Self {
        acme: || json!({ "policy": { "close": "marker" } }),
        counts: every_effect,
        setup: |_| {},
        name: |at| format!("pack-{at}"),
        from: 0,
        fleets: 2,
        comes: |world, pack| world.upload("acme", pack, vec![("sales.csv", sales())]).boxed_local(),
        ends: |world, pack, what| ends_as_ever(world, "acme", pack, what).boxed_local(),
    };

    /// A pack of one, which its file closes.
    const ONE: Self = Self {
        acme: || json!({ "policy": { "close": "each" } }),
        name: |at| format!("sales-{at}.csv"),
        comes: |world, name| world.put("acme", name, sales()).map(|_generation| ()).boxed_local(),
        ..Self::USUAL
    };

    /// A pack that nothing but a request closes.
    const ASKED_FOR: Self = Self {
        acme: || json!({ "policy": { "close": "quiet", "quiet_seconds": 3600 } }),
        // A request that a killed dispatcher had in hand comes again only once its lease is over.
        fleets: 4,
        comes: |world, pack| ask(world, pack).boxed_local(),
        ..Self::USUAL
    };

    /// A pack of no files, which is filed.
    const EMPTY: Self = Self {
        comes: |world, pack| world.upload("acme", pack, vec![]).boxed_local(),
        ends: |world, pack, what| ends_as_empty(world, pack, what).boxed_local(),
        ..Self::USUAL
    };

    /// A pack whose workers all die: its agent never ends by itself, and each worker is killed as soon as it has come
    /// that far.
    const DYING: Self = Self {
        setup: |setup| {
            let script = format!(": {}\nwhile :; do sleep 60; done", doomed());
            setup.agent = ["/bin/sh", "-c", &script, "agent"].map(str::to_owned).to_vec();
        },
        // Up to the first attempt's start it is the usual course.
        from: 8,
        ends: |world, pack, what| ends_as_crashed(world, pack, what).boxed_local(),
        ..Self::USUAL
    };

    /// A pack whose first revision an agent never ends, and a second one takes its place.
    const SUPERSEDED: Self = Self {
        acme: || json!({ "policy": { "close": "marker" }, "supersede_running": true }),
        setup: |setup| {
            // The agent of a pack without such a file goes on for ever.
            let script = "while ! grep -q last.csv \"$2\"; do sleep 60; done\nexec \"$1\" internal analyst \"$2\"";
            setup.agent =
                ["/bin/sh", "-c", script, "agent", &program().display().to_string()].map(str::to_owned).to_vec();
        },
        // Up to the first attempt's start it is the usual course.
        from: 8,
        fleets: 3,
        ends: |world, pack, what| ends_as_superseded(world, pack, what).boxed_local(),
        ..Self::USUAL
    };

    /// A pack whose agent never ends, and whose deadline does not wait for it.
    const EXPIRED: Self = Self {
        acme: || json!({ "policy": { "close": "marker" }, "deadline_seconds": 1 }),
        setup: |setup| {
            setup.agent = ["/bin/sh", "-c", "while :; do sleep 60; done", "agent"].map(str::to_owned).to_vec();
        },
        from: 8,
        fleets: 4,
        ends: |world, pack, what| ends_as_expired(world, pack, what).boxed_local(),
        ..Self::USUAL
    };

    /// A pack whose agent never ends, and whose review somebody cancels.
    const CANCELLED: Self = Self {
        acme: Self::USUAL.acme,
        ends: |world, pack, what| ends_as_cancelled(world, pack, what).boxed_local(),
        ..Self::EXPIRED
    };

    /// A pack whose only file is deleted while it is reviewed, and which is closed once more without it.
    const CHANGED: Self = Self {
        acme: || json!({ "policy": { "close": "quiet", "quiet_seconds": 1 } }),
        setup: |setup| drop(Gate::install(setup)),
        from: 8,
        fleets: 4,
        ends: |world, pack, what| ends_as_changed(world, pack, what).boxed_local(),
        ..Self::USUAL
    };

    /// Two packs of one, of which the tenant's rate lets one through at most; a sweep finds the rest.
    const FLOODED: Self = Self {
        acme: || json!({ "policy": { "close": "each" }, "limits": { "max_events_per_minute": 1 } }),
        counts: every_effect_of_a_sweep,
        // Buckets are swept at every fifth of these.
        setup: |setup| setup.dispatcher.push(("CARREL_RECONCILE_MS".to_owned(), "100".to_owned())),
        fleets: 3,
        comes: |world, name| flood(world, name).boxed_local(),
        ends: |world, name, what| ends_as_flooded(world, name, what).boxed_local(),
        ..Self::ONE
    };

    /// A pack whose agent runs out of memory unless it has the larger limits.
    const ENLARGED: Self = Self {
        acme: || {
            let more = json!({ "agent_memory_bytes": 2_u64 << 30, "timeout_seconds": 1800 });
            json!({ "policy": { "close": "marker" }, "retry_limits": more })
        },
        setup: |setup| {
            setup.agent =
                ["/bin/sh", "-c", HUNGRY, "hungry", &program().display().to_string()].map(str::to_owned).to_vec();
        },
        from: 8,
        fleets: 3,
        ends: |world, pack, what| ends_in_epoch(world, pack, 2, what).boxed_local(),
        ..Self::USUAL
    };

    /// A pack of two revisions, of which the first grows old.
    const COLLECTED: Self = Self {
        setup: |setup| setup.dispatcher.push(("CARREL_RETENTION".to_owned(), "1s".to_owned())),
        counts: every_lasting_effect,
        // Up to the first revision's end it is the usual course.
        from: 14,
        fleets: 4,
        ends: |world, pack, what| ends_as_collected(world, pack, what).boxed_local(),
        ..Self::USUAL
    };

    /// Fails every effect of the dispatcher in turn, one pack each; returns how many there were.
    async fn fail_every_effect(self, round: Round) -> usize {
        join_all((0..self.fleets).map(|first| self.fail_a_share(round, self.from + first))).await.into_iter().sum()
    }

    async fn fail_a_share(self, round: Round, first: usize) -> usize {
        let change = |setup: &mut Setup| {
            setup.faults = unruly();
            (self.setup)(setup);
        };
        let (mut world, line) = by_line(self.counts, (self.acme)(), change).await;
        let mut at = first;
        loop {
            let fault = round[at % round.len()];
            let (pack, what) = ((self.name)(at), format!("{fault:?} at effect {at}"));
            line.arm(at, fault);
            (self.comes)(&world, &pack).await;
            let ended = async {
                (self.ends)(&world, &pack, &what).await;
                world.settled().await;
            };
            tokio::select! {
                () = line.holds() => {}
                () = ended => {}
            }
            match line.disarm() {
                Armed::Unused => return (at - first) / self.fleets,
                Armed::Failed => {}
                Armed::Holding => {
                    world.kill_dispatcher();
                    world.restart_dispatcher().await;
                    (self.ends)(&world, &pack, &what).await;
                    world.settled().await;
                }
            }
            at += self.fleets;
        }
    }

    /// Walks the course once in each round; on each at least so many effects must have failed.
    async fn holds(self, rounds: &[Round], effects: usize) {
        let runs = rounds.iter().map(|round| async move { (round, self.fail_every_effect(round).await) });
        for (round, failed) in join_all(runs).await {
            assert!(failed >= effects, "{round:?}: the dispatcher had only {failed} effects");
        }
    }
}

/// A fleet whose dispatcher reaches the cloud by a line.
async fn by_line(counts: Counts, changes: Value, change: impl FnOnce(&mut Setup)) -> (World, Line) {
    let mut acme = tenant("acme", changes);
    // A second attempt is allowed, so that the way to it is walked too.
    acme["limits"]["max_attempts"] = json!(2);
    fleet_by_line(counts, vec![acme], change).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_of_the_dispatcher_fails_the_pack_ends_the_same() {
    // Open pack, seal, open review, record, worker's seal, authorise, run, started, settle, publish, announced, finish,
    // close pack.
    Course::USUAL.holds(&THRICE, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_pack_of_one_ends_the_same() {
    // As above without opening and closing a pack.
    Course::ONE.holds(&ONCE, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_review_makes_way_once_and_what_replaced_it_is_delivered() {
    // The outcome, cancel, settle, publish, announced; and the second revision's course.
    Course::SUPERSEDED.holds(&ONCE, 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_review_past_its_deadline_is_given_up_once() {
    // The outcome, cancel, settle, the letter, the log, publish, announced, finish.
    Course::EXPIRED.holds(&ONCE, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_review_that_is_cancelled_while_it_runs_is_ended_once() {
    // The outcome, cancel, settle, the log, publish, announced, finish.
    Course::CANCELLED.holds(&ONCE, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_pack_that_changes_while_it_is_reviewed_is_told_once_and_closed_again() {
    // Settle, the letter, open pack, the log, publish, announced, finish; seal, the letter, close pack.
    Course::CHANGED.holds(&ONCE, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_what_a_flood_leaves_to_the_sweep_ends_the_same() {
    // The mark, the cursor, the mark cleared, open pack, the cursor, close pack, two reviews finished. Where a late message
    // has left a mark before, that one and its end are no effects of this pack's.
    Course::FLOODED.holds(&ONCE, 6).await;
}

/// The event of the first spends the tenant's minute, unless that was spent before.
async fn flood(world: &World, name: &str) {
    for name in [format!("spent-{name}"), name.to_owned()] {
        world.put("acme", &name, sales()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_review_out_of_memory_is_tried_once_more_and_delivered_once() {
    // Enlarged, and once more authorise, run, started, settle, the log, publish, announced, finish.
    Course::ENLARGED.holds(&ONCE, 8).await;
}

/// What ends as one whose allocation was refused, unless it has the larger limits.
const HUNGRY: &str = "seconds=$(sed -n 's/.*\"timeout_seconds\": \\([0-9]*\\).*/\\1/p' \"$2\")\n\
                      if [ \"$seconds\" -lt 1000 ]; then echo 'hungry: memory exhausted' >&2; exit 1; fi\n\
                      exec \"$1\" internal analyst \"$2\"";

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_what_is_over_and_old_is_collected_and_what_was_decided_stays() {
    // The second revision's course, and then the log, claim, progress, the worker's seal, the record, its seal.
    Course::COLLECTED.holds(&ONCE, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_pack_that_was_asked_for_ends_the_same() {
    // As the first, and the key remembered.
    Course::ASKED_FOR.holds(&ONCE, 13).await;
}

async fn ask(world: &World, pack: &str) {
    world.put("acme", &format!("{pack}/sales.csv"), sales()).await;
    let request = json!({ "tenant": "acme", "pack": pack, "idempotency_key": pack }).to_string();
    let context =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "//platform"), ("ce-type", REVIEW_REQUESTED)];
    world.publish("review-requests", request, &context).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_an_empty_pack_is_filed_once() {
    // Open pack, seal, the letter, close pack.
    Course::EMPTY.holds(&ONCE, 4).await;
}

/// What agents whose workers are to die carry in their command line: this process's own.
fn doomed() -> String {
    format!("doomed-by-{}", std::process::id())
}

/// Kills whichever worker has started such an agent, until it is aborted. One for all fleets, and beside them: looking
/// through all processes takes time.
async fn kill_every_worker() {
    let mut turn = tokio::time::interval(std::time::Duration::from_millis(150));
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let found = tokio::task::spawn_blocking(|| agents(&doomed()).into_iter().filter_map(worker_above).collect());
        let workers: Vec<_> = found.await.expect("it looks to the end");
        for worker in workers {
            match kill_process_group(worker, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => panic!("kill a worker: {error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_pack_whose_worker_dies_is_failed_once() {
    let killer = tokio::spawn(kill_every_worker());
    // Requeue, authorise, run, started once more, the outcome, settle, the letter, publish, announced, finish.
    Course::DYING.holds(&ONCE, 8).await;
    killer.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "on demand: minutes"]
async fn whichever_effect_fails_in_whichever_manner_every_pack_ends_the_same() {
    let killer = tokio::spawn(kill_every_worker());
    for (course, effects) in [
        (Course::ONE, 10),
        (Course::ASKED_FOR, 13),
        (Course::EMPTY, 4),
        (Course::DYING, 8),
        (Course::SUPERSEDED, 15),
        (Course::EXPIRED, 7),
        (Course::CANCELLED, 7),
        (Course::CHANGED, 9),
        (Course::FLOODED, 6),
        (Course::ENLARGED, 8),
        (Course::COLLECTED, 12),
    ] {
        course.holds(&EVERY_FAULT, effects).await;
    }
    killer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_acknowledgement_fails_comes_again_and_nothing_is_done_twice() {
    let upload = Course { counts: acknowledged_uploads, ..Course::ONE };
    let request = Course { counts: acknowledged_requests, ..Course::ASKED_FOR };
    // Killed before it, the dispatcher has noted the message, and its successor is given it anew.
    let failing = [
        (upload, Fault::Refused),
        (upload, Fault::HeldBefore),
        (request, Fault::Throttled),
        (request, Fault::HeldBefore),
    ];
    join_all(failing.map(|(course, fault)| comes_again(course, fault))).await;
}

async fn comes_again(course: Course, fault: Fault) {
    let (mut world, line) = by_line(course.counts, (course.acme)(), course.setup).await;
    let (pack, what) = ((course.name)(0), format!("{fault:?} at its acknowledgement"));
    line.arm(0, fault);
    (course.comes)(&world, &pack).await;
    (course.ends)(&world, &pack, &what).await;
    if fault == Fault::HeldBefore {
        line.holds().await;
        world.kill_dispatcher();
        world.restart_dispatcher().await;
    }
    eventually(&format!("{what}: the next one"), async || (line.seen() > 1).then_some(())).await;
    world.settled().await;
    (course.ends)(&world, &pack, &what).await;
    let reviews = world.operator().reviews("acme").await.expect("answered");
    assert_eq!(reviews.len(), 1, "{what}: {reviews:?}");
    assert_eq!(world.names("acme-outputs", "claims/").await.len(), 1, "{what}: it ran once");
    assert!(world.dead_letters(Some("acme")).await.is_empty(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_may_not_be_read_for_a_while_is_waited_for() {
    let (world, line) = by_line(reads_of_outcomes, (Course::USUAL.acme)(), |_| {}).await;
    let mut at = 0;
    loop {
        let (pack, what) = (format!("pack-{at}"), format!("forbidden at read {at}"));
        line.arm(at, Fault::Forbidden);
        world.upload("acme", &pack, vec![("sales.csv", sales())]).await;
        ends_as_ever(&world, "acme", &pack, &what).await;
        if line.disarm() == Armed::Unused {
            break;
        }
        at += 1;
    }
    assert!(at >= 2, "an outcome is looked for before the launch and after the worker's word");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_is_denied_or_put_off_is_made_again_and_one_that_is_refused_is_told() {
    let (world, line) = by_line(launches, (Course::USUAL.acme)(), |_| {}).await;
    for fault in [Fault::Throttled, Fault::Forbidden] {
        let (pack, what) = (format!("{fault:?}").to_lowercase(), format!("{fault:?}"));
        line.arm(0, fault);
        world.upload("acme", &pack, vec![("sales.csv", sales())]).await;
        ends_as_ever(&world, "acme", &pack, &what).await;
        assert_eq!(line.disarm(), Armed::Failed, "{what}");
    }
    line.arm(0, Fault::Malformed);
    world.upload("acme", "refused", vec![("sales.csv", sales())]).await;
    let got = world.completion("acme", "refused").await.completion;
    let refused = matches!(got.verdict, Verdict::Failed { class: FailureClass::CloudRefused, .. });
    assert!(refused, "{:?}", got.verdict);
    let of_it = |letter: &DeadLetter| letter.class == DeadLetterClass::CloudRefused;
    world.dead_letter(Some("acme"), "its letter", of_it).await;
    world.settled().await;
}
