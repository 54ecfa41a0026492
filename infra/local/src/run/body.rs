//! What a task runs as: a room of its own, or a plain process where the configuration says so out loud.
//!
//! | isolation | files | processes, network | who it is |
//! |---|---|---|---|
//! | `namespaces` | programs, its volume, /tmp | its own; the sockets of `doors` | whoever its metadata socket says |
//! | `none` | the machine's | the machine's | whoever its environment says, which others can read |

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use carrel_sandbox::{Exit, LimitHit, Watched};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::doors::Doors;
use super::orphans;
use super::record::Process;
use crate::metadata::MetadataServer;

/// A task whose first process runs.
pub(super) enum Body {
    /// One process group among others.
    Plain(Plain),
    /// A room.
    Room(Room),
}

/// A process group, its home and its identity, which lasts as long as it does.
pub(super) struct Plain {
    child: Child,
    group: i32,
    home: PathBuf,
    _identity: MetadataServer,
}

/// A room and whoever answers at its sockets.
pub(super) struct Room {
    watched: Box<Watched>,
    doors: Doors,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    /// It took more memory than its job gives.
    pub(super) out_of_memory: bool,
}

impl Body {
    pub(super) fn room(watched: Watched, doors: Doors) -> Self {
        Self::Room(Room { watched: Box::new(watched), doors })
    }

    /// What no other process has, for one that a killed cloud would leave behind.
    pub(super) fn identify(&self) -> Option<Process> {
        match self {
            Self::Plain(plain) => orphans::identify(plain.group),
            // The kernel ends a room with the cloud that opened it.
            Self::Room(_) => None,
        }
    }

    pub(super) async fn wait(&mut self) -> io::Result<Ended> {
        match self {
            Self::Plain(plain) => plain.child.wait().await.map(ended),
            Self::Room(room) => {
                let (ending, hit) = room.watched.wait().await.map_err(io::Error::other)?;
                let out_of_memory = hit == Some(LimitHit::Memory);
                Ok(match ending.exit {
                    Exit::Code(code) => Ended { code: Some(code), signal: None, out_of_memory },
                    Exit::Signal(signal) => Ended { code: None, signal: Some(signal), out_of_memory },
                })
            }
        }
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        match self {
            Self::Plain(plain) => signal(plain.group, Signal::TERM),
            Self::Room(room) => room.watched.running().terminate(),
        }
    }

    /// Ends it, and whatever it started.
    pub(super) fn kill(&self) {
        match self {
            Self::Plain(plain) => signal(plain.group, Signal::KILL),
            Self::Room(room) => room.watched.running().kill(),
        }
    }

    /// Leaves nothing of it behind.
    pub(super) async fn clear(self) {
        match self {
            Self::Plain(plain) => {
                if let Err(error) = tokio::fs::remove_dir_all(&plain.home).await {
                    tracing::warn!(path = %plain.home.display(), %error, "cannot remove the home of a task");
                }
            }
            Self::Room(room) => room.doors.close().await,
        }
    }
}

fn ended(status: ExitStatus) -> Ended {
    Ended { code: status.code(), signal: status.signal(), out_of_memory: false }
}

impl Plain {
    /// Starts a process group with a home of its own below `homes`.
    pub(super) fn start(
        argv: &[String],
        env: Vec<(String, String)>,
        home: &Path,
        identity: MetadataServer,
        log: (OwnedFd, OwnedFd),
    ) -> io::Result<Self> {
        let (program, args) = argv.split_first().ok_or_else(|| io::Error::other("its image has no command"))?;
        // A container has a /tmp of its own, which goes with it.
        let scratch = home.join("tmp");
        std::fs::create_dir_all(&scratch)?;
        let spawned = Command::new(program)
            .args(args)
            .env_clear()
            .envs(env)
            .envs([("HOME", home), ("TMPDIR", &scratch)])
            .env("GCE_METADATA_HOST", identity.host())
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.0))
            .stderr(Stdio::from(log.1))
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                std::fs::remove_dir_all(home)?;
                return Err(error);
            }
        };
        let group = child.id().and_then(|id| i32::try_from(id).ok()).expect("a child that nobody waited for has an id");
        Ok(Self { child, group, home: home.to_owned(), _identity: identity })
    }
}

/// A group that is gone already needs no signal.
pub(super) fn signal(group: i32, signal: Signal) {
    let Some(pid) = Pid::from_raw(group) else { return };
    match kill_process_group(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => tracing::error!(pid = group, %error, "cannot signal a task"),
    }
}
