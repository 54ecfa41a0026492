//! Resident memory of the fleet: every process below this one.

use std::collections::BTreeMap;

use serde_json::json;

use crate::Row;
use crate::world::{World, tenant};

/// Proportional set size, in KiB, of every process below this one: pages that processes share are counted once.
pub(crate) fn below() -> u64 {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok());
        parents.extend(parent.map(|parent| (process, parent)));
    }
    let own = std::process::id();
    let is_below = |process: u32| {
        let mut at = process;
        while let Some(parent) = parents.get(&at) {
            if *parent == own {
                return true;
            }
            at = *parent;
        }
        false
    };
    parents.keys().filter(|process| is_below(**process)).map(|process| pss(*process)).sum()
}

fn pss(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

pub(crate) fn mib(kib: u64) -> String {
    format!("{:.0} MiB", kib as f64 / 1024.0)
}

/// Cloud and dispatcher when nothing happens, right after the start.
pub(crate) async fn idle() -> Vec<Row> {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    world.settled().await;
    vec![Row::new("idle memory of cloud and dispatcher", mib(below()), "goal <= 150 MB")]
}
