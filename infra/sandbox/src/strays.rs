//! Descendants that left the process group, where no namespace ends them: whoever orphans them leaves them to this
//! process, which kills them. Those of a first process that was killed itself are left to the launcher.
//!
//! Nothing that a process does to itself takes it out of reach, neither a session of its own nor an erased environment.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};

use crate::sys::{self, Which};

/// Rounds of looking; what is forked or orphaned in the middle of one is seen by the next.
const ROUNDS: usize = 1_000;

/// Makes this process the one that orphans below it are left to.
pub(crate) fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Kills and reaps every child of this process but those that are spared. An error means that some may live on.
pub(crate) fn kill(spared: &[Pid]) -> io::Result<()> {
    for _ in 0..ROUNDS {
        let mut children = children(getpid())?;
        children.retain(|child| !spared.contains(child));
        if children.is_empty() {
            return Ok(());
        }
        for child in &children {
            match kill_process(*child, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for child in children {
            sys::reap(Which::This(child))?;
        }
    }
    Err(io::Error::other("processes of an ended command fork faster than they are killed"))
}

/// The children of a process, by the kernel's own lists: one for each of its threads.
pub(crate) fn children(parent: Pid) -> io::Result<Vec<Pid>> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", parent.as_raw_nonzero()))? {
        let thread = thread?.path();
        match fs::read_to_string(thread.join("children")) {
            Ok(listed) => all.extend(listed.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?))),
            // The thread ended in between; where it is still there, this kernel keeps no such list.
            Err(error) if is_gone(&error) && !thread.exists() => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// What was asked of a process that is there no more.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}
