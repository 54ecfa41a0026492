//! How many uploads become durable, and packs known, in a second: nothing closes them, so nothing is reviewed.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use carrel::plan;
use futures::StreamExt as _;
use serde_json::json;

use crate::world::{World, eventually, tenant};
use crate::{Row, per_second};

const UPLOADS: usize = 3_000;
const AT_ONCE: usize = 64;

pub(crate) async fn packs() -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, files) in [("packs of one file", 1), ("packs of 12 files", 12)] {
        let all = json!({ "limits": { "max_events_per_minute": 1_000_000 } });
        let world = World::start(vec![tenant("acme", all)], |_| {}).await;
        let packs = UPLOADS / files;
        let began = Instant::now();
        let names = (0..packs * files).map(|at| format!("pack-{}/{}.csv", at % packs, at / packs));
        let uploads = names.map(|name| {
            let world = &world;
            async move { world.put("acme", &name, "a,b\n1,2\n").await }
        });
        futures::stream::iter(uploads).buffer_unordered(AT_ONCE).for_each(async |_| {}).await;
        let durable = per_second(packs * files, began);
        eventually("every pack in the ledger", async || {
            (world.names(plan::CONTROL_BUCKET, "open/packs/").await.len() == packs).then_some(())
        })
        .await;
        let accepted = per_second(packs, began);
        let peer = write_and_sync(&world.dir().join("peer"), packs * files);
        let ratio = format!("{durable:.0}/s ({:.2} of peer)", durable / peer);
        let goal = if files == 12 { "goal >= 1,000/s" } else { "" };
        rows.push(Row::new(format!("{what}: uploads durable"), ratio, goal));
        rows.push(Row::new(format!("{what}: distinct packs accepted"), format!("{accepted:.0}/s"), ""));
        rows.push(Row::new("  peer: files written and fsynced, one after another", format!("{peer:.0}/s"), ""));
    }
    rows
}

/// Files that one thread writes and makes durable in a second.
fn write_and_sync(dir: &Path, files: usize) -> f64 {
    std::fs::create_dir_all(dir).expect("a directory");
    let began = Instant::now();
    for at in 0..files {
        let mut file = std::fs::File::create(dir.join(at.to_string())).expect("a file");
        file.write_all(b"a,b\n1,2\n").and_then(|()| file.sync_all()).expect("durable");
    }
    per_second(files, began)
}
