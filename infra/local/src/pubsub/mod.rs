//! Pub/Sub: topics, subscriptions, snapshots, durable messages, streaming pull, dead letters.
//!
//! | room | owns |
//! |---|---|
//! | `core` | one subscription's deliveries, pure |
//! | `filter` | which messages a subscription takes, pure |
//! | `record` | what is kept of each thing, and Google's limits |
//! | `ack_id` | the name of one delivery |
//! | `deliver` | hands out, acknowledges, gives back |
//! | `dead_letter` | where messages go that nobody can handle |
//! | `shelf` | the tables |
//! | `aside` | what is found torn |
//! | `admin` | the deeds on topics and subscriptions |
//! | `replay` | seek, snapshots, and what grows too old |
//! | `check`, `grpc`, `stream` | google.pubsub.v1 |
//! | `rest`, `json` | the same over JSON |
//!
//! A publish is answered after its commit. In memory there are leases and a window of ids; they are rebuilt from the
//! tables, so attempts and leases start anew with the process, and what was not acknowledged is delivered again. A
//! delivery of a former process is not confirmed to who wants it exactly once. Forwarding to a dead-letter topic asks for
//! no permission here; at Google the service agent needs publish and subscribe. With ordering and exactly-once delivery
//! together, an acknowledgement is confirmed though an earlier message of its key is still out; Google refuses it then.
//!
//! Refused: push, exports, schemas, transforms, keys of a customer, subscriptions that expire.

mod ack_id;
mod admin;
mod aside;
mod check;
mod core;
mod dead_letter;
mod deliver;
pub(crate) mod filter;
mod grpc;
mod json;
mod record;
mod replay;
mod rest;
mod shelf;
mod stream;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use bytes::Bytes;
use redb::WriteTransaction;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ack_id::AckId;
use self::core::{Core, Micros, Room};
use crate::config;
use crate::faults::{Fault, Faults};
use crate::iam::Iam;
use crate::store::{Store, StoreError};
use filter::Filter;
use record::{SubscriptionRecord, TopicRecord};

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

/// Why Pub/Sub did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database.
    #[error("open the tables of pub/sub")]
    Store(#[from] StoreError),
    /// A topic, a subscription or a snapshot of which nobody knows any more how it was set.
    #[error(
        "open {0}: its record could not be read and lies in table pubsub.aside; bring the data directory back from a \
         backup, or start again, without it in the configuration, which this will not hinder a second time, and create it \
         over the API with the settings it had: what is published until then is not for it, but a subscription then finds \
         its former messages again"
    )]
    Lost(String),
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its body.
    pub data: Bytes,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Messages of one key keep their order for who asks for it.
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
    topics: RwLock<BTreeMap<String, Topic>>,
    subscriptions: RwLock<BTreeMap<String, Arc<Subscription>>>,
    snapshots: RwLock<BTreeMap<String, record::SnapshotRecord>>,
    /// When the newest message was published: the clock may step back, publish times do not.
    published: AtomicU64,
    holders: AtomicU64,
    /// Held from the look to the last consequence by whoever changes what topics, subscriptions and snapshots there are.
    changing: tokio::sync::Mutex<()>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Topic {
    record: TopicRecord,
    holders: Vec<Holder>,
}

/// Who gets a row for each message of a topic: a subscription, a snapshot, or the topic itself.
#[derive(Debug, Clone)]
struct Holder {
    name: String,
    filter: Option<Arc<Filter>>,
}

#[derive(Debug)]
struct Subscription {
    name: String,
    record: RwLock<Arc<SubscriptionRecord>>,
    /// See [`AckId`].
    life: u32,
    core: Mutex<Core>,
    /// There may be more behind the window.
    more: AtomicBool,
    changed: Notify,
    /// It was deleted, detached or sent elsewhere in time: its streams end.
    replaced: CancellationToken,
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
    ) -> Result<Self, OpenError> {
        let topic = |name: &str| format!("projects/{project}/topics/{name}");
        let wanted_topics: Vec<String> = topics.iter().map(|name| topic(name)).collect();
        let wanted: Vec<(String, SubscriptionRecord)> = subscriptions
            .iter()
            .map(|wanted| {
                let dead_letter = wanted.dead_letter.as_ref().map(|d| (topic(&d.topic), d.max_delivery_attempts));
                let record = SubscriptionRecord::new(topic(&wanted.topic), wanted.ack_deadline_seconds, dead_letter);
                (format!("projects/{project}/subscriptions/{}", wanted.name), record)
            })
            .collect();
        let opened = store
            .write(move |txn| {
                shelf::create_tables(txn)?;
                // What is put aside stays there, whatever is refused now.
                let mut torn = aside::records(txn)?.into_iter().next();
                if torn.is_none() {
                    torn = aside::lost(txn, shelf::TOPICS, &wanted_topics)?;
                }
                if torn.is_none() {
                    torn = aside::lost(txn, shelf::SUBSCRIPTIONS, wanted.iter().map(|(name, _)| name))?;
                }
                if let Some(torn) = torn {
                    return Ok(Err(OpenError::Lost(torn)));
                }
                let kept: BTreeMap<_, _> = shelf::topics(txn)?.into_iter().collect();
                for name in wanted_topics.iter().filter(|name| !kept.contains_key(*name)) {
                    shelf::put_topic(txn, name, &TopicRecord::default())?;
                }
                let kept: BTreeMap<_, _> = shelf::subscriptions(txn)?.into_iter().collect();
                for (name, wanted) in &wanted {
                    // What the configuration does not speak of stays as it was changed.
                    let record = kept.get(name).map_or_else(
                        || wanted.clone(),
                        |kept| SubscriptionRecord {
                            topic: wanted.topic.clone(),
                            ack_deadline: wanted.ack_deadline,
                            dead_letter: wanted.dead_letter.clone(),
                            ..kept.clone()
                        },
                    );
                    shelf::put_subscription(txn, name, &record)?;
                }
                let (topics, subscriptions) = (shelf::topics(txn)?, shelf::subscriptions(txn)?);
                Ok(Ok((topics, subscriptions, shelf::snapshots(txn)?, shelf::newest_time(txn)?)))
            })
            .await?;
        let (topics, subscriptions, snapshots, newest) = opened?;
        let live = |(name, record): (String, TopicRecord)| (name, Topic { record, holders: Vec::new() });
        let service = Self(Arc::new(Inner {
            store,
            iam,
            faults,
            topics: RwLock::new(topics.into_iter().map(live).collect()),
            subscriptions: RwLock::default(),
            snapshots: RwLock::default(),
            published: AtomicU64::new(newest),
            holders: AtomicU64::new(1),
            changing: tokio::sync::Mutex::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        let names: Vec<String> = service.topics().keys().cloned().collect();
        names.iter().for_each(|name| service.keep_for_topic(name));
        for (name, record) in subscriptions {
            service.attach(name, record)?;
        }
        for (name, record) in snapshots {
            service.attach_snapshot(name, record);
        }
        service.0.tasks.spawn(service.clone().sweep_now_and_then());
        Ok(service)
    }

    /// REST administration.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }

    /// google.pubsub.v1.Publisher, for `tonic::service::Routes`.
    pub fn publisher(&self) -> proto::publisher_server::PublisherServer<Self> {
        // More than may be published, so that who publishes too much is told so, and not that it could not be read.
        const LARGEST: usize = 64 << 20;
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
        self.topics().contains_key(name)
    }

    /// Appends messages within the caller's transaction: whatever it changes and these messages are one commit. A topic
    /// that does not exist takes them silently, as Google's notifications do.
    pub fn publish_in(
        &self,
        txn: &WriteTransaction,
        topic: &str,
        messages: &[NewMessage],
    ) -> Result<Vec<String>, StoreError> {
        let holders = self.topics().get(topic).map(|topic| topic.holders.clone()).unwrap_or_default();
        let now = self.0.published.fetch_max(now_us(), Ordering::Relaxed).max(now_us());
        let time = UNIX_EPOCH + Duration::from_micros(now);
        let mut appender = shelf::Appender::open(txn)?;
        let mut ids = Vec::with_capacity(messages.len());
        for message in messages {
            let takes = |holder: &&Holder| {
                let attribute = |key: &str| message.attributes.get(key).map(String::as_str);
                holder.filter.as_ref().is_none_or(|filter| filter.takes(&attribute))
            };
            let holders: Vec<&str> = holders.iter().filter(takes).map(|holder| holder.name.as_str()).collect();
            let copies = 1 + usize::from(self.0.faults.roll(Fault::Duplicate));
            for copy in 0..copies {
                let message = PubsubMessage {
                    data: message.data.clone(),
                    attributes: message.attributes.clone().into_iter().collect(),
                    message_id: String::new(),
                    publish_time: Some(time.into()),
                    ordering_key: message.ordering_key.clone(),
                };
                let id = appender.append(&holders, message)?;
                if copy == 0 {
                    ids.push(id.to_string());
                }
            }
        }
        appender.finish()?;
        Ok(ids)
    }

    /// Messages of the topic were committed: its subscriptions take them up.
    pub fn committed(&self, topic: &str) {
        for subscription in self.subscriptions_of(topic) {
            subscription.more.store(true, Ordering::Release);
            if let Err(error) = self.take_up(&subscription) {
                tracing::error!(%error, subscription = subscription.name, "new messages wait for the next publish");
            }
            subscription.changed.notify_waiters();
        }
    }

    /// Publishes and answers once that is durable.
    async fn publish(&self, topic: String, messages: Vec<NewMessage>) -> Result<Vec<String>, StoreError> {
        let service = self.clone();
        self.to_its_end(async move {
            let (appender, name) = (service.clone(), topic.clone());
            let ids = service.0.store.write(move |txn| appender.publish_in(txn, &name, &messages)).await?;
            service.committed(&topic);
            Ok(ids)
        })
        .await
    }

    /// Changes what there is, one change at a time.
    async fn alone<T, F>(&self, deed: impl FnOnce(Self) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let service = self.clone();
        self.to_its_end(async move {
            let _changing = service.0.changing.lock().await;
            deed(service.clone()).await
        })
        .await
    }

    /// Does a deed whole, even if whoever asked for it hangs up: what follows a commit must follow it.
    async fn to_its_end<T: Send + 'static>(&self, deed: impl Future<Output = T> + Send + 'static) -> T {
        match self.0.tasks.spawn(deed).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and with it whoever waits here.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn topics(&self) -> RwLockReadGuard<'_, BTreeMap<String, Topic>> {
        self.0.topics.read().expect("no code panics while it holds the map")
    }

    fn topics_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Topic>> {
        self.0.topics.write().expect("no code panics while it holds the map")
    }

    fn live(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<Subscription>>> {
        self.0.subscriptions.read().expect("no code panics while it holds the map")
    }

    fn subscriptions_of(&self, topic: &str) -> Vec<Arc<Subscription>> {
        let topics = self.topics();
        let holders = topics.get(topic).map_or(&[][..], |topic| &topic.holders);
        holders.iter().filter_map(|holder| self.subscription(&holder.name)).collect()
    }

    fn subscription(&self, name: &str) -> Option<Arc<Subscription>> {
        self.live().get(name).cloned()
    }

    /// The topic's messages are for this holder too.
    fn add_holder(&self, topic: &str, name: &str, filter: &str) {
        // What was let in is a filter.
        let filter = Filter::parse(filter).ok().flatten().map(Arc::new);
        if let Some(topic) = self.topics_mut().get_mut(topic) {
            topic.holders.retain(|holder| holder.name != name);
            topic.holders.push(Holder { name: name.to_owned(), filter });
        }
    }

    fn remove_holder(&self, topic: &str, name: &str) {
        if let Some(topic) = self.topics_mut().get_mut(topic) {
            topic.holders.retain(|holder| holder.name != name);
        }
    }

    /// A topic that keeps its messages is one of its holders.
    fn keep_for_topic(&self, name: &str) {
        let keeps = self.topics().get(name).is_some_and(|topic| topic.record.retention.is_some());
        if keeps { self.add_holder(name, name, "") } else { self.remove_holder(name, name) }
    }

    /// Makes a stored subscription live, in the place of its former self if there is one, whose deliveries end.
    fn attach(&self, name: String, record: SubscriptionRecord) -> Result<(), StoreError> {
        if !record.detached {
            self.add_holder(&record.topic, &name, &record.filter);
        }
        let mut core = Core::default();
        // The tables lose it later.
        core.forget_before(self.too_old(&record, now_us())?);
        let subscription = Arc::new(Subscription {
            name: name.clone(),
            record: RwLock::new(Arc::new(record)),
            life: rand::random(),
            core: Mutex::new(core),
            more: AtomicBool::new(true),
            changed: Notify::new(),
            replaced: CancellationToken::new(),
        });
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
        self.remove_holder(&live.record().topic, &live.name);
        self.0.subscriptions.write().expect("no code panics while it holds the map").remove(&live.name);
        live.replaced.cancel();
    }

    fn next_holder(&self) -> u64 {
        self.0.holders.fetch_add(1, Ordering::Relaxed)
    }
}

impl Subscription {
    fn record(&self) -> Arc<SubscriptionRecord> {
        self.record.read().expect("no code panics while it holds the record").clone()
    }

    /// What its acknowledgement ids bear.
    fn mark(&self) -> u32 {
        crc32c::crc32c(self.name.as_bytes())
    }

    fn is_held(&self, core: &Core, id: AckId, now: Micros) -> bool {
        id.life == self.life && core.is_held(id.message, id.delivery, now)
    }

    fn core(&self) -> std::sync::MutexGuard<'_, Core> {
        self.core.lock().expect("no code panics while it holds the core")
    }

    /// How long until something is due by itself for `holder`, who has so much room.
    fn idle_for(&self, room: Room, holder: u64) -> Duration {
        let core = self.core();
        let due = if core.has_room(room, holder) { core.next_due() } else { core.next_end() };
        let idle = due.map_or(Duration::MAX, |due| Duration::from_micros(due.saturating_sub(now_us())));
        idle.min(Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests;
