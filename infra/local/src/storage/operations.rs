//! What Cloud Storage does, whichever protocol asked: permission first, then one transaction, then the consequences.
//!
//! Every change runs to its end even if the client hangs up: the commit, the removal of what it replaced and the
//! wake-up of subscriptions belong together. An object and the messages about it are one commit.

use super::blobs::{BlobId, Blobs};
use super::bucket::{self, BucketRecord};
use super::generation::Preconditions;
use super::listing::{self, Page, Query};
use super::name::{BucketName, ObjectName};
use super::notify::{Event, EventKind};
use super::record::{ObjectRecord, Placement, Settings};
use super::refusal::Refusal;
use super::sessions;
use super::shelf::{self, Content, Former, NewObject, Refused};
use crate::faults::{Fault, Faults};
use crate::iam::{Iam, Principal};
use crate::pubsub::PubSub;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use redb::WriteTransaction;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;

/// Tries to open a blob that a concurrent overwrite keeps removing.
const OPEN_ATTEMPTS: usize = 16;

/// Cloud Storage: a cheap handle.
#[derive(Clone)]
pub struct Storage(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) iam: Iam,
    pub(super) faults: Faults,
    pub(super) pubsub: PubSub,
    pub(super) blobs: Blobs,
    pub(super) base: String,
    pub(super) location: String,
    pub(super) uploading: Arc<Mutex<HashSet<String>>>,
    pub(super) changes: TaskTracker,
}

/// An object's address in a request.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) bucket: BucketName,
    pub(super) name: ObjectName,
    pub(super) generation: Option<i64>,
    pub(super) conditions: Preconditions,
}

/// An object's content, opened: it stays readable whatever happens to the object.
#[derive(Debug)]
pub(super) enum Source {
    Inline(Bytes),
    File(File),
}

/// What a committed change leaves to do.
#[derive(Debug, Default)]
pub(super) struct Consequences {
    gone: Option<BlobId>,
    topics: BTreeSet<String>,
}

impl Consequences {
    /// Of what ceased to be live: its content may go.
    fn of(former: Option<&Former>) -> Self {
        let gone = former.filter(|former| !former.kept).and_then(|former| match &former.record.placement {
            Placement::Blob(id) => Some(id.clone()),
            Placement::Inline => None,
        });
        Self { gone, topics: BTreeSet::new() }
    }
}

/// Microseconds since 1970.
pub(super) fn now_us() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000).expect("the clock is before the year 294247")
}

impl Target {
    pub(super) fn key(&self) -> (&str, &str) {
        (self.bucket.as_str(), self.name.as_str())
    }

    pub(super) fn not_found(&self) -> Refusal {
        Refusal::NoObject(match self.generation {
            Some(generation) => format!("{}/{}#{generation}", self.bucket, self.name),
            None => format!("{}/{}", self.bucket, self.name),
        })
    }
}

impl Inner {
    /// Who calls.
    pub(super) fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, Refusal> {
        self.iam.authenticate(authorization).map_err(|error| Refusal::Unauthenticated(error.to_string()))
    }

    /// Whether `who` may do this to the bucket, known or not.
    pub(super) fn may(&self, who: &Principal, permission: &'static str, bucket: &BucketName) -> Result<(), Refusal> {
        if self.holds(who, permission, bucket)? {
            return Ok(());
        }
        Err(Refusal::Forbidden { who: who.to_string(), permission, resource: bucket.resource() })
    }

    /// The same as an answer.
    pub(super) fn holds(&self, who: &Principal, permission: &str, bucket: &BucketName) -> Result<bool, Refusal> {
        let configured = self.iam.check(who, permission, &bucket.resource()).is_ok();
        Ok(configured || self.granted(who, permission, bucket)?)
    }

    /// The bucket, for a caller with this permission: others never learn whether it exists.
    pub(super) fn bucket(
        &self,
        who: &Principal,
        permission: &'static str,
        bucket: &BucketName,
    ) -> Result<BucketRecord, Refusal> {
        self.may(who, permission, bucket)?;
        self.find_bucket(bucket)?.ok_or_else(|| Refusal::NoBucket(bucket.to_string()))
    }

    /// The bucket, whoever asks.
    pub(super) fn find_bucket(&self, bucket: &BucketName) -> Result<Option<BucketRecord>, Refusal> {
        Ok(self.store.read(|txn| bucket::find(&txn.open_table(bucket::BUCKETS)?, bucket.as_str()))?)
    }

    /// A permission on all buckets of a project.
    pub(super) fn may_in_project(
        &self,
        who: &Principal,
        permission: &'static str,
        project: &str,
    ) -> Result<(), Refusal> {
        self.may_on(who, permission, format!("projects/{project}"))
    }

    /// Whether `who` may do this to a thing that is no bucket.
    pub(super) fn may_on(&self, who: &Principal, permission: &'static str, resource: String) -> Result<(), Refusal> {
        self.iam.check(who, permission, &resource).map_err(|_| Refusal::Forbidden {
            who: who.to_string(),
            permission,
            resource,
        })
    }

    /// A missing object is told only to those who may list. Where the bucket is missing, that is what is told.
    fn hide(&self, who: &Principal, target: &Target) -> Refusal {
        let bucket = &target.bucket;
        let known = self.find_bucket(bucket).map(|found| found.is_some());
        match known.and_then(|known| {
            if known { self.may(who, "storage.objects.list", bucket).map(|()| true) } else { Ok(false) }
        }) {
            Ok(true) => target.not_found(),
            Ok(false) => Refusal::NoBucket(bucket.to_string()),
            Err(refusal) => refusal,
        }
    }

    /// `read` tells a read from a write: see [`Refusal::Precondition`].
    pub(super) fn refusal(&self, who: &Principal, target: &Target, refused: Refused, read: bool) -> Refusal {
        match refused {
            Refused::Violated(violation) => Refusal::Precondition { violation, read },
            Refused::NotFound => self.hide(who, target),
            Refused::NoBucket => Refusal::NoBucket(target.bucket.to_string()),
            Refused::OverwriteDenied => Refusal::Forbidden {
                who: who.to_string(),
                permission: "storage.objects.delete",
                resource: target.bucket.resource(),
            },
        }
    }

    /// Publishes an event; returns the topics that have a message now.
    fn announce(
        &self,
        txn: &WriteTransaction,
        bucket: &BucketRecord,
        event: &Event<'_>,
        now_us: i64,
    ) -> Result<Vec<String>, StoreError> {
        let mut topics = Vec::new();
        for (id, notification) in &bucket.notifications {
            if let Some(message) = notification.message(*id, event, &self.base, now_us)
                && !self.faults.roll(Fault::DropNotification)
            {
                self.pubsub.publish_in(txn, &notification.topic, &[message])?;
                topics.push(notification.topic.clone());
            }
        }
        Ok(topics)
    }

    /// The same for what ceased to be live; `other_generation` came in its place.
    fn announce_former(
        &self,
        txn: &WriteTransaction,
        bucket: &BucketRecord,
        former: &Former,
        other_generation: Option<i64>,
        now_us: i64,
    ) -> Result<Vec<String>, StoreError> {
        let kind = if former.kept { EventKind::Archive } else { EventKind::Delete };
        self.announce(txn, bucket, &Event { kind, record: &former.record, other_generation }, now_us)
    }

    /// A change was committed: subscribers are woken, and what is gone is removed.
    pub(super) fn committed(&self, consequences: &Consequences) -> Result<(), Refusal> {
        if let Some(id) = &consequences.gone {
            self.blobs.remove(id);
        }
        for topic in &consequences.topics {
            self.pubsub.committed(topic);
        }
        if self.faults.roll(Fault::LoseReply) { Err(Refusal::ReplyLost) } else { Ok(()) }
    }
}

impl Storage {
    /// Waits for the changes that are being made.
    pub async fn drain(&self) {
        self.0.changes.close();
        self.0.changes.wait().await;
    }

    /// Runs a change to its end even if its request is dropped meanwhile.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.0.changes.spawn(work).await.map_err(|error| Refusal::Io(io::Error::other(error)))?
    }

    /// Makes content that has arrived whole the live object; `session` is the upload it came by, if resumable.
    pub(super) async fn finalize(
        &self,
        who: Principal,
        target: Target,
        new: NewObject,
        session: Option<(String, sessions::Session)>,
    ) -> Result<ObjectRecord, Refusal> {
        let inner = self.0.clone();
        self.change(async move {
            let may_overwrite = inner.may(&who, "storage.objects.delete", &target.bucket).is_ok();
            let (writer, conditions, new) = (inner.clone(), target.conditions, Arc::new(new));
            let object = new.clone();
            let outcome = inner
                .store
                .write(move |txn| {
                    let now = now_us();
                    // A repeated last chunk finds the object of the first one.
                    if let Some((id, _)) = &session {
                        match sessions::finished(txn, id)? {
                            Some(None) => {}
                            Some(Some(record)) => return Ok(Ok((record, Consequences::default()))),
                            None => return Ok(Err(Refused::NotFound)),
                        }
                    }
                    let stored = match shelf::insert(txn, &object, &conditions, may_overwrite, now)? {
                        Ok(stored) => stored,
                        Err(refused) => {
                            // The upload ends with its content: asking for its status again says so.
                            if let Some((id, _)) = &session {
                                sessions::remove(txn, id)?;
                            }
                            return Ok(Err(refused));
                        }
                    };
                    let former = stored.replaced.as_ref();
                    if let Some((id, session)) = &session {
                        let finished = Some(stored.record.clone());
                        sessions::save(txn, id, &sessions::Session { finished, ..session.clone() })?;
                    }
                    let event = Event {
                        kind: EventKind::Finalize,
                        record: &stored.record,
                        other_generation: former.map(|former| former.record.generation),
                    };
                    let mut consequences = Consequences::of(former);
                    consequences.topics.extend(writer.announce(txn, &stored.bucket, &event, now)?);
                    if let Some(former) = former {
                        let by = Some(stored.record.generation);
                        consequences.topics.extend(writer.announce_former(txn, &stored.bucket, former, by, now)?);
                    }
                    Ok(Ok((stored.record, consequences)))
                })
                .await?;
            match outcome {
                Ok((record, consequences)) => {
                    inner.committed(&consequences)?;
                    Ok(record)
                }
                Err(refused) => {
                    if let Content::Blob(id) = &new.content {
                        inner.blobs.remove(id);
                    }
                    Err(inner.refusal(&who, &target, refused, false))
                }
            }
        })
        .await
    }

    /// An early look at the preconditions of an upload that is about to start; they are held again at its end.
    pub(super) fn check_upload(&self, target: &Target) -> Result<(), Refusal> {
        let live = self.0.store.read(|txn| shelf::find(&txn.open_table(shelf::OBJECTS)?, target.key()))?;
        target
            .conditions
            .check(live.as_ref().map(ObjectRecord::version))
            .map_err(|violation| Refusal::Precondition { violation, read: false })
    }

    /// Metadata of an object.
    pub(super) fn get(&self, who: &Principal, target: &Target) -> Result<ObjectRecord, Refusal> {
        self.0.may(who, "storage.objects.get", &target.bucket)?;
        let found = self.0.store.read(|txn| shelf::version(txn, target.key(), target.generation))?;
        shelf::select(found, target.generation, &target.conditions)
            .map_err(|refused| self.0.refusal(who, target, refused, true))
    }

    /// Metadata and content of an object. `read` is false if that is for the sake of a write.
    pub(super) fn fetch(
        &self,
        who: &Principal,
        target: &Target,
        read: bool,
    ) -> Result<(ObjectRecord, Source), Refusal> {
        self.0.may(who, "storage.objects.get", &target.bucket)?;
        let mut missing = None;
        for _ in 0..OPEN_ATTEMPTS {
            let (found, inline) = self.0.store.read(|txn| {
                let found = shelf::version(txn, target.key(), target.generation)?;
                let inline = match &found {
                    Some(r) if r.placement == Placement::Inline => shelf::payload(txn, r.generation)?,
                    _ => None,
                };
                Ok((found, inline))
            })?;
            let record = shelf::select(found, target.generation, &target.conditions)
                .map_err(|refused| self.0.refusal(who, target, refused, read))?;
            match (&record.placement, inline) {
                (Placement::Inline, Some(bytes)) => return Ok((record, Source::Inline(bytes))),
                (Placement::Inline, None) => return Err(lost(&record, 0)),
                (Placement::Blob(id), _) => match self.0.blobs.read(id) {
                    Ok(file) => {
                        let there = file.metadata()?.len();
                        let torn = there < record.size;
                        return if torn { Err(lost(&record, there)) } else { Ok((record, Source::File(file))) };
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        // Replaced between the look and the open: another look shows the next generation.
                        if missing.replace(record.generation) == Some(record.generation) {
                            return Err(lost(&record, 0));
                        }
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
        Err(Refusal::Io(io::Error::other("the object was replaced again and again while it was being opened")))
    }

    /// One page of a bucket.
    pub(super) fn list(&self, who: &Principal, bucket: &BucketName, query: &Query) -> Result<Page, Refusal> {
        self.0.bucket(who, "storage.objects.list", bucket)?;
        self.0.store.read(|txn| listing::list(txn, bucket.as_str(), query))?
    }

    /// Deletes an object.
    pub(super) async fn delete(&self, who: Principal, target: Target) -> Result<(), Refusal> {
        self.0.bucket(&who, "storage.objects.delete", &target.bucket)?;
        let inner = self.0.clone();
        self.change(async move {
            let (writer, goal) = (inner.clone(), target.clone());
            let outcome = inner
                .store
                .write(move |txn| {
                    let now = now_us();
                    let deleted = shelf::delete(txn, goal.key(), goal.generation, &goal.conditions, now)?;
                    let (former, bucket) = match deleted {
                        Ok(deleted) => deleted,
                        Err(refused) => return Ok(Err(refused)),
                    };
                    let mut consequences = Consequences::of(Some(&former));
                    consequences.topics.extend(writer.announce_former(txn, &bucket, &former, None, now)?);
                    Ok(Ok(consequences))
                })
                .await?;
            match outcome {
                Ok(consequences) => inner.committed(&consequences),
                Err(refused) => Err(inner.refusal(&who, &target, refused, false)),
            }
        })
        .await
    }

    /// Changes metadata.
    pub(super) async fn patch(
        &self,
        who: Principal,
        target: Target,
        edit: impl Fn(&mut Settings) + Send + 'static,
    ) -> Result<ObjectRecord, Refusal> {
        self.0.bucket(&who, "storage.objects.update", &target.bucket)?;
        let inner = self.0.clone();
        self.change(async move {
            let (writer, goal) = (inner.clone(), target.clone());
            let outcome = inner
                .store
                .write(move |txn| {
                    let now = now_us();
                    let patched = shelf::patch(txn, goal.key(), goal.generation, &goal.conditions, now, &edit)?;
                    let (record, bucket) = match patched {
                        Ok(patched) => patched,
                        Err(refused) => return Ok(Err(refused)),
                    };
                    let event = Event { kind: EventKind::MetadataUpdate, record: &record, other_generation: None };
                    let mut consequences = Consequences::default();
                    consequences.topics.extend(writer.announce(txn, &bucket, &event, now)?);
                    Ok(Ok((record, consequences)))
                })
                .await?;
            match outcome {
                Ok((record, consequences)) => inner.committed(&consequences).map(|()| record),
                Err(refused) => Err(inner.refusal(&who, &target, refused, false)),
            }
        })
        .await
    }
}

/// The disk has lost content that was durable once.
fn lost(record: &ObjectRecord, there: u64) -> Refusal {
    let ObjectRecord { bucket, name, generation, size, .. } = record;
    Refusal::Io(io::Error::other(format!("{bucket}/{name}#{generation} has {there} of its {size} bytes on disk")))
}
