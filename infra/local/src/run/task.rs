//! One task from start to end: environment, log, time limit, the end and its record.
//!
//! A task inherits nothing. Whatever ends its first process ends the rest of it, as in a container.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::body::{Body, Ended, Plain};
use super::log::Log;
use super::record::{End, ExecutionRecord, Phase};
use super::{Inner, now_us, room, shelf};
use crate::config::{Isolation, Job};
use crate::faults::Fault;

/// From SIGTERM to SIGKILL, as Cloud Run grants.
const GRACE: Duration = Duration::from_secs(10);

/// Runs all tasks of a committed execution to their recorded ends.
pub(super) async fn execute(inner: Arc<Inner>, job: Job, record: ExecutionRecord, stop: CancellationToken) {
    let at_once = if record.parallelism == 0 { record.tasks.len() } else { record.parallelism.min(record.tasks.len()) };
    let places = Semaphore::new(at_once);
    let tasks = (0..record.tasks.len()).map(async |index| {
        let _place = places.acquire().await.expect("nobody closes it");
        one(&inner, &job, &record, index, &stop).await;
    });
    futures::future::join_all(tasks).await;
    inner.running().remove(&record.name);
}

async fn one(inner: &Inner, job: &Job, record: &ExecutionRecord, index: usize, stop: &CancellationToken) {
    let mut tried = 0;
    let end = loop {
        let end = attempt(inner, job, record, (index, tried), stop).await;
        let over = stop.is_cancelled() || inner.closing.is_cancelled();
        if end.phase != Phase::Failed || tried >= record.max_retries || over {
            break end;
        }
        tried += 1;
        note(inner, record, move |record| record.retry(index, &end)).await;
    };
    let (job, seq) = (record.job.clone(), record.seq);
    let ended = inner.store.write(move |txn| shelf::change(txn, &job, seq, |record| record.end(index, &end, now_us())));
    match ended.await {
        Ok(changed) => {
            for name in changed.into_iter().flat_map(|changed| changed.forgotten) {
                remove_log(&inner.logs, &name).await;
            }
        }
        Err(error) => tracing::error!(run.execution = record.name, %error, "cannot record the end of a task"),
    }
}

/// One attempt, the first being 0.
async fn attempt(
    inner: &Inner,
    job: &Job,
    record: &ExecutionRecord,
    (index, tried): (usize, u32),
    stop: &CancellationToken,
) -> End {
    match start(inner, job, record, (index, tried), stop).await {
        Ok(Some((mut task, log))) => {
            let process = task.identify();
            note(inner, record, move |record| record.start(index, process, now_us())).await;
            let end = finish(&mut task, inner, record, stop).await;
            task.clear().await;
            log.close().await;
            end
        }
        Ok(None) => End::cancelled(),
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::new(error));
            tracing::error!(run.execution = record.name, error = why, "a task failed to start");
            End::failed(format!("The container failed to start: {why}."))
        }
    }
}

async fn note(inner: &Inner, record: &ExecutionRecord, change: impl Fn(&mut ExecutionRecord) + Send + 'static) {
    let (job, seq) = (record.job.clone(), record.seq);
    let noted = inner.store.write(move |txn| shelf::change(txn, &job, seq, &change));
    if let Err(error) = noted.await {
        tracing::error!(run.execution = record.name, %error, "cannot record how far a task is");
    }
}

pub(super) async fn remove_log(logs: &Path, execution: &str) {
    let path = logs.join(format!("{execution}.log"));
    if let Err(error) = tokio::fs::remove_file(&path).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove the log of a forgotten execution");
    }
}

/// `None` if it was cancelled before it started.
async fn start(
    inner: &Inner,
    job: &Job,
    record: &ExecutionRecord,
    (index, tried): (usize, u32),
    stop: &CancellationToken,
) -> io::Result<Option<(Body, Log)>> {
    // Before its log is opened, which is gone with a job that was deleted.
    if stop.is_cancelled() {
        return Ok(None);
    }
    let image = inner.images.get(&record.image).ok_or_else(|| io::Error::other("its image is not configured"))?;
    let argv: Vec<String> = image.argv.iter().chain(&record.args).cloned().collect();
    let log = Log::open(&inner.logs.join(format!("{}.log", record.name)))?;
    let mut env: BTreeMap<String, String> = image.env.clone();
    env.extend(record.env.iter().cloned());
    let own = [
        ("CLOUD_RUN_JOB", record.job.clone()),
        ("CLOUD_RUN_EXECUTION", record.name.clone()),
        ("CLOUD_RUN_TASK_INDEX", index.to_string()),
        ("CLOUD_RUN_TASK_ATTEMPT", tried.to_string()),
        ("CLOUD_RUN_TASK_COUNT", record.tasks.len().to_string()),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    let env = env.into_iter().collect();
    let body = match inner.isolation {
        Isolation::Namespaces => room::open(inner, (job, record), argv, env, &log).await?,
        Isolation::None => {
            let identity = inner.metadata.start(&record.service_account).await?;
            let home = inner.homes.join(format!("{}-{index}", record.name));
            Body::Plain(Plain::start(&argv, env, &home, identity, (log.end()?, log.end()?))?)
        }
    };
    Ok(Some((body, log)))
}

/// Waits for the end of a task, or brings it about.
async fn finish(task: &mut Body, inner: &Inner, record: &ExecutionRecord, stop: &CancellationToken) -> End {
    let misfortune = inner.faults.roll(Fault::KillTask).then(|| inner.faults.lifetime());
    let misfortune = async {
        match misfortune {
            Some(lifetime) => tokio::time::sleep(lifetime).await,
            None => std::future::pending().await,
        }
    };
    let end = tokio::select! {
        ended = task.wait() => end_of(ended),
        () = tokio::time::sleep(Duration::from_millis(record.timeout_ms)) => {
            terminate(task).await;
            End::failed("The configured timeout was reached.")
        }
        () = stop.cancelled() => {
            terminate(task).await;
            End::cancelled()
        }
        () = inner.closing.cancelled() => {
            terminate(task).await;
            End::failed("The machine that ran the task was shut down.")
        }
        () = misfortune => {
            task.kill();
            end_of(task.wait().await)
        }
    };
    task.kill();
    end
}

async fn terminate(task: &mut Body) {
    task.terminate();
    if tokio::time::timeout(GRACE, task.wait()).await.is_err() {
        task.kill();
        if let Err(error) = task.wait().await {
            tracing::error!(%error, "cannot wait for a killed task");
        }
    }
}

fn end_of(ended: io::Result<Ended>) -> End {
    let Ended { code, signal, out_of_memory } = match ended {
        Ok(ended) => ended,
        Err(error) => {
            // It ran: what is missing is only how it ended.
            let why = format!("{:#}", anyhow::Error::new(error));
            return End::failed(format!("The container was ended, since nobody could watch it any more: {why}."));
        }
    };
    let (phase, message) = match code {
        code if out_of_memory && code != Some(0) => {
            (Phase::Failed, "The configured memory limit was reached.".to_owned())
        }
        Some(0) => (Phase::Succeeded, String::new()),
        Some(_) => (Phase::Failed, "The container exited with an error.".to_owned()),
        None => (Phase::Failed, format!("The container was ended by signal {}.", signal.unwrap_or(0))),
    };
    End { phase, exit_code: code, signal, message }
}
