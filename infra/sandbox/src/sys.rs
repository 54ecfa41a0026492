//! The system calls that no safe crate offers: what happens between fork and exec, and reaping with usage.
//!
//! What `unsafe` a child process takes stands here, behind two functions that are safe to call; `inherit` has the rest.
#![expect(unsafe_code, reason = "pre_exec and wait4; every block says why it is sound")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use rustix::process::Pid;

use crate::command::Limits;
use crate::ended::Exit;

/// Sets the limits, no new privileges, death with the parent's thread and closed descriptors for the child to be.
pub(crate) fn confine(command: &mut std::process::Command, limits: &Limits) {
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    // A core dump would write the customer's bytes to a place nobody looks after.
    let rlimits = [
        (libc::RLIMIT_AS, limits.memory_bytes, 0),
        // At the hard limit comes SIGKILL, which could be anybody's; a second before it SIGXCPU, which names the cause.
        (libc::RLIMIT_CPU, limits.cpu_seconds, 1),
        (libc::RLIMIT_FSIZE, limits.file_bytes, 0),
        (libc::RLIMIT_NOFILE, limits.open_files, 0),
        (libc::RLIMIT_CORE, 0, 0),
    ];
    let between = move || {
        for (resource, soft, above) in rlimits {
            let limit = libc::rlimit { rlim_cur: soft, rlim_max: soft.saturating_add(above) };
            // SAFETY: `limit` lives on this stack for the call, which only reads it.
            check(unsafe { libc::setrlimit(resource, &raw const limit) })?;
        }
        // SAFETY: prctl with these options takes plain numbers and touches no memory of ours.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        // SAFETY: as above.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
        // The parent may have died before the line above; then nobody would send the signal.
        // SAFETY: getppid cannot fail and touches no memory.
        if unsafe { libc::getppid() } != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // Marked, not closed: the standard library still needs its own pipe to report a failed exec.
        // SAFETY: close_range only changes flags of descriptors; 0-2 stay out of the range.
        match unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure runs in the child between fork and exec and makes only async-signal-safe system calls; it
    // captures plain numbers, neither allocates nor locks, and its errors are raw OS errors.
    unsafe { command.pre_exec(between) };
}

/// Reaps `pid`, which must be a child of this process that nobody else waits for.
pub(crate) fn reap(pid: Pid) -> io::Result<(Exit, Duration, u64)> {
    let mut status = 0;
    // SAFETY: rusage is a plain C struct of integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live, writable values of the right type.
        let got = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, &raw mut usage) };
        if got >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let exit = if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else {
        Exit::Signal(libc::WTERMSIG(status))
    };
    let peak_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024);
    Ok((exit, span(usage.ru_utime) + span(usage.ru_stime), peak_bytes))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn span(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000);
    Duration::from_micros(micros + u64::try_from(time.tv_usec).unwrap_or(0))
}
