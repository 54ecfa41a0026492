//! One command from start to reaped, with everything it started.
//!
//! ```text
//! thread: spawn ── waitid, not reaping ── kill group ── kill strays ── forget pid ── reap with usage
//! task:     └─ read stdout and stderr, watch the deadline ── kill group ──┘             └─ Ended
//! ```
//! A thread of its own starts the command, because the kernel's "die with your parent" means the parent thread, and
//! threads of a pool come and go. The pid is signalled only while it cannot have been reused: it is forgotten, under
//! a lock, before it is reaped. Dropping the future kills the group; the thread then clears up by itself.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStderr, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::command::{Command, Limits};
use crate::ended::{Ended, Exit, LimitHit, Used, infer};
use crate::lines::{Lines, Tail};
use crate::{strays, sys};

/// How long after the end output that is still in the pipes is waited for.
const DRAIN: Duration = Duration::from_millis(500);

/// Held while a command lives, and until everything it started is dead.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It could not be started.
    #[error("start {program}")]
    Spawn {
        /// The program.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It was started and then lost from sight; its group was killed, and something it started may live on.
    #[error("supervise {program}")]
    Supervise {
        /// The program.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// The group that may be signalled: `None` once its leader is about to be reaped.
#[derive(Debug, Clone, Default)]
struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    fn kill(&self) {
        let leader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = leader.map(|pid| kill_process_group(pid, Signal::KILL)) {
            tracing::debug!(%error, "the process group went by itself");
        }
    }

    fn set(&self, leader: Option<Pid>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }
}

/// Kills the group when the supervising future is dropped.
struct KillOnDrop(Group);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

type Pipes = (ChildStdout, ChildStderr);
type Reaped = (Exit, Duration, u64);

/// Runs a command to its end and hands each line of its stdout to `on_line`. Needs a tokio runtime with I/O and time.
///
/// Dropping the future kills the command and its process group at once. Commands of one process run one after another,
/// and it must have no other children: each is taken for the command's.
pub async fn run(command: Command, limits: Limits, mut on_line: impl FnMut(&[u8])) -> Result<Ended, StartError> {
    let program = command.program.to_string_lossy().into_owned();
    let spawn_error = |source| StartError::Spawn { program: program.clone(), source };
    let supervise_error = |source| StartError::Supervise { program: program.clone(), source };
    let turn = TURN.lock().await;
    let began = Instant::now();
    let group = Group::default();
    let guard = KillOnDrop(group.clone());
    let (started, starting) = oneshot::channel();
    let (ended, mut ending) = oneshot::channel();
    std::thread::Builder::new()
        .name("supervise".to_owned())
        .spawn(move || {
            attend(command, limits, &group, started, ended);
            drop(turn);
        })
        .map_err(spawn_error)?;
    let lost = |_| supervise_error(io::Error::other("the supervising thread ended early"));
    let (stdout, stderr) = starting.await.map_err(lost)?.map_err(spawn_error)?;
    let mut stdout = tokio::process::ChildStdout::from_std(stdout).map_err(supervise_error)?;
    let mut stderr = tokio::process::ChildStderr::from_std(stderr).map_err(supervise_error)?;

    let mut lines = Lines::new(limits.line_bytes);
    let mut tail = Tail::new(limits.stderr_tail_bytes);
    let mut limit = None;
    let mut reaped = None;
    {
        let mut feed = |bytes: &[u8]| lines.push(bytes, &mut on_line);
        let mut keep = |bytes: &[u8]| tail.push(bytes);
        let out = drain(&mut stdout, limits.output_bytes, &mut feed);
        let err = drain(&mut stderr, limits.output_bytes, &mut keep);
        tokio::pin!(out, err);
        let (mut out_open, mut err_open) = (true, true);
        let mut deadline = began + limits.wall;
        while out_open || err_open || reaped.is_none() {
            tokio::select! {
                within = &mut out, if out_open => {
                    out_open = false;
                    if !within { limit = limit.or(Some(LimitHit::Output)); guard.0.kill(); }
                }
                within = &mut err, if err_open => {
                    err_open = false;
                    if !within { limit = limit.or(Some(LimitHit::Output)); guard.0.kill(); }
                }
                end = &mut ending, if reaped.is_none() => {
                    reaped = Some(end.map_err(lost)?.map_err(supervise_error)?);
                    deadline = Instant::now() + DRAIN;
                }
                () = tokio::time::sleep_until(deadline) => {
                    if reaped.is_some() {
                        break;
                    }
                    limit = limit.or(Some(LimitHit::Wall));
                    guard.0.kill();
                    // SIGKILL cannot be refused, only be slow; look again rather than trust it.
                    deadline = Instant::now() + Duration::from_secs(1);
                }
            }
        }
    }
    lines.finish(&mut on_line);
    let stderr_tail = tail.into_bytes();
    let (exit, cpu, peak_bytes) = reaped.expect("the loop ends only after the command was reaped");
    let cpu_spent = cpu.as_secs() >= limits.cpu_seconds;
    let limit = limit.or_else(|| infer(exit, cpu_spent, &stderr_tail));
    Ok(Ended { exit, limit, used: Used { wall: began.elapsed(), cpu, peak_bytes }, stderr_tail })
}

/// Reads to the end; false if more than `max` bytes came.
async fn drain(from: &mut (impl AsyncRead + Unpin), max: u64, each: &mut impl FnMut(&[u8])) -> bool {
    let mut seen = 0_u64;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return true,
            Ok(count) => {
                seen += count as u64;
                if seen > max {
                    return false;
                }
                each(&buffer[..count]);
            }
            Err(error) => {
                tracing::debug!(%error, "a pipe of the command broke");
                return true;
            }
        }
    }
}

/// The thread's whole life.
fn attend(
    command: Command,
    limits: Limits,
    group: &Group,
    started: oneshot::Sender<io::Result<Pipes>>,
    ended: oneshot::Sender<io::Result<Reaped>>,
) {
    if let Err(error) = strays::adopt() {
        drop(started.send(Err(error)));
        return;
    }
    let mut child = std::process::Command::new(&command.program);
    child
        .args(&command.args)
        .env_clear()
        .envs(command.env)
        .current_dir(&command.cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    sys::confine(&mut child, &limits);
    let mut child = match child.spawn() {
        Ok(child) => child,
        Err(error) => {
            // A receiver that is gone has nothing to be told.
            drop(started.send(Err(error)));
            return;
        }
    };
    let leader = Pid::from_child(&child);
    group.set(Some(leader));
    let pipes = (child.stdout.take().expect("stdout is piped"), child.stderr.take().expect("stderr is piped"));
    if started.send(Ok(pipes)).is_err() {
        // The future was dropped while the command started.
        group.kill();
    }
    let waited = loop {
        match waitid(WaitId::Pid(leader), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other,
        }
    };
    group.kill();
    let cleared = strays::kill(leader);
    group.set(None);
    let reaped = sys::reap(leader);
    let reaped = waited.map_err(io::Error::from).and(cleared).and(reaped);
    if ended.send(reaped).is_err() {
        tracing::debug!("a command ended after its supervisor had left");
    }
}

#[cfg(test)]
mod tests;
