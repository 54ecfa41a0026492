//! The system calls that no safe crate offers, each behind a function that is safe to call.
//!
//! What `unsafe` a room takes stands here; `inherit` has the rest of the project's.
#![expect(unsafe_code, reason = "fork, exec, wait4, ioctl, mount_setattr; every block says why it is sound")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ended::Exit;

/// Which side of a fork this is.
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks. The caller must have one thread: the child goes on with this one alone and may allocate.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: fork takes nothing; that the child may go on as usual is the contract of this function.
    side(unsafe { libc::fork() }.into())
}

/// Forks into new namespaces (`CLONE_NEW*`), with a pidfd of the child in the parent. One thread, as for [`fork`].
///
/// The oldest of the calls: clone3 is refused with a wrong error by some containers' filters.
pub(crate) fn fork_into(namespaces: libc::c_int) -> io::Result<(Fork, Option<OwnedFd>)> {
    let mut pidfd: RawFd = -1;
    let flags = libc::c_long::from(namespaces | libc::CLONE_PIDFD | libc::SIGCHLD);
    // SAFETY: without a stack of its own the child gets a copy of this one, as with fork; the kernel writes the pidfd
    // to a live integer of the right size, and reads no other pointer, the flags that would let it being absent.
    let made = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, &raw mut pidfd, 0_usize, 0_usize) };
    let side = side(made)?;
    let pidfd = match side {
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows of it.
        Fork::Parent(_) => Some(unsafe { OwnedFd::from_raw_fd(pidfd) }),
        Fork::Child => None,
    };
    Ok((side, pidfd))
}

fn side(result: libc::c_long) -> io::Result<Fork> {
    match result {
        0 => Ok(Fork::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the kernel numbers processes from 1");
            Ok(Fork::Parent(pid))
        }
    }
}

/// Ends this process at once: nothing is flushed, no destructor runs, so a forked copy leaves its parent's state alone.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Replaces this process by a program; returns only to say why it could not.
pub(crate) fn exec(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |words: &[CString]| -> Vec<*const libc::c_char> {
        words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer, and they and the strings they point to live for the whole call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Makes descriptor `from` this process's descriptor `to`, kept across exec.
pub(crate) fn put(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    let (from, made) = (from.as_raw_fd(), to);
    // SAFETY: dup2 and fcntl take plain numbers; whoever owned `to` as a Rust value does not exist in a fresh fork.
    check(unsafe { if from == made { libc::fcntl(from, libc::F_SETFD, 0) } else { libc::dup2(from, made) } })
}

/// Closes every descriptor from `first` on when this process becomes another program.
pub(crate) fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: close_range with this flag only marks descriptors.
    match unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the runtime say when something can be read here.
pub(crate) fn watch(from: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped, and the watch owns it until then.
    let watched = unsafe { AsyncFd::register_with_interest(from, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}

/// Which signals a process receives by asking for them.
pub(crate) struct Signals(libc::sigset_t);

/// A signal that was received.
pub(crate) struct Received {
    pub(crate) signal: i32,
    /// Zero if the sender lives outside this process's namespace.
    pub(crate) sender: i32,
}

impl Signals {
    /// Holds these back from now on, in this thread.
    pub(crate) fn hold(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: a set of signals is a plain C struct for which all zeroes is a value; sigemptyset then defines it.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is live and ours; the numbers are those of signals.
        unsafe { libc::sigemptyset(&raw mut set) };
        for signal in signals {
            // SAFETY: as above.
            check(unsafe { libc::sigaddset(&raw mut set, *signal) })?;
        }
        // SAFETY: `set` is live; no former mask is asked for.
        check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) })?;
        Ok(Self(set))
    }

    /// Waits for the next of them.
    pub(crate) fn next(&self) -> io::Result<Received> {
        loop {
            // SAFETY: siginfo_t is a plain C struct for which all zeroes is a value.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: both are live, and the kernel writes the second only.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.0, &raw mut info) };
            if signal > 0 {
                // SAFETY: every signal that is held here carries its sender.
                return Ok(Received { signal, sender: unsafe { info.si_pid() } });
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Lets all signals through and has them do what they do by default, as a new program expects.
    pub(crate) fn restore(self) -> io::Result<()> {
        let mut none = self.0;
        // SAFETY: `none` is live and ours; the calls set dispositions and mask of a process of one thread.
        check(unsafe {
            libc::sigemptyset(&raw mut none);
            for signal in [libc::SIGPIPE, libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::signal(signal, libc::SIG_DFL);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
        })
    }
}

/// Ignores signals that are meant for the program beside us.
pub(crate) fn ignore(signals: &[i32]) {
    for signal in signals {
        // SAFETY: SIG_IGN is a disposition that runs no code.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// What a reaped process was and used.
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    pub(crate) exit: Exit,
    /// Processor time of it and of the children it had waited for.
    pub(crate) cpu: Duration,
    /// Peak resident memory of the largest of them, bytes.
    pub(crate) peak_bytes: u64,
}

/// Reaps a child that has ended; `None` if there is none, or none has ended and `wait` is false.
pub(crate) fn reap(wait: bool) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: rusage is a plain C struct of integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let options = if wait { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: both pointers are to live, writable values of the right type.
        let pid = unsafe { libc::wait4(-1, &raw mut status, options, &raw mut usage) };
        if pid == 0 {
            return Ok(None);
        }
        if pid > 0 {
            let exit = if libc::WIFEXITED(status) {
                Exit::Code(libc::WEXITSTATUS(status))
            } else {
                Exit::Signal(libc::WTERMSIG(status))
            };
            let peak_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024);
            return Ok(Some(Reaped { pid, exit, cpu: span(usage.ru_utime) + span(usage.ru_stime), peak_bytes }));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Ok(None),
            _ => return Err(error),
        }
    }
}

/// Attributes of a mount that are switched on, for it and, if asked, everything below it.
pub(crate) fn restrict_mount(mount: BorrowedFd<'_>, attributes: u64, below: bool) -> io::Result<()> {
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and `change` is live and as long as the kernel is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Brings up the loopback interface of this process's network namespace.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: ifreq is a plain C struct for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("both are small");
    // SAFETY: this request reads one ifreq, which is live.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn span(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000);
    Duration::from_micros(micros + u64::try_from(time.tv_usec).unwrap_or(0))
}
