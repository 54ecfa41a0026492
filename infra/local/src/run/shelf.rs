//! The tables of Cloud Run and every change of them, each inside the caller's transaction.
//!
//! A job keeps all executions that run and the last [`KEEP`] that ended. What cannot be read of a job or of an execution is
//! named at the start and put aside: it is not there any more, and everything else goes on.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction};

use super::job::JobRecord;
use super::record::{End, ExecutionRecord};
use crate::aside::{Aside, is_json, set_unreadable_aside};
use crate::config::Job;
use crate::store::StoreError;

/// Completed executions that a job remembers.
pub(super) const KEEP: usize = 1_000;

/// Changes of jobs whose operations are remembered, all jobs together.
const KEEP_CHANGES: u64 = 1_000;

/// Job to when it was created, microseconds since 1970.
const JOBS: TableDefinition<'static, &str, i64> = TableDefinition::new("run.jobs");
/// Job to what was made of it over the wire, as JSON.
const MADE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("run.jobs.made");
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
/// Operation to job and sequence number; 0 is a change of the job itself.
const OPERATIONS: TableDefinition<'static, &str, (&str, u64)> = TableDefinition::new("run.operations");

/// Changes of jobs, in order, to their operations, so that the oldest can be forgotten.
const CHANGES: TableDefinition<'static, u64, &str> = TableDefinition::new("run.changes");

const ASIDE: Aside = Aside::new("run.aside");

fn decode(bytes: &[u8]) -> Result<ExecutionRecord, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Corrupt(format!("of an execution: {error}")))
}

fn encode(record: &ExecutionRecord) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError::Corrupt(format!("{}: {error}", record.name)))
}

/// Creates the tables, so that a read never meets a missing one.
pub(super) fn create_tables(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(JOBS)?;
    txn.open_table(MADE)?;
    txn.open_table(SEQUENCE)?;
    txn.open_table(EXECUTIONS)?;
    txn.open_table(UNFINISHED)?;
    txn.open_table(FINISHED)?;
    txn.open_table(NAMES)?;
    txn.open_table(OPERATIONS)?;
    txn.open_table(CHANGES)?;
    Ok(())
}

/// Puts aside the records that cannot be read, and forgets what led to an execution that is not there any more; the names
/// of those that were not complete, whose processes may still run.
pub(super) fn set_torn_aside(txn: &WriteTransaction) -> Result<Vec<String>, StoreError> {
    set_unreadable_aside(txn, ASIDE, MADE, is_json::<JobRecord>, |job| job.to_owned())?;
    let is_execution = is_json::<ExecutionRecord>;
    let torn = set_unreadable_aside(txn, ASIDE, EXECUTIONS, is_execution, |(job, seq)| format!("{job}/{seq}"))?;
    if torn.is_empty() {
        return Ok(Vec::new());
    }
    let mut there = BTreeSet::new();
    for entry in txn.open_table(EXECUTIONS)?.iter()? {
        let (key, _) = entry?;
        let (job, seq) = key.value();
        there.insert((job.to_owned(), seq));
    }
    let is_there = |job: &str, seq: u64| there.contains(&(job.to_owned(), seq));
    let (mut unfinished, mut names) = (txn.open_table(UNFINISHED)?, txn.open_table(NAMES)?);
    let mut left_running = Vec::new();
    for entry in names.iter()? {
        let (key, seq) = entry?;
        let ((job, name), seq) = (key.value(), seq.value());
        if !is_there(job, seq) && unfinished.get((job, seq))?.is_some() {
            left_running.push(name.to_owned());
        }
    }
    unfinished.retain(|(job, seq), ()| is_there(job, seq))?;
    names.retain(|(job, _), seq| is_there(job, seq))?;
    txn.open_table(FINISHED)?.retain(|(job, seq), ()| is_there(job, seq))?;
    txn.open_table(OPERATIONS)?.retain(|_, (job, seq)| seq == 0 || is_there(job, seq))?;
    Ok(left_running)
}

/// All jobs: the configured ones as they are configured, and those that were made over the wire.
pub(super) fn ensure_jobs(
    txn: &WriteTransaction,
    configured: &[Job],
    now_us: i64,
) -> Result<BTreeMap<String, JobRecord>, StoreError> {
    let (mut jobs, mut made) = (txn.open_table(JOBS)?, txn.open_table(MADE)?);
    let mut all = BTreeMap::new();
    for job in configured {
        let name = job.name.as_str();
        let known = jobs.get(name)?.map(|at| at.value());
        if known.is_none() {
            jobs.insert(name, now_us)?;
        }
        made.remove(name)?;
        all.insert(job.name.clone(), JobRecord::new(job.clone(), known.unwrap_or(now_us)));
    }
    for entry in made.iter()? {
        let (name, bytes) = entry?;
        all.insert(name.value().to_owned(), serde_json::from_slice(bytes.value())?);
    }
    Ok(all)
}

/// Keeps a job as it is now, and the operation that made it so.
pub(super) fn put_job(txn: &WriteTransaction, record: &JobRecord, operation: &str) -> Result<(), StoreError> {
    let name = record.job.name.as_str();
    txn.open_table(JOBS)?.insert(name, record.created_us)?;
    txn.open_table(MADE)?.insert(name, serde_json::to_vec(record)?.as_slice())?;
    changed(txn, name, operation)
}

/// Keeps the operation of a job's change, and forgets the oldest of those beyond `KEEP_CHANGES`.
fn changed(txn: &WriteTransaction, job: &str, operation: &str) -> Result<(), StoreError> {
    let (mut changes, mut operations) = (txn.open_table(CHANGES)?, txn.open_table(OPERATIONS)?);
    operations.insert(operation, (job, 0))?;
    let next = changes.last()?.map_or(0, |(last, _)| last.value()) + 1;
    changes.insert(next, operation)?;
    for old in changes.extract_from_if(..=next.saturating_sub(KEEP_CHANGES), |_, _| true)? {
        operations.remove(old?.1.value())?;
    }
    Ok(())
}

/// Forgets a job and every execution of it; the names of those.
pub(super) fn remove_job(txn: &WriteTransaction, job: &str, operation: &str) -> Result<Vec<String>, StoreError> {
    txn.open_table(JOBS)?.remove(job)?;
    txn.open_table(MADE)?.remove(job)?;
    let seqs = {
        let executions = txn.open_table(EXECUTIONS)?;
        let of_job = executions.range((job, 0)..=(job, u64::MAX))?;
        of_job.map(|entry| Ok(entry?.0.value().1)).collect::<Result<Vec<u64>, StoreError>>()?
    };
    let mut forgotten = Vec::new();
    for seq in seqs {
        forgotten.extend(remove(txn, job, seq)?);
    }
    changed(txn, job, operation)?;
    Ok(forgotten)
}

/// Forgets one execution; its name, if it was there.
pub(super) fn remove(txn: &WriteTransaction, job: &str, seq: u64) -> Result<Option<String>, StoreError> {
    txn.open_table(UNFINISHED)?.remove((job, seq))?;
    txn.open_table(FINISHED)?.remove((job, seq))?;
    let removed = txn.open_table(EXECUTIONS)?.remove((job, seq))?.map(|bytes| decode(bytes.value())).transpose()?;
    let Some(record) = removed else { return Ok(None) };
    txn.open_table(NAMES)?.remove((job, record.name.as_str()))?;
    txn.open_table(OPERATIONS)?.remove(record.uid.as_str())?;
    Ok(Some(record.name))
}

/// Whether there is such a job.
pub(super) fn is_job(txn: &WriteTransaction, job: &str) -> Result<bool, StoreError> {
    Ok(txn.open_table(JOBS)?.get(job)?.is_some())
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
    let old = {
        let finished = txn.open_table(FINISHED)?;
        let beyond = finished.range((job, 0)..=(job, u64::MAX))?.rev().skip(KEEP);
        beyond.map(|entry| Ok(entry?.0.value().1)).collect::<Result<Vec<u64>, StoreError>>()?
    };
    let mut forgotten = Vec::new();
    for seq in old {
        forgotten.extend(remove(txn, job, seq)?);
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

/// What an operation was about.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    /// It started this execution.
    Launched(Box<ExecutionRecord>),
    /// It made, changed or deleted the job of this name.
    Changed(String),
}

/// What an operation was about, by its id.
pub(super) fn operation(txn: &ReadTransaction, id: &str) -> Result<Option<Deed>, StoreError> {
    let operations = txn.open_table(OPERATIONS)?;
    let Some(key) = operations.get(id)? else { return Ok(None) };
    let (job, seq) = key.value();
    if seq == 0 {
        return Ok(Some(Deed::Changed(job.to_owned())));
    }
    let found = txn.open_table(EXECUTIONS)?.get((job, seq))?.map(|bytes| decode(bytes.value())).transpose()?;
    Ok(found.map(|record| Deed::Launched(Box::new(record))))
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

#[cfg(test)]
mod tests {
    use redb::ReadableTableMetadata as _;

    use super::*;
    use crate::run::record::TaskRecord;

    fn execution(number: u64) -> ExecutionRecord {
        ExecutionRecord {
            job: "j".to_owned(),
            name: format!("j-{number}"),
            seq: 0,
            uid: format!("u-{number}"),
            creator: "c".to_owned(),
            created_us: 1,
            started_us: None,
            completed_us: None,
            image: "i".to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            service_account: "a".to_owned(),
            timeout_ms: 1,
            max_retries: 0,
            parallelism: 0,
            cancelled: false,
            tasks: vec![TaskRecord::default()],
        }
    }

    #[tokio::test]
    async fn a_torn_record_is_put_aside_and_every_other_job_and_execution_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = crate::store::Store::open(&dir.path().join("db")).expect("opened");
        let torn = store.write(|txn| {
            create_tables(txn)?;
            // The first two have ended, the others have not.
            (1..=4).try_for_each(|number| add(txn, &mut execution(number)))?;
            abandon(txn, "j", 1, 7)?;
            abandon(txn, "j", 2, 7)?;
            for seq in [1, 3] {
                txn.open_table(EXECUTIONS)?.insert(("j", seq), &b"{\"job"[..])?;
            }
            txn.open_table(MADE)?.insert("torn", &b""[..])?;
            let running = set_torn_aside(txn)?;
            let jobs = ensure_jobs(txn, &[], 8)?;
            let left = unfinished(txn)?.into_iter().map(|record| record.seq).collect::<Vec<_>>();
            Ok((running, jobs.len(), left))
        });
        assert_eq!(torn.await.expect("nothing is stopped by it"), (vec!["j-3".to_owned()], 0, vec![4]));
        let seen = store.read(|txn| {
            let found = |number: u64| Ok::<_, StoreError>(find(txn, "j", &format!("j-{number}"))?.is_some());
            let known = |number: u64| Ok::<_, StoreError>(operation(txn, &format!("u-{number}"))?.is_some());
            let listed = list(txn, "j", u64::MAX, 9)?.0.into_iter().map(|record| record.seq).collect::<Vec<_>>();
            assert_eq!([1, 2, 3, 4].map(|number| found(number).expect("reads")), [false, true, false, true]);
            assert_eq!([1, 2, 3, 4].map(|number| known(number).expect("reads")), [false, true, false, true]);
            assert_eq!(listed, [4, 2]);
            assert_eq!(txn.open_table(FINISHED)?.len()?, 1);
            let aside = txn.open_table(ASIDE)?;
            let lies =
                |place: &str| -> Result<_, StoreError> { Ok(aside.get(place)?.map(|bytes| bytes.value().to_vec())) };
            Ok([lies("run.executions/j/1")?, lies("run.executions/j/3")?, lies("run.jobs.made/torn")?])
        });
        let kept = [&b"{\"job"[..], b"{\"job", b""].map(|bytes| Some(bytes.to_vec()));
        assert_eq!(seen.expect("reads"), kept);
    }

    #[tokio::test]
    async fn the_oldest_changes_of_jobs_are_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = crate::store::Store::open(&dir.path().join("db")).expect("opened");
        let last = KEEP_CHANGES + 3;
        let made = store.write(move |txn| {
            create_tables(txn)?;
            (1..=last).try_for_each(|number| changed(txn, "made", &format!("change-{number}")))
        });
        made.await.expect("written");
        let known =
            |number: u64| store.read(|txn| Ok(operation(txn, &format!("change-{number}"))?.is_some())).expect("read");
        assert_eq!([1, 3, 4, last].map(known), [false, false, true, true]);
    }
}
