//! What Cloud Storage does, whichever protocol asked: permission first, then one transaction, then the consequences.
//!
//! Every change runs to its end even if the client hangs up: the commit, the removal of what it replaced and the
//! wake-up of subscriptions belong together. An object and the messages about it are one commit.

use super::blobs::Blobs;
use super::generation::Preconditions;
use super::listing::{self, Page, Query};
use super::name::{BucketName, ObjectName};
use super::notify::{Event, EventKind, Notification};
use super::record::{ObjectRecord, Placement, Settings};
use super::refusal::Refusal;
use super::sessions;
use super::shelf::{self, Content, NewObject, Refused};
use crate::faults::{Fault, Faults};
use crate::iam::{Iam, Principal};
use crate::pubsub::PubSub;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use redb::{ReadableTable, WriteTransaction};
use std::collections::{BTreeMap, HashSet};
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
    pub(super) project: String,
    pub(super) location: String,
    pub(super) buckets: BTreeMap<String, Bucket>,
    pub(super) uploading: Arc<Mutex<HashSet<String>>>,
    pub(super) changes: TaskTracker,
}

/// A bucket and whom it tells.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) created_us: i64,
    pub(super) notifications: Vec<Notification>,
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

/// Microseconds since 1970.
pub(super) fn now_us() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000).expect("the clock is before the year 294247")
}

impl Target {
    fn key(&self) -> (&str, &str) {
        (self.bucket.as_str(), self.name.as_str())
    }

    fn not_found(&self) -> Refusal {
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
        let resource = bucket.resource();
        self.iam.check(who, permission, &resource).map_err(|_| Refusal::Forbidden {
            who: who.to_string(),
            permission,
            resource,
        })
    }

    /// The bucket, for a caller with this permission: others never learn whether it exists.
    pub(super) fn bucket(
        &self,
        who: &Principal,
        permission: &'static str,
        bucket: &BucketName,
    ) -> Result<&Bucket, Refusal> {
        self.may(who, permission, bucket)?;
        self.buckets.get(bucket.as_str()).ok_or_else(|| Refusal::NoBucket(bucket.to_string()))
    }

    /// The projects' permission to list buckets.
    pub(super) fn may_list_buckets(&self, who: &Principal, project: &str) -> Result<(), Refusal> {
        let (permission, resource) = ("storage.buckets.list", format!("projects/{project}"));
        self.iam.check(who, permission, &resource).map_err(|_| Refusal::Forbidden {
            who: who.to_string(),
            permission,
            resource,
        })
    }

    /// A missing object is told only to those who may list.
    fn hide(&self, who: &Principal, target: &Target) -> Refusal {
        match self.may(who, "storage.objects.list", &target.bucket) {
            Ok(()) => target.not_found(),
            Err(forbidden) => forbidden,
        }
    }

    fn refusal(&self, who: &Principal, target: &Target, refused: Refused, read: bool) -> Refusal {
        match refused {
            Refused::Violated(violation) => Refusal::Precondition { violation, read },
            Refused::NotFound => self.hide(who, target),
            Refused::OverwriteDenied => Refusal::Forbidden {
                who: who.to_string(),
                permission: "storage.objects.delete",
                resource: target.bucket.resource(),
            },
        }
    }

    fn announce(&self, txn: &WriteTransaction, event: &Event<'_>, now_us: i64) -> Result<(), StoreError> {
        let Some(bucket) = self.buckets.get(&event.record.bucket) else { return Ok(()) };
        for (index, notification) in bucket.notifications.iter().enumerate() {
            if let Some(message) = notification.message(index + 1, event, &self.base, now_us)
                && !self.faults.roll(Fault::DropNotification)
            {
                self.pubsub.publish_in(txn, &notification.topic, &[message])?;
            }
        }
        Ok(())
    }

    fn committed(&self, bucket: &BucketName, gone: Option<&ObjectRecord>) -> Result<(), Refusal> {
        if let Some(ObjectRecord { placement: Placement::Blob(id), .. }) = gone {
            self.blobs.remove(id);
        }
        for notification in self.buckets.get(bucket.as_str()).into_iter().flat_map(|b| &b.notifications) {
            self.pubsub.committed(&notification.topic);
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
    async fn change<T: Send + 'static>(
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
                            Some(Some(record)) => return Ok(Ok((record, None))),
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
                    writer.announce(
                        txn,
                        &Event {
                            kind: EventKind::Finalize,
                            record: &stored.record,
                            other_generation: former.map(|r| r.generation),
                        },
                        now,
                    )?;
                    if let Some(former) = former {
                        let other_generation = Some(stored.record.generation);
                        writer.announce(
                            txn,
                            &Event { kind: EventKind::Delete, record: former, other_generation },
                            now,
                        )?;
                    }
                    Ok(Ok((stored.record, stored.replaced)))
                })
                .await?;
            match outcome {
                Ok((record, replaced)) => {
                    inner.committed(&target.bucket, replaced.as_ref())?;
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
        self.0.bucket(who, "storage.objects.get", &target.bucket)?;
        let live = self.0.store.read(|txn| shelf::find(&txn.open_table(shelf::OBJECTS)?, target.key()))?;
        shelf::select(live, target.generation, &target.conditions)
            .map_err(|refused| self.0.refusal(who, target, refused, true))
    }

    /// Metadata and content of an object.
    pub(super) fn fetch(&self, who: &Principal, target: &Target) -> Result<(ObjectRecord, Source), Refusal> {
        self.0.bucket(who, "storage.objects.get", &target.bucket)?;
        let mut missing = None;
        for _ in 0..OPEN_ATTEMPTS {
            let (live, inline) = self.0.store.read(|txn| {
                let live = shelf::find(&txn.open_table(shelf::OBJECTS)?, target.key())?;
                let inline = match &live {
                    Some(r) if r.placement == Placement::Inline => shelf::payload(txn, r.generation)?,
                    _ => None,
                };
                Ok((live, inline))
            })?;
            let record = shelf::select(live, target.generation, &target.conditions)
                .map_err(|refused| self.0.refusal(who, target, refused, true))?;
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
                    let record = match shelf::delete(txn, goal.key(), goal.generation, &goal.conditions)? {
                        Ok(record) => record,
                        Err(refused) => return Ok(Err(refused)),
                    };
                    let event = Event { kind: EventKind::Delete, record: &record, other_generation: None };
                    writer.announce(txn, &event, now_us())?;
                    Ok(Ok(record))
                })
                .await?;
            match outcome {
                Ok(record) => inner.committed(&target.bucket, Some(&record)),
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
                    if let Ok(record) = &patched {
                        let event = Event { kind: EventKind::MetadataUpdate, record, other_generation: None };
                        writer.announce(txn, &event, now)?;
                    }
                    Ok(patched)
                })
                .await?;
            match outcome {
                Ok(record) => inner.committed(&target.bucket, None).map(|()| record),
                Err(refused) => Err(inner.refusal(&who, &target, refused, false)),
            }
        })
        .await
    }

    /// Copies an object in one call, whatever its size; `settings` replace the source's metadata if given.
    pub(super) async fn copy(
        &self,
        who: Principal,
        source: Target,
        target: Target,
        settings: Option<Settings>,
    ) -> Result<ObjectRecord, Refusal> {
        self.0.bucket(&who, "storage.objects.create", &target.bucket)?;
        let (record, opened) = self.fetch(&who, &source)?;
        let content = match (&record.placement, opened) {
            (_, Source::Inline(bytes)) => Content::Inline(bytes),
            (Placement::Blob(id), Source::File(_)) => Content::Blob(self.0.blobs.link(id).map_err(|error| {
                // Replaced since it was opened: the generation that was asked for is gone.
                if error.kind() == io::ErrorKind::NotFound { source.not_found() } else { error.into() }
            })?),
            (Placement::Inline, Source::File(_)) => unreachable!("inline content is never opened as a file"),
        };
        let new = NewObject {
            bucket: target.bucket.to_string(),
            name: target.name.to_string(),
            settings: settings.unwrap_or(record.settings),
            size: record.size,
            crc32c: record.crc32c,
            content,
        };
        self.finalize(who, target, new, None).await
    }
}

/// The disk has lost content that was durable once.
fn lost(record: &ObjectRecord, there: u64) -> Refusal {
    let ObjectRecord { bucket, name, generation, size, .. } = record;
    Refusal::Io(io::Error::other(format!("{bucket}/{name}#{generation} has {there} of its {size} bytes on disk")))
}

/// Every blob that a record refers to.
pub(super) fn referenced(txn: &WriteTransaction) -> Result<HashSet<super::blobs::BlobId>, StoreError> {
    let mut blobs = HashSet::new();
    for entry in txn.open_table(shelf::OBJECTS)?.iter()? {
        let (_, value) = entry?;
        if let Placement::Blob(id) = shelf::decode(value.value())?.placement {
            blobs.insert(id);
        }
    }
    Ok(blobs)
}
