//! Each arrow of the record, taken once, taken twice, and taken from the wrong state.

use carrel_schemas::completion::Completion;
use carrel_schemas::ids::{BucketName, Generation, ObjectName};
use carrel_schemas::outcome::{DecidedBy, Outcome, Verdict};
use carrel_schemas::seal::{Member, review_id};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds).expect("in range")
}

fn record() -> ReviewRecord {
    let (tenant, pack) = (TenantId::parse("acme").expect("id"), PackId::parse("q3").expect("id"));
    let member = Member {
        name: ObjectName::parse("q3/a.csv").expect("name"),
        generation: Generation::new(7),
        size: 1,
        crc32c: 0,
        content_type: None,
    };
    let seal = Seal {
        schema: Seal::SCHEMA,
        review: review_id(&tenant, &pack, std::slice::from_ref(&member), None, None),
        tenant,
        pack,
        revision: Revision::FIRST,
        bucket: BucketName::parse("acme-uploads").expect("name"),
        members: vec![member],
        manifest: None,
        marker: None,
        excess: false,
        closed_by: ClosedBy::Marker,
        sealed_at: at(0),
        idempotency_key: None,
        deadline_seconds: None,
    };
    ReviewRecord::open(&seal, at(0), None, Nonce::from_bits(1))
}

fn job() -> JobName {
    JobName::parse("projects/p/locations/l/jobs/j").expect("name")
}

fn execution() -> ExecutionName {
    ExecutionName::parse("projects/p/locations/l/jobs/j/executions/e").expect("name")
}

/// True if the record waits from then on for so many seconds, and up to a quarter more.
fn waits(record: &ReviewRecord, from: i64, seconds: u32) -> bool {
    let State::Queued { not_before } = record.state else { return false };
    let pause = not_before.since(at(from)).as_secs_f64();
    (f64::from(seconds)..=f64::from(seconds) * 1.25).contains(&pause)
}

fn completion(record: &ReviewRecord) -> Completion {
    let outcome = Outcome {
        schema: Outcome::SCHEMA,
        review: record.review.clone(),
        tenant: record.tenant.clone(),
        pack: record.pack.clone(),
        revision: record.revision,
        epoch: record.epoch,
        decided_by: DecidedBy::Dispatcher,
        nonce: Nonce::from_bits(2),
        decided_at: at(9),
        verdict: Verdict::Cancelled { reason: "test".into() },
        stage: None,
        exit: None,
        inputs: vec![],
        inputs_omitted: 0,
        scanners: vec![],
        room: None,
        usage: None,
    };
    Completion::of(&outcome, BucketName::parse("acme-outputs").expect("name"))
}

#[test]
fn the_straight_way_takes_every_arrow_once() {
    let queued = record();
    let (launching, attempt) = queued.authorise(job(), at(1)).expect("from queued");
    assert_eq!(attempt, Attempt::FIRST);
    let running = launching.started(execution(), at(2)).expect("from launching");
    let completion = completion(&running);
    let settled = running.settle(completion).expect("from running");
    let announced = settled.announced(at(3)).expect("from settled");
    assert_eq!(announced.state.word(), "cancelled");
}

#[test]
fn a_running_review_follows_the_execution_that_acts() {
    let (launching, attempt) = record().authorise(job(), at(1)).expect("from queued");
    assert!(launching.clone().follow(execution(), at(2)).is_err(), "nothing runs yet");
    let running = launching.started(execution(), at(2)).expect("from launching");
    let twin = ExecutionName::parse("projects/p/locations/l/jobs/j/executions/twin").expect("name");
    let followed = running.follow(twin.clone(), at(3)).expect("from running");
    assert_eq!(followed.state, State::Running { attempt, execution: twin.clone(), since: at(3) });
    let settled = followed.clone().settle(completion(&followed)).expect("from running");
    assert!(settled.follow(twin, at(4)).is_err(), "nothing runs any more");
}

#[test]
fn no_arrow_can_be_taken_twice() {
    let (launching, _) = record().authorise(job(), at(1)).expect("from queued");
    assert!(launching.clone().authorise(job(), at(1)).is_err());
    let running = launching.started(execution(), at(2)).expect("from launching");
    assert!(running.clone().started(execution(), at(2)).is_err());
    let completion = completion(&running);
    let settled = running.settle(completion.clone()).expect("from running");
    assert!(settled.clone().settle(completion).is_err());
    assert!(settled.clone().requeue(AttemptEnd::Lost("late".into()), at(3)).is_err());
    let announced = settled.announced(at(3)).expect("from settled");
    assert!(announced.announced(at(4)).is_err());
}

#[test]
fn a_requeued_review_waits_longer_each_time_and_never_reuses_an_attempt() {
    let (launching, first) = record().authorise(job(), at(1)).expect("from queued");
    let queued = launching.requeue(AttemptEnd::Lost("crashed".into()), at(10)).expect("from launching");
    assert!(waits(&queued, 10, 2), "{:?}", queued.state);
    let (launching, second) = queued.authorise(job(), at(15)).expect("from queued");
    assert_eq!(second, first.next());
    let queued = launching.requeue(AttemptEnd::Lost("crashed".into()), at(20)).expect("from launching");
    assert!(waits(&queued, 20, 4), "{:?}", queued.state);
    let (launching, _) = queued.authorise(job(), at(24)).expect("from queued");
    let denied = launching.requeue(AttemptEnd::Denied("no permission".into()), at(30)).expect("from launching");
    assert!(waits(&denied, 30, 64), "{:?}", denied.state);
    assert_eq!(denied.spent_attempts(), 3);
}

#[test]
fn what_was_lost_together_does_not_come_back_together() {
    let mut pauses = std::collections::BTreeSet::new();
    for number in 0..50_u128 {
        let review = ReviewId::parse(format!("rv_{number:032x}")).expect("id");
        let (launching, _) = ReviewRecord { review, ..record() }.authorise(job(), at(1)).expect("from queued");
        let queued = launching.requeue(AttemptEnd::Lost("its zone is gone".into()), at(10)).expect("from launching");
        let State::Queued { not_before } = queued.state else { panic!("{:?}", queued.state) };
        pauses.insert(not_before);
    }
    assert!(pauses.len() > 40, "{pauses:?}");
}

#[test]
fn a_cloud_that_puts_off_for_days_fills_no_record_and_spends_no_attempt() {
    let mut queued = record();
    for turn in 0..1000 {
        let (launching, attempt) = queued.authorise(job(), at(turn)).expect("from queued");
        assert_eq!(attempt.get(), u32::try_from(turn).expect("small") + 1);
        queued = launching.requeue(AttemptEnd::PutOff("quota".into()), at(turn)).expect("from launching");
        assert!(waits(&queued, turn, 1 << turn.min(8)), "{:?}", queued.state);
    }
    assert_eq!((queued.spent_attempts(), queued.ended.len()), (0, PUT_OFFS_KEPT));
    let (launching, _) = queued.authorise(job(), at(2000)).expect("from queued");
    assert_eq!(launching.started(execution(), at(2001)).expect("from launching").put_off, 0);
}

#[test]
fn an_outcome_settles_a_review_from_any_unsettled_state() {
    let queued = record();
    let (launching, _) = queued.clone().authorise(job(), at(1)).expect("from queued");
    for state in [queued, launching] {
        let completion = completion(&state);
        assert!(state.settle(completion).is_ok());
    }
}

#[test]
fn fields_of_a_newer_schema_survive_a_rewrite() {
    let mut json = serde_json::to_value(record()).expect("plain JSON");
    json["invented_later"] = serde_json::json!({ "kept": true });
    let read: ReviewRecord = serde_json::from_value(json).expect("unknown fields are kept");
    let (next, _) = read.authorise(job(), at(1)).expect("from queued");
    assert_eq!(serde_json::to_value(next).expect("plain JSON")["invented_later"]["kept"], true);
}

#[test]
fn a_launch_is_put_off_for_about_a_day_and_no_longer() {
    let (mut put_off, mut now) = (record(), at(0));
    while !put_off.is_put_off_for_good() {
        let (launching, _) = put_off.authorise(job(), now).expect("queued");
        put_off = launching.requeue(AttemptEnd::PutOff("busy".to_owned()), now).expect("launching");
        let State::Queued { not_before } = put_off.state else { panic!("{:?}", put_off.state) };
        now = not_before;
    }
    let waited = now.since(at(0));
    assert!((20 * 3600..28 * 3600).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!(put_off.spent_attempts(), 0);
    // An execution that starts begins the count anew.
    let (launching, _) = put_off.authorise(job(), now).expect("queued");
    assert!(!launching.started(execution(), now).expect("launching").is_put_off_for_good());
}

#[test]
fn a_review_that_ended_without_delivery_begins_its_next_epoch_once_everybody_was_told() {
    let (launching, _) = record().authorise(job(), at(1)).expect("from queued");
    let completion = completion(&launching);
    let settled = launching.settle(completion).expect("from launching");
    assert!(!settled.may_be_replayed());
    settled.clone().replay(at(4)).expect_err("not announced yet");
    let told = settled.announced(at(5)).expect("from settled");
    let again = told.replay(at(6)).expect("from announced");
    assert_eq!((again.epoch, again.attempts, again.spent_attempts()), (Epoch::FIRST.next(), 0, 0));
    assert_eq!(again.state, State::Queued { not_before: at(6) });
    again.replay(at(7)).expect_err("it has begun already");
}

#[test]
fn a_review_that_ran_out_of_memory_begins_one_more_epoch_with_more_and_keeps_what_is_known() {
    let (launching, _) = record().authorise(job(), at(1)).expect("from queued");
    let again = launching.requeue(AttemptEnd::Lost("crashed".into()), at(2)).expect("from launching");
    let (launching, second) = again.authorise(job(), at(6)).expect("from queued");
    let running = launching.started(execution(), at(7)).expect("from launching");
    let larger = running.enlarge("out of memory".into(), at(8)).expect("from running");
    assert_eq!((larger.epoch, larger.larger_since), (Epoch::FIRST.next(), Some(Epoch::FIRST.next())));
    assert_eq!((larger.attempts, larger.spent_attempts(), larger.former_epoch()), (0, 0, None));
    let causes: Vec<_> = larger.ended.iter().map(|ended| (ended.attempt, ended.cause.as_str())).collect();
    assert_eq!(causes, [(Attempt::FIRST, "crashed"), (second, "out of memory")]);
    let (launching, attempt) = larger.authorise(job(), at(9)).expect("from queued");
    assert_eq!(attempt, Attempt::FIRST, "of its epoch");
    launching.clone().enlarge("once more".into(), at(10)).expect_err("there is one such try");
    let completion = completion(&launching);
    let told = launching.settle(completion).and_then(|settled| settled.announced(at(11))).expect("from launching");
    let replayed = told.replay(at(12)).expect("from announced");
    assert_eq!(
        (replayed.larger_since, replayed.former_epoch()),
        (Some(Epoch::FIRST.next()), Some(Epoch::FIRST.next()))
    );
    assert_eq!((record().began_at(), replayed.began_at()), (at(0), at(12)));
}

#[test]
fn a_delivered_review_is_never_replayed() {
    let (launching, _) = record().authorise(job(), at(1)).expect("from queued");
    let mut completion = completion(&launching);
    completion.verdict = Verdict::Delivered { files: vec![], top_findings: vec![] };
    let told = launching.settle(completion).and_then(|settled| settled.announced(at(5))).expect("from launching");
    assert!(!told.may_be_replayed());
    told.replay(at(6)).expect_err("an epoch is delivered");
}

#[test]
fn what_is_noted_stands_with_the_attempt_that_ended_last_and_nothing_is_noted_of_nothing() {
    let left = |exit: &str| Evidence { exit: Some(exit.to_owned()), ..Evidence::default() };
    let mut queued = record();
    for turn in 1..=20 {
        let (launching, _) = queued.authorise(job(), at(turn)).expect("from queued");
        queued = launching.requeue(AttemptEnd::PutOff("quota".into()), at(turn)).expect("from launching");
        queued = queued.noting(left(&turn.to_string()));
    }
    let last = queued.ended.last().expect("put off").clone();
    assert_eq!((last.attempt.get(), last.evidence), (20, Some(left("20"))));
    let (launching, _) = queued.authorise(job(), at(21)).expect("from queued");
    let lost = launching.requeue(AttemptEnd::Lost("crashed".into()), at(21)).expect("from launching");
    assert_eq!(lost.noting(Evidence::default()).ended.last().expect("lost").evidence, None);
}
