//! A pack of a dozen files, as the demo uploads it: time to the event, and memory meanwhile.

use std::time::{Duration, SystemTime};

use carrel_samples::packs;
use serde_json::json;

use crate::memory::{below, mib};
use crate::world::{World, tenant};
use crate::{Row, ms, percentile};

const RUNS: usize = 5;
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(crate) async fn sample() -> Vec<Row> {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let pack = packs().swap_remove(0);
    let (mut walls, mut peak, mut agent) = (Vec::new(), 0, 0);
    for at in 0..RUNS {
        let name = format!("pack-{at}");
        for file in &pack.files {
            world.put("acme", &format!("{name}/{}", file.name), file.bytes.clone()).await;
        }
        let began = SystemTime::now();
        world.put("acme", &format!("{name}/_COMPLETE"), "").await;
        let mut turn = tokio::time::interval(LOOK_EVERY);
        let completion = world.completion("acme", &name);
        tokio::pin!(completion);
        let got = loop {
            tokio::select! {
                got = &mut completion => break got,
                _ = turn.tick() => peak = peak.max(below()),
            }
        };
        walls.push(got.at.duration_since(began).unwrap_or_default());
        let usage = world.outcome(&got.completion).await.usage.expect("measured");
        agent = agent.max(usage.agent_peak_bytes);
    }
    let files = pack.files.len();
    vec![
        Row::new(
            format!("pack of {files} files, marker sent to event received, p50 of {RUNS}"),
            ms(percentile(&mut walls, 50)),
            "goal <= 3 s",
        ),
        Row::new("  peak memory of its agent", mib(agent / 1024), "goal <= 300 MB"),
        Row::new("  peak memory of cloud, dispatcher, worker and agent", mib(peak), ""),
    ]
}
