//! The first process of a room, from its birth in new namespaces to the end of everything it started.
//!
//! ```text
//! launcher: fork into namespaces ── write the id maps ── "go"
//! here:     wait for "go" ─ network ─ files ─ hand out ─ start the command ─ reap ─ end the rest ─ report ─ exit
//! ```
//! It is process 1 of the room and not dumpable: what runs inside can neither end it nor look into it, and when it
//! ends, the kernel ends the room. It has no descriptors but its line to whoever planned the room. In tier `process` it
//! has no namespaces of its own, adopts what the command orphans, and kills that by hand; whatever outlives it there is
//! left to the launcher.

mod bare;
mod confine;
mod container;
mod counts;
mod ids;
mod mounts;
mod network;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{
    DumpableBehavior, Pid, Signal, kill_process_group, set_dumpable_behavior, set_parent_process_death_signal, setpgid,
    umask,
};
use seccompiler::BpfProgram;

use crate::messages::{Fault, Note};
use crate::room::{Room, USER};
use crate::sys::{self, Fork, Signals, Which};
use crate::tier::Tier;
use crate::{strays, wire};
use confine::Become;

pub(crate) use ids::{becomes_another, write_maps};

/// What each tier has of its own.
pub(crate) fn namespaces(tier: Tier) -> libc::c_int {
    match tier {
        Tier::Process => 0,
        // In tier `oci` the runtime goes on from here. This much lets an ordinary user start it over directories in memory,
        // ends with this process whatever it starts, and keeps it from the machine's network.
        Tier::Namespaces | Tier::Oci(_) => {
            libc::CLONE_NEWUSER
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
        }
    }
}

/// What a room is to be.
pub(crate) struct Plan<'a> {
    pub(crate) tier: Tier,
    pub(crate) room: &'a Room,
    /// Absent where a runtime applies its own.
    pub(crate) filter: Option<&'a BpfProgram>,
    /// A cgroup holds the memory, so that the address space need not.
    pub(crate) memory_guarantee: bool,
    /// Where the command's stdout and stderr go.
    pub(crate) stdio: [BorrowedFd<'a>; 2],
}

/// Everything the first process is given.
pub(crate) struct Birth<'a> {
    pub(crate) plan: Plan<'a>,
    /// To whoever planned the room.
    pub(crate) line: BorrowedFd<'a>,
    /// One byte on it says that the id maps are written; its end, that nobody wants the room any more.
    pub(crate) go: OwnedFd,
    /// Files of its control group by which it enters.
    pub(crate) doors: Vec<std::fs::File>,
}

/// What a room hands out.
#[derive(Default)]
struct Handed {
    listeners: Vec<TcpListener>,
    volume: Option<OwnedFd>,
    fresh: mounts::Fresh,
}

/// Lives the whole life and exits.
pub(crate) fn live(birth: Birth<'_>) -> ! {
    let line = birth.line;
    let note = match lead(birth) {
        Ok(ended) => ended,
        Err(fault) => Note::Failed(fault),
    };
    let failed = matches!(note, Note::Failed(_));
    // Nobody left to be told is no reason to stay.
    let told = wire::send(line, &note, &[]);
    sys::exit(i32::from(failed || told.is_err()))
}

fn lead(birth: Birth<'_>) -> Result<Note, Fault> {
    let Birth { plan, line, go, doors } = birth;
    let Plan { tier, room, .. } = plan;
    // Who asks the program's group to end means the program; it alone asks its rooms. Until here it is not heard.
    setpgid(None, None).map_err(Fault::kernel("lead a group of processes"))?;
    let signals =
        Signals::hold(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGHUP]).map_err(Fault::at("hold signals back"))?;
    end_with_launcher(tier)?;
    // The launcher may have died before the line above took effect; then nobody says "go".
    let mut byte = [0];
    let heard = rustix::io::retry_on_intr(|| rustix::io::read(&go, &mut byte));
    if !matches!(heard, Ok(1)) {
        return Err(launcher_gone());
    }
    // The maps are written, which needs a process that can be looked into; from here on this one cannot.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Fault::kernel("close itself to others"))?;
    umask(Mode::from_raw_mode(0o022));
    for mut door in doors {
        // Zero is whoever writes.
        io::Write::write_all(&mut door, b"0").map_err(Fault::at("enter the cgroup of a room"))?;
    }
    if tier != Tier::Process {
        sys::begin_at_own_cgroups().map_err(Fault::at("see no cgroup but its own"))?;
    }
    let mut handed = Handed::default();
    let user = ids::become_whom(tier);
    match tier {
        Tier::Namespaces => {
            network::set_up(&room.network, &mut handed.listeners)?;
            let old = mounts::move_out()?;
            let mut site = mounts::Site::at("/".as_ref())?;
            site.devices(&old, &[])?;
            site.proc()?;
            site.lay_out(&old, &room.view, USER, &mut handed)?;
            mounts::let_go(old)?;
            counts::limit(tier, room.profile)?;
            mounts::seal_root()?;
        }
        Tier::Process => bare::place(room, user, &mut handed)?,
        Tier::Oci(runtime) => return container::keep(&plan, runtime, [line, go.as_fd()], &signals),
    }
    strays::adopt().map_err(Fault::at("adopt orphans"))?;
    hand_out(line, handed).map_err(Fault::at("hand out what belongs to a room"))?;

    // Of this process and of the command, once for both.
    confine::bound(user).map_err(Fault::at("give up privileges"))?;
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (failure, told) = pipe.map_err(Fault::kernel("make a pipe"))?;
    let itself = rustix::process::getpid();
    let command = match sys::fork().map_err(Fault::at("fork"))? {
        Fork::Parent(command) => command,
        Fork::Child => {
            let error = confine::start(&plan, user, itself);
            let errno = error.raw_os_error().unwrap_or(libc::EIO).to_le_bytes();
            sys::exit(if rustix::io::write(&told, &errno).is_ok() { 127 } else { 126 })
        }
    };
    drop(told);
    // From here on this process is as poor as what it guards.
    let kept = [line, go.as_fd(), failure.as_fd()];
    grow_poor(user, &kept).map_err(Fault::at("give up privileges"))?;
    // A change of user has cleared it, and the launcher may have died in between.
    end_with_launcher(tier)?;
    if has_ended(go.as_fd())? {
        return Err(launcher_gone());
    }
    let mut errno = [0; 4];
    if let Ok(4) = rustix::io::retry_on_intr(|| rustix::io::read(&failure, &mut errno)) {
        let error = io::Error::from_raw_os_error(i32::from_le_bytes(errno));
        let fault = Fault::at(format!("start {}", room.command.program.display()))(error);
        return Err(Fault { command: true, ..fault });
    }
    guard(tier, command, &signals)
}

/// Where the kernel ends a room with its first process, that is killed with the launcher. Elsewhere it is told, and ends
/// the rest itself.
fn end_with_launcher(tier: Tier) -> Result<(), Fault> {
    let signal = if tier == Tier::Process { Signal::HUP } else { Signal::KILL };
    set_parent_process_death_signal(Some(signal)).map_err(Fault::kernel("end with the launcher"))
}

fn launcher_gone() -> Fault {
    Fault::at("hear from the launcher")(io::ErrorKind::UnexpectedEof.into())
}

/// Whether the launcher, which keeps the other end open, is gone.
fn has_ended(go: BorrowedFd<'_>) -> Result<bool, Fault> {
    let mut polled = [PollFd::from_borrowed_fd(go, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| poll(&mut polled, Some(&now))).map_err(Fault::kernel("look for the launcher"))?;
    Ok(!polled[0].revents().is_empty())
}

fn grow_poor(user: Become, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    confine::renounce(user)?;
    // A change of user makes it so as well, or not, by a setting of the machine.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Its copies of the command's pipes would keep them open after the command.
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for number in 0..3 {
        sys::put(nothing.as_fd(), number)?;
    }
    drop(nothing);
    sys::close_but(kept)
}

fn hand_out(line: BorrowedFd<'_>, handed: Handed) -> io::Result<()> {
    let Handed { listeners, volume, fresh } = handed;
    let (paths, roots): (Vec<_>, Vec<_>) = fresh.into_iter().unzip();
    let ready = Note::Ready { listeners: listeners.len(), volume: volume.is_some(), fresh: paths };
    let sockets = listeners.iter().map(|listener| listener.as_fd());
    let all: Vec<_> = sockets.chain(volume.iter().chain(&roots).map(|fd| fd.as_fd())).collect();
    wire::send(line, &ready, &all)
}

/// Reaps until the command has ended. Where it leaves anything behind, the kernel ends that with this process; in a tier
/// without process namespaces it is ended here.
fn guard(tier: Tier, command: Pid, signals: &Signals) -> Result<Note, Fault> {
    let (mut ended, mut cpu, mut peak_bytes) = (None, std::time::Duration::ZERO, 0);
    while ended.is_none() {
        let got = signals.next().map_err(Fault::at("wait for signals"))?;
        // What runs inside may ask this process to end, too; only those outside are heard.
        let ask = match got.signal {
            libc::SIGTERM if got.sender == 0 || tier == Tier::Process => Some(Signal::TERM),
            // The launcher is gone.
            libc::SIGHUP if tier == Tier::Process => Some(Signal::KILL),
            _ => None,
        };
        if let Some(signal) = ask {
            match kill_process_group(command, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(Fault::kernel("ask the command to end")(error)),
            }
        }
        while let Some(child) = sys::reap(Which::Ended).map_err(Fault::at("reap"))? {
            cpu += child.cpu;
            peak_bytes = peak_bytes.max(child.peak_bytes);
            if child.pid == command.as_raw_nonzero().get() {
                ended = Some(child.exit);
            }
        }
    }
    if tier == Tier::Process {
        strays::kill(&[]).map_err(Fault::at("end what the command left behind"))?;
    }
    let exit = ended.expect("the loop ends only then");
    Ok(Note::Ended { exit, cpu_us: u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX), peak_bytes })
}
