//! The tables of Cloud Storage and every change of them, each inside the caller's transaction.
//!
//! A function here checks first and writes after: a [`Refused`] has changed nothing. There is no versioning: a
//! replaced or deleted generation leaves the tables at once, and the caller removes its blob after the commit.

use super::blobs::BlobId;
use super::generation::{self, Preconditions, Violation};
use super::record::{ObjectRecord, Placement, Settings};
use crate::store::StoreError;
use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

/// Bucket and name to the record, as JSON.
pub(super) const OBJECTS: TableDefinition<'static, (&str, &str), &[u8]> = TableDefinition::new("storage.objects");
/// Generation to inline content.
pub(super) const PAYLOADS: TableDefinition<'static, i64, &[u8]> = TableDefinition::new("storage.payloads");
/// Bucket to when it was created, in microseconds since 1970.
pub(super) const BUCKETS: TableDefinition<'static, &str, i64> = TableDefinition::new("storage.buckets");
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
    /// CRC-32C of the content.
    pub(super) crc32c: u32,
    /// The content.
    pub(super) content: Content,
}

/// A finalized object and what it replaced.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// The new live generation.
    pub(super) record: ObjectRecord,
    /// The generation that is gone.
    pub(super) replaced: Option<ObjectRecord>,
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
    txn.open_table(PAYLOADS)?;
    txn.open_table(BUCKETS)?;
    txn.open_table(CLOCK)?;
    Ok(())
}

/// Creates a bucket unless it exists.
pub(super) fn ensure_bucket(txn: &WriteTransaction, bucket: &str, now_us: i64) -> Result<(), StoreError> {
    let mut buckets = txn.open_table(BUCKETS)?;
    let exists = buckets.get(bucket)?.is_some();
    if !exists {
        buckets.insert(bucket, now_us)?;
    }
    Ok(())
}

/// Every bucket and when it was created.
pub(super) fn buckets(txn: &WriteTransaction) -> Result<Vec<(String, i64)>, StoreError> {
    let buckets = txn.open_table(BUCKETS)?;
    let mut all = Vec::new();
    for entry in buckets.iter()? {
        let (name, created_us) = entry?;
        all.push((name.value().to_owned(), created_us.value()));
    }
    Ok(all)
}

/// Finalizes an object: the former generation, if any, is gone in the same commit.
pub(super) fn insert(
    txn: &WriteTransaction,
    new: &NewObject,
    conditions: &Preconditions,
    may_overwrite: bool,
    now_us: i64,
) -> Result<Result<Stored, Refused>, StoreError> {
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
        crc32c: new.crc32c,
        created_us: now_us,
        updated_us: now_us,
        settings: new.settings.clone(),
        placement: match &new.content {
            Content::Inline(_) => Placement::Inline,
            Content::Blob(id) => Placement::Blob(id.clone()),
        },
    };
    objects.insert(key, serde_json::to_vec(&record)?.as_slice())?;
    let mut payloads = txn.open_table(PAYLOADS)?;
    if let Content::Inline(bytes) = &new.content {
        payloads.insert(generation, bytes.as_ref())?;
    }
    if let Some(former) = &replaced
        && former.placement == Placement::Inline
    {
        payloads.remove(former.generation)?;
    }
    Ok(Ok(Stored { record, replaced }))
}

/// Deletes the live generation, or only `generation` if it is the live one.
pub(super) fn delete(
    txn: &WriteTransaction,
    key: (&str, &str),
    generation: Option<i64>,
    conditions: &Preconditions,
) -> Result<Result<ObjectRecord, Refused>, StoreError> {
    let mut objects = txn.open_table(OBJECTS)?;
    let record = match select(find(&objects, key)?, generation, conditions) {
        Ok(record) => record,
        Err(refused) => return Ok(Err(refused)),
    };
    objects.remove(key)?;
    if record.placement == Placement::Inline {
        txn.open_table(PAYLOADS)?.remove(record.generation)?;
    }
    Ok(Ok(record))
}

/// Changes metadata: the generation stays, the metageneration grows.
pub(super) fn patch(
    txn: &WriteTransaction,
    key: (&str, &str),
    generation: Option<i64>,
    conditions: &Preconditions,
    now_us: i64,
    change: &dyn Fn(&mut Settings),
) -> Result<Result<ObjectRecord, Refused>, StoreError> {
    let mut objects = txn.open_table(OBJECTS)?;
    let mut record = match select(find(&objects, key)?, generation, conditions) {
        Ok(record) => record,
        Err(refused) => return Ok(Err(refused)),
    };
    change(&mut record.settings);
    record.metageneration += 1;
    record.updated_us = now_us;
    objects.insert(key, serde_json::to_vec(&record)?.as_slice())?;
    Ok(Ok(record))
}

/// The record that a request for `generation` (or for the live one) means, if its preconditions hold.
pub(super) fn select(
    live: Option<ObjectRecord>,
    generation: Option<i64>,
    conditions: &Preconditions,
) -> Result<ObjectRecord, Refused> {
    let record = live.filter(|r| generation.is_none_or(|wanted| wanted == r.generation)).ok_or(Refused::NotFound)?;
    conditions.check(Some(record.version())).map_err(Refused::Violated)?;
    Ok(record)
}

/// Inline content of a generation.
pub(super) fn payload(txn: &ReadTransaction, generation: i64) -> Result<Option<Bytes>, StoreError> {
    let payloads = txn.open_table(PAYLOADS)?;
    Ok(payloads.get(generation)?.map(|bytes| Bytes::copy_from_slice(bytes.value())))
}
