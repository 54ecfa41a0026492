//! Descendants that left the process group: whoever orphans them leaves them to this process, which kills them.
//!
//! Nothing that a process does to itself takes it out of reach, neither a session of its own nor an erased
//! environment. Since an orphan does not tell whose it was, a process supervises one command at a time.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

/// Rounds of looking; what is forked or orphaned in the middle of one is seen by the next.
const ROUNDS: usize = 1_000;

/// Makes this process the one that orphans below it are left to.
pub(crate) fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Kills and reaps every child of this process, except `leader`, which is dead already and reaped by the caller. An
/// error means that some may live on.
pub(crate) fn kill(leader: Pid) -> io::Result<()> {
    for _ in 0..ROUNDS {
        let mut none_left = true;
        for child in children()?.filter(|child| *child != leader) {
            none_left = false;
            if let Err(error) = kill_process(child, Signal::KILL) {
                tracing::debug!(%error, "a stray process went by itself");
            }
            if let Err(error) = waitpid(Some(child), WaitOptions::empty()) {
                tracing::debug!(%error, "a stray process was reaped elsewhere");
            }
        }
        if none_left {
            return Ok(());
        }
    }
    Err(io::Error::other("processes of an ended command fork faster than they are killed"))
}

fn children() -> io::Result<impl Iterator<Item = Pid>> {
    let own = getpid().as_raw_nonzero().to_string();
    let processes = fs::read_dir("/proc")?.filter_map(|entry| {
        let number = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Pid::from_raw(number)
    });
    Ok(processes.filter(move |process| parent(*process).is_some_and(|parent| parent == own)))
}

/// The parent's number: the second field after the program's name, which may hold anything but ends with the last `)`.
fn parent(process: Pid) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1).map(str::to_owned)
}
