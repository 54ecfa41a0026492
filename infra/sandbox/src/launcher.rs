//! The launcher: a small process with one thread that gives birth to rooms, forked before the program beside it grows.
//!
//! Forking costs by the size of who forks, and a process with threads must not fork and go on; so [`enter`] comes first
//! in `main`. The launcher ends with its program, and every room ends with the launcher. It believes its program.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use seccompiler::BpfProgram;

use crate::cgroup::Cgroup;
use crate::ended::Exit;
use crate::jail::{self, Birth, Plan};
use crate::messages::{Fault, Gone, Launch, Note};
use crate::room::{Profile, Room};
use crate::sys::{self, Fork};
use crate::tier::Tier;
use crate::{seccomp, wire};

/// The line to this program's launcher.
static LAUNCHER: OnceLock<OwnedFd> = OnceLock::new();

/// Starts the launcher of this program. To be called first in `main`, before there is a second thread; called again it
/// does nothing.
pub fn enter() -> io::Result<()> {
    if LAUNCHER.get().is_some() {
        return Ok(());
    }
    let (ours, theirs) = wire::pair()?;
    match sys::fork()? {
        Fork::Parent(_) => {
            // Only a second thread could have been faster, and the contract excludes one.
            drop(LAUNCHER.set(ours));
            Ok(())
        }
        Fork::Child => {
            drop(ours);
            sys::exit(i32::from(serve(theirs).is_err()))
        }
    }
}

/// The line to the launcher, if [`enter`] was called.
pub(crate) fn line() -> Option<&'static OwnedFd> {
    LAUNCHER.get()
}

/// A room that lives.
struct Living {
    /// Our own copy; the program has another.
    pidfd: OwnedFd,
    line: OwnedFd,
    cgroup: Option<Cgroup>,
}

/// Filters, compiled once each.
#[derive(Default)]
struct Filters(HashMap<(Profile, bool), BpfProgram>);

fn serve(requests: OwnedFd) -> io::Result<()> {
    // They are meant for the program, which shares the terminal; its end is ours.
    sys::ignore(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT]);
    rustix::thread::set_name(c"carrel-launcher")?;
    // A pipe of the program that this process kept open would never end for whoever reads it.
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
    for number in [0, 1] {
        sys::put(nothing.as_fd(), number)?;
    }
    let mut launcher = Launcher { requests, living: Vec::new(), filters: Filters::default() };
    while launcher.attend()? {}
    Ok(())
}

struct Launcher {
    requests: OwnedFd,
    living: Vec<Living>,
    filters: Filters,
}

impl Launcher {
    /// Waits for something to happen and sees to it; false once the program is gone.
    fn attend(&mut self) -> io::Result<bool> {
        let ready: Vec<bool> = {
            let all = std::iter::once(&self.requests).chain(self.living.iter().map(|room| &room.pidfd));
            let mut all: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            match poll(&mut all, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            all.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        for at in (1..ready.len()).rev().filter(|at| ready[*at]) {
            bury(self.living.swap_remove(at - 1));
        }
        if !ready[0] {
            return Ok(true);
        }
        let Some((Launch { tier }, descriptors)) = wire::receive(&self.requests, RecvFlags::empty())? else {
            return Ok(false);
        };
        let Ok([line, plan, stdout, stderr]) = <[OwnedFd; 4]>::try_from(descriptors) else {
            return Err(io::Error::other("a launch came without its descriptors"));
        };
        if let Err(fault) = self.give_birth(tier, plan, &[stdout, stderr], &line) {
            // Whoever asked may have gone; then the room is not missed.
            drop(wire::send(&line, &Note::Failed(fault), &[]));
        }
        Ok(true)
    }

    fn give_birth(&mut self, tier: Tier, plan: OwnedFd, stdio: &[OwnedFd; 2], line: &OwnedFd) -> Result<(), Fault> {
        let room: Room = read_plan(plan).map_err(Fault::at("read the plan of a room"))?;
        // An own network namespace makes sockets of the internet's families harmless; without one there are none.
        let filter = match tier {
            Tier::Process => Some(self.filters.get(room.profile, false)?),
            Tier::Namespaces => Some(self.filters.get(room.profile, true)?),
            // The runtime applies the bundle's.
            Tier::Oci(_) => None,
        };
        let cgroup = Cgroup::make(&room.limits);
        let memory_guarantee = cgroup.is_some();
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (go, say_go) = pipe.map_err(Fault::kernel("make a pipe"))?;
        let made = sys::fork_into(jail::namespaces(tier));
        let (side, pidfd) = made.map_err(Fault::at(format!("create the namespaces of tier {tier}")))?;
        let child = match side {
            Fork::Parent(child) => child,
            Fork::Child => {
                // What belongs to other rooms is no business of this one.
                self.living.clear();
                drop(say_go);
                let stdio = [stdio[0].as_fd(), stdio[1].as_fd()];
                let plan = Plan { tier, room: &room, filter, memory_guarantee, stdio };
                jail::live(Birth { plan, line: line.as_fd(), go })
            }
        };
        drop(go);
        let pidfd = pidfd.expect("a parent has one");
        let line = line.try_clone().map_err(Fault::at("keep the line to a room"))?;
        let prepared = prepare(tier, child, &pidfd, cgroup.as_ref(), &line)
            .and_then(|()| rustix::io::write(&say_go, &[1]).map(|_| ()).map_err(Fault::kernel("start a room")));
        let room = Living { pidfd, line, cgroup };
        match prepared {
            Ok(()) => self.living.push(room),
            Err(fault) => {
                // Nobody says "go" any more, so it ends.
                drop(say_go);
                drop(wire::send(&room.line, &Note::Failed(fault), &[]));
                bury(room);
            }
        }
        Ok(())
    }
}

/// What only its parent can do for a newborn.
fn prepare(tier: Tier, child: Pid, pidfd: &OwnedFd, cgroup: Option<&Cgroup>, line: &OwnedFd) -> Result<(), Fault> {
    if tier != Tier::Process {
        jail::write_maps(tier, child).map_err(Fault::at("map the user of a room"))?;
    }
    if let Some(cgroup) = cgroup {
        cgroup.add(child).map_err(Fault::at("put a room into its cgroup"))?;
    }
    let started = Note::Started { pid: child.as_raw_nonzero().get(), memory_guarantee: cgroup.is_some() };
    wire::send(line, &started, &[pidfd.as_fd()]).map_err(Fault::at("tell of a room"))
}

impl Filters {
    fn get(&mut self, profile: Profile, internet: bool) -> Result<&BpfProgram, Fault> {
        use std::collections::hash_map::Entry;
        Ok(match self.0.entry((profile, internet)) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(gap) => {
                let wrong = |words| Fault::at("compile the system call filter")(io::Error::other(words));
                gap.insert(seccomp::program(profile, internet).map_err(wrong)?)
            }
        })
    }
}

fn read_plan(plan: OwnedFd) -> io::Result<Room> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::from(plan);
    file.seek(SeekFrom::Start(0))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Reaps a room's first process and says the last word about it.
fn bury(room: Living) {
    let Living { pidfd, line, cgroup } = room;
    let status = loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    let exit = match status {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
        },
        _ => Exit::Signal(libc::SIGKILL),
    };
    let counted = cgroup.map(Cgroup::finish);
    let gone = Gone {
        exit,
        peak_bytes: counted.as_ref().and_then(|counted| counted.peak_bytes),
        out_of_memory: counted.is_some_and(|counted| counted.out_of_memory),
    };
    // Whoever dropped the room hears nothing of it any more.
    drop(wire::send(line, &Note::Gone(gone), &[]));
}
