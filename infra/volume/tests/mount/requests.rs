//! What is asked of the server, and what is held here meanwhile, are bounded by what is read.

use std::fs::File;
use std::io::Read as _;

use carrel_volume::Limits;

use crate::proxy::Line;
use crate::world::{World, blocking, can_mount, many, pattern, stamp};

const MIB: usize = 1 << 20;
const FILES: usize = 2_000;
/// Entries of a page of a listing.
const PAGE: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn many_files_are_listed_by_the_page_and_read_by_one_request_each_or_two() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put_many(FILES, many).await;
    let line = Line::to(&world.endpoint()).await;
    let volume = world.mount_from(&line.endpoint(), Limits::default()).await;
    let names = volume.names("many").await;
    assert_eq!(names.len(), FILES);
    let listed = line.requests();
    // A few more find out that there is such a directory.
    assert!((1..=FILES / PAGE + 8).contains(&listed), "{listed} requests");
    let at = volume.path("");
    blocking(move || {
        for number in 0..FILES {
            assert_eq!(std::fs::read(at.join(many(number))).expect("readable"), many(number).into_bytes());
        }
    })
    .await;
    let read = line.requests() - listed;
    assert!((FILES..=2 * FILES).contains(&read), "{read} requests");
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_passes_through_a_process_that_stays_small() {
    const PARTS: usize = 256;
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    let mut part = pattern(MIB).to_vec();
    let mut content = part.repeat(PARTS);
    stamp(&mut content, 0);
    world.put("large", content).await;
    let (at, serving) = world.spawn();
    let path = at.path("large");
    blocking(move || {
        let mut file = File::open(path).expect("opens");
        let mut got = vec![0; MIB];
        for number in 0..PARTS {
            file.read_exact(&mut got).expect("readable");
            stamp(&mut part, number * MIB);
            assert!(got == part, "part {number}");
        }
        assert_eq!(file.read(&mut got).expect("readable"), 0);
    })
    .await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", serving.0.id())).expect("it serves");
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("told");
    let most: usize = most.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(most < 200 << 10, "{most} kB");
}
