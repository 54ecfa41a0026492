//! What a subscription promises beyond delivery, over the streams of Google's own Rust client: order, once, in time, and
//! no more at once than fits.

use std::collections::BTreeSet;

use google_cloud_pubsub::client::Subscriber;
use google_cloud_pubsub::error::AckError;
use google_cloud_pubsub::model::{RetryPolicy, Subscription};
use google_cloud_pubsub::subscriber::handler::Handler;
use serde_json::{Value, json};

use crate::calls::{Caller, Inbox, message, text};
use crate::http::Http;
use crate::world::World;

const EVENTS: &str = "projects/demo/topics/events";

/// A subscription to the events with these settings.
async fn subscribe(owner: &Caller, short: &str, settings: Subscription) -> String {
    let name = format!("projects/demo/subscriptions/{short}");
    let wanted = settings.set_name(&name).set_topic(EVENTS);
    owner.subscriptions().await.create_subscription().with_request(wanted).send().await.expect("is new");
    name
}

async fn publish(owner: &Caller, texts: impl IntoIterator<Item = String>, key: &str) {
    let publisher = owner.publisher(EVENTS).await;
    for text in texts {
        publisher.publish(message(text).set_ordering_key(key)).await.expect("is published");
    }
}

/// A stream whose messages come as fast as they are taken.
fn stream(subscriber: &Subscriber, name: &str) -> Inbox {
    Inbox(subscriber.subscribe(name).build())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_the_order_of_a_key_whatever_is_given_back() {
    let world = World::start().await;
    let owner = world.as_owner();
    let name = subscribe(&owner, "ordered", Subscription::new().set_enable_message_ordering(true)).await;
    publish(&owner, (0..30).map(|number| format!("a{number}")), "a").await;
    publish(&owner, (0..10).map(|number| format!("b{number}")), "b").await;
    let mut inbox = stream(&owner.subscriber().await, &name);
    // The numbers of each key as they come; the fourth of one is given back at first.
    let mut came = [Vec::new(), Vec::new()];
    while came[0].iter().filter(|number| **number == 3).count() < 2 || came[0].last() != Some(&29) || came[1].len() < 10
    {
        let (got, handler) = inbox.next().await;
        let got = text(&got);
        let of_key = &mut came[usize::from(got.starts_with('b'))];
        of_key.push(got[1..].parse::<u32>().expect("a number"));
        if got == "a3" && of_key.len() == 4 { handler.nack() } else { handler.ack() }
    }
    let [a, b] = came;
    assert_eq!(b, (0..10).collect::<Vec<_>>());
    assert_eq!(a[..4], [0, 1, 2, 3]);
    // What the client had in hand comes first; from the fourth on everything comes again, whatever was acknowledged of it.
    let again = a.iter().rposition(|number| *number == 3).expect("it came");
    assert!(a[3..again].iter().is_sorted());
    assert_eq!(a[again..], (3..30).collect::<Vec<_>>());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_an_acknowledgement_is_confirmed_or_said_to_be_too_late() {
    let world = World::start().await;
    let owner = world.as_owner();
    let name = subscribe(&owner, "once", Subscription::new().set_enable_exactly_once_delivery(true)).await;
    publish(&owner, ["one".to_owned()], "").await;
    let mut inbox = stream(&owner.subscriber().await, &name);
    let (_, handler) = inbox.next().await;
    let Handler::ExactlyOnce(former) = handler else { panic!("the stream says what its subscription promises") };
    // The delivery ends with this, and the message comes again.
    let seek = owner.subscriptions().await.seek().set_subscription(&name);
    seek.set_time(google_cloud_wkt::Timestamp::clamp(0, 0)).send().await.expect("goes back");
    let (again, handler) = inbox.next().await;
    assert_eq!(text(&again), "one");
    let late = former.confirmed_ack().await.expect_err("another delivery holds it");
    assert!(matches!(late, AckError::Rpc { .. }), "{late}");
    let Handler::ExactlyOnce(handler) = handler else { panic!("as before") };
    handler.confirmed_ack().await.expect("it holds the message");
    publish(&owner, ["two".to_owned()], "").await;
    let (next, handler) = inbox.next().await;
    assert_eq!(text(&next), "two", "one was dealt with");
    let Handler::ExactlyOnce(handler) = handler else { panic!("as before") };
    handler.confirmed_nack().await.expect("it is given back");
    let (next, _) = inbox.next().await;
    assert_eq!(text(&next), "two");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_waits_as_its_policy_says() {
    let world = World::start().await;
    let owner = world.as_owner();
    let span = |millis: i32| google_cloud_wkt::Duration::clamp(0, millis * 1_000_000);
    let policy = RetryPolicy::new().set_minimum_backoff(span(40)).set_maximum_backoff(span(80));
    let name = subscribe(&owner, "patient", Subscription::new().set_retry_policy(policy)).await;
    publish(&owner, ["again".to_owned()], "").await;
    let mut inbox = stream(&owner.subscriber().await, &name);
    let (_, handler) = inbox.next().await;
    handler.nack();
    for wait in [40, 80, 80] {
        let given_back = std::time::Instant::now();
        let (_, handler) = inbox.next().await;
        // The client tells of a nack a little later, never earlier.
        assert!(given_back.elapsed().as_millis() >= wait, "{:?} instead of {wait} ms", given_back.elapsed());
        handler.nack();
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_come_as_many_at_once_as_fit_and_one_at_least() {
    const COUNT: usize = 40;
    let world = World::start().await;
    let owner = world.as_owner();
    let (pulled, streamed) = (Subscription::new().set_ack_deadline_seconds(600), Subscription::new());
    let (pulled, streamed) = (subscribe(&owner, "pulled", pulled).await, subscribe(&owner, "streamed", streamed).await);
    publish(&owner, (0..COUNT).map(|_| "x".repeat(1 << 20)), "").await;
    let http = Http::new(&world);
    let mut came = BTreeSet::new();
    while came.len() < COUNT {
        let pull = http.request("POST", &format!("/v1/{pulled}:pull")).json(&json!({ "maxMessages": 1_000 }));
        let answer = pull.send().await.expect("answers").bytes().await.expect("is read");
        assert!(answer.len() < 20_000_000, "{} bytes", answer.len());
        let answer: Value = serde_json::from_slice(&answer).expect("is JSON");
        for one in answer["receivedMessages"].as_array().expect("some come") {
            let id = one["message"]["messageId"].as_str().expect("it has an id");
            assert!(came.insert(id.to_owned()), "{id} came twice");
        }
    }

    let subscriber = owner.subscriber().await;
    let limited = |bytes: i64| Inbox(subscriber.subscribe(&streamed).set_max_outstanding_bytes(bytes).build());
    let (mut narrow, mut tiny) = (limited(3 << 20), limited(1));
    let held = [narrow.next().await, narrow.next().await, tiny.next().await];
    // Neither has room for a third or a second: all others come here.
    let mut wide = stream(&subscriber, &streamed);
    let mut ids: BTreeSet<String> = held.iter().map(|(message, _)| message.message_id.clone()).collect();
    for _ in held.len()..COUNT {
        let (message, handler) = wide.next().await;
        ids.insert(message.message_id);
        handler.ack();
    }
    assert_eq!(ids, came);
    world.stop().await;
}
