//! The tables of objects and every change of them, each inside the caller's transaction.
//!
//! A function here checks first and writes after: a [`Refused`] has changed nothing. A generation that is replaced or
//! deleted goes one of two ways:
//! ```text
//! live ── bucket with versioning ──► noncurrent ── deleted by its generation ──► gone
//!   └──── without, or deleted by its generation ─────────────────────────────────► gone
//! ```
//! What is gone leaves the tables at once, and the caller removes its blob after the commit.

use super::blobs::BlobId;
use super::bucket::{self, BucketRecord};
use super::checksum::Sums;
use super::generation::{self, Preconditions, Violation};
use super::record::{ObjectRecord, Placement, Settings};
use crate::store::StoreError;
use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

/// Bucket and name to the record, as JSON.
pub(super) const OBJECTS: TableDefinition<'static, (&str, &str), &[u8]> = TableDefinition::new("storage.objects");
/// Bucket, name and generation to the record of a generation that is not live any more.
pub(super) const NONCURRENT: TableDefinition<'static, (&str, &str, i64), &[u8]> =
    TableDefinition::new("storage.noncurrent");
/// Generation to inline content.
pub(super) const PAYLOADS: TableDefinition<'static, i64, &[u8]> = TableDefinition::new("storage.payloads");
/// `last` to the last generation given out.
const CLOCK: TableDefinition<'static, &str, i64> = TableDefinition::new("storage.clock");

/// Content that has arrived whole.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Small: goes into the database.
    Inline(Bytes),
    /// Durable in the blob directory already.
    Blob(BlobId),
}

/// An object about to be finalized.
#[derive(Clone, Debug)]
pub(super) struct NewObject {
    /// The bucket's id.
    pub(super) bucket: String,
    /// The object's name.
    pub(super) name: String,
    /// The caller's metadata.
    pub(super) settings: Settings,
    /// Bytes of content.
    pub(super) size: u64,
    /// Its checksums.
    pub(super) sums: Sums,
    /// Of a composed object: how many uploads it is made of.
    pub(super) components: Option<i32>,
    /// The content.
    pub(super) content: Content,
}

/// A generation that is live no more.
#[derive(Clone, Debug)]
pub(super) struct Former {
    /// As it now is, or as it was.
    pub(super) record: ObjectRecord,
    /// It is kept as a noncurrent generation.
    pub(super) kept: bool,
}

/// A finalized object and what it replaced.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// The new live generation.
    pub(super) record: ObjectRecord,
    /// The one before.
    pub(super) replaced: Option<Former>,
    /// Its bucket.
    pub(super) bucket: BucketRecord,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A precondition did not hold.
    Violated(Violation),
    /// A live object stands there and the caller may not delete it.
    OverwriteDenied,
    /// No such object or generation.
    NotFound,
    /// No such bucket.
    NoBucket,
}

/// The live record of a name.
pub(super) fn find<'t>(
    objects: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    key: (&'t str, &'t str),
) -> Result<Option<ObjectRecord>, StoreError> {
    objects.get(key)?.map(|bytes| decode(bytes.value())).transpose()
}

/// Decodes a stored record.
pub(super) fn decode(bytes: &[u8]) -> Result<ObjectRecord, StoreError> {
    Ok(serde_json::from_slice(bytes)?)
}

/// Creates the tables, so that a read never meets a missing one.
pub(super) fn create_tables(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(OBJECTS)?;
    txn.open_table(NONCURRENT)?;
    txn.open_table(PAYLOADS)?;
    txn.open_table(CLOCK)?;
    Ok(())
}

/// Whether a bucket holds any generation of anything.
pub(super) fn is_empty(txn: &WriteTransaction, bucket: &str) -> Result<bool, StoreError> {
    let (live, noncurrent) = (txn.open_table(OBJECTS)?, txn.open_table(NONCURRENT)?);
    let first = live.range((bucket, "")..)?.next().transpose()?;
    let former = noncurrent.range((bucket, "", i64::MIN)..)?.next().transpose()?;
    Ok(first.is_none_or(|(key, _)| key.value().0 != bucket) && former.is_none_or(|(key, _)| key.value().0 != bucket))
}

/// The record that a request for `generation`, or for the live one, means.
pub(super) fn version(
    txn: &ReadTransaction,
    key: (&str, &str),
    generation: Option<i64>,
) -> Result<Option<ObjectRecord>, StoreError> {
    current_or(&txn.open_table(OBJECTS)?, &txn.open_table(NONCURRENT)?, key, generation)
}

fn former<'t>(
    noncurrent: &impl ReadableTable<(&'static str, &'static str, i64), &'static [u8]>,
    (bucket, name): (&'t str, &'t str),
    generation: i64,
) -> Result<Option<ObjectRecord>, StoreError> {
    noncurrent.get((bucket, name, generation))?.map(|bytes| decode(bytes.value())).transpose()
}

/// Finalizes an object: the former generation, if any, ceases to be live in the same commit.
pub(super) fn insert(
    txn: &WriteTransaction,
    new: &NewObject,
    conditions: &Preconditions,
    may_overwrite: bool,
    now_us: i64,
) -> Result<Result<Stored, Refused>, StoreError> {
    let Some(bucket) = bucket::find(&txn.open_table(bucket::BUCKETS)?, &new.bucket)? else {
        return Ok(Err(Refused::NoBucket));
    };
    let mut objects = txn.open_table(OBJECTS)?;
    let key = (new.bucket.as_str(), new.name.as_str());
    let replaced = find(&objects, key)?;
    if let Err(violation) = conditions.check(replaced.as_ref().map(ObjectRecord::version)) {
        return Ok(Err(Refused::Violated(violation)));
    }
    if replaced.is_some() && !may_overwrite {
        return Ok(Err(Refused::OverwriteDenied));
    }
    let generation = {
        let mut clock = txn.open_table(CLOCK)?;
        let last = clock.get("last")?.map_or(0, |last| last.value());
        let generation = generation::next(last, now_us);
        clock.insert("last", generation)?;
        generation
    };
    let record = ObjectRecord {
        bucket: new.bucket.clone(),
        name: new.name.clone(),
        generation,
        metageneration: 1,
        size: new.size,
        crc32c: new.sums.crc32c,
        md5: new.sums.md5.clone(),
        components: new.components,
        deleted_us: None,
        created_us: now_us,
        updated_us: now_us,
        settings: new.settings.clone(),
        placement: match &new.content {
            Content::Inline(_) => Placement::Inline,
            Content::Blob(id) => Placement::Blob(id.clone()),
        },
    };
    objects.insert(key, serde_json::to_vec(&record)?.as_slice())?;
    if let Content::Inline(bytes) = &new.content {
        txn.open_table(PAYLOADS)?.insert(generation, bytes.as_ref())?;
    }
    let replaced = replaced.map(|former| retire(txn, former, bucket.versioning, now_us)).transpose()?;
    Ok(Ok(Stored { record, replaced, bucket }))
}

/// Keeps what was the live generation as a noncurrent one, or lets it go.
fn retire(txn: &WriteTransaction, mut record: ObjectRecord, keep: bool, now_us: i64) -> Result<Former, StoreError> {
    if keep {
        record.deleted_us = Some(now_us);
        let key = (record.bucket.as_str(), record.name.as_str(), record.generation);
        txn.open_table(NONCURRENT)?.insert(key, serde_json::to_vec(&record)?.as_slice())?;
    } else if record.placement == Placement::Inline {
        txn.open_table(PAYLOADS)?.remove(record.generation)?;
    }
    Ok(Former { record, kept: keep })
}

/// Deletes the live generation, or, for good, the one that `generation` names.
pub(super) fn delete(
    txn: &WriteTransaction,
    key: (&str, &str),
    generation: Option<i64>,
    conditions: &Preconditions,
    now_us: i64,
) -> Result<Result<(Former, BucketRecord), Refused>, StoreError> {
    let Some(bucket) = bucket::find(&txn.open_table(bucket::BUCKETS)?, key.0)? else {
        return Ok(Err(Refused::NoBucket));
    };
    let (mut objects, mut noncurrent) = (txn.open_table(OBJECTS)?, txn.open_table(NONCURRENT)?);
    let record = match select(current_or(&objects, &noncurrent, key, generation)?, generation, conditions) {
        Ok(record) => record,
        Err(refused) => return Ok(Err(refused)),
    };
    if record.deleted_us.is_some() {
        noncurrent.remove((key.0, key.1, record.generation))?;
    } else {
        objects.remove(key)?;
    }
    drop(noncurrent);
    let former = retire(txn, record, bucket.versioning && generation.is_none(), now_us)?;
    Ok(Ok((former, bucket)))
}

/// Changes metadata: the generation stays, the metageneration grows.
pub(super) fn patch(
    txn: &WriteTransaction,
    key: (&str, &str),
    generation: Option<i64>,
    conditions: &Preconditions,
    now_us: i64,
    change: &dyn Fn(&mut Settings),
) -> Result<Result<(ObjectRecord, BucketRecord), Refused>, StoreError> {
    let Some(bucket) = bucket::find(&txn.open_table(bucket::BUCKETS)?, key.0)? else {
        return Ok(Err(Refused::NoBucket));
    };
    let (mut objects, mut noncurrent) = (txn.open_table(OBJECTS)?, txn.open_table(NONCURRENT)?);
    let mut record = match select(current_or(&objects, &noncurrent, key, generation)?, generation, conditions) {
        Ok(record) => record,
        Err(refused) => return Ok(Err(refused)),
    };
    change(&mut record.settings);
    record.metageneration += 1;
    record.updated_us = now_us;
    let bytes = serde_json::to_vec(&record)?;
    if record.deleted_us.is_some() {
        noncurrent.insert((key.0, key.1, record.generation), bytes.as_slice())?;
    } else {
        objects.insert(key, bytes.as_slice())?;
    }
    Ok(Ok((record, bucket)))
}

/// The live record, unless `generation` names one that is not live.
fn current_or(
    objects: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    noncurrent: &impl ReadableTable<(&'static str, &'static str, i64), &'static [u8]>,
    key: (&str, &str),
    generation: Option<i64>,
) -> Result<Option<ObjectRecord>, StoreError> {
    let live = find(objects, key)?;
    match generation {
        Some(wanted) if live.as_ref().is_none_or(|live| live.generation != wanted) => former(noncurrent, key, wanted),
        _ => Ok(live),
    }
}

/// The record that a request for `generation` (or for the live one) means, if its preconditions hold.
pub(super) fn select(
    found: Option<ObjectRecord>,
    generation: Option<i64>,
    conditions: &Preconditions,
) -> Result<ObjectRecord, Refused> {
    let record = found.filter(|r| generation.is_none_or(|wanted| wanted == r.generation)).ok_or(Refused::NotFound)?;
    conditions.check(Some(record.version())).map_err(Refused::Violated)?;
    Ok(record)
}

/// Inline content of a generation.
pub(super) fn payload(txn: &ReadTransaction, generation: i64) -> Result<Option<Bytes>, StoreError> {
    let payloads = txn.open_table(PAYLOADS)?;
    Ok(payloads.get(generation)?.map(|bytes| Bytes::copy_from_slice(bytes.value())))
}
