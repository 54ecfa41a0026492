//! Process groups that outlived their cloud: found, proven to be its tasks, killed.
//!
//! A recorded process is recognised by id and start time. A cloud that died between a start and its record is no
//! excuse: such a task is recognised by the execution's name in its environment, which no other process bears; and so is
//! one whose record cannot be read any more.

use std::collections::HashSet;
use std::fs;

use rustix::process::Signal;

use super::body::signal;
use super::record::{ExecutionRecord, Process};

const VARIABLE: &[u8] = b"CLOUD_RUN_EXECUTION=";

/// A line of the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    group: i32,
    start_ticks: u64,
}

/// What no other process has, for one that runs.
pub(super) fn identify(pid: i32) -> Option<Process> {
    stat(pid).map(|stat| Process { pid, start_ticks: stat.start_ticks })
}

/// Kills the groups of these executions, and of those of which there is but a name.
pub(super) fn kill(stale: &[ExecutionRecord], torn: &[String]) {
    if stale.is_empty() && torn.is_empty() {
        return;
    }
    let names: HashSet<&[u8]> = stale.iter().map(|record| &record.name).chain(torn).map(String::as_bytes).collect();
    let processes: Vec<Process> =
        stale.iter().flat_map(|record| record.tasks.iter().filter_map(|task| task.process)).collect();
    let own = rustix::process::getpgrp().as_raw_nonzero().get();
    let mut groups = HashSet::new();
    for pid in pids() {
        let Some(stat) = stat(pid) else { continue };
        let recorded = processes.contains(&Process { pid, start_ticks: stat.start_ticks });
        if recorded || execution(pid).is_some_and(|name| names.contains(name.as_slice())) {
            groups.insert(stat.group);
        }
    }
    for group in groups.into_iter().filter(|group| *group != own) {
        signal(group, Signal::KILL);
    }
}

fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command's name may hold anything, also parentheses: the fields follow the last one.
fn parse(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(Stat { group: fields.get(2)?.parse().ok()?, start_ticks: fields.get(19)?.parse().ok()? })
}

fn execution(pid: i32) -> Option<Vec<u8>> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(VARIABLE)).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::Command;

    use super::*;

    #[test]
    fn what_runs_for_a_torn_execution_is_killed_by_its_name_and_nothing_else_is() {
        let sleep = |execution: &str| {
            let mut command = Command::new("/bin/sleep");
            command.arg("600").env("CLOUD_RUN_EXECUTION", execution).process_group(0).spawn().expect("it starts")
        };
        let (mut torn, mut other) = (sleep("torn-abcdefgh"), sleep("torn-abcdefghi"));
        kill(&[], &["torn-abcdefgh".to_owned()]);
        assert_eq!(torn.wait().expect("it is ours").signal(), Some(9));
        assert_eq!(other.try_wait().expect("it is ours"), None);
        other.kill().expect("it is ours");
        other.wait().expect("it is ours");
    }

    #[test]
    fn a_command_named_to_confuse_is_read_right() {
        let line = "42 (a) R 1 (b)) S 7 40 40 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1";
        assert_eq!(parse(line), Some(Stat { group: 40, start_ticks: 987_654 }));
        assert_eq!(parse("42 (a"), None);
    }
}
