//! The volume against a plain HTTP GET from the same loopback server, and against `rclone mount`; prints one table.
//!
//! Ratios travel between machines, absolute figures do not: everything is measured in one run, five times in turns, and
//! the best stands, since neighbours only ever make it slower. Once more with 20 ms on the line. What a row is called, or
//! part of it, as an argument measures that row alone. Refuses to judge: goals are printed, never asserted.

use std::time::Duration;

use crate::delay::Delayed;
use crate::readers::{Get, Mounted, Reader, sequential, small_name, small_size};
use crate::world::{BUCKET, World, can_mount, pattern};

mod delay;
mod readers;
#[path = "../../tests/mount/world.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod world;

/// Bytes of the large file.
const LARGE: usize = 256 << 20;
/// Small files in the folder `many`, of 4 to 64 KiB.
const FILES: usize = 10_000;
/// Small files in the folder `few`.
const FEW: usize = 200;
const ROUND_TRIP: Duration = Duration::from_millis(20);
const ROUNDS: usize = 5;

/// What is measured: its name, its unit, and the goal for volume ÷ GET.
type What = (&'static str, &'static str, &'static str);

/// By GET, by the volume, by rclone.
type By = [Option<f64>; 3];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` asks whether it starts, not how fast it is.
    if arguments.iter().any(|argument| argument == "--test") || !can_mount() {
        return;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (mut world, line) = runtime.block_on(async {
        let world = World::start().await;
        fill(&world).await;
        let line = Delayed::to(&world.endpoint(), ROUND_TRIP).await;
        (world, line)
    });
    header();
    let (near, far) = (world.endpoint(), line.endpoint());
    for ((what, unit, goal), measure) in table() {
        let chosen = wanted.is_empty() || wanted.iter().any(|part| what.contains(part.as_str()));
        if chosen {
            print(what, unit, measure(&world, if what.starts_with("20 ms") { &far } else { &near }), goal);
        }
    }
    runtime.block_on(world.stop());
}

type Measure = fn(&World, &str) -> By;

fn table() -> Vec<(What, Measure)> {
    let sequential: Measure = |world, at| turns(world, at, |it, _| it.sequential() / 1e6);
    vec![
        (("sequential, cold", "MB/s", "0.75"), sequential),
        (("random 4 KiB, cold", "/s", "0.80"), |world, at| turns(world, at, |it, n| it.random(&places(2000, n)))),
        (("10,000 small files, listed and read", "/s", "0.60"), |world, at| {
            turns(world, at, |it, _| it.small("many", FILES))
        }),
        (("10,000 listed with attributes", "/s", ""), listed),
        (("read again (GET: local disk, warm)", "MB/s", "0.85"), again),
        (("20 ms away: sequential", "MB/s", "0.75"), sequential),
        (("20 ms away: random 4 KiB", "/s", "0.80"), |world, at| turns(world, at, |it, n| it.random(&places(100, n)))),
        (("20 ms away: 200 small files", "/s", "0.60"), |world, at| turns(world, at, |it, _| it.small("few", FEW))),
    ]
}

async fn fill(world: &World) {
    let objects = world.objects().await;
    objects.put(BUCKET, "large", pattern(LARGE), "").await.expect("written");
    let mut writing = tokio::task::JoinSet::new();
    let content = pattern(64 * 1024);
    for lane in 0..32 {
        let (objects, content) = (objects.clone(), content.clone());
        writing.spawn(async move {
            for (folder, files) in [("many", FILES), ("few", FEW)] {
                for number in (lane..files).step_by(32) {
                    let body = content.slice(..small_size(number));
                    objects.put(BUCKET, &small_name(folder, number), body, "").await.expect("written");
                }
            }
        });
    }
    writing.join_all().await;
}

/// Places all over the large file, the same for everybody but new in every round.
fn places(count: usize, round: usize) -> Vec<u64> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15 ^ round as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % (LARGE as u64 / 4096) * 4096
    };
    (0..count).map(|_| next()).collect()
}

fn best(samples: Vec<f64>) -> Option<f64> {
    samples.into_iter().max_by(f64::total_cmp)
}

/// Measures everybody in turns, each mount fresh.
fn turns(world: &World, endpoint: &str, measure: impl Fn(&mut dyn Reader, usize) -> f64) -> By {
    let mut samples = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        samples[0].push(measure(&mut Get::new(endpoint, world.cloud().owner_token()), round));
        samples[1].push(measure(&mut Mounted::volume(world, endpoint), round));
        if let Some(mut rclone) = Mounted::rclone(endpoint, world.cloud().owner_token()) {
            samples[2].push(measure(&mut rclone, round));
        }
    }
    samples.map(best)
}

fn listed(world: &World, endpoint: &str) -> By {
    let rclone = Mounted::rclone(endpoint, world.cloud().owner_token()).map(|it| it.list());
    [None, Some(Mounted::volume(world, endpoint).list()), rclone]
}

/// Reading again what was read before, against a file on the local disk that was read before.
fn again(world: &World, endpoint: &str) -> By {
    let local = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(local.path(), pattern(LARGE)).expect("written");
    let mut volume = Mounted::volume(world, endpoint);
    let (mut disk, mut mount) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let rates = (sequential(local.path()) / 1e6, volume.sequential() / 1e6);
        if round > 0 {
            disk.push(rates.0);
            mount.push(rates.1);
        }
    }
    [best(disk), best(mount), None]
}

fn header() {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("{}, {cores} cores, {} profile", cpu(), if cfg!(debug_assertions) { "dev" } else { "optimised" });
    println!("{:42}{:>9}{:>9}{:>9}{:>14}  goal", "", "GET", "volume", "rclone", "volume ÷ GET");
}

fn print(what: &str, unit: &str, by: By, goal: &str) {
    let [get, volume, rclone] = by.map(|value| value.map_or("–".to_owned(), |value| format!("{value:.0}")));
    let ratio = by[0].zip(by[1]).map_or("–".to_owned(), |(get, volume)| format!("{:.2}", volume / get));
    let what = format!("{what}, {unit}");
    println!("{}", format!("{what:42}{get:>9}{volume:>9}{rclone:>9}{ratio:>14}  {goal}").trim_end());
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    name.unwrap_or("unknown processor").to_owned()
}
