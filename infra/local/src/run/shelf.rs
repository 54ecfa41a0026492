//! The tables of Cloud Run and every change of them, each inside the caller's transaction.
//!
//! A job keeps all executions that run and the last [`KEEP`] that ended.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction};

use super::record::{End, ExecutionRecord};
use crate::store::StoreError;

/// Completed executions that a job remembers.
pub(super) const KEEP: usize = 1_000;

/// Job to when it was created, microseconds since 1970.
const JOBS: TableDefinition<'static, &str, i64> = TableDefinition::new("run.jobs");
/// Job to the last sequence number given out.
const SEQUENCE: TableDefinition<'static, &str, u64> = TableDefinition::new("run.sequence");
/// Job and sequence number to the record, as JSON.
const EXECUTIONS: TableDefinition<'static, (&str, u64), &[u8]> = TableDefinition::new("run.executions");
/// Executions that are not complete.
const UNFINISHED: TableDefinition<'static, (&str, u64), ()> = TableDefinition::new("run.unfinished");
/// Executions that are, so that the oldest can be forgotten.
const FINISHED: TableDefinition<'static, (&str, u64), ()> = TableDefinition::new("run.finished");
/// Job and execution name to sequence number.
const NAMES: TableDefinition<'static, (&str, &str), u64> = TableDefinition::new("run.names");
/// Operation to job and sequence number.
const OPERATIONS: TableDefinition<'static, &str, (&str, u64)> = TableDefinition::new("run.operations");

fn decode(bytes: &[u8]) -> Result<ExecutionRecord, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Corrupt(format!("of an execution: {error}")))
}

fn encode(record: &ExecutionRecord) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError::Corrupt(format!("{}: {error}", record.name)))
}

/// Creates the tables, so that a read never meets a missing one.
pub(super) fn create_tables(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(JOBS)?;
    txn.open_table(SEQUENCE)?;
    txn.open_table(EXECUTIONS)?;
    txn.open_table(UNFINISHED)?;
    txn.open_table(FINISHED)?;
    txn.open_table(NAMES)?;
    txn.open_table(OPERATIONS)?;
    Ok(())
}

/// Creates the jobs that are new; when each of them was created.
pub(super) fn ensure_jobs(
    txn: &WriteTransaction,
    names: &[String],
    now_us: i64,
) -> Result<BTreeMap<String, i64>, StoreError> {
    let mut jobs = txn.open_table(JOBS)?;
    let mut created = BTreeMap::new();
    for name in names {
        let known = jobs.get(name.as_str())?.map(|at| at.value());
        if known.is_none() {
            jobs.insert(name.as_str(), now_us)?;
        }
        created.insert(name.clone(), known.unwrap_or(now_us));
    }
    Ok(created)
}

/// Adds an execution; gives it its sequence number.
pub(super) fn add(txn: &WriteTransaction, record: &mut ExecutionRecord) -> Result<(), StoreError> {
    let mut sequence = txn.open_table(SEQUENCE)?;
    record.seq = sequence.get(record.job.as_str())?.map_or(0, |last| last.value()) + 1;
    let key = (record.job.as_str(), record.seq);
    sequence.insert(key.0, key.1)?;
    txn.open_table(EXECUTIONS)?.insert(key, encode(record)?.as_slice())?;
    txn.open_table(UNFINISHED)?.insert(key, ())?;
    txn.open_table(NAMES)?.insert((key.0, record.name.as_str()), record.seq)?;
    txn.open_table(OPERATIONS)?.insert(record.uid.as_str(), key)?;
    Ok(())
}

/// An execution after a change, and the names of those that were forgotten for it.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    /// As it is now.
    pub(super) record: ExecutionRecord,
    /// Short names.
    pub(super) forgotten: Vec<String>,
}

/// Changes an execution; `None` if there is no such execution or it is complete already.
pub(super) fn change(
    txn: &WriteTransaction,
    job: &str,
    seq: u64,
    change: impl FnOnce(&mut ExecutionRecord),
) -> Result<Option<Changed>, StoreError> {
    let record = {
        let mut executions = txn.open_table(EXECUTIONS)?;
        let found = executions.get((job, seq))?.map(|bytes| decode(bytes.value())).transpose()?;
        let Some(mut record) = found.filter(|record| !record.is_complete()) else { return Ok(None) };
        change(&mut record);
        executions.insert((job, seq), encode(&record)?.as_slice())?;
        record
    };
    let mut forgotten = Vec::new();
    if record.is_complete() {
        txn.open_table(UNFINISHED)?.remove((job, seq))?;
        txn.open_table(FINISHED)?.insert((job, seq), ())?;
        forgotten = forget(txn, job)?;
    }
    Ok(Some(Changed { record, forgotten }))
}

fn forget(txn: &WriteTransaction, job: &str) -> Result<Vec<String>, StoreError> {
    let mut finished = txn.open_table(FINISHED)?;
    let mut old = Vec::new();
    for entry in finished.range((job, 0)..=(job, u64::MAX))?.rev().skip(KEEP) {
        old.push(entry?.0.value().1);
    }
    let mut executions = txn.open_table(EXECUTIONS)?;
    let mut forgotten = Vec::new();
    for seq in old {
        finished.remove((job, seq))?;
        let removed = executions.remove((job, seq))?.map(|bytes| decode(bytes.value())).transpose()?;
        if let Some(record) = removed {
            txn.open_table(NAMES)?.remove((job, record.name.as_str()))?;
            txn.open_table(OPERATIONS)?.remove(record.uid.as_str())?;
            forgotten.push(record.name);
        }
    }
    Ok(forgotten)
}

/// Executions that no cloud finished.
pub(super) fn unfinished(txn: &WriteTransaction) -> Result<Vec<ExecutionRecord>, StoreError> {
    let executions = txn.open_table(EXECUTIONS)?;
    let mut all = Vec::new();
    for entry in txn.open_table(UNFINISHED)?.iter()? {
        if let Some(bytes) = executions.get(entry?.0.value())? {
            all.push(decode(bytes.value())?);
        }
    }
    Ok(all)
}

/// Marks an execution failed whose processes are gone with their cloud.
pub(super) fn abandon(txn: &WriteTransaction, job: &str, seq: u64, now_us: i64) -> Result<(), StoreError> {
    let end = End::failed("The machine that ran the task went away.");
    change(txn, job, seq, |record| (0..record.tasks.len()).for_each(|index| record.end(index, &end, now_us)))?;
    Ok(())
}

/// An execution by its short name.
pub(super) fn find(txn: &ReadTransaction, job: &str, name: &str) -> Result<Option<ExecutionRecord>, StoreError> {
    let seq = txn.open_table(NAMES)?.get((job, name))?.map(|seq| seq.value());
    let Some(seq) = seq else { return Ok(None) };
    let executions = txn.open_table(EXECUTIONS)?;
    executions.get((job, seq))?.map(|bytes| decode(bytes.value())).transpose()
}

/// The execution that an operation started.
pub(super) fn operation(txn: &ReadTransaction, id: &str) -> Result<Option<ExecutionRecord>, StoreError> {
    let operations = txn.open_table(OPERATIONS)?;
    let Some(key) = operations.get(id)? else { return Ok(None) };
    let executions = txn.open_table(EXECUTIONS)?;
    executions.get(key.value())?.map(|bytes| decode(bytes.value())).transpose()
}

/// Executions of a job from the newest before `before` on, and where the next page begins.
pub(super) fn list(
    txn: &ReadTransaction,
    job: &str,
    before: u64,
    size: usize,
) -> Result<(Vec<ExecutionRecord>, Option<u64>), StoreError> {
    let mut page = Vec::new();
    for entry in txn.open_table(EXECUTIONS)?.range((job, 0)..(job, before))?.rev() {
        if page.len() == size {
            let next = page.last().map(|record: &ExecutionRecord| record.seq);
            return Ok((page, next));
        }
        page.push(decode(entry?.1.value())?);
    }
    Ok((page, None))
}
