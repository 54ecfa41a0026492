//! Each fault on its own does what it says, a plan of zeroes does nothing, and a seed repeats itself.

use std::collections::BTreeSet;

use carrel_local::faults::FaultPlan;
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_run_v2::model::Execution;
use google_cloud_run_v2::model::condition::State;
use google_cloud_run_v2::model::run_job_request::Overrides;

use crate::calls::{Caller, message, publish_status, status, text};
use crate::run::{result, script, state};
use crate::world::{JOB, World};

const EVENTS: &str = "projects/demo/topics/events";
const INBOX: &str = "projects/demo/subscriptions/inbox";
const BUCKET: &str = "projects/_/buckets/bucket-a";

/// Executions of the job, newest first.
async fn executions(caller: &Caller) -> Vec<Execution> {
    let client = caller.executions().await;
    let mut items = client.list_executions().set_parent(JOB).by_item();
    let mut all = Vec::new();
    while let Some(item) = items.next().await {
        all.push(item.expect("the listing goes on"));
    }
    all
}

/// The ids that publishing `count` messages one by one is answered with.
async fn publish(caller: &Caller, count: usize) -> Vec<String> {
    let publisher = caller.publisher(EVENTS).await;
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(publisher.publish(message(number.to_string())).await.expect("is published"));
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_enqueues_messages_and_notifications_twice_under_two_ids() {
    let world = World::start_faulty(FaultPlan { duplicate: 1.0, ..FaultPlan::default() }).await;
    let owner = world.as_owner();
    publish(&owner, 1).await;
    owner.storage().await.write_object(BUCKET, "x", "1").send_unbuffered().await.expect("is stored");
    let mut inbox = owner.inbox(INBOX).await;
    for object in [None, Some("x")] {
        let (first, one) = inbox.next().await;
        let (second, two) = inbox.next().await;
        assert_eq!(first.attributes.get("objectId").map(String::as_str), object);
        assert_eq!((&first.data, &first.attributes), (&second.data, &second.attributes));
        assert_ne!(first.message_id, second.message_id);
        one.ack();
        two.ack();
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redeliver_brings_an_acknowledged_message_once_more() {
    let world = World::start_faulty(FaultPlan { redeliver: 1.0, ..FaultPlan::default() }).await;
    let owner = world.as_owner();
    let mut inbox = owner.inbox(INBOX).await;
    for _ in 0..2 {
        let [id] = publish(&owner, 1).await.try_into().expect("it is one");
        for _ in 0..2 {
            let (message, handler) = inbox.next().await;
            assert_eq!(message.message_id, id);
            handler.ack();
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delay_lets_later_messages_overtake_and_loses_none() {
    let world = World::start_faulty(FaultPlan { delay: 1.0, delay_ms: 300, ..FaultPlan::default() }).await;
    let owner = world.as_owner();
    let sent = publish(&owner, 32).await;
    let mut inbox = owner.inbox(INBOX).await;
    let mut got = Vec::new();
    for _ in &sent {
        let (message, handler) = inbox.next().await;
        handler.ack();
        got.push(message.message_id);
    }
    assert_ne!(got, sent);
    let number = |id: &String| id.parse::<u64>().expect("ids are numbers here");
    got.sort_by_key(number);
    assert_eq!(got, sent);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lose_reply_does_the_work_and_answers_503() {
    let world = World::start_losing_every_reply().await;
    let owner = world.as_owner();
    let publisher = owner.publisher(EVENTS).await;
    let lost = publisher.publish(message("one")).await.expect_err("the reply is lost");
    assert_eq!(publish_status(&lost), 503);
    let mut inbox = owner.inbox(INBOX).await;
    assert_eq!(inbox.text().await, "one");
    let lost = owner.storage().await.write_object(BUCKET, "x", "1").send_unbuffered().await;
    assert_eq!(status(&lost.expect_err("the reply is lost")), 503);
    let control = owner.control().await;
    control.get_object().set_bucket(BUCKET).set_object("x").send().await.expect("it was stored");
    assert_eq!(inbox.next().await.0.attributes["objectId"], "x");
    let lost = control.delete_object().set_bucket(BUCKET).set_object("x").send().await;
    assert_eq!(status(&lost.expect_err("the reply is lost")), 503);
    let gone = control.get_object().set_bucket(BUCKET).set_object("x").send().await;
    assert_eq!(status(&gone.expect_err("it was deleted")), 404);
    let lost = owner.launch(JOB, script("exit 0")).await.expect_err("the reply is lost");
    assert_eq!(status(&lost), 503);
    let launched = executions(&owner).await;
    assert_eq!(launched.len(), 1);
    assert_eq!(state(&owner.completed(&launched[0].name).await), State::ConditionSucceeded);
    // Who looks for a lost launch finds it by its arguments, the newest first.
    let lost = owner.launch(JOB, script("exit 1")).await.expect_err("the reply is lost");
    assert_eq!(status(&lost), 503);
    let arguments = |execution: &Execution| execution.template.clone().expect("it has one").containers[0].args.clone();
    let found: Vec<_> = executions(&owner).await.iter().map(arguments).collect();
    assert_eq!(found, [["exit 1"], ["exit 0"]]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn double_launch_starts_two_executions_and_names_one() {
    let world = World::start_faulty(FaultPlan { double_launch: 1.0, ..FaultPlan::default() }).await;
    let owner = world.as_owner();
    let launched = owner.launch(JOB, script("echo here")).await.expect("it launches");
    let all = executions(&owner).await;
    assert_eq!(all.len(), 2);
    assert!(all.iter().any(|execution| execution.name == launched.name));
    for execution in &all {
        assert_eq!(state(&owner.completed(&execution.name).await), State::ConditionSucceeded);
        assert_eq!(world.log(&execution.name), "here\n");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_task_ends_a_task_with_a_signal_that_nothing_catches() {
    let world = World::start_faulty(FaultPlan { kill_task: 1.0, kill_after_ms: 30, ..FaultPlan::default() }).await;
    let owner = world.as_owner();
    let launched = owner.launch(JOB, script("trap '' TERM; /bin/sleep 600")).await.expect("it launches");
    let execution = owner.completed(&launched.name).await;
    assert_eq!((state(&execution), execution.failed_count), (State::ConditionFailed, 1));
    assert_eq!(result(&owner, &launched.name).await.term_signal, 9);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_notification_stores_the_object_and_tells_nobody() {
    let world = World::start_faulty(FaultPlan { drop_notification: 1.0, ..FaultPlan::default() }).await;
    let owner = world.as_owner();
    owner.storage().await.write_object(BUCKET, "x", "1").send_unbuffered().await.expect("is stored");
    publish(&owner, 1).await;
    assert_eq!(owner.inbox(INBOX).await.text().await, "0", "only what was published comes");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refuse_answers_429_or_503_in_json_and_over_grpc_and_does_nothing() {
    let world = World::start_faulty(FaultPlan { refuse: 1.0, refuse_burst: 4, ..FaultPlan::default() }).await;
    let owner = world.as_owner();
    let (storage, control) = (owner.storage().await, owner.control().await);
    let mut json = BTreeSet::new();
    for _ in 0..40 {
        let refused = storage.write_object(BUCKET, "x", "1").send_unbuffered().await.expect_err("is refused");
        json.insert(status(&refused));
    }
    assert_eq!(json, [429, 503].into());
    let mut grpc = BTreeSet::new();
    for _ in 0..40 {
        let refused = control.get_object().set_bucket(BUCKET).set_object("x").send().await.expect_err("is refused");
        grpc.insert(status(&refused));
    }
    assert_eq!(grpc, json);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stall_and_truncate_hold_a_read_up_and_cut_it_and_a_client_that_resumes_has_it_all() {
    let plan = FaultPlan { stall: 0.3, stall_ms: 5, truncate: 0.7, ..FaultPlan::default() };
    let world = World::start_faulty(plan).await;
    let storage = world.as_owner().storage().await;
    let content = vec![7_u8; 300_000];
    storage.write_object(BUCKET, "x", bytes::Bytes::from(content.clone())).send_unbuffered().await.expect("is stored");
    let url = format!("{}/storage/v1/b/bucket-a/o/x?alt=media", world.endpoint());
    let http = reqwest::Client::new();
    let mut cut = 0;
    for _ in 0..20 {
        // One that is cut at once may not even have sent its head.
        let Ok(answer) = http.get(&url).bearer_auth(world.owner()).send().await else {
            cut += 1;
            continue;
        };
        assert_eq!(answer.content_length(), Some(300_000), "the answer says what it owes");
        cut += usize::from(answer.bytes().await.is_err());
    }
    assert!((1..20).contains(&cut), "{cut} of 20 reads were cut");
    for _ in 0..3 {
        let mut read = storage.read_object(BUCKET, "x").send().await.expect("it begins");
        let mut got = Vec::new();
        while let Some(piece) = read.next().await {
            got.extend_from_slice(&piece.expect("the client goes on where it was cut"));
        }
        assert!(got == content, "{} of {} bytes", got.len(), content.len());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expire_takes_a_message_back_long_before_its_deadline() {
    let world = World::start_faulty(FaultPlan { expire: 1.0, expire_ms: 20, ..FaultPlan::default() }).await;
    let owner = world.as_owner();
    let [id] = publish(&owner, 1).await.try_into().expect("it is one");
    let mut inbox = owner.inbox(INBOX).await;
    // Its deadline is ten seconds, and nobody gives it back.
    let (first, _held) = inbox.next().await;
    let (second, handler) = inbox.next().await;
    assert_eq!((&first.message_id, &second.message_id), (&id, &id));
    handler.ack();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_zeroes_does_nothing_whatever_its_seed() {
    let world = World::start_faulty(FaultPlan { seed: 7, ..FaultPlan::default() }).await;
    let owner = world.as_owner();
    let sent = publish(&owner, 40).await;
    let mut inbox = owner.inbox(INBOX).await;
    for (number, id) in sent.iter().enumerate() {
        let (message, handler) = inbox.next().await;
        assert_eq!((&message.message_id, text(&message)), (id, number.to_string()));
        handler.ack();
    }
    inbox.close().await;
    publish(&owner, 1).await;
    assert_eq!(owner.inbox(INBOX).await.text().await, "0", "nothing came twice");
    let launched = owner.launch(JOB, Overrides::new()).await.expect("it launches");
    assert_eq!(state(&owner.completed(&launched.name).await), State::ConditionSucceeded);
    assert_eq!(executions(&owner).await.len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_brings_the_same_faults() {
    let mut ids = Vec::new();
    for seed in [11, 11, 12] {
        let world = World::start_faulty(FaultPlan { seed, duplicate: 0.5, ..FaultPlan::default() }).await;
        // A copy takes the next id, so the ids tell which messages were enqueued twice.
        ids.push(publish(&world.as_owner(), 48).await);
        world.stop().await;
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}
