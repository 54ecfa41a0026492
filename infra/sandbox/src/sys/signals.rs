//! Signals: received by asking for them, ignored, or as a new program finds them.

use std::io;

use super::check;

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
}

/// Has every signal do what it does by default, whatever those before this program have set, and lets all through.
pub(crate) fn as_new() -> io::Result<()> {
    // The numbers that the kernel gives to signals.
    listen_again(&std::array::from_fn::<i32, 64, _>(|at| i32::try_from(at + 1).expect("small")))
}

/// Has these signals do what they do by default, and lets all through.
pub(crate) fn listen_again(signals: &[i32]) -> io::Result<()> {
    // The kernel's own structure, all zeroes: SIG_DFL, no flags, no mask. Not by the C library, which keeps two signals to
    // itself and would leave those ignored; KILL and STOP refuse, and need it not.
    let default = [0_u64; 4];
    for signal in signals {
        // SAFETY: the kernel reads a structure of at most that size, which is live, and is told its own size of a mask.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, *signal, default.as_ptr(), std::ptr::null_mut::<u8>(), 8) };
    }
    // SAFETY: a set of signals is a plain C struct for which all zeroes is a value.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is live and ours; the calls set the mask of a process of one thread.
    check(unsafe {
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    })
}

/// Ignores signals that are meant for the program beside us.
pub(crate) fn ignore(signals: &[i32]) {
    for signal in signals {
        // SAFETY: SIG_IGN is a disposition that runs no code.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}
