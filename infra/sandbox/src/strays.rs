//! Descendants that left the process group: found over `/proc` by the mark in their environment, and killed.
//!
//! Best effort by nature: a process that execs with an erased environment cannot be told from a stranger's.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

/// The variable that marks every process of one command.
pub(crate) const VARIABLE: &str = "CARREL_ROOM";

/// Rounds of looking; a fork in the middle of one is seen by the next.
const ROUNDS: usize = 16;

/// A mark that no other command on this machine carries.
pub(crate) fn mark() -> OsString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{}-{nanos}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)).into()
}

/// Kills every process that carries `mark`, except `leader`, which is dead already and waits to be reaped.
pub(crate) fn kill(mark: &OsString, leader: Pid) {
    let wanted = [VARIABLE.as_bytes(), b"=", mark.as_bytes()].concat();
    for _ in 0..ROUNDS {
        let mut found = 0_usize;
        for pid in processes().filter(|pid| *pid != leader) {
            let Ok(environ) = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else { continue };
            if environ.split(|b| *b == 0).any(|entry| entry == wanted) {
                found += 1;
                if let Err(error) = kill_process(pid, Signal::KILL) {
                    tracing::debug!(%error, "a stray process went by itself");
                }
            }
        }
        if found == 0 {
            return;
        }
        std::thread::yield_now();
    }
    tracing::warn!("processes of an ended command keep forking; the last look did not find them all dead");
}

fn processes() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
}
