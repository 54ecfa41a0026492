//! One process group from start to end: identity, home, log, time limit, the end and its record.
//!
//! A task inherits nothing. Whatever ends its first process ends the rest of its group, as in a container.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::orphans;
use super::record::{End, ExecutionRecord, Phase, Process};
use super::{Inner, now_us, shelf};
use crate::faults::Fault;
use crate::metadata::MetadataServer;

/// From SIGTERM to SIGKILL, as Cloud Run grants.
const GRACE: Duration = Duration::from_secs(10);

/// Runs all tasks of a committed execution to their recorded ends.
pub(super) async fn execute(inner: Arc<Inner>, record: ExecutionRecord, stop: CancellationToken) {
    let tasks = (0..record.tasks.len()).map(|index| one(&inner, &record, index, &stop));
    futures::future::join_all(tasks).await;
    inner.running().remove(&record.name);
}

async fn one(inner: &Inner, record: &ExecutionRecord, index: usize, stop: &CancellationToken) {
    let end = match start(inner, record, index, stop).await {
        Ok(Some(mut task)) => {
            note_start(inner, record, index, orphans::identify(task.group)).await;
            let end = task.finish(inner, record, stop).await;
            task.clear().await;
            end
        }
        Ok(None) => End::cancelled(),
        Err(error) => End::failed(format!("The container failed to start: {error}.")),
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

async fn note_start(inner: &Inner, record: &ExecutionRecord, index: usize, process: Option<Process>) {
    let (job, seq) = (record.job.clone(), record.seq);
    let noted =
        inner.store.write(move |txn| shelf::change(txn, &job, seq, |record| record.start(index, process, now_us())));
    if let Err(error) = noted.await {
        tracing::error!(run.execution = record.name, %error, "cannot record the start of a task");
    }
}

async fn remove_log(logs: &Path, execution: &str) {
    let path = logs.join(format!("{execution}.log"));
    if let Err(error) = tokio::fs::remove_file(&path).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove the log of a forgotten execution");
    }
}

/// A task whose process runs.
struct Running {
    child: Child,
    group: i32,
    home: PathBuf,
    /// Its identity lasts as long as it does.
    _identity: MetadataServer,
}

/// `None` if it was cancelled before it started.
async fn start(
    inner: &Inner,
    record: &ExecutionRecord,
    index: usize,
    stop: &CancellationToken,
) -> io::Result<Option<Running>> {
    let image = inner.images.get(&record.image).ok_or_else(|| io::Error::other("its image is not configured"))?;
    let (program, first) = image.argv.split_first().ok_or_else(|| io::Error::other("its image has no command"))?;
    let identity = inner.metadata.start(&record.service_account).await?;
    let home = inner.homes.join(format!("{}-{index}", record.name));
    // A container has a /tmp of its own, which goes with it.
    let scratch = home.join("tmp");
    std::fs::create_dir_all(&scratch)?;
    let log = OpenOptions::new().create(true).append(true).open(inner.logs.join(format!("{}.log", record.name)))?;
    let mut env: BTreeMap<&str, String> =
        image.env.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    env.extend(record.env.iter().map(|(name, value)| (name.as_str(), value.clone())));
    env.extend([
        ("CLOUD_RUN_JOB", record.job.clone()),
        ("CLOUD_RUN_EXECUTION", record.name.clone()),
        ("CLOUD_RUN_TASK_INDEX", index.to_string()),
        ("CLOUD_RUN_TASK_ATTEMPT", "0".to_owned()),
        ("CLOUD_RUN_TASK_COUNT", record.tasks.len().to_string()),
        ("GCE_METADATA_HOST", identity.host().to_owned()),
        ("HOME", home.display().to_string()),
        ("TMPDIR", scratch.display().to_string()),
    ]);
    if stop.is_cancelled() {
        std::fs::remove_dir_all(&home)?;
        return Ok(None);
    }
    let spawned = Command::new(program)
        .args(first)
        .args(&record.args)
        .env_clear()
        .envs(env)
        .current_dir(&home)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            std::fs::remove_dir_all(&home)?;
            return Err(error);
        }
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).expect("a child that nobody waited for has an id");
    Ok(Some(Running { child, group, home, _identity: identity }))
}

impl Running {
    /// Waits for the end of the task, or brings it about.
    async fn finish(&mut self, inner: &Inner, record: &ExecutionRecord, stop: &CancellationToken) -> End {
        let misfortune = inner.faults.roll(Fault::KillTask).then(|| inner.faults.lifetime());
        let misfortune = async {
            match misfortune {
                Some(lifetime) => tokio::time::sleep(lifetime).await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            exited = self.child.wait() => end_of(exited),
            () = tokio::time::sleep(Duration::from_millis(record.timeout_ms)) => {
                self.terminate().await;
                End::failed("The configured timeout was reached.")
            }
            () = stop.cancelled() => {
                self.terminate().await;
                End::cancelled()
            }
            () = inner.closing.cancelled() => {
                self.terminate().await;
                End::failed("The machine that ran the task was shut down.")
            }
            () = misfortune => {
                signal(self.group, Signal::KILL);
                end_of(self.child.wait().await)
            }
        };
        signal(self.group, Signal::KILL);
        end
    }

    async fn terminate(&mut self) {
        signal(self.group, Signal::TERM);
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            signal(self.group, Signal::KILL);
            if let Err(error) = self.child.wait().await {
                tracing::error!(pid = self.group, %error, "cannot wait for a killed task");
            }
        }
    }

    async fn clear(self) {
        if let Err(error) = tokio::fs::remove_dir_all(&self.home).await {
            tracing::warn!(path = %self.home.display(), %error, "cannot remove the home of a task");
        }
    }
}

fn end_of(exited: io::Result<ExitStatus>) -> End {
    let status = match exited {
        Ok(status) => status,
        Err(error) => return End::failed(format!("The container cannot be waited for: {error}.")),
    };
    let (phase, message) = match (status.code(), status.signal()) {
        (Some(0), _) => (Phase::Succeeded, String::new()),
        (Some(code), _) => (Phase::Failed, format!("The container exited with code {code}.")),
        (None, signal) => (Phase::Failed, format!("The container was ended by signal {}.", signal.unwrap_or(0))),
    };
    End { phase, exit_code: status.code(), signal: status.signal(), message }
}

/// A group that is gone already needs no signal.
pub(super) fn signal(group: i32, signal: Signal) {
    let Some(pid) = Pid::from_raw(group) else { return };
    match kill_process_group(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => tracing::error!(pid = group, %error, "cannot signal a task"),
    }
}
