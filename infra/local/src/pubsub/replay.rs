//! Back and forth in time: seek, snapshots, and what has grown too old to be kept.
//!
//! A snapshot is one more holder of its topic's messages: of what its subscription held when it was taken, and of all
//! that came since. Where a seek moves a subscription, its deliveries in hand end and its streams are told to reconnect.
//! A seek in time that fails, or that a crash cuts short, may have moved a part.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::RwLockWriteGuard;
use std::time::Duration;

use tonic::Status;

use super::admin::{DELETED_TOPIC, page};
use super::core::{MessageId, Micros};
use super::filter::Filter;
use super::proto::seek_request::Target;
use super::proto::{CreateSnapshotRequest, Snapshot};
use super::record::{SNAPSHOT_LIFE, SnapshotRecord, SubscriptionRecord, well_named};
use super::{PubSub, micros, now_us, shelf};
use crate::store::StoreError;

/// Between two looks for what has grown too old.
const SWEEP: Duration = Duration::from_secs(60);
/// What one transaction settles at most of what has grown too old, and of what a seek in time finds when it begins, so
/// that others are committed in between. What came since is settled by one more transaction, with all that a topic kept; a
/// seek to a snapshot is one, of whatever size.
const PAGE: usize = 4_000;
/// A snapshot that would live shorter is not made.
const SHORTEST_LIFE: u64 = 3600;

fn us(seconds: u64) -> Micros {
    micros(Duration::from_secs(seconds))
}

fn no_snapshot(name: &str) -> Status {
    Status::not_found(format!("Snapshot not found (resource={name})"))
}

impl PubSub {
    pub(super) fn snapshots_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, SnapshotRecord>> {
        self.0.snapshots.write().expect("no code panics while it holds the map")
    }

    fn snapshot(&self, name: &str) -> Result<SnapshotRecord, Status> {
        let snapshots = self.0.snapshots.read().expect("no code panics while it holds the map");
        snapshots.get(name).filter(|found| found.expires > now_us()).cloned().ok_or_else(|| no_snapshot(name))
    }

    pub(super) fn attach_snapshot(&self, name: String, record: SnapshotRecord) {
        self.add_holder(&record.topic, &name, &record.filter);
        self.snapshots_mut().insert(name, record);
    }

    pub(super) async fn admin_create_snapshot(&self, wanted: CreateSnapshotRequest) -> Result<Snapshot, Status> {
        well_named(&wanted.name, "snapshots")?;
        let live = self.find_attached(&wanted.subscription)?;
        let of = live.record();
        if of.topic == DELETED_TOPIC {
            return Err(Status::failed_precondition("the topic of the subscription was deleted"));
        }
        let mut record = SnapshotRecord {
            topic: of.topic.clone(),
            expires: 0,
            labels: wanted.labels.into_iter().collect(),
            filter: of.filter.clone(),
        };
        if self.snapshot(&wanted.name).is_ok() {
            return Err(Status::already_exists(format!("Snapshot already exists (resource={})", wanted.name)));
        }
        // One of this name may have expired and not have been swept.
        self.forget_snapshot(&wanted.name).await?;
        // What is older is out of sight, although it may not be swept yet.
        let from = self.too_old(&of, now_us())?;
        // First: what is published while it is made is in it.
        self.add_holder(&record.topic, &wanted.name, &record.filter);
        let (name, subscription, now) = (wanted.name.clone(), wanted.subscription, now_us());
        let mut kept = record.clone();
        let made = self.0.store.write(move |txn| {
            let oldest = shelf::oldest(txn, &subscription, from)?.unwrap_or(now);
            kept.expires = oldest.saturating_add(us(SNAPSHOT_LIFE));
            if kept.expires < now + us(SHORTEST_LIFE) {
                shelf::remove_snapshot(txn, &name)?;
                return Ok(None);
            }
            shelf::put_snapshot(txn, &name, &kept)?;
            shelf::snap(txn, &subscription, &name, from)?;
            Ok(Some(kept.expires))
        });
        let made = made.await.map_err(Status::from).and_then(|expires| {
            expires.ok_or_else(|| Status::failed_precondition("the snapshot would expire within the hour"))
        });
        match made {
            Ok(expires) => record.expires = expires,
            Err(refused) => {
                self.remove_holder(&record.topic, &wanted.name);
                // What was published meanwhile is held for nobody.
                self.forget_snapshot(&wanted.name).await?;
                return Err(refused);
            }
        }
        self.snapshots_mut().insert(wanted.name.clone(), record.clone());
        Ok(record.to_proto(&wanted.name))
    }

    pub(super) fn admin_get_snapshot(&self, name: &str) -> Result<Snapshot, Status> {
        Ok(self.snapshot(name)?.to_proto(name))
    }

    pub(super) fn admin_snapshots(
        &self,
        project: &str,
        size: i32,
        token: &str,
    ) -> Result<(Vec<Snapshot>, String), Status> {
        let prefix = format!("{project}/");
        let snapshots = self.0.snapshots.read().expect("no code panics while it holds the map");
        let of_project = snapshots.iter().filter(|(name, _)| name.starts_with(&prefix));
        page(of_project.map(|(name, record)| record.to_proto(name)), |found| &found.name, size, token)
    }

    pub(super) async fn admin_update_snapshot(&self, wanted: Snapshot, paths: &[String]) -> Result<Snapshot, Status> {
        let mut record = self.snapshot(&wanted.name)?;
        record.change(&wanted, paths)?;
        let (name, kept) = (wanted.name.clone(), record.clone());
        self.0.store.write(move |txn| shelf::put_snapshot(txn, &name, &kept)).await?;
        self.snapshots_mut().insert(wanted.name.clone(), record.clone());
        Ok(record.to_proto(&wanted.name))
    }

    pub(super) async fn admin_delete_snapshot(&self, name: &str) -> Result<(), Status> {
        self.snapshot(name)?;
        Ok(self.forget_snapshot(name).await?)
    }

    async fn forget_snapshot(&self, name: &str) -> Result<(), StoreError> {
        if let Some(record) = self.snapshots_mut().remove(name) {
            self.remove_holder(&record.topic, name);
        }
        let stored = name.to_owned();
        self.0.store.write(move |txn| shelf::remove_snapshot(txn, &stored)).await
    }

    /// Moves a subscription in time.
    pub(super) async fn admin_seek(&self, name: &str, target: Target) -> Result<(), Status> {
        let live = self.find_attached(name)?;
        let record = live.record();
        let moved = match target {
            Target::Time(time) => {
                let seconds = u64::try_from(time.seconds).unwrap_or(0);
                let at = us(seconds) + u64::try_from(time.nanos).unwrap_or(0) / 1_000;
                self.move_in_time(name, &record, at).await
            }
            Target::Snapshot(snapshot) => {
                let found = self.snapshot(&snapshot)?;
                if found.topic != record.topic || found.filter != record.filter {
                    return Err(Status::failed_precondition(
                        "the snapshot is of another topic, or of a subscription with another filter",
                    ));
                }
                let (stored, kept) = (name.to_owned(), (*record).clone());
                let seek = move |txn: &redb::WriteTransaction| shelf::seek_to_snapshot(txn, &stored, &kept, &snapshot);
                self.0.store.write(seek).await
            }
        };
        // Also after a failure, which may have moved a part: what is handed out is what the tables hold.
        self.attach(name.to_owned(), (*record).clone())?;
        Ok(moved?)
    }

    async fn move_in_time(&self, name: &str, record: &SubscriptionRecord, at: Micros) -> Result<(), StoreError> {
        let filter = Filter::parse(&record.filter).ok().flatten();
        // Most of it page by page; the seek itself is left with what came since.
        let from = self.boundary(at)?;
        let keeper = shelf::acked(name);
        self.settle_all(name, record.retain_acked.then_some(keeper.as_str()), 0..from).await?;
        self.settle_all(&keeper, Some(name), from..MessageId::MAX).await?;
        let (stored, kept) = (name.to_owned(), record.clone());
        let seek = move |txn: &redb::WriteTransaction| shelf::seek_to_time(txn, &stored, &kept, filter.as_ref(), at);
        self.0.store.write(seek).await
    }

    /// Settles what `holder` holds of a range, page by page.
    async fn settle_all(&self, holder: &str, keeper: Option<&str>, range: Range<MessageId>) -> Result<(), StoreError> {
        loop {
            let (holder, keeper, range) = (holder.to_owned(), keeper.map(str::to_owned), range.clone());
            let settle = move |txn: &redb::WriteTransaction| {
                shelf::settle_some(txn, &holder, keeper.as_deref(), range.clone(), PAGE)
            };
            if !self.0.store.write(settle).await? {
                return Ok(());
            }
        }
    }

    /// Before which message a subscription's are older than it keeps them.
    pub(super) fn too_old(&self, record: &SubscriptionRecord, now: Micros) -> Result<MessageId, StoreError> {
        let of_topic = self.topics().get(&record.topic).and_then(|topic| topic.record.retention).unwrap_or(0);
        self.boundary(now.saturating_sub(us(record.retention.max(of_topic))))
    }

    fn boundary(&self, at: Micros) -> Result<MessageId, StoreError> {
        self.0.store.read(|txn| shelf::boundary(&txn.open_table(shelf::MESSAGES)?, at))
    }

    /// Drops what is older than it may be: at once out of everybody's sight, and then out of the tables.
    pub(super) async fn sweep(&self, now: Micros) -> Result<(), StoreError> {
        for (holder, before) in self.forget_old(now).await? {
            self.settle_all(&holder, None, 0..before).await?;
        }
        let is_over = |record: &SnapshotRecord| record.expires <= now;
        let snapshots = self.0.snapshots.read().expect("no code panics while it holds the map").clone();
        for (name, _) in snapshots.into_iter().filter(|(_, record)| is_over(record)) {
            let _changing = self.0.changing.lock().await;
            // Another may have taken its name.
            if self.snapshots_mut().get(&name).is_some_and(is_over) {
                self.settle_all(&name, None, 0..MessageId::MAX).await?;
                self.forget_snapshot(&name).await?;
            }
        }
        Ok(())
    }

    /// Delivers nothing any more that is too old; before which message that is, by holder.
    async fn forget_old(&self, now: Micros) -> Result<Vec<(String, MessageId)>, StoreError> {
        let _changing = self.0.changing.lock().await;
        let keepers: Vec<(String, u64)> =
            self.topics().iter().filter_map(|(name, topic)| Some((name.clone(), topic.record.retention?))).collect();
        let mut old = Vec::new();
        for (topic, seconds) in keepers {
            old.push((topic, self.boundary(now.saturating_sub(us(seconds)))?));
        }
        let subscriptions: Vec<_> = self.live().values().cloned().collect();
        for live in subscriptions {
            let before = self.too_old(&live.record(), now)?;
            let gone = live.core().forget_before(before);
            live.changed.notify_waiters();
            if !gone.is_empty() {
                self.settle(&live, gone).await?;
            }
            old.extend([live.name.clone(), shelf::acked(&live.name)].map(|holder| (holder, before)));
        }
        Ok(old)
    }

    pub(super) async fn sweep_now_and_then(self) {
        loop {
            tokio::select! {
                () = self.0.closing.cancelled() => return,
                swept = self.sweep(now_us()) => if let Err(error) = swept {
                    tracing::error!(%error, "what is too old stays until the next look");
                },
            }
            tokio::select! {
                () = self.0.closing.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
        }
    }
}
