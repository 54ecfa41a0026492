//! What the processes of a room use, counted from outside: the supervisor's own eyes where no cgroup counts.
//!
//! Every process of a room descends from its first one. A sample can miss what lives shorter than the pause between
//! two of them; so it bounds, and guarantees nothing.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

use crate::strays::children;

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

/// Looks at everything that descends from `first`. What went away in the middle counts nothing.
pub(crate) fn sample(first: Pid) -> Sample {
    let page = rustix::param::page_size() as u64;
    let tick = rustix::param::clock_ticks_per_second().max(1);
    let (mut open, mut seen, mut sum) = (vec![first], 0, Sample::default());
    while let Some(process) = open.pop() {
        seen += 1;
        if seen > MOST {
            break;
        }
        let number = process.as_raw_nonzero();
        if let Some(stat) = fs::read_to_string(format!("/proc/{number}/stat")).ok().as_deref().and_then(Stat::read) {
            // Those that were waited for are in their parent's sum; the first process's own parent is not of the room.
            sum.cpu += Duration::from_millis(stat.ticks.saturating_mul(1000) / tick);
            if process != first {
                sum.processes += 1;
                sum.resident_bytes += stat.resident_pages.saturating_mul(page);
            }
        }
        open.extend(children(process).unwrap_or_default());
    }
    sum
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
    fn this_process_uses_something() {
        let own = std::fs::read_to_string("/proc/self/stat").expect("read");
        assert!(Stat::read(&own).expect("parsed").resident_pages > 0);
    }
}
