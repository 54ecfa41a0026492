//! The system calls that no safe crate offers, each behind a function that is safe to call.
//!
//! What `unsafe` a room takes stands in this directory: processes and descriptors here, signals and the kernel's walls
//! beside it; `inherit` has the rest of the project's.
#![expect(
    unsafe_code,
    reason = "fork, exec, wait4, signals, mount_setattr, Landlock; every block says why it is sound"
)]

mod signals;
mod walls;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ended::Exit;

pub(crate) use signals::{Signals, as_new, ignore, listen_again};
pub(crate) use walls::{has_domain, loopback_up, restrict_mount, stay_in_domain};

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

/// Makes the control groups that this process is in the roots of all that it sees of groups; where it may not, as in a room,
/// they begin where they did before.
pub(crate) fn begin_at_own_cgroups() -> io::Result<()> {
    // SAFETY: unshare takes a plain number; this flag touches neither memory nor descriptors.
    match check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Ok(()),
        other => other,
    }
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

/// Closes every descriptor from 3 on but these. For a fresh fork that runs to [`exit`] or [`exec`]: it drops no value
/// that owned one of them.
pub(crate) fn close_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<libc::c_uint> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for end in kept.into_iter().chain([libc::c_uint::MAX]) {
        if first < end {
            // SAFETY: by the contract no value lives on that owns a descriptor of this range.
            if unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = end.saturating_add(1).max(first);
    }
    Ok(())
}

/// Has the runtime say when something can be read here.
pub(crate) fn watch(from: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped, and the watch owns it until then.
    let watched = unsafe { AsyncFd::register_with_interest(from, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
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

/// Which child is to be reaped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    /// Any that has ended already.
    Ended,
    /// This one, once it ends.
    This(Pid),
}

/// Reaps a child; `None` if there is none such.
pub(crate) fn reap(which: Which) -> io::Result<Option<Reaped>> {
    let (child, options) = match which {
        Which::Ended => (-1, libc::WNOHANG),
        Which::This(child) => (child.as_raw_nonzero().get(), 0),
    };
    let mut status = 0;
    // SAFETY: rusage is a plain C struct of integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live, writable values of the right type.
        let pid = unsafe { libc::wait4(child, &raw mut status, options, &raw mut usage) };
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

fn check(result: libc::c_int) -> io::Result<()> {
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn span(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000);
    Duration::from_micros(micros + u64::try_from(time.tv_usec).unwrap_or(0))
}
