//! The service on a database: what is torn, what is too old, and what is too much for one answer.

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message as _;
use redb::ReadableTableMetadata as _;

use super::deliver::{BATCH_BYTES, Delivered};
use super::proto::seek_request::Target;
use super::proto::{CreateSnapshotRequest, Subscription as Wanted, Topic as WantedTopic};
use super::*;

const TOPIC: &str = "projects/p/topics/ttt";
const NAME: &str = "projects/p/subscriptions/sss";
const SNAPSHOT: &str = "projects/p/snapshots/nnn";
/// More than is settled at once.
const MANY: usize = 9_000;

async fn open(dir: &Path, store: &Store, subscriptions: &[config::Subscription]) -> Result<PubSub, OpenError> {
    open_with(dir, store, &["ttt".to_owned()], subscriptions).await
}

async fn open_with(
    dir: &Path,
    store: &Store,
    topics: &[String],
    subscriptions: &[config::Subscription],
) -> Result<PubSub, OpenError> {
    let iam = Iam::open(dir, &BTreeMap::new(), &[]).expect("a policy");
    PubSub::open(store.clone(), iam, Faults::none(), "p", topics, subscriptions).await
}

/// A topic and a subscription with these settings.
async fn service(settings: Wanted) -> (tempfile::TempDir, Store, PubSub) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("db")).expect("opens");
    let service = open(dir.path(), &store, &[]).await.expect("opens");
    subscribe(&service, settings).await;
    (dir, store, service)
}

async fn subscribe(service: &PubSub, settings: Wanted) {
    let wanted = Wanted { name: NAME.to_owned(), topic: TOPIC.to_owned(), ..settings };
    service.admin_create_subscription(wanted).await.expect("is new");
}

async fn publish(service: &PubSub, count: usize, size: usize, key: &str) -> Vec<u64> {
    let message =
        NewMessage { data: vec![b'x'; size].into(), attributes: BTreeMap::new(), ordering_key: key.to_owned() };
    let ids = service.publish(TOPIC.to_owned(), vec![message; count]).await.expect("is published");
    ids.iter().map(|id| id.parse().expect("a number")).collect()
}

async fn delivered(service: &PubSub) -> Vec<Delivered> {
    let subscription = service.subscription(NAME).expect("is there");
    let room = Room { messages: 1_000, bytes: BATCH_BYTES };
    let delivered = service.deliver(&subscription, room, Duration::from_secs(600), service.next_holder()).await;
    delivered.expect("is read")
}

fn kept(store: &Store) -> u64 {
    store.read(|txn| Ok(txn.open_table(shelf::MESSAGES)?.len()?)).expect("reads")
}

async fn tear(store: &Store, table: shelf::Records, name: &'static str, bytes: &'static [u8]) {
    let torn = store.write(move |txn| {
        txn.open_table(table)?.insert(name, bytes)?;
        Ok(())
    });
    torn.await.expect("writes");
}

async fn snap(service: &PubSub) {
    let (name, subscription) = (SNAPSHOT.to_owned(), NAME.to_owned());
    let wanted = CreateSnapshotRequest { name, subscription, ..CreateSnapshotRequest::default() };
    service.admin_create_snapshot(wanted).await.expect("is made");
}

/// The subscription is owed what is a day older than it keeps anything.
async fn owe_too_old(store: &Store, count: usize) {
    let eight_days_ago = UNIX_EPOCH + Duration::from_micros(now_us() - micros(Duration::from_secs(8 * 24 * 3600)));
    let old = PubsubMessage { publish_time: Some(eight_days_ago.into()), ..PubsubMessage::default() };
    let written = store.write(move |txn| {
        let mut appender = shelf::Appender::open(txn)?;
        for _ in 0..count {
            appender.append(&[NAME], old.clone())?;
        }
        appender.finish()
    });
    written.await.expect("writes");
}

#[tokio::test]
async fn a_torn_message_is_put_aside_and_what_comes_with_it_is_delivered() {
    for key in ["", "k"] {
        let (dir, store, service) = service(Wanted { enable_message_ordering: true, ..Wanted::default() }).await;
        let ids = publish(&service, 11, 1, key).await;
        service.shutdown().await;
        // Cut in a field, cut between two, and not there at all.
        let (first, last, gone) = (ids[0], ids[10], ids[5]);
        let torn = store.write(move |txn| {
            let mut messages = txn.open_table(shelf::MESSAGES)?;
            messages.insert(first, &b"\x0a\x05x"[..])?;
            messages.insert(last, &b"\x0a\x01x"[..])?;
            messages.remove(gone)?;
            Ok(())
        });
        torn.await.expect("writes");
        let service = open(dir.path(), &store, &[]).await.expect("a torn message stops nothing");
        let mut came = Vec::new();
        // Of a key nothing comes as long as a batch of it is out.
        for _ in 0..3 {
            let some = delivered(&service).await;
            let acks = some.iter().map(|one| one.id.to_string()).collect();
            came.extend(some.iter().map(|one| one.id.message));
            let subscription = service.subscription(NAME).expect("is there");
            service.acknowledge(&subscription, acks).await.expect("is written");
        }
        let sound: Vec<u64> = ids.iter().copied().filter(|id| ![first, last, gone].contains(id)).collect();
        assert_eq!(came, sound);
        assert_eq!(kept(&store), 0, "and nothing is owed any more");
        let aside = store.read(|txn| {
            let aside = txn.open_table(aside::ASIDE)?;
            let lies = |id: u64| -> Result<_, StoreError> {
                let found = aside.get(format!("pubsub.messages/{id}").as_str())?;
                Ok(found.map(|bytes| bytes.value().to_vec()))
            };
            Ok([lies(first)?, lies(last)?, lies(gone)?])
        });
        assert_eq!(aside.expect("reads"), [Some(b"\x0a\x05x".to_vec()), Some(b"\x0a\x01x".to_vec()), None]);
    }
}

#[tokio::test]
async fn a_torn_subscription_is_named_and_not_dropped() {
    for torn in [&b"{\"topic"[..], b"null", b""] {
        let (dir, store, service) = service(Wanted::default()).await;
        let ids = publish(&service, 1, 1, "").await;
        service.shutdown().await;
        tear(&store, shelf::SUBSCRIPTIONS, NAME, torn).await;
        let configured = config::Subscription {
            name: "sss".to_owned(),
            topic: "ttt".to_owned(),
            ack_deadline_seconds: 10,
            dead_letter: None,
        };
        for _ in 0..2 {
            let refused = open(dir.path(), &store, std::slice::from_ref(&configured)).await.expect_err("it was set");
            assert!(matches!(&refused, OpenError::Lost(name) if name == NAME), "{refused:?}");
            assert!(refused.to_string().contains("backup"), "{refused}");
        }
        let service = open(dir.path(), &store, &[]).await.expect("it opens without");
        assert!(service.subscription(NAME).is_none());
        subscribe(&service, Wanted::default()).await;
        assert_eq!(delivered(&service).await[0].id.message, ids[0], "it finds its messages again");
        service.shutdown().await;
        open(dir.path(), &store, &[configured]).await.expect("somebody has said how it is set");
    }
}

#[tokio::test]
async fn a_topic_made_in_the_place_of_a_torn_one_is_published_to_its_subscriptions_and_snapshots() {
    let (dir, store, service) = service(Wanted::default()).await;
    snap(&service).await;
    service.shutdown().await;
    tear(&store, shelf::TOPICS, TOPIC, b"{\"labels").await;
    let refused = open_with(dir.path(), &store, &[], &[]).await.expect_err("it was set");
    assert!(matches!(&refused, OpenError::Lost(name) if name == TOPIC), "{refused:?}");
    let service = open_with(dir.path(), &store, &[], &[]).await.expect("it is told of once");
    assert!(!service.has_topic(TOPIC));
    let wanted = WantedTopic { name: TOPIC.to_owned(), ..WantedTopic::default() };
    service.admin_create_topic(&wanted).await.expect("there is none");
    let ids = publish(&service, 1, 1, "").await;
    let came = delivered(&service).await;
    assert_eq!(came.iter().map(|one| one.id.message).collect::<Vec<_>>(), ids);
    let subscription = service.subscription(NAME).expect("is there");
    service.acknowledge(&subscription, vec![came[0].id.to_string()]).await.expect("is written");
    assert_eq!(kept(&store), 1, "the snapshot holds it");
}

#[tokio::test]
async fn what_is_too_much_for_one_answer_comes_in_the_next_ones_as_if_it_had_waited() {
    let (_dir, _store, service) = service(Wanted::default()).await;
    let ids = publish(&service, 40, 1 << 20, "").await;
    let mut came = BTreeSet::new();
    while came.len() < ids.len() {
        let some = delivered(&service).await;
        let bytes: usize = some.iter().map(|one| one.message.encoded_len()).sum();
        assert!((1..=BATCH_BYTES).contains(&bytes), "{bytes} bytes in one answer");
        assert!(some.iter().all(|one| (one.attempt, one.id.delivery) == (1, 1)));
        came.extend(some.iter().map(|one| one.id.message));
    }
    assert!(delivered(&service).await.is_empty());
}

#[tokio::test]
async fn what_is_older_than_it_is_kept_is_neither_delivered_nor_left_in_the_tables() {
    let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let (_dir, store, service) = service(Wanted { message_retention_duration: span(600), ..Wanted::default() }).await;
    publish(&service, MANY, 1, "").await;
    let in_seconds = |seconds| now_us() + micros(Duration::from_secs(seconds));
    service.sweep(in_seconds(500)).await.expect("sweeps");
    assert_eq!(kept(&store), MANY as u64);
    service.sweep(in_seconds(601)).await.expect("sweeps");
    assert!(delivered(&service).await.is_empty());
    assert_eq!(kept(&store), 0);
}

#[tokio::test]
async fn what_has_grown_too_old_while_nothing_ran_is_not_delivered_after_the_start() {
    let (dir, store, service) = service(Wanted::default()).await;
    service.shutdown().await;
    owe_too_old(&store, MANY).await;
    let service = open(dir.path(), &store, &[]).await.expect("opens");
    assert!(delivered(&service).await.is_empty());
    let young = publish(&service, 1, 1, "").await;
    assert_eq!(delivered(&service).await[0].id.message, young[0]);
    service.sweep(now_us()).await.expect("sweeps");
    assert_eq!(kept(&store), 1);
}

#[tokio::test]
async fn what_is_too_old_and_not_yet_swept_neither_forbids_a_snapshot_nor_is_in_it() {
    let (_dir, store, service) = service(Wanted::default()).await;
    // Nothing is swept by itself any more.
    service.shutdown().await;
    owe_too_old(&store, 3).await;
    publish(&service, 1, 1, "").await;
    snap(&service).await;
    service.sweep(now_us()).await.expect("sweeps");
    assert_eq!(kept(&store), 1, "the snapshot holds none of the old");
}

#[tokio::test]
async fn a_snapshot_is_over_after_a_week_and_holds_nothing_any_more() {
    let (_dir, store, service) = service(Wanted::default()).await;
    publish(&service, MANY, 1, "").await;
    snap(&service).await;
    let in_days = |days: u64| now_us() + micros(Duration::from_secs(days * 24 * 3600));
    service.sweep(in_days(6)).await.expect("sweeps");
    service.admin_get_snapshot(SNAPSHOT).expect("it is there");
    service.sweep(in_days(8)).await.expect("sweeps");
    let gone = service.admin_get_snapshot(SNAPSHOT).expect_err("it is over");
    assert_eq!(gone.code(), tonic::Code::NotFound);
    assert_eq!(kept(&store), 0);
}

#[tokio::test]
async fn a_seek_over_more_than_one_transaction_settles_takes_all_of_it_there_and_back() {
    let (_dir, store, service) = service(Wanted { retain_acked_messages: true, ..Wanted::default() }).await;
    publish(&service, MANY, 1, "").await;
    let seek = async |seconds| {
        let time = prost_types::Timestamp { seconds, nanos: 0 };
        service.admin_seek(NAME, Target::Time(time)).await.expect("seeks");
    };
    seek(4_000_000_000).await;
    assert!(delivered(&service).await.is_empty());
    assert_eq!(kept(&store), MANY as u64, "it keeps the acknowledged");
    seek(0).await;
    let mut came = BTreeSet::new();
    while came.len() < MANY {
        let some = delivered(&service).await;
        assert!(!some.is_empty(), "{} came back", came.len());
        came.extend(some.iter().map(|one| one.id.message));
    }
}
