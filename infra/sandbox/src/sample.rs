//! What the processes of a room use, counted from outside: the supervisor's own eyes where no cgroup counts.
//!
//! Every process of a room descends from its first one. A sample can miss what lives shorter than the pause between
//! two of them, and pages that many share and none holds at the moment; so it bounds, and guarantees nothing. What may
//! not be read is an error, never a zero.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Pid;

use crate::strays::{children, is_gone};

/// Processes that one sample looks at; the room's own limit is lower.
const MOST: usize = 10_000;

/// One look at a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Resident memory of all processes, what they share counted for each.
    pub(crate) resident_bytes: u64,
    /// How many they are, the first one not counted.
    pub(crate) processes: u64,
    /// Processor time of all, and of those that they waited for.
    pub(crate) cpu: Duration,
}

/// Looks at everything that descends from `first`, which must be there. What went away in the middle counts nothing.
pub(crate) fn sample(first: Pid) -> io::Result<Sample> {
    let page = rustix::param::page_size() as u64;
    let tick = rustix::param::clock_ticks_per_second().max(1);
    let (mut open, mut seen, mut sum) = (vec![first], 0, Sample::default());
    while let Some(process) = open.pop() {
        seen += 1;
        if seen > MOST {
            break;
        }
        let number = process.as_raw_nonzero();
        let text = match fs::read_to_string(format!("/proc/{number}/stat")) {
            Err(error) if process != first && is_gone(&error) => continue,
            text => text?,
        };
        let stat = Stat::read(&text).ok_or_else(|| io::Error::other(format!("/proc/{number}/stat reads {text:?}")))?;
        // Those that were waited for are in their parent's sum; the first process's own parent is not of the room.
        sum.cpu += Duration::from_millis(stat.ticks.saturating_mul(1000) / tick);
        if process != first {
            sum.processes += 1;
            sum.resident_bytes += stat.resident_pages.saturating_mul(page);
        }
        match children(process) {
            Ok(children) => open.extend(children),
            Err(error) if process != first && is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat`. Fields are counted after the program's name, which may hold anything but ends with the
    /// last `)`: utime, stime, cutime, cstime are the 12th to 15th, resident pages the 22nd.
    fn read(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<i64>().ok().map(|n| u64::try_from(n).unwrap_or(0));
        let ticks = [11, 12, 13, 14].into_iter().map(number).sum::<Option<u64>>()?;
        Some(Self { ticks, resident_pages: number(21)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_s_name_cannot_forge_its_figures() {
        let text = "7 (a) R 1 1 1 (x) S 1 7 7 0 -1 4194560 9 8 0 0 3 4 5 6 20 0 1 0 100 1000 55 1844 1 1";
        assert_eq!(Stat::read(text), Some(Stat { ticks: 18, resident_pages: 55 }));
    }

    #[test]
    fn a_room_that_cannot_be_seen_is_no_room_that_uses_nothing() {
        let own = sample(rustix::process::getpid()).expect("this process is there");
        assert_eq!(own.resident_bytes == 0, own.processes == 0, "{own:?}");
        let nobody = Pid::from_raw(i32::MAX).expect("a number");
        assert!(is_gone(&sample(nobody).expect_err("nobody has it")));
    }

    #[test]
    fn this_process_uses_something() {
        let own = std::fs::read_to_string("/proc/self/stat").expect("read");
        assert!(Stat::read(&own).expect("parsed").resident_pages > 0);
    }
}
