//! Back and forth in time: seek, snapshots, and what has grown too old to be kept.
//!
//! A snapshot is one more holder of its topic's messages: of what its subscription held when it was taken, and of all
//! that came since. Where a seek moves a subscription, its deliveries in hand end and its streams are told to reconnect.

use std::collections::BTreeMap;
use std::sync::RwLockWriteGuard;
use std::time::Duration;

use tonic::Status;

use super::admin::{DELETED_TOPIC, page};
use super::core::Micros;
use super::filter::Filter;
use super::proto::seek_request::Target;
use super::proto::{CreateSnapshotRequest, Snapshot};
use super::record::{SNAPSHOT_LIFE, SnapshotRecord, well_named};
use super::{PubSub, micros, now_us, shelf};
use crate::store::StoreError;

/// Between two looks for what has grown too old.
const SWEEP: Duration = Duration::from_secs(60);
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
        // First: what is published while it is made is in it.
        self.add_holder(&record.topic, &wanted.name, &record.filter);
        let (name, subscription, now) = (wanted.name.clone(), wanted.subscription, now_us());
        let mut kept = record.clone();
        let made = self.0.store.write(move |txn| {
            let oldest = shelf::oldest(txn, &subscription)?.unwrap_or(now);
            kept.expires = oldest.saturating_add(us(SNAPSHOT_LIFE));
            if kept.expires < now + us(SHORTEST_LIFE) {
                shelf::remove_snapshot(txn, &name)?;
                return Ok(None);
            }
            shelf::put_snapshot(txn, &name, &kept)?;
            shelf::snap(txn, &subscription, &name)?;
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
        let (stored, kept) = (name.to_owned(), (*record).clone());
        match target {
            Target::Time(time) => {
                let seconds = u64::try_from(time.seconds).unwrap_or(0);
                let at = us(seconds) + u64::try_from(time.nanos).unwrap_or(0) / 1_000;
                let filter = Filter::parse(&record.filter).ok().flatten();
                let seek =
                    move |txn: &redb::WriteTransaction| shelf::seek_to_time(txn, &stored, &kept, filter.as_ref(), at);
                self.0.store.write(seek).await?;
            }
            Target::Snapshot(snapshot) => {
                let found = self.snapshot(&snapshot)?;
                if found.topic != record.topic || found.filter != record.filter {
                    return Err(Status::failed_precondition(
                        "the snapshot is of another topic, or of a subscription with another filter",
                    ));
                }
                let seek = move |txn: &redb::WriteTransaction| shelf::seek_to_snapshot(txn, &stored, &kept, &snapshot);
                self.0.store.write(seek).await?;
            }
        }
        Ok(self.attach(name.to_owned(), (*record).clone())?)
    }

    /// Drops what is older than it may be.
    pub(super) async fn sweep(&self, now: Micros) -> Result<(), StoreError> {
        let _changing = self.0.changing.lock().await;
        let kept_by_topic: BTreeMap<String, u64> =
            self.topics().iter().filter_map(|(name, topic)| Some((name.clone(), topic.record.retention?))).collect();
        let subscriptions: Vec<_> = self.live().values().cloned().collect();
        let mut limits: Vec<(String, Micros)> =
            kept_by_topic.iter().map(|(name, seconds)| (name.clone(), now.saturating_sub(us(*seconds)))).collect();
        for live in &subscriptions {
            let record = live.record();
            let seconds = record.retention.max(kept_by_topic.get(&record.topic).copied().unwrap_or(0));
            let before = now.saturating_sub(us(seconds));
            limits.push((live.name.clone(), before));
            limits.push((shelf::acked(&live.name), before));
        }
        let boundaries = self.0.store.write(move |txn| {
            let mut boundaries = BTreeMap::new();
            for (holder, before) in &limits {
                let id = shelf::boundary(txn, *before)?;
                shelf::drop_before(txn, holder, id)?;
                boundaries.insert(holder.clone(), id);
            }
            Ok(boundaries)
        });
        let boundaries = boundaries.await?;
        for live in subscriptions {
            let Some(id) = boundaries.get(&live.name) else { continue };
            let gone = live.core().forget_before(*id);
            live.changed.notify_waiters();
            if !gone.is_empty() {
                self.settle(&live, gone).await?;
            }
        }
        let snapshots = self.0.snapshots.read().expect("no code panics while it holds the map").clone();
        for (name, _) in snapshots.into_iter().filter(|(_, record)| record.expires <= now) {
            self.forget_snapshot(&name).await?;
        }
        Ok(())
    }

    pub(super) async fn sweep_now_and_then(self) {
        loop {
            tokio::select! {
                () = self.0.closing.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            if let Err(error) = self.sweep(now_us()).await {
                tracing::error!(%error, "what is too old stays until the next look");
            }
        }
    }
}
