//! From a call to committed executions: settings over the job's own, one commit, then the processes.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::record::{ExecutionRecord, TaskRecord};
use super::refusal::Refusal;
use super::request::Settings;
use super::{Inner, now_us, shelf, task};
use crate::config::Job;
use crate::faults::Fault;
use crate::iam::Principal;

/// Starts an execution; the record is durable before this returns, and its processes start at once after that.
///
/// Not safe to drop half-way: spawn it.
pub(super) async fn launch(
    inner: Arc<Inner>,
    job: Job,
    creator: Principal,
    settings: Settings,
) -> Result<ExecutionRecord, Refusal> {
    if inner.closing.is_cancelled() {
        return Err(Refusal::Closing);
    }
    let running = inner.running().len();
    if running >= inner.quotas.running_executions {
        return Err(Refusal::Exhausted(running));
    }
    let copies = if inner.faults.roll(Fault::DoubleLaunch) { 2 } else { 1 };
    let records: Vec<ExecutionRecord> = (0..copies).map(|_| record(&job, &creator, &settings)).collect();
    let stops: Vec<CancellationToken> = records.iter().map(|_| CancellationToken::new()).collect();
    // Before the commit: whoever can see the execution can cancel it.
    inner.running().extend(records.iter().map(|record| record.name.clone()).zip(stops.iter().cloned()));
    let names: Vec<String> = records.iter().map(|record| record.name.clone()).collect();
    let of = job.name.clone();
    let committed = inner
        .store
        .write(move |txn| {
            let mut added = records.clone();
            if !shelf::is_job(txn, &of)? {
                return Ok(None);
            }
            added.iter_mut().try_for_each(|record| shelf::add(txn, record))?;
            Ok(Some(added))
        })
        .await;
    // A job that was deleted since the call looked at it runs no more.
    let gone = || Refusal::NotFound(format!("job {}", job.name));
    let added = match committed.map_err(Refusal::from).and_then(|added| added.ok_or_else(gone)) {
        Ok(added) => added,
        Err(refusal) => {
            let mut running = inner.running();
            names.iter().for_each(|name| drop(running.remove(name)));
            return Err(refusal);
        }
    };
    for (record, stop) in added.iter().zip(stops) {
        inner.tasks.spawn(task::execute(inner.clone(), job.clone(), record.clone(), stop));
    }
    added.into_iter().next().ok_or(Refusal::Closing)
}

fn record(job: &Job, creator: &Principal, settings: &Settings) -> ExecutionRecord {
    let mut env = job.env.clone();
    env.extend(settings.env.clone());
    ExecutionRecord {
        job: job.name.clone(),
        name: format!("{}-{}", job.name, suffix()),
        seq: 0,
        uid: uuid(),
        creator: creator.as_str().to_owned(),
        created_us: now_us(),
        started_us: None,
        completed_us: None,
        image: job.image.clone(),
        args: settings.args.clone().unwrap_or_else(|| job.args.clone()),
        env: env.into_iter().collect(),
        service_account: job.service_account.clone(),
        timeout_ms: settings.timeout_ms.unwrap_or_else(|| job.timeout_seconds.saturating_mul(1000)),
        max_retries: job.max_retries,
        parallelism: job.parallelism,
        cancelled: false,
        tasks: vec![TaskRecord::default(); settings.task_count.unwrap_or(job.task_count)],
    }
}

/// Eight letters and digits: a job's thousands of executions never meet the same ones.
fn suffix() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes: [u8; 8] = rand::random();
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// A random UUID, version 4.
pub(super) fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}
