//! Administration of topics and subscriptions as Google's own Rust clients do it.

use google_cloud_pubsub::model::subscription::State;
use google_cloud_pubsub::model::{DeadLetterPolicy, ExpirationPolicy, PushConfig, Subscription};

use crate::calls::{message, status};
use crate::world::World;

const TOPIC: &str = "projects/demo/topics/made";
const GRAVES: &str = "projects/demo/topics/graves";
const SUBSCRIPTION: &str = "projects/demo/subscriptions/made";

fn wanted() -> Subscription {
    let policy = DeadLetterPolicy::new().set_dead_letter_topic(GRAVES).set_max_delivery_attempts(7);
    Subscription::new()
        .set_name(SUBSCRIPTION)
        .set_topic(TOPIC)
        .set_ack_deadline_seconds(30)
        .set_dead_letter_policy(policy)
}

/// The same as it is shown: with what was not said.
fn made() -> Subscription {
    let week = google_cloud_wkt::Duration::clamp(7 * 24 * 3600, 0);
    let shown = wanted().set_message_retention_duration(week).set_state(State::Active);
    shown.set_push_config(PushConfig::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_found_listed_kept_and_removed_once() {
    let mut world = World::start().await;
    let topics = world.as_owner().topics().await;
    let subscriptions = world.as_owner().subscriptions().await;
    let create = async || topics.create_topic().set_name(TOPIC).send().await;
    assert_eq!(create().await.expect("is new").name, TOPIC);
    assert_eq!(status(&create().await.expect_err("is there")), 409);
    let subscribe = async || subscriptions.create_subscription().with_request(wanted()).send().await;
    assert_eq!(subscribe().await.expect("is new"), made());
    assert_eq!(status(&subscribe().await.expect_err("is there")), 409);

    world.restart().await;
    let topics = world.as_owner().topics().await;
    let subscriptions = world.as_owner().subscriptions().await;
    assert_eq!(topics.get_topic().set_topic(TOPIC).send().await.expect("is kept").name, TOPIC);
    let found = subscriptions.get_subscription().set_subscription(SUBSCRIPTION).send().await;
    assert_eq!(found.expect("is kept"), made());
    let listed = topics.list_topics().set_project("projects/demo").send().await.expect("lists").topics;
    let names: Vec<_> = listed.iter().map(|topic| topic.name.rsplit('/').next().expect("has segments")).collect();
    assert_eq!(names, ["events", "graves", "made"]);
    let listed = subscriptions.list_subscriptions().set_project("projects/demo").send().await.expect("lists");
    let names: Vec<_> = listed.subscriptions.iter().map(|found| found.name.rsplit('/').next().expect("has")).collect();
    assert_eq!(names, ["graves", "inbox", "made", "strict"]);

    let remove = async || subscriptions.delete_subscription().set_subscription(SUBSCRIPTION).send().await;
    remove().await.expect("is there");
    assert_eq!(status(&remove().await.expect_err("is gone")), 404);
    let gone = subscriptions.get_subscription().set_subscription(SUBSCRIPTION).send().await;
    assert_eq!(status(&gone.expect_err("is gone")), 404);
    let remove = async || topics.delete_topic().set_topic(TOPIC).send().await;
    remove().await.expect("is there");
    assert_eq!(status(&remove().await.expect_err("is gone")), 404);
    assert_eq!(status(&topics.get_topic().set_topic(TOPIC).send().await.expect_err("is gone")), 404);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_stays_deleted_and_its_subscription_keeps_its_messages() {
    let mut world = World::start().await;
    let owner = world.as_owner();
    let topics = owner.topics().await;
    topics.create_topic().set_name(TOPIC).send().await.expect("is new");
    let subscriptions = owner.subscriptions().await;
    subscriptions.create_subscription().with_request(wanted()).send().await.expect("is new");
    owner.publisher(TOPIC).await.publish(message("kept")).await.expect("is published");
    topics.delete_topic().set_topic(TOPIC).send().await.expect("is there");
    for _ in 0..2 {
        let owner = world.as_owner();
        let gone = owner.topics().await.get_topic().set_topic(TOPIC).send().await;
        assert_eq!(status(&gone.expect_err("is gone")), 404);
        let left = owner.subscriptions().await.get_subscription().set_subscription(SUBSCRIPTION).send().await;
        assert_eq!(left.expect("is there").topic, "_deleted-topic_");
        world.restart().await;
    }
    let owner = world.as_owner();
    // A namesake is another topic.
    owner.topics().await.create_topic().set_name(TOPIC).send().await.expect("is new");
    owner.publisher(TOPIC).await.publish(message("elsewhere")).await.expect("is published");
    let mut inbox = owner.inbox(SUBSCRIPTION).await;
    assert_eq!(inbox.text().await, "kept");
    let again = owner.subscriptions().await;
    again.delete_subscription().set_subscription(SUBSCRIPTION).send().await.expect("is there");
    while let Ok((message, handler)) = inbox.heard().await {
        assert_eq!(crate::calls::text(&message), "kept");
        handler.ack();
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_or_not_served_is_refused_and_not_half_made() {
    let world = World::start().await;
    let topics = world.as_owner().topics().await;
    let subscriptions = world.as_owner().subscriptions().await;
    topics.create_topic().set_name(TOPIC).send().await.expect("is new");
    for name in ["projects/demo/topics/ab", "projects/demo/topics/7up", "projects/demo/topics/a%20b%21"] {
        let refused = topics.create_topic().set_name(name).send().await.expect_err(name);
        assert_eq!(status(&refused), 400, "{name}: {refused}");
    }
    let attempts = |count: i32| DeadLetterPolicy::new().set_dead_letter_topic(GRAVES).set_max_delivery_attempts(count);
    let expiring = ExpirationPolicy::new().set_ttl(google_cloud_wkt::Duration::clamp(24 * 3600, 0));
    for (case, wrong, expected) in [
        ("no topic", wanted().set_topic("projects/demo/topics/missing"), 404),
        ("deadline", wanted().set_ack_deadline_seconds(9), 400),
        ("deadline", wanted().set_ack_deadline_seconds(601), 400),
        ("attempts", wanted().set_dead_letter_policy(attempts(4)), 400),
        ("attempts", wanted().set_dead_letter_policy(attempts(101)), 400),
        ("filter", wanted().set_filter("attributes.a = b"), 400),
        ("push", wanted().set_push_config(PushConfig::new().set_push_endpoint("https://a.example")), 400),
        ("expiry", wanted().set_expiration_policy(expiring), 400),
    ] {
        let refused = subscriptions.create_subscription().with_request(wrong).send().await.expect_err(case);
        assert_eq!(status(&refused), expected, "{case}: {refused}");
    }
    let listed = subscriptions.list_subscriptions().set_project("projects/demo").send().await.expect("lists");
    assert!(listed.subscriptions.iter().all(|found| found.name != SUBSCRIPTION));
    world.stop().await;
}
