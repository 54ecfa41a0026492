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
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, pidfd_send_signal, setrlimit, waitid,
};
use seccompiler::BpfProgram;

use crate::cgroup::{Cgroup, Groups};
use crate::ended::Exit;
use crate::jail::{self, Birth, Plan};
use crate::messages::{Fault, Gone, Launch, Note};
use crate::room::{Profile, Room};
use crate::sys::{self, Fork};
use crate::tier::Tier;
use crate::{seccomp, strays, wire};

/// Signals that a launcher ignores, and with it what it gives birth to, until that becomes a command.
pub(crate) const DEAF_TO: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// The line to this program's launcher.
static LAUNCHER: OnceLock<OwnedFd> = OnceLock::new();

/// Starts the launcher of this program. To be called first in `main`, before there is a second thread; called again it
/// does nothing.
pub fn enter() -> io::Result<()> {
    if LAUNCHER.get().is_some() {
        return Ok(());
    }
    let (ours, theirs) = wire::pair()?;
    let program = rustix::process::getpid();
    match sys::fork()? {
        Fork::Parent(_) => {
            // Only a second thread could have been faster, and the contract excludes one.
            drop(LAUNCHER.set(ours));
            // Descriptors on their way to the launcher count against all that this user has on the way, those of the
            // rooms among them: with more than a room may open, none of them stops the next.
            raise_open_files();
            Ok(())
        }
        Fork::Child => {
            drop(ours);
            sys::exit(i32::from(serve(theirs, program).is_err()))
        }
    }
}

/// The line to the launcher, if [`enter`] was called.
pub(crate) fn line() -> Option<&'static OwnedFd> {
    LAUNCHER.get()
}

/// Returns once the launcher of this program is gone, and with it all rooms and the means to open any; never where none
/// was started. Needs a tokio runtime with I/O.
pub async fn launcher_gone() -> io::Result<()> {
    let Some(line) = line() else { return std::future::pending().await };
    let line = sys::watch(line.try_clone()?)?;
    loop {
        let mut ready = line.readable().await?;
        let heard = ready.try_io(|line| wire::receive::<Launch>(line.get_ref(), RecvFlags::DONTWAIT));
        match heard {
            // It says nothing by this line, ever.
            Ok(Ok(Some(_))) | Err(_) => {}
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// What a runtime may start beside the command, whose own limit the bundle carries: runc's two processes have a dozen
/// threads each, gVisor's have more.
const RUNTIME_THREADS: u64 = 128;

/// A room that lives.
struct Living {
    tier: Tier,
    pid: Pid,
    /// Our own copy; the program has another.
    pidfd: OwnedFd,
    line: OwnedFd,
    /// Its first process watches the other end, to see whether this one is gone.
    _go: OwnedFd,
    cgroup: Option<Cgroup>,
    /// Nobody wants it any more, and it was told.
    deserted: bool,
}

/// Filters, compiled once each.
#[derive(Default)]
struct Filters(HashMap<(Profile, bool), BpfProgram>);

fn serve(requests: OwnedFd, program: Pid) -> io::Result<()> {
    // Whoever started the program may have ignored what this process waits for.
    sys::as_new()?;
    // They are meant for the program, which shares the terminal; its end is ours.
    sys::ignore(&DEAF_TO);
    rustix::thread::set_name(c"carrel-launcher")?;
    // A pipe of the program that this process kept open would never end for whoever reads it; so would a volume's channel.
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for number in [0, 1] {
        sys::put(nothing.as_fd(), number)?;
    }
    drop(nothing);
    sys::close_but(&[requests.as_fd()])?;
    strays::adopt()?;
    raise_open_files();
    let mut launcher = Launcher::of(program, requests);
    while launcher.attend()? {}
    // The kernel would end the rooms, but not take their cgroups away.
    while let Some(room) = launcher.living.pop() {
        end(&room.pidfd)?;
        launcher.bury(room);
    }
    Ok(())
}

/// A living room takes a few descriptors in the launcher.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        // A launcher that may open no more serves fewer rooms, and says so when it comes to that.
        Ok(()) | Err(_) => {}
    }
}

struct Launcher {
    requests: OwnedFd,
    program: Pid,
    /// Known from the first room on.
    groups: Option<Groups>,
    living: Vec<Living>,
    filters: Filters,
}

impl Launcher {
    fn of(program: Pid, requests: OwnedFd) -> Self {
        Self { requests, program, groups: None, living: Vec::new(), filters: Filters::default() }
    }

    /// Waits for something to happen and sees to it; false once the program is gone.
    fn attend(&mut self) -> io::Result<bool> {
        let watched = |room: &Living| !room.deserted;
        let (asked, gone, left) = {
            let of = |fd, flags| PollFd::from_borrowed_fd(fd, flags);
            let requests = std::iter::once(of(self.requests.as_fd(), PollFlags::IN));
            let ends = self.living.iter().map(|room| of(room.pidfd.as_fd(), PollFlags::IN));
            // Whoever planned a room holds the other end of its line as long as it is wanted.
            let lines =
                self.living.iter().filter(|room| watched(room)).map(|room| of(room.line.as_fd(), PollFlags::empty()));
            let mut all: Vec<_> = requests.chain(ends).chain(lines).collect();
            match poll(&mut all, None) {
                Ok(_) => {}
                Err(Errno::INTR) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<bool> = all.iter().map(|fd| !fd.revents().is_empty()).collect();
            let (ends, lines) = ready[1..].split_at(self.living.len());
            (ready[0], ends.to_vec(), lines.to_vec())
        };
        for (room, _) in self.living.iter_mut().filter(|room| watched(room)).zip(left).filter(|(_, left)| *left) {
            end(&room.pidfd)?;
            room.deserted = true;
        }
        for at in (0..gone.len()).rev().filter(|at| gone[*at]) {
            let room = self.living.swap_remove(at);
            self.bury(room);
        }
        if !asked {
            return Ok(true);
        }
        let (Launch { tier }, descriptors) = match wire::receive(&self.requests, RecvFlags::empty()) {
            Ok(Some(launch)) => launch,
            Ok(None) => return Ok(false),
            // One that came cut, as it does where no descriptor is left to take it by: whoever asked sees the end of its
            // line, and the other rooms go on.
            Err(error) if error.raw_os_error().is_none() => return Ok(true),
            Err(error) => return Err(error),
        };
        let Ok([line, plan, stdout, stderr]) = <[OwnedFd; 4]>::try_from(descriptors) else {
            return Ok(true);
        };
        if let Err(fault) = self.give_birth(tier, plan, &[stdout, stderr], &line) {
            // Whoever asked may have gone; then the room is not missed.
            drop(wire::send(&line, &Note::Failed(fault), &[]));
        }
        Ok(true)
    }

    fn give_birth(&mut self, tier: Tier, plan: OwnedFd, stdio: &[OwnedFd; 2], line: &OwnedFd) -> Result<(), Fault> {
        let room: Room = read_plan(plan).map_err(Fault::at("read the plan of a room"))?;
        let filter = match tier {
            Tier::Process => Some(self.filters.get(room.profile, false)?),
            Tier::Namespaces => Some(self.filters.get(room.profile, true)?),
            // The runtime applies the bundle's.
            Tier::Oci(_) => None,
        };
        let keep = "keep the line to a room";
        let kept = line.try_clone().map_err(Fault::at(keep))?;
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (go, say_go) = pipe.map_err(Fault::kernel("make a pipe"))?;
        let mut limits = room.limits;
        if matches!(tier, Tier::Oci(_)) {
            limits.processes = limits.processes.saturating_add(RUNTIME_THREADS);
        }
        let program = self.program;
        let cgroup = Groups::may_hold(tier)
            .then(|| self.groups.get_or_insert_with(|| Groups::of(program)))
            .and_then(|groups| groups.make(&limits));
        let memory_guarantee = cgroup.is_some();
        let doors = cgroup.as_ref().map_or(Ok(Vec::new()), Cgroup::doors);
        let made = match doors.and_then(|doors| Ok((sys::fork_into(jail::namespaces(tier))?, doors))) {
            Ok(made) => made,
            Err(error) => {
                if let Some(cgroup) = cgroup {
                    cgroup.finish();
                }
                return Err(Fault::at(format!("create the namespaces of tier {tier}"))(error));
            }
        };
        let (made, doors) = made;
        let (pid, pidfd) = match made {
            (Fork::Parent(pid), Some(pidfd)) => (pid, pidfd),
            _ => {
                // What belongs to other rooms is no business of this one.
                self.living.clear();
                drop(say_go);
                let stdio = [stdio[0].as_fd(), stdio[1].as_fd()];
                let plan = Plan { tier, room: &room, filter, memory_guarantee, stdio };
                jail::live(Birth { plan, line: line.as_fd(), go, doors })
            }
        };
        drop(go);
        let room = Living { tier, pid, pidfd, line: kept, _go: say_go, cgroup, deserted: false };
        let prepared = prepare(&room)
            .and_then(|()| rustix::io::write(&room._go, &[1]).map(|_| ()).map_err(Fault::kernel("start a room")));
        match prepared {
            Ok(()) => self.living.push(room),
            Err(fault) => {
                drop(wire::send(&room.line, &Note::Failed(fault), &[]));
                end(&room.pidfd).map_err(Fault::at("end a room"))?;
                self.bury(room);
            }
        }
        Ok(())
    }

    /// Reaps a room's first process, ends what was left to this one, and says the last word about the room.
    fn bury(&self, room: Living) {
        let Living { tier, pidfd, line, cgroup, .. } = room;
        let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED));
        let exit = match status {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
            },
            _ => Exit::Signal(libc::SIGKILL),
        };
        if tier == Tier::Process {
            let others: Vec<Pid> = self.living.iter().map(|room| room.pid).collect();
            if let Err(error) = strays::kill(&others) {
                drop(wire::send(&line, &Note::Failed(Fault::at("end what a room left behind")(error)), &[]));
            }
        }
        let counted = cgroup.map(Cgroup::finish);
        let gone = Gone {
            exit,
            peak_bytes: counted.as_ref().and_then(|counted| counted.peak_bytes),
            out_of_memory: counted.is_some_and(|counted| counted.out_of_memory),
        };
        // Whoever dropped the room hears nothing of it any more.
        drop(wire::send(line, &Note::Gone(gone), &[]));
    }
}

fn end(pidfd: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What only its parent can do for a newborn.
fn prepare(room: &Living) -> Result<(), Fault> {
    let Living { tier, pid, pidfd, line, cgroup, .. } = room;
    if *tier != Tier::Process {
        jail::write_maps(*tier, *pid).map_err(Fault::at("map the user of a room"))?;
    }
    match cgroup {
        Some(cgroup) => cgroup.add(*pid).map_err(Fault::at("put a room into its cgroup"))?,
        None => offer_to_the_killer(*pid),
    }
    let started = Note::Started { pid: pid.as_raw_nonzero().get(), memory_guarantee: cgroup.is_some() };
    wire::send(line, &started, &[pidfd.as_fd()]).map_err(Fault::at("tell of a room"))
}

/// Where nothing counts a room's memory, the machine may run out of it; then the room goes first, not its program.
fn offer_to_the_killer(pid: Pid) {
    let file = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
    // Best effort, like everything without a cgroup; the report says that there is no guarantee.
    drop(std::fs::write(file, "1000"));
}

impl Filters {
    fn get(&mut self, profile: Profile, own: bool) -> Result<&BpfProgram, Fault> {
        use std::collections::hash_map::Entry;
        Ok(match self.0.entry((profile, own)) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(gap) => {
                let wrong = |words| Fault::at("compile the system call filter")(io::Error::other(words));
                gap.insert(seccomp::program(profile, own).map_err(wrong)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_that_came_cut_ends_nobody_but_itself() {
        let (program, requests) = wire::pair().expect("a line");
        let mut launcher = Launcher::of(rustix::process::getpid(), requests);
        let tier = Tier::Namespaces;
        wire::send(&program, &Launch { tier }, &[]).expect("sent");
        wire::send(&program, &"no launch", &[]).expect("sent");
        let (theirs, ours) = wire::pair().expect("a line");
        wire::send(&program, &Launch { tier }, &[ours.as_fd()]).expect("sent");
        drop(ours);
        for _ in 0..3 {
            assert!(launcher.attend().expect("it goes on"));
        }
        assert!(wire::receive::<Note>(&theirs, RecvFlags::empty()).expect("a line").is_none(), "whoever asked is told");
        drop(program);
        assert!(!launcher.attend().expect("its program is gone"));
    }
}
