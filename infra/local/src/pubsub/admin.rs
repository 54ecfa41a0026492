//! The deeds on topics and subscriptions, which gRPC and REST share: make, look, list, change, remove, detach.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::Status;

use super::proto::{Subscription, Topic};
use super::record::{SubscriptionRecord, TopicRecord, well_named};
use super::{PubSub, shelf};

/// What Google calls the topic of a subscription whose topic was deleted.
pub(super) const DELETED_TOPIC: &str = "_deleted-topic_";
/// Things on one page at most, and unless the caller says less.
const PAGE: usize = 1_000;

/// The page after a token of a sorted list, and the token of the next page.
pub(super) fn page<T>(
    sorted: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> &str,
    size: i32,
    token: &str,
) -> Result<(Vec<T>, String), Status> {
    let wrong = |_| Status::invalid_argument("page_token is none that was given out");
    let after = String::from_utf8(URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong(()))?).map_err(|_| wrong(()))?;
    let size = usize::try_from(size).map_err(|_| Status::invalid_argument("page_size must not be negative"))?;
    let size = if size == 0 { PAGE } else { size.min(PAGE) };
    let mut rest = sorted.into_iter().filter(|thing| name(thing) > after.as_str());
    let found: Vec<T> = rest.by_ref().take(size).collect();
    let last = found.last().filter(|_| rest.next().is_some());
    let next = last.map(|last| URL_SAFE_NO_PAD.encode(name(last))).unwrap_or_default();
    Ok((found, next))
}

pub(super) fn no_topic(name: &str) -> Status {
    Status::not_found(format!("Topic not found (resource={name})"))
}

impl PubSub {
    pub(super) fn find(&self, name: &str) -> Result<Arc<super::Subscription>, Status> {
        self.subscription(name)
            .ok_or_else(|| Status::not_found(format!("Subscription does not exist (resource={name})")))
    }

    /// One that messages can be had from.
    pub(super) fn find_attached(&self, name: &str) -> Result<Arc<super::Subscription>, Status> {
        let found = self.find(name)?;
        if found.record().detached {
            return Err(Status::failed_precondition(format!("Subscription is detached (resource={name})")));
        }
        Ok(found)
    }

    pub(super) async fn admin_create_topic(&self, wanted: &Topic) -> Result<Topic, Status> {
        let name = wanted.name.as_str();
        well_named(name, "topics")?;
        let record = TopicRecord::of(wanted)?;
        if self.has_topic(name) {
            return Err(Status::already_exists(format!("Topic already exists (resource={name})")));
        }
        let (stored, kept) = (name.to_owned(), record.clone());
        self.0.store.write(move |txn| shelf::put_topic(txn, &stored, &kept)).await?;
        let live = super::Topic { record: record.clone(), holders: Vec::new() };
        self.topics_mut().entry(name.to_owned()).or_insert(live);
        self.keep_for_topic(name);
        self.hold_again(name);
        Ok(record.to_proto(name))
    }

    /// A topic made in the place of a torn one is published to whatever was subscribed to that, and to its snapshots.
    fn hold_again(&self, topic: &str) {
        let live: Vec<_> = self.live().values().map(|live| (live.name.clone(), live.record())).collect();
        for (name, record) in live.iter().filter(|(_, record)| record.topic == topic && !record.detached) {
            self.add_holder(topic, name, &record.filter);
        }
        let snapshots = self.0.snapshots.read().expect("no code panics while it holds the map").clone();
        for (name, record) in snapshots.iter().filter(|(_, record)| record.topic == topic) {
            self.add_holder(topic, name, &record.filter);
        }
    }

    pub(super) async fn admin_update_topic(&self, wanted: &Topic, paths: &[String]) -> Result<Topic, Status> {
        let name = wanted.name.clone();
        let mut record = self.topics().get(&name).map(|topic| topic.record.clone()).ok_or_else(|| no_topic(&name))?;
        record.change(wanted, paths)?;
        if let Some(topic) = self.topics_mut().get_mut(&name) {
            topic.record = record.clone();
        }
        self.keep_for_topic(&name);
        let (stored, kept) = (name.clone(), record.clone());
        self.0
            .store
            .write(move |txn| {
                if kept.retention.is_none() {
                    shelf::drop_before(txn, &stored, u64::MAX)?;
                }
                shelf::put_topic(txn, &stored, &kept)
            })
            .await?;
        Ok(record.to_proto(&name))
    }

    pub(super) fn admin_get_topic(&self, name: &str) -> Result<Topic, Status> {
        self.topics().get(name).map(|topic| topic.record.to_proto(name)).ok_or_else(|| no_topic(name))
    }

    pub(super) fn admin_topics(&self, project: &str, size: i32, token: &str) -> Result<(Vec<Topic>, String), Status> {
        let prefix = format!("{project}/");
        let topics = self.topics();
        let of_project = topics.iter().filter(|(name, _)| name.starts_with(&prefix));
        page(of_project.map(|(name, topic)| topic.record.to_proto(name)), |topic| &topic.name, size, token)
    }

    /// The names of a topic's subscriptions, or of its snapshots.
    pub(super) fn admin_of_topic(
        &self,
        topic: &str,
        kind: &str,
        size: i32,
        token: &str,
    ) -> Result<(Vec<String>, String), Status> {
        let topics = self.topics();
        let holders = &topics.get(topic).ok_or_else(|| no_topic(topic))?.holders;
        let part = format!("/{kind}/");
        let mut names: Vec<String> =
            holders.iter().filter(|holder| holder.name.contains(&part)).map(|holder| holder.name.clone()).collect();
        names.sort();
        page(names, |name| name, size, token)
    }

    pub(super) async fn admin_delete_topic(&self, name: &str) -> Result<(), Status> {
        let removed = self.topics_mut().remove(name).ok_or_else(|| no_topic(name))?;
        let names = removed.holders.into_iter().map(|holder| holder.name);
        let (mut left, mut snapshots) = (Vec::new(), Vec::new());
        for name in names {
            if let Some(live) = self.subscription(&name) {
                left.push((name, SubscriptionRecord { topic: DELETED_TOPIC.into(), ..(*live.record()).clone() }));
            } else if let Some(snapshot) = self.snapshots_mut().get_mut(&name) {
                snapshot.topic = DELETED_TOPIC.into();
                snapshots.push((name, snapshot.clone()));
            }
        }
        for (name, record) in &left {
            if let Some(live) = self.subscription(name) {
                *live.record.write().expect("no code panics while it holds the record") = Arc::new(record.clone());
            }
        }
        let topic = name.to_owned();
        let write = move |txn: &redb::WriteTransaction| {
            shelf::remove_topic(txn, &topic)?;
            snapshots.iter().try_for_each(|(name, record)| shelf::put_snapshot(txn, name, record))?;
            left.iter().try_for_each(|(name, record)| shelf::put_subscription(txn, name, record))
        };
        Ok(self.0.store.write(write).await?)
    }

    fn shown(&self, name: &str, record: &SubscriptionRecord) -> Subscription {
        record.to_proto(name, self.topics().get(&record.topic).and_then(|topic| topic.record.retention))
    }

    pub(super) async fn admin_create_subscription(&self, wanted: Subscription) -> Result<Subscription, Status> {
        well_named(&wanted.name, "subscriptions")?;
        self.admin_get_topic(&wanted.topic)?;
        if self.subscription(&wanted.name).is_some() {
            return Err(Status::already_exists(format!("Subscription already exists (resource={})", wanted.name)));
        }
        let record = SubscriptionRecord::of(&wanted)?;
        let (name, stored) = (wanted.name.clone(), record.clone());
        self.0.store.write(move |txn| shelf::put_subscription(txn, &name, &stored)).await?;
        self.attach(wanted.name.clone(), record.clone())?;
        Ok(self.shown(&wanted.name, &record))
    }

    pub(super) fn admin_get_subscription(&self, name: &str) -> Result<Subscription, Status> {
        Ok(self.shown(name, &self.find(name)?.record()))
    }

    /// Changes what the mask names; deliveries in hand stay where they are.
    pub(super) async fn admin_update_subscription(
        &self,
        wanted: Subscription,
        paths: &[String],
    ) -> Result<Subscription, Status> {
        let live = self.find(&wanted.name)?;
        let mut record = (*live.record()).clone();
        record.change(&wanted, paths)?;
        let (name, stored) = (wanted.name.clone(), record.clone());
        self.0.store.write(move |txn| shelf::put_subscription(txn, &name, &stored)).await?;
        *live.record.write().expect("no code panics while it holds the record") = Arc::new(record.clone());
        live.changed.notify_waiters();
        Ok(self.shown(&wanted.name, &record))
    }

    pub(super) fn admin_subscriptions(
        &self,
        project: &str,
        size: i32,
        token: &str,
    ) -> Result<(Vec<Subscription>, String), Status> {
        let prefix = format!("{project}/");
        let found: Vec<Arc<super::Subscription>> =
            self.live().values().filter(|live| live.name.starts_with(&prefix)).cloned().collect();
        let (found, next) = page(found, |live| &live.name, size, token)?;
        Ok((found.into_iter().map(|live| self.shown(&live.name, &live.record())).collect(), next))
    }

    /// Out of sight first, so that nothing is published to rows that nobody settles.
    pub(super) async fn admin_delete_subscription(&self, name: &str) -> Result<(), Status> {
        let live = self.find(name)?;
        self.detach(&live);
        let stored = name.to_owned();
        Ok(self.0.store.write(move |txn| shelf::remove_subscription(txn, &stored)).await?)
    }

    /// It gets no messages any more and has lost those it had.
    pub(super) async fn admin_detach_subscription(&self, name: &str) -> Result<(), Status> {
        let live = self.find(name)?;
        let record = SubscriptionRecord { detached: true, ..(*live.record()).clone() };
        self.remove_holder(&record.topic, name);
        let (stored, kept) = (name.to_owned(), record.clone());
        self.0.store.write(move |txn| shelf::put_subscription(txn, &stored, &kept)).await?;
        Ok(self.attach(name.to_owned(), record)?)
    }
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn pages_make_the_list_and_a_token_that_is_none_is_refused() {
        let names: Vec<String> = (0..5).map(|number| format!("n{number}")).collect();
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let (some, next) = page(names.clone(), |name| name, 2, &token).expect("a token of ours");
            assert!(some.len() <= 2);
            found.extend(some);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(found, names);
        assert_eq!(page(names.clone(), |name| name, 5, "").expect("no token").1, "");
        assert!(page(names.clone(), |name| name, 0, "?").is_err());
        assert!(page(names, |name| name, -1, "").is_err());
    }
}
