//! Pub/Sub: topics, subscriptions, durable messages, streaming pull, dead letters.
//!
//! | room | owns |
//! |---|---|
//! | `core` | one subscription's deliveries, pure |
//! | `ack_id` | the name of one delivery |
//! | `dead_letter` | where messages go that nobody can handle |
//! | `shelf` | the tables |
//! | `grpc` | google.pubsub.v1 |
//! | `rest` | administration of topics and subscriptions, JSON |
//!
//! A publish is answered after its commit. In memory there are ids and leases only; they are rebuilt from the tables,
//! so attempts and leases start anew with the process, and what was not acknowledged is delivered again. Forwarding to a
//! dead-letter topic asks for no permission here; at Google the service agent needs publish and subscribe.
//!
//! Refused: push, filters, ordering keys, snapshots, seek, exactly-once, schemas.

mod ack_id;
mod core;
mod dead_letter;
mod grpc;
mod rest;
mod shelf;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use bytes::Bytes;
use redb::WriteTransaction;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ack_id::AckId;
use self::core::{Core, MessageId, Micros};
use crate::config;
use crate::faults::{Fault, Faults};
use crate::iam::Iam;
use crate::store::{Store, StoreError};
use shelf::SubscriptionRecord;

/// The generated server of google.pubsub.v1.
pub(crate) mod proto {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated from the proto"
    )]
    tonic::include_proto!("google.pubsub.v1");
}

use proto::PubsubMessage;

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its body.
    pub data: Bytes,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Kept and handed on; order is not kept.
    pub ordering_key: String,
}

/// The service; clones share it.
#[derive(Clone, Debug)]
pub struct PubSub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    iam: Iam,
    faults: Faults,
    topics: RwLock<BTreeMap<String, Vec<String>>>,
    subscriptions: RwLock<HashMap<String, Arc<Subscription>>>,
    holders: AtomicU64,
    closing: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Subscription {
    name: String,
    record: SubscriptionRecord,
    /// See [`AckId`].
    life: u32,
    core: Mutex<Core>,
    changed: Notify,
    /// It was deleted, or another record has taken its place: its streams end.
    replaced: CancellationToken,
}

/// One delivery.
struct Delivered {
    id: AckId,
    message: PubsubMessage,
}

/// Microseconds since 1970.
fn now_us() -> Micros {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl PubSub {
    /// Opens the tables, adds the configured topics and subscriptions, and finds what is still unacknowledged.
    pub async fn open(
        store: Store,
        iam: Iam,
        faults: Faults,
        project: &str,
        topics: &[String],
        subscriptions: &[config::Subscription],
    ) -> Result<Self, StoreError> {
        let topic = |name: &str| format!("projects/{project}/topics/{name}");
        let wanted_topics: Vec<String> = topics.iter().map(|name| topic(name)).collect();
        let wanted: Vec<(String, SubscriptionRecord)> = subscriptions
            .iter()
            .map(|wanted| {
                let record = SubscriptionRecord {
                    topic: topic(&wanted.topic),
                    ack_deadline: wanted.ack_deadline_seconds,
                    dead_letter: wanted.dead_letter.as_ref().map(|d| (topic(&d.topic), d.max_delivery_attempts)),
                };
                (format!("projects/{project}/subscriptions/{}", wanted.name), record)
            })
            .collect();
        let (topics, subscriptions) = store
            .write(move |txn| {
                shelf::create_tables(txn)?;
                for name in &wanted_topics {
                    shelf::put_topic(txn, name)?;
                }
                for (name, record) in &wanted {
                    shelf::put_subscription(txn, name, record)?;
                }
                Ok((shelf::topics(txn)?, shelf::subscriptions(txn)?))
            })
            .await?;
        let service = Self(Arc::new(Inner {
            store,
            iam,
            faults,
            topics: RwLock::new(topics.into_iter().map(|name| (name, Vec::new())).collect()),
            subscriptions: RwLock::default(),
            holders: AtomicU64::new(1),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        for (name, record) in subscriptions {
            service.attach(name, record)?;
        }
        Ok(service)
    }

    /// REST administration.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }

    /// google.pubsub.v1.Publisher, for `tonic::service::Routes`.
    pub fn publisher(&self) -> proto::publisher_server::PublisherServer<Self> {
        const LARGEST: usize = 12 << 20;
        proto::publisher_server::PublisherServer::new(self.clone()).max_decoding_message_size(LARGEST)
    }

    /// google.pubsub.v1.Subscriber, for `tonic::service::Routes`.
    pub fn subscriber(&self) -> proto::subscriber_server::SubscriberServer<Self> {
        proto::subscriber_server::SubscriberServer::new(self.clone())
    }

    /// Ends open streams and waits for the last acknowledgements to be written.
    pub async fn shutdown(&self) {
        self.0.closing.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Whether there is such a topic.
    pub fn has_topic(&self, name: &str) -> bool {
        self.subscriptions_of(name).is_some()
    }

    /// Appends messages within the caller's transaction: whatever it changes and these messages are one commit. A topic
    /// that does not exist takes them silently, as Google's notifications do.
    pub fn publish_in(
        &self,
        txn: &WriteTransaction,
        topic: &str,
        messages: &[NewMessage],
    ) -> Result<Vec<String>, StoreError> {
        let subscriptions = self.subscriptions_of(topic).unwrap_or_default();
        let now = SystemTime::now();
        let mut ids = Vec::with_capacity(messages.len());
        for message in messages {
            let message = PubsubMessage {
                data: message.data.clone(),
                attributes: message.attributes.clone().into_iter().collect(),
                message_id: String::new(),
                publish_time: Some(now.into()),
                ordering_key: message.ordering_key.clone(),
            };
            ids.push(shelf::append(txn, &subscriptions, &message)?.to_string());
            if self.0.faults.roll(Fault::Duplicate) {
                shelf::append(txn, &subscriptions, &message)?;
            }
        }
        Ok(ids)
    }

    /// Messages of the topic were committed: its subscriptions take them up.
    pub fn committed(&self, topic: &str) {
        for name in self.subscriptions_of(topic).unwrap_or_default() {
            if let Some(subscription) = self.subscription(&name)
                && let Err(error) = self.take_up(&subscription)
            {
                tracing::error!(%error, subscription = name, "new messages wait for the next publish");
            }
        }
    }

    /// Publishes and answers once that is durable.
    async fn publish(&self, topic: String, messages: Vec<NewMessage>) -> Result<Vec<String>, StoreError> {
        let service = self.clone();
        let name = topic.clone();
        let ids = self.0.store.write(move |txn| service.publish_in(txn, &name, &messages)).await?;
        self.committed(&topic);
        Ok(ids)
    }

    fn subscriptions_of(&self, topic: &str) -> Option<Vec<String>> {
        self.0.topics.read().expect("no code panics while it holds the map").get(topic).cloned()
    }

    fn subscription(&self, name: &str) -> Option<Arc<Subscription>> {
        self.0.subscriptions.read().expect("no code panics while it holds the map").get(name).cloned()
    }

    /// Makes a stored subscription live, in the place of its former self if there is one.
    fn attach(&self, name: String, record: SubscriptionRecord) -> Result<(), StoreError> {
        let subscription = Arc::new(Subscription {
            name: name.clone(),
            record: record.clone(),
            life: rand::random(),
            core: Mutex::default(),
            changed: Notify::new(),
            replaced: CancellationToken::new(),
        });
        let mut topics = self.0.topics.write().expect("no code panics while it holds the map");
        if let Some(of_topic) = topics.get_mut(&record.topic)
            && !of_topic.contains(&name)
        {
            of_topic.push(name.clone());
        }
        drop(topics);
        let mut live = self.0.subscriptions.write().expect("no code panics while it holds the map");
        let former = live.insert(name, subscription.clone());
        drop(live);
        if let Some(former) = former {
            former.replaced.cancel();
        }
        // Last: a message that was committed before the subscription could be seen is found here.
        self.take_up(&subscription)
    }

    /// Takes a live subscription out of sight: its topic owes it nothing from now on.
    fn detach(&self, live: &Subscription) {
        let mut topics = self.0.topics.write().expect("no code panics while it holds the map");
        if let Some(of_topic) = topics.get_mut(&live.record.topic) {
            of_topic.retain(|other| *other != live.name);
        }
        drop(topics);
        self.0.subscriptions.write().expect("no code panics while it holds the map").remove(&live.name);
        live.replaced.cancel();
    }

    /// Adds committed messages that the core has not seen. The lock is held over the look, so none is added twice.
    fn take_up(&self, subscription: &Subscription) -> Result<(), StoreError> {
        let now = now_us();
        let mut core = subscription.core();
        let newest = core.newest();
        for id in self.0.store.read(|txn| shelf::pending_after(txn, &subscription.name, newest))? {
            let delayed = self.0.faults.roll(Fault::Delay);
            core.add(id, if delayed { now + micros(self.0.faults.delay()) } else { now });
        }
        drop(core);
        subscription.changed.notify_waiters();
        Ok(())
    }

    /// Leases up to `max` messages to `holder`; those whose deliveries are used up go to the dead-letter topic.
    async fn deliver(
        &self,
        subscription: &Arc<Subscription>,
        max: usize,
        deadline: Duration,
        holder: u64,
    ) -> Result<Vec<Delivered>, StoreError> {
        let now = now_us();
        let policy = subscription.record.dead_letter.as_ref();
        // A topic that is gone would swallow them: then they keep coming, as at Google.
        let policy = policy.filter(|(topic, _)| self.subscriptions_of(topic).is_some());
        let limit = policy.map(|(_, attempts)| *attempts);
        let deadline = self.0.faults.lease(deadline);
        let taken = {
            let mut core = subscription.core();
            core.expire(now);
            core.take(now, now + micros(deadline), max, holder, limit)
        };
        if !taken.dead.is_empty() {
            self.bury(subscription, &taken.dead).await?;
        }
        let loaded = self.0.store.read(|txn| shelf::load(txn, &taken.deliver))?;
        let delivered = |(message_id, attempt, message)| Delivered {
            id: AckId { message: message_id, attempt, life: subscription.life },
            message,
        };
        Ok(loaded.into_iter().map(delivered).collect())
    }

    /// Acknowledges; resolves once that is durable.
    async fn acknowledge(&self, subscription: &Arc<Subscription>, ids: Vec<MessageId>) -> Result<(), StoreError> {
        let mut settled = Vec::with_capacity(ids.len());
        {
            let now = now_us();
            let mut core = subscription.core();
            for id in ids {
                if core.attempts(id) == Some(1) && self.0.faults.roll(Fault::Redeliver) {
                    core.nack(id, now);
                } else if core.ack(id) {
                    settled.push(id);
                }
            }
        }
        subscription.changed.notify_waiters();
        if settled.is_empty() {
            return Ok(());
        }
        let name = subscription.name.clone();
        self.0.store.write(move |txn| shelf::settle(txn, &name, &settled)).await
    }

    /// Prolongs leases, or gives messages back where the deadline is zero.
    fn modify(&self, subscription: &Subscription, changes: impl IntoIterator<Item = (AckId, Duration)>) {
        let now = now_us();
        let mut core = subscription.core();
        for (AckId { message, attempt, life }, deadline) in changes {
            if life != subscription.life || core.attempts(message) != Some(attempt) {
                continue;
            }
            if deadline.is_zero() { core.nack(message, now) } else { core.extend(message, now + micros(deadline)) }
        }
        drop(core);
        subscription.changed.notify_waiters();
    }

    fn next_holder(&self) -> u64 {
        self.0.holders.fetch_add(1, Ordering::Relaxed)
    }
}

impl Subscription {
    fn core(&self) -> std::sync::MutexGuard<'_, Core> {
        self.core.lock().expect("no code panics while it holds the core")
    }

    /// How long until something is due by itself for who can take `room` messages.
    fn idle_for(&self, room: usize) -> Duration {
        let core = self.core();
        let due = if room == 0 { core.next_end() } else { core.next_due() };
        let idle = due.map_or(Duration::MAX, |due| Duration::from_micros(due.saturating_sub(now_us())));
        idle.min(Duration::from_secs(60))
    }
}
