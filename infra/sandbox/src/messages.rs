//! What launcher, room and program say to each other.
//!
//! ```text
//! program ──Launch + [line, plan, stdout, stderr]──► launcher
//! program ◄──Started + [pidfd]── launcher ·· Ready + [what the plan hands out] ·· Ended ── room's first process
//! program ◄──Gone── launcher, once that process is reaped: the last word, whoever ended it
//! ```

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ended::Exit;
use crate::tier::Tier;

/// What a program asks of the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) tier: Tier,
}

/// What is told of one room.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Note {
    /// Its first process exists; its pidfd goes with this.
    Started {
        /// As the launcher's namespace numbers it.
        pid: i32,
        /// A cgroup holds its memory.
        memory_guarantee: bool,
    },
    /// It is built, and its command starts; what it hands out goes with this, in this order.
    Ready { listeners: usize, volume: bool, fresh: Vec<PathBuf> },
    /// It could not be built.
    Failed(Fault),
    /// Its command ended.
    Ended { exit: Exit, cpu_us: u64, peak_bytes: u64 },
    /// Its last process is gone.
    Gone(Gone),
}

/// The end of a room, as the launcher saw it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Gone {
    /// Of its first process.
    pub(crate) exit: Exit,
    /// The most memory that its cgroup held.
    pub(crate) peak_bytes: Option<u64>,
    /// Its cgroup killed for memory.
    pub(crate) out_of_memory: bool,
}

/// A step that failed, by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// `mount proc at /proc`.
    pub(crate) step: String,
    /// What the kernel said; `None` if it was not the kernel.
    pub(crate) errno: Option<i32>,
    /// In words.
    pub(crate) words: String,
    /// The command itself could not be started; the room stood.
    pub(crate) command: bool,
}

impl Fault {
    pub(crate) fn at(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |error| Self { step, errno: error.raw_os_error(), words: error.to_string(), command: false }
    }

    pub(crate) fn kernel(step: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let fault = Self::at(step);
        move |error| fault(error.into())
    }

    pub(crate) fn source(&self) -> io::Error {
        match self.errno {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(self.words.clone()),
        }
    }
}
