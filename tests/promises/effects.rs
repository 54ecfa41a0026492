//! Every effect of the dispatcher, on every way that a pack takes to its end: refused, lost, done twice, and the
//! dispatcher killed before and after it. Whichever it is, the pack ends as it would have without.
//!
//! On the usual way every effect fails in every manner; on those that share most of their effects with it, once by an
//! error and once by a death. All manners on all ways are walked on demand.
//!
//! Owns the ways ([`Course`]); how a call fails is the line's.

use std::collections::BTreeSet;

use carrel::fleet::Setup;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterSource};
use carrel_schemas::outcome::{FailureClass, Verdict};
use carrel_schemas::review_request::REVIEW_REQUESTED;
use futures::future::{FutureExt as _, LocalBoxFuture, join_all};
use rustix::process::{Signal, kill_process_group};
use serde_json::{Value, json};

use crate::files::sales;
use crate::gate::{agents, worker_above};
use crate::line::{Armed, Counts, Fault, Line, every_effect, fleet_by_line, launches, reads_of_outcomes};
use crate::steps::ends_as_ever;
use crate::world::{World, tenant};

/// The faults that effects fail by, each effect by the next.
type Round = &'static [Fault];
/// Every effect by every fault.
const EVERY_FAULT: [Round; 5] =
    [&[Fault::Refused], &[Fault::Lost], &[Fault::Twice], &[Fault::HeldBefore], &[Fault::HeldAfter]];
/// Every effect by an error, and every effect by a death.
const IN_TURN: [Round; 2] = [&[Fault::Lost, Fault::Refused, Fault::Twice], &[Fault::HeldAfter, Fault::HeldBefore]];

/// One way of a pack of acme's: how it comes in, and how it must end whatever fails in between.
#[derive(Clone, Copy)]
struct Course {
    /// When a pack closes.
    policy: fn() -> Value,
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
        policy: || json!({ "close": "marker" }),
        setup: |_| {},
        name: |at| format!("pack-{at}"),
        from: 0,
        fleets: 2,
        comes: |world, pack| world.upload("acme", pack, vec![("sales.csv", sales())]).boxed_local(),
        ends: |world, pack, what| ends_as_ever(world, "acme", pack, what).boxed_local(),
    };

    /// A pack of one, which its file closes.
    const ONE: Self = Self {
        policy: || json!({ "close": "each" }),
        name: |at| format!("sales-{at}.csv"),
        comes: |world, name| world.put("acme", name, sales()).map(|_generation| ()).boxed_local(),
        ..Self::USUAL
    };

    /// A pack that nothing but a request closes.
    const ASKED_FOR: Self = Self {
        policy: || json!({ "close": "quiet", "quiet_seconds": 3600 }),
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

    /// Fails every effect of the dispatcher in turn, one pack each; returns how many there were.
    async fn fail_every_effect(self, round: Round) -> usize {
        join_all((0..self.fleets).map(|first| self.fail_a_share(round, self.from + first))).await.into_iter().sum()
    }

    async fn fail_a_share(self, round: Round, first: usize) -> usize {
        let (mut world, line) = by_line(every_effect, (self.policy)(), self.setup).await;
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
async fn by_line(counts: Counts, policy: Value, change: impl FnOnce(&mut Setup)) -> (World, Line) {
    // A second attempt is allowed, so that the way to it is walked too.
    let acme = tenant("acme", json!({ "policy": policy, "limits": { "max_attempts": 2 } }));
    fleet_by_line(counts, vec![acme], change).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_of_the_dispatcher_fails_the_pack_ends_the_same() {
    // Open pack, seal, open review, record, worker's seal, authorise, run, started, settle, publish, announced, finish,
    // close pack.
    Course::USUAL.holds(&EVERY_FAULT, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_pack_of_one_ends_the_same() {
    // As above without opening and closing a pack.
    Course::ONE.holds(&IN_TURN, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_pack_that_was_asked_for_ends_the_same() {
    // As the first, and the key remembered.
    Course::ASKED_FOR.holds(&IN_TURN, 13).await;
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
    Course::EMPTY.holds(&IN_TURN, 4).await;
}

async fn ends_as_empty(world: &World, pack: &str, what: &str) {
    let its = |letter: &DeadLetter| match &letter.source {
        DeadLetterSource::Pack { pack: of, .. } => of.as_str() == pack,
        DeadLetterSource::Message { .. } | DeadLetterSource::Review { .. } => false,
    };
    let letter = world.dead_letter(Some("acme"), what, its).await;
    assert_eq!(letter.class, DeadLetterClass::EmptyPack, "{what}");
    world.settled().await;
    let filed = world.dead_letters(Some("acme")).await;
    assert_eq!(filed.iter().filter(|letter| its(letter)).count(), 1, "{what}: {filed:?}");
}

/// Returns once a pack whose worker always dies has ended as such packs must: failed once, under one id, and filed.
async fn ends_as_crashed(world: &World, pack: &str, what: &str) {
    let got = world.completion("acme", pack).await.completion;
    let crashed = matches!(got.verdict, Verdict::Failed { class: FailureClass::Crashed, .. });
    assert!(crashed, "{what}: {:?}", got.verdict);
    assert_eq!(world.names("acme-outputs", &format!("outcomes/{}", got.review)).await.len(), 1, "{what}");
    let its = |letter: &DeadLetter| matches!(&letter.source, DeadLetterSource::Review { review, .. } if *review == got.review);
    let letter = world.dead_letter(Some("acme"), what, its).await;
    assert_eq!(letter.class, DeadLetterClass::Crashed, "{what}");
    let of_it = world.received().into_iter().filter(|other| other.completion.review == got.review);
    assert_eq!(of_it.map(|other| other.completion.event).collect::<BTreeSet<_>>().len(), 1, "{what}");
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
    Course::DYING.holds(&IN_TURN, 8).await;
    killer.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "on demand: minutes"]
async fn whichever_effect_fails_in_whichever_manner_every_pack_ends_the_same() {
    let killer = tokio::spawn(kill_every_worker());
    for (course, effects) in [(Course::ONE, 10), (Course::ASKED_FOR, 13), (Course::EMPTY, 4), (Course::DYING, 8)] {
        course.holds(&EVERY_FAULT, effects).await;
    }
    killer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_may_not_be_read_for_a_while_is_waited_for() {
    let (world, line) = by_line(reads_of_outcomes, (Course::USUAL.policy)(), |_| {}).await;
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
    let (world, line) = by_line(launches, (Course::USUAL.policy)(), |_| {}).await;
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
