//! Rooms that an OCI runtime builds: the view is laid out as in tier `namespaces`, below the root of a keeper of its own,
//! and the runtime divides the rest by a bundle.
//!
//! ```text
//! keeper, process 1 of its namespace: /room (the view) · /bundle (the plan as JSON) · programs, for the runtime alone
//!   └─ crun, runc: leaves the command to the keeper, which reaps it    └─ runsc, kata: stays, and ends as the command did
//! ```
//! The runtime's state lies in the keeper's memory: what the kernel ends with the keeper leaves nothing behind.

mod bundle;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::Pid;

use crate::ended::Exit;
use crate::jail::Plan;
use crate::launcher;
use crate::messages::Fault;
use crate::room::Entry;
use crate::sys::{self, Fork, Which};
use crate::tier::Runtime;

/// Where the room's files lie, as the keeper calls them.
pub(crate) const ROOM: &str = "/room";
const BUNDLE: &str = "/bundle";
const STATE: &str = "/run/oci";
const LOG: &str = "/run/oci.log";
const PID: &str = "/run/oci.pid";
/// Where runtimes lie.
const PATH: [&str; 6] = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/usr/local/sbin", "/bin", "/opt/kata/bin"];
/// Bytes of a runtime's last words that are passed on.
const WORDS: usize = 400;

/// Where a runtime lies on this machine.
pub(crate) fn find(runtime: Runtime) -> Option<PathBuf> {
    PATH.into_iter().map(|dir| Path::new(dir).join(runtime.program())).find(|path| path.is_file())
}

/// The runtime's own view. Kata has its settings, kernel and image in the last two, if not below /usr.
pub(crate) fn programs() -> Vec<Entry> {
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/kata-containers", "/opt/kata"]
        .into_iter()
        .filter_map(|path| Entry::same(Path::new(path)))
        .collect()
}

/// Writes the bundle of a room whose user is `user` in the keeper's namespace.
pub(crate) fn write_bundle(plan: &Plan<'_>, runtime: Runtime, user: u32) -> Result<(), Fault> {
    let config = bundle::config(plan.room, runtime, user, plan.memory_guarantee);
    let write = || -> io::Result<()> {
        // An empty directory is where runtimes look for control groups: the room's is the keeper's, and stays it.
        for dir in [BUNDLE, STATE, "/tmp", "/sys/fs/cgroup"] {
            fs::create_dir_all(dir)?;
        }
        // Where runtimes mount what is theirs.
        for dir in ["proc", "sys", "tmp"] {
            fs::create_dir_all(Path::new(ROOM).join(dir))?;
        }
        fs::write(Path::new(BUNDLE).join("config.json"), serde_json::to_vec(&config)?)
    };
    write().map_err(Fault::at("write the bundle of a room"))
}

/// Has the runtime start the command, and returns the process that ends when the command does.
pub(crate) fn start(runtime: Runtime, program: &Path, plan: &Plan<'_>) -> Result<Pid, Fault> {
    let step = || format!("start {}", plan.room.command.program.display());
    let command = |error| Fault { command: true, ..Fault::kernel(step())(error) };
    // Runtimes name this in words of their own; the kernel's are the same for all.
    look_for(&plan.room.command.program).map_err(command)?;
    let name = runtime.program();
    let words: &[&str] = match runtime {
        Runtime::Crun => &["--cgroup-manager=disabled", "--root", STATE, "--log", "file:/run/oci.log"],
        Runtime::Runc | Runtime::Kata => &["--root", STATE, "--log", LOG],
        Runtime::Runsc => &[
            "--root",
            STATE,
            "--log",
            LOG,
            "--platform=ptrace",
            "--network=none",
            "--ignore-cgroups",
            "--rootless",
            "--oci-seccomp",
        ],
    };
    let run: &[&str] = match runtime {
        Runtime::Crun | Runtime::Runc => &["run", "--detach", "--pid-file", PID, "--bundle", BUNDLE, "room"],
        Runtime::Runsc | Runtime::Kata => &["run", "--bundle", BUNDLE, "room"],
    };
    let text = |word: &str| std::ffi::CString::new(word).expect("a word without NUL");
    let args: Vec<_> = [name].iter().chain(words).chain(run).map(|word| text(word)).collect();
    let path = text(&program.to_string_lossy());
    let env = [text("PATH=/usr/sbin:/usr/bin:/sbin:/bin"), text("XDG_RUNTIME_DIR=/run")];
    let made = sys::fork().map_err(Fault::at("fork"))?;
    let child = match made {
        Fork::Parent(child) => child,
        Fork::Child => {
            drop(become_runtime(plan.stdio, &path, &args, &env));
            sys::exit(127)
        }
    };
    if runtime.stays() {
        return Ok(child);
    }
    let ended = sys::reap(Which::This(child)).map_err(Fault::at(format!("wait for {name}")))?;
    match ended.map(|ended| ended.exit) {
        Some(Exit::Code(0)) => {}
        _ => return Err(Fault::at(format!("start a command by {name}"))(io::Error::other(last_words()))),
    }
    let number = fs::read_to_string(PID).map_err(Fault::at(format!("read what {name} started")))?;
    let number = number.trim().parse().ok().and_then(Pid::from_raw);
    number.ok_or_else(|| Fault::at(format!("read what {name} started"))(io::ErrorKind::InvalidData.into()))
}

fn become_runtime(
    stdio: [BorrowedFd<'_>; 2],
    program: &std::ffi::CStr,
    args: &[std::ffi::CString],
    env: &[std::ffi::CString],
) -> io::Result<()> {
    rustix::process::setsid()?;
    let nothing = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty())?;
    sys::put(nothing.as_fd(), 0)?;
    for (number, descriptor) in (1..).zip(stdio) {
        sys::put(descriptor, number)?;
    }
    sys::close_on_exec_from(3)?;
    sys::listen_again(&launcher::DEAF_TO)?;
    Err(sys::exec(program, args, env))
}

fn look_for(program: &Path) -> rustix::io::Result<()> {
    let root = rustix::fs::open(ROOM, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = program.strip_prefix("/").unwrap_or(program);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).map(drop)
}

/// The end of what the runtime logged.
fn last_words() -> String {
    let log = fs::read_to_string(LOG).unwrap_or_default();
    let log = log.trim();
    let from = log.char_indices().rev().nth(WORDS - 1).map_or(0, |(at, _)| at);
    if log.is_empty() { "it did not say why".to_owned() } else { log[from..].replace('\n', "; ") }
}

/// A runtime that stays ends with the code that shells give to a signal.
pub(crate) fn exit(runtime: Runtime, exit: Exit) -> Exit {
    match exit {
        Exit::Code(code @ 129..=159) if runtime.stays() => Exit::Signal(code - 128),
        other => other,
    }
}
