//! A room as its program sees it: started, handed out, waited for.
//!
//! ```text
//! start ─► Started ─► Ready ─► Running ── wait ─► Ended, then Gone ─► End
//!            └────────┴─► Failed, then Gone ─► StartError
//! ```
//! Dropping a [`Running`] kills the room at once. What a room handed out outlives it: the files of a `Fresh` directory
//! stay as long as its descriptor, when nobody is left who could change them.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use crate::ended::Exit;
use crate::messages::{Fault, Gone, Launch, Note};
use crate::probe::{self, Missing};
use crate::room::{PlanError, Room};
use crate::tier::Tier;
use crate::{launcher, sys, wire};

/// Why a room could not be opened, or its command not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The plan is none.
    #[error("plan a room")]
    Plan(#[from] PlanError),
    /// `main` did not begin with [`crate::enter`].
    #[error("open a room: this program did not start its launcher first in main")]
    NoLauncher,
    /// The launcher does not answer.
    #[error("ask the launcher for a room")]
    Launcher(#[source] io::Error),
    /// This machine cannot build it.
    #[error("build a room of tier {tier}: {step}{}", told(.fix))]
    Build {
        /// The tier.
        tier: Tier,
        /// The step that failed.
        step: String,
        /// What to do about it; empty if nobody here knows.
        fix: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The room stood, and its command could not be started in it.
    #[error("{step} in its room")]
    Command {
        /// `start PROGRAM`.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No room of this tier is opened before its probe has booted one, and it did not.
    #[error("open a room of tier {tier}, whose boot probe failed: {missing}")]
    Unproven {
        /// The tier.
        tier: Tier,
        /// What is missing.
        missing: Missing,
    },
    /// The room's time was up before it stood.
    #[error("build a room of tier {tier}: not done within its {wall:?}")]
    Late {
        /// The tier.
        tier: Tier,
        /// The limit.
        wall: Duration,
    },
    /// What it uses cannot be looked at, so that nothing holds its limits; it was ended.
    #[error("look at what a room uses")]
    Unseen(#[source] io::Error),
    /// The room ended before it said why.
    #[error("build a room of tier {tier}: it ended with {exit:?} on the way")]
    Lost {
        /// The tier.
        tier: Tier,
        /// Of its first process.
        exit: Exit,
    },
}

/// What a room handed out, in the order of its plan.
#[derive(Debug, Default)]
pub struct Handed {
    /// Sockets that listen inside.
    pub listeners: Vec<TcpListener>,
    /// The channel of its volume, for whoever serves it.
    pub volume: Option<OwnedFd>,
    /// Roots of its `Fresh` directories, by where they lie inside.
    pub fresh: Vec<(PathBuf, OwnedFd)>,
}

/// A room whose command runs.
#[derive(Debug)]
pub struct Running {
    tier: Tier,
    line: AsyncFd<OwnedFd>,
    pidfd: OwnedFd,
    pid: Pid,
    memory_guarantee: bool,
    ended: Option<Ending>,
}

/// How a command went, as far as its room could say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Of the command; of the room's first process where that was killed.
    pub exit: Exit,
    /// Processor time of it and of what it waited for.
    pub cpu: Duration,
    /// Peak memory: of the whole room where a cgroup counted it, else of its largest process.
    pub peak_bytes: u64,
    /// The kernel ended something in it for memory.
    pub out_of_memory: bool,
}

/// Opens a room of this tier and starts its command, whose stdout and stderr are these. Needs a tokio runtime with I/O.
pub async fn start(tier: Tier, room: &Room, stdout: OwnedFd, stderr: OwnedFd) -> Result<(Running, Handed), StartError> {
    probe::stood(tier).await?;
    open(tier, room, stdout, stderr).await
}

/// The same, of a tier of which no room may have stood yet.
pub(crate) async fn open(
    tier: Tier,
    room: &Room,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> Result<(Running, Handed), StartError> {
    room.check()?;
    let launcher = launcher::line().ok_or(StartError::NoLauncher)?;
    let (line, theirs) = wire::pair().map_err(StartError::Launcher)?;
    rustix::io::ioctl_fionbio(&line, true).map_err(|error| StartError::Launcher(error.into()))?;
    let line = sys::watch(line).map_err(StartError::Launcher)?;
    let plan = write_plan(room).map_err(|source| unbuilt(tier, "write the plan of a room".to_owned(), source))?;
    let descriptors = [theirs.as_fd(), plan.as_fd(), stdout.as_fd(), stderr.as_fd()];
    wire::send_in_turn(launcher, &Launch { tier }, &descriptors).await.map_err(StartError::Launcher)?;
    // Our copies would keep the pipes open after the command.
    drop((theirs, stdout, stderr));

    // Dropped on the way, the line ends, and the launcher ends the room.
    let mut guarded = None;
    loop {
        match (hear(&line).await.map_err(StartError::Launcher)?, guarded.take()) {
            (Some((Note::Started { pid, memory_guarantee }, mut descriptors)), None) => {
                let pidfd = descriptors.pop().ok_or_else(cut_short)?;
                let pid = Pid::from_raw(pid).ok_or_else(cut_short)?;
                guarded = Some(Guarded { pidfd, pid, memory_guarantee });
            }
            (
                Some((Note::Ready { listeners, volume, fresh }, descriptors)),
                Some(Guarded { pidfd, pid, memory_guarantee }),
            ) => {
                let handed = unpack(listeners, volume, fresh, descriptors).ok_or_else(cut_short)?;
                return Ok((Running { tier, line, pidfd, pid, memory_guarantee, ended: None }, handed));
            }
            (Some((Note::Failed(fault), _)), _) => return Err(failed(tier, &fault)),
            (Some((Note::Gone(Gone { exit, .. }), _)), _) => return Err(StartError::Lost { tier, exit }),
            (Some(_), _) => return Err(cut_short()),
            (None, _) => return Err(StartError::Launcher(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// A room on its way.
struct Guarded {
    pidfd: OwnedFd,
    pid: Pid,
    memory_guarantee: bool,
}

fn cut_short() -> StartError {
    StartError::Launcher(io::Error::other("its answer is out of order"))
}

fn failed(tier: Tier, fault: &Fault) -> StartError {
    let (step, source) = (fault.step.clone(), fault.source());
    if fault.command { StartError::Command { step, source } } else { unbuilt(tier, step, source) }
}

fn unbuilt(tier: Tier, step: String, source: io::Error) -> StartError {
    let fix = probe::explained(&step, &source).fix;
    StartError::Build { tier, step, fix, source }
}

fn told(fix: &str) -> String {
    if fix.is_empty() { String::new() } else { format!(" (to mend it: {fix})") }
}

fn write_plan(room: &Room) -> io::Result<OwnedFd> {
    let plan = rustix::fs::memfd_create(c"room", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(plan);
    io::Write::write_all(&mut file, &serde_json::to_vec(room)?)?;
    Ok(file.into())
}

fn unpack(listeners: usize, volume: bool, fresh: Vec<PathBuf>, descriptors: Vec<OwnedFd>) -> Option<Handed> {
    if descriptors.len() != listeners + usize::from(volume) + fresh.len() {
        return None;
    }
    let mut all = descriptors.into_iter();
    let listeners = all.by_ref().take(listeners).map(TcpListener::from).collect();
    let volume = if volume { all.next() } else { None };
    Some(Handed { listeners, volume, fresh: fresh.into_iter().zip(all).collect() })
}

async fn hear(line: &AsyncFd<OwnedFd>) -> io::Result<Option<(Note, Vec<OwnedFd>)>> {
    loop {
        let mut ready = line.readable().await?;
        if let Ok(heard) = ready.try_io(|line| wire::receive(line.get_ref(), RecvFlags::DONTWAIT)) {
            return heard;
        }
    }
}

impl Running {
    /// The room's first process, as this namespace numbers it; its descendants are all of the room.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether a cgroup holds its memory limit.
    pub fn memory_guarantee(&self) -> bool {
        self.memory_guarantee
    }

    /// Whether the kernel counts its processes apart from others of the user.
    pub(crate) fn counts_processes(&self) -> bool {
        self.tier == Tier::Namespaces
    }

    /// Whether its first process has ended, and with it the room, though nobody has said so yet.
    pub(crate) fn is_gone(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now));
        ended.is_ok_and(|ready| ready > 0)
    }

    /// Asks the command, and the group it leads, to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends everything in the room.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => tracing::error!(%error, "cannot signal a room"),
        }
    }

    /// Returns once the last process of the room is gone. Safe to drop and call again.
    pub async fn wait(&mut self) -> Result<Ending, StartError> {
        loop {
            match hear(&self.line).await.map_err(StartError::Launcher)? {
                Some((Note::Ended { exit, cpu_us, peak_bytes }, _)) => {
                    let cpu = Duration::from_micros(cpu_us);
                    self.ended = Some(Ending { exit, cpu, peak_bytes, out_of_memory: false });
                }
                Some((Note::Failed(fault), _)) => return Err(failed(self.tier, &fault)),
                Some((Note::Gone(gone), _)) => {
                    let cpu = Duration::ZERO;
                    let lost = Ending { exit: gone.exit, cpu, peak_bytes: 0, out_of_memory: false };
                    let ended = self.ended.unwrap_or(lost);
                    let peak_bytes = gone.peak_bytes.unwrap_or(ended.peak_bytes);
                    return Ok(Ending { peak_bytes, out_of_memory: gone.out_of_memory, ..ended });
                }
                Some(_) => return Err(cut_short()),
                // The launcher was killed, and every room with it; the kernel says when this one is gone.
                None => {
                    let pidfd = self.pidfd.try_clone().map_err(StartError::Launcher)?;
                    let gone =
                        tokio::task::spawn_blocking(move || poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None));
                    drop(gone.await);
                    return Err(StartError::Launcher(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
