//! What the fleet costs on one machine, measured over whole processes; prints one table.
//!
//! `cargo bench --profile dev` measures the build that `cargo run` and the tests use. Every figure that depends on the
//! machine stands beside a peer measured in the same run. Refuses to judge: goals are printed, never asserted.

use std::time::{Duration, Instant};

mod intake;
mod latency;
mod memory;
mod pack;
#[path = "../promises/world.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod world;

/// One line of the table.
struct Row {
    what: String,
    measured: String,
    goal: &'static str,
}

impl Row {
    fn new(what: impl Into<String>, measured: impl Into<String>, goal: &'static str) -> Self {
        Self { what: what.into(), measured: measured.into(), goal }
    }
}

fn main() {
    // `cargo test --benches` asks whether it starts, not how fast it is.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let rows = runtime.block_on(async {
        let mut rows = memory::idle().await;
        rows.extend(latency::empty_review().await);
        rows.extend(intake::packs().await);
        rows.extend(pack::sample().await);
        rows
    });
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("{}, {cores} cores, {}", cpu(), if cfg!(debug_assertions) { "dev profile" } else { "optimised profile" });
    let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
    for Row { what, measured, goal } in rows {
        println!("{}", format!("{what:width$}  {measured:>24}  {goal}").trim_end());
    }
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    name.unwrap_or("unknown processor").to_owned()
}

/// The value below which `share` percent of the samples lie.
fn percentile(samples: &mut [Duration], share: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * share / 100).min(samples.len() - 1)]
}

fn ms(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}

fn per_second(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}
