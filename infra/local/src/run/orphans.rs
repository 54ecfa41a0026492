//! Process groups that outlived their cloud: found, proven to be its tasks, killed.
//!
//! A recorded process is recognised by id and start time. A cloud that died between a start and its record is no
//! excuse: such a task is recognised by the execution's name in its environment, which no other process bears.

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

/// Kills the groups of these executions.
pub(super) fn kill(stale: &[ExecutionRecord]) {
    if stale.is_empty() {
        return;
    }
    let names: HashSet<&[u8]> = stale.iter().map(|record| record.name.as_bytes()).collect();
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
    use super::*;

    #[test]
    fn a_command_named_to_confuse_is_read_right() {
        let line = "42 (a) R 1 (b)) S 7 40 40 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1";
        assert_eq!(parse(line), Some(Stat { group: 40, start_ticks: 987_654 }));
        assert_eq!(parse("42 (a"), None);
    }
}
