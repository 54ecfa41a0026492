//! Every topic and subscription of the fleet, for whoever holds a worker's token: it may publish wake-ups and no more.

use carrel::plan;
use serde_json::json;

use super::wire::{Call, OK, PERMISSION_DENIED, nested, number, text};
use super::{ATTACKER, Allowed, Attack, Stage, Thing, VICTIM, owner, two, worker};
use crate::files::sales;
use crate::world::World;

const TOPICS: [&str; 6] =
    ["uploads", "uploads-dead", "review-requests", "review-requests-dead", "completions", "outcomes"];

fn topic(short: &str) -> String {
    format!("projects/{}/topics/{short}", plan::PROJECT)
}

fn subscription(short: &str) -> String {
    format!("projects/{}/subscriptions/{short}", plan::PROJECT)
}

fn publisher(method: &str, message: &[Vec<u8>]) -> Call {
    Call::grpc(&format!("pubsub.v1.Publisher/{method}"), message)
}

fn subscriber(method: &str, message: &[Vec<u8>]) -> Call {
    Call::grpc(&format!("pubsub.v1.Subscriber/{method}"), message)
}

fn publish(thing: &Thing) -> Call {
    publisher("Publish", &[text(1, &thing.of), nested(2, &text(1, "forged"))])
}

/// A subscription of this name to this topic.
fn wanted(name: &str, topic: &str) -> Vec<Vec<u8>> {
    vec![text(1, name), text(2, topic)]
}

/// What is deleted goes last; gRPC and REST alike.
const ATTACKS: &[Attack] = &[
    Attack("GetTopic", |t| publisher("GetTopic", &[text(1, &t.of)]), PERMISSION_DENIED, Allowed::Owner(OK)),
    Attack("get topic", |t| Call::get(format!("/v1/{}", t.of)), 403, Allowed::Owner(200)),
    Attack("CreateTopic", |t| publisher("CreateTopic", &[text(1, &t.of)]), PERMISSION_DENIED, Allowed::Owner(6)),
    Attack("create topic", |t| Call::put(format!("/v1/{}", t.of), "{}"), 403, Allowed::Owner(409)),
    Attack("GetSubscription", |t| of(t, "GetSubscription", &[]), PERMISSION_DENIED, Allowed::Owner(OK)),
    Attack("get subscription", |t| Call::get(format!("/v1/{}", t.item)), 403, Allowed::Owner(200)),
    Attack("Pull", |t| of(t, "Pull", &[number(2, 1), number(3, 9)]), PERMISSION_DENIED, Allowed::Owner(OK)),
    Attack("StreamingPull", |t| of(t, "StreamingPull", &[number(5, 10)]), PERMISSION_DENIED, Allowed::Owner(OK)),
    Attack("Acknowledge", |t| of(t, "Acknowledge", &[text(2, "1.1.1")]), PERMISSION_DENIED, Allowed::Owner(OK)),
    Attack(
        "ModifyAckDeadline",
        |t| of(t, "ModifyAckDeadline", &[number(3, 0), text(4, "1.1.1")]),
        PERMISSION_DENIED,
        Allowed::Owner(OK),
    ),
    Attack(
        "UpdateSubscription",
        |t| {
            let shorter = [text(1, &t.item), number(5, 10)].concat();
            subscriber("UpdateSubscription", &[nested(1, &shorter), nested(2, &text(1, "ack_deadline_seconds"))])
        },
        PERMISSION_DENIED,
        Allowed::Owner(OK),
    ),
    Attack(
        "update subscription",
        |t| {
            let shorter = json!({ "subscription": { "ackDeadlineSeconds": 10 }, "updateMask": "ackDeadlineSeconds" });
            Call::patch(format!("/v1/{}", t.item), shorter.to_string())
        },
        403,
        Allowed::Owner(200),
    ),
    Attack(
        "CreateSubscription",
        |t| subscriber("CreateSubscription", &wanted(&subscription("listener"), &t.of)),
        PERMISSION_DENIED,
        Allowed::Owner(OK),
    ),
    Attack(
        "create subscription",
        |t| Call::put(format!("/v1/{}", subscription("overhearer")), json!({ "topic": t.of }).to_string()),
        403,
        Allowed::Owner(200),
    ),
    Attack(
        "ListTopics",
        |_| publisher("ListTopics", &[text(1, &format!("projects/{}", plan::PROJECT))]),
        PERMISSION_DENIED,
        Allowed::Owner(OK),
    ),
    Attack("list topics", |_| Call::get(format!("/v1/projects/{}/topics", plan::PROJECT)), 403, Allowed::Owner(200)),
    Attack(
        "ListSubscriptions",
        |_| subscriber("ListSubscriptions", &[text(1, &format!("projects/{}", plan::PROJECT))]),
        PERMISSION_DENIED,
        Allowed::Owner(OK),
    ),
    Attack("DeleteSubscription", |t| of(t, "DeleteSubscription", &[]), PERMISSION_DENIED, Allowed::Owner(OK)),
    Attack("delete subscription", |t| Call::delete(format!("/v1/{}", t.item)), 403, Allowed::Owner(404)),
    Attack("DeleteTopic", |t| publisher("DeleteTopic", &[text(1, &t.of)]), PERMISSION_DENIED, Allowed::Owner(OK)),
    Attack("delete topic", |t| Call::delete(format!("/v1/{}", t.of)), 403, Allowed::Owner(404)),
];

/// A method whose message begins with the subscription.
fn of(thing: &Thing, method: &str, more: &[Vec<u8>]) -> Call {
    subscriber(method, &[&[text(1, &thing.item)], more].concat())
}

const PUBLISHING: &[Attack] = &[Attack("Publish", publish, PERMISSION_DENIED, Allowed::Own(OK))];

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_publishes_wake_ups_and_hears_stops_or_forges_no_other_message() {
    let world = World::start(two(json!({})), |_| {}).await;
    let (owner, attacker) = (owner(&world), worker(&world, ATTACKER));
    let own = Thing::new(topic("spare"), subscription("spare"));
    assert_eq!(owner.call(publisher("CreateTopic", &[text(1, &own.of)])).await.code, OK);
    assert_eq!(owner.call(subscriber("CreateSubscription", &wanted(&own.item, &own.of))).await.code, OK);
    let listener = |name: &&str| if *name == "completions" { "cli" } else { "dispatcher" };
    let mut theirs: Vec<Thing> = TOPICS
        .iter()
        .map(|name| Thing::new(topic(name), subscription(&format!("{name}-{}", listener(name)))))
        .collect();
    let nobodys = Thing::new(topic("nobodys"), subscription("nobodys-dispatcher"));
    let stage = Stage { attacker: &attacker, owner: &owner, own, theirs: theirs.clone(), nobodys: nobodys.clone() };
    stage.play(ATTACKS).await;
    let outcomes = theirs.pop().expect("the last is the one that it may publish to");
    let stage = Stage { attacker: &attacker, owner: &owner, own: outcomes, theirs, nobodys };
    stage.play(PUBLISHING).await;

    // Nothing of it stopped anybody's messages, and of what was forged nobody was told.
    world.upload(VICTIM, "q3", vec![("sales.csv", sales())]).await;
    assert_eq!(world.completion(VICTIM, "q3").await.completion.verdict.state(), "delivered");
    world.settled().await;
    assert_eq!(world.received().len(), 1);
    assert!(world.dead_letters(None).await.is_empty());
}
