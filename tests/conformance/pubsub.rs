//! Pub/Sub as Google's own Rust clients see it: publish, streams, leases, dead letters.

use std::time::{Duration, Instant};

use google_cloud_pubsub::client::SubscriptionAdmin;
use google_cloud_pubsub::model::Subscription;
use google_cloud_pubsub::subscriber::ShutdownBehavior;

use crate::calls::{Inbox, message, publish_status, status, text};
use crate::world::{BOB, World};

const EVENTS: &str = "projects/demo/topics/events";
const GRAVES: &str = "projects/demo/topics/graves";
const INBOX: &str = "projects/demo/subscriptions/inbox";
const STRICT: &str = "projects/demo/subscriptions/strict";
const GRAVE_INBOX: &str = "projects/demo/subscriptions/graves";

/// A change of the inbox.
async fn lengthen_deadline(admin: &SubscriptionAdmin) {
    let wanted = Subscription::new().set_name(INBOX).set_ack_deadline_seconds(600);
    let mask = google_cloud_wkt::FieldMask::default().set_paths(["ack_deadline_seconds"]);
    let changed = admin.update_subscription().set_subscription(wanted).set_update_mask(mask).send().await;
    assert_eq!(changed.expect("is changed").ack_deadline_seconds, 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_as_it_was_sent_and_acknowledged_never_again() {
    let mut world = World::start().await;
    let owner = world.as_owner();
    let publisher = owner.publisher(EVENTS).await;
    let sent = message("one").set_attributes([("k", "v"), ("empty", "")]).set_ordering_key("key");
    let id = publisher.publish(sent).await.expect("is published");
    let mut inbox = owner.inbox(INBOX).await;
    let (got, handler) = inbox.next().await;
    assert_eq!((text(&got), &got.message_id, got.ordering_key.as_str()), ("one".to_owned(), &id, "key"));
    assert_eq!(got.attributes.len(), 2);
    assert_eq!((got.attributes["k"].as_str(), got.attributes["empty"].as_str()), ("v", ""));
    assert!(got.publish_time.is_some());
    assert_eq!(handler.delivery_attempt(), None, "attempts are counted for a dead-letter policy alone");
    handler.ack();
    inbox.close().await;
    world.restart().await;
    let owner = world.as_owner();
    owner.publisher(EVENTS).await.publish(message("two")).await.expect("is published");
    assert_eq!(owner.inbox(INBOX).await.text().await, "two");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscription_gets_a_message_and_one_of_its_streams() {
    let world = World::start().await;
    let owner = world.as_owner();
    let subscriber = owner.subscriber().await;
    let mut narrow = Inbox(subscriber.subscribe(INBOX).set_max_outstanding_messages(1).build());
    let publisher = owner.publisher(EVENTS).await;
    publisher.publish(message("1")).await.expect("is published");
    let (first, held) = narrow.next().await;
    publisher.publish(message("2")).await.expect("is published");
    // The first stream has no room for it.
    assert_eq!((text(&first).as_str(), owner.inbox(INBOX).await.text().await.as_str()), ("1", "2"));
    held.ack();
    publisher.publish(message("3")).await.expect("is published");
    assert_eq!(narrow.text().await, "3");
    let mut other = owner.inbox(STRICT).await;
    let mut all = [other.text().await, other.text().await, other.text().await];
    all.sort();
    assert_eq!(all, ["1", "2", "3"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_given_back_comes_again_and_at_last_to_the_dead_letter_topic() {
    let world = World::start().await;
    let owner = world.as_owner();
    let publisher = owner.publisher(EVENTS).await;
    let sent = message("poison").set_attributes([("k", "v")]);
    let id = publisher.publish(sent).await.expect("is published");
    let mut strict = owner.inbox(STRICT).await;
    let mut published = None;
    for attempt in 1..=5 {
        let (got, handler) = strict.next().await;
        assert_eq!((&got.message_id, handler.delivery_attempt()), (&id, Some(attempt)));
        published = got.publish_time;
        handler.nack();
    }
    let (dead, handler) = owner.inbox(GRAVE_INBOX).await.next().await;
    handler.ack();
    assert_eq!(text(&dead), "poison");
    assert_ne!(dead.message_id, id);
    let source = |name: &str| dead.attributes[&format!("CloudPubSubDeadLetterSource{name}")].as_str();
    assert_eq!((dead.attributes["k"].as_str(), dead.attributes.len()), ("v", 5));
    assert_eq!(source("DeliveryCount"), "5");
    assert_eq!((source("Subscription"), source("SubscriptionProject")), ("strict", "demo"));
    let time: google_cloud_wkt::Timestamp = source("TopicPublishTime").try_into().expect("is RFC 3339");
    assert_eq!(Some(time), published);
    publisher.publish(message("sound")).await.expect("is published");
    assert_eq!(strict.text().await, "sound");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_topic_that_is_gone_swallows_nothing() {
    let world = World::start().await;
    let owner = world.as_owner();
    owner.topics().await.delete_topic().set_topic(GRAVES).send().await.expect("is there");
    let id = owner.publisher(EVENTS).await.publish(message("poison")).await.expect("is published");
    let mut strict = owner.inbox(STRICT).await;
    for attempt in 1..=8 {
        let (got, handler) = strict.next().await;
        assert_eq!((&got.message_id, handler.delivery_attempt()), (&id, Some(attempt)));
        handler.nack();
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_acknowledges_comes_again_after_its_deadline() {
    let world = World::start().await;
    let owner = world.as_owner();
    let id = owner.publisher(EVENTS).await.publish(message("one")).await.expect("is published");
    let subscriber = owner.subscriber().await;
    // The shortest deadline of a stream, and a client that does not prolong it.
    let stream = subscriber.subscribe(INBOX).set_max_lease_extension(Duration::from_secs(10));
    let mut forgetful = Inbox(stream.set_max_lease(Duration::from_nanos(1)).build());
    let (first, forgotten) = forgetful.next().await;
    let received = Instant::now();
    let (second, handler) = forgetful.next().await;
    assert!(received.elapsed() > Duration::from_secs(9), "it came again after {:?}", received.elapsed());
    assert_eq!((&first.message_id, &second.message_id), (&id, &id));
    handler.ack();
    forgotten.ack();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_a_change_of_its_subscription_and_ends_with_it() {
    let world = World::start().await;
    let owner = world.as_owner();
    let mut inbox = owner.inbox(INBOX).await;
    let publisher = owner.publisher(EVENTS).await;
    publisher.publish(message("before")).await.expect("is published");
    assert_eq!(inbox.text().await, "before");
    let admin = owner.subscriptions().await;
    lengthen_deadline(&admin).await;
    publisher.publish(message("after")).await.expect("is published");
    // What was acknowledged while it changed may come again.
    while inbox.text().await != "after" {}
    admin.delete_subscription().set_subscription(INBOX).send().await.expect("is deleted");
    let end = loop {
        match inbox.heard().await {
            Ok((_, handler)) => handler.ack(),
            Err(end) => break end,
        }
    };
    assert_eq!(status(&end), 404, "{end}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_former_delivery_gives_back_is_not_taken_from_the_next() {
    let world = World::start().await;
    let owner = world.as_owner();
    let publisher = owner.publisher(EVENTS).await;
    publisher.publish(message("held")).await.expect("is published");
    let stream = owner.subscriber().await.subscribe(INBOX);
    let mut former = Inbox(stream.set_shutdown_behavior(ShutdownBehavior::NackImmediately).build());
    let (first, _lost) = former.next().await;
    // All leases end with this, and nothing is acknowledged by it.
    let seek = owner.subscriptions().await.seek().set_subscription(INBOX);
    seek.set_time(google_cloud_wkt::Timestamp::clamp(0, 0)).send().await.expect("goes back");
    let mut next = owner.inbox(INBOX).await;
    let (second, held) = next.next().await;
    assert_eq!(first.message_id, second.message_id);
    former.close().await;
    publisher.publish(message("later")).await.expect("is published");
    assert_eq!(next.text().await, "later");
    held.ack();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_where_something_is_and_from_who_may() {
    let world = World::start().await;
    let (owner, bob) = (world.as_owner(), world.caller(BOB).await);
    for (caller, topic, expected) in [
        (&owner, "projects/demo/topics/missing", 404),
        (&bob, "projects/demo/topics/missing", 403),
        (&bob, EVENTS, 403),
        (&bob, GRAVES, 403),
    ] {
        let refused = caller.publisher(topic).await.publish(message("x")).await.expect_err("is refused");
        assert_eq!(publish_status(&refused), expected, "{topic}");
    }
    for (caller, subscription, expected) in [
        (&owner, "projects/demo/subscriptions/missing", 404),
        (&bob, "projects/demo/subscriptions/missing", 403),
        (&bob, INBOX, 403),
    ] {
        let refused = caller.inbox(subscription).await.heard().await.expect_err("is refused");
        assert_eq!(status(&refused), expected, "{subscription}");
    }
    let empty = owner.publisher(EVENTS).await.publish(google_cloud_pubsub::model::Message::new()).await;
    assert_eq!(publish_status(&empty.expect_err("it says nothing")), 400);
    // A little more than 10 MB, and more than a server of gRPC takes unless it is told to.
    for size in [10_000_001, 30_000_000] {
        let large = owner.publisher(EVENTS).await.publish(message("x".repeat(size))).await;
        assert_eq!(publish_status(&large.expect_err("it is too large")), 400);
    }
    world.stop().await;
}
