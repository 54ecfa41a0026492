//! Bytes: whatever is read, in whatever order, is what the object holds.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use carrel_volume::Limits;

use crate::world::{World, blocking, can_mount, pattern};

const MIB: usize = 1 << 20;

fn check(file: &File, content: &[u8], offset: usize, length: usize) {
    let mut got = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut got[filled..], (offset + filled) as u64).expect("readable") {
            0 => break,
            count => filled += count,
        }
    }
    let wanted = &content[offset.min(content.len())..(offset + length).min(content.len())];
    assert!(got[..filled] == *wanted, "{length} bytes at {offset}: {filled} came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_any_size_reads_as_its_object() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    let sizes = [0, 1, 4095, 4096, 4097, 65_536, 131_073, MIB - 1, MIB, MIB + 1, 9 * MIB + 7];
    for size in sizes {
        world.put(&format!("sizes/{size}"), pattern(size)).await;
    }
    let volume = world.mount().await;
    for size in sizes {
        let got = volume.read(&format!("sizes/{size}")).await.expect("readable");
        assert!(got == pattern(size), "{size} bytes");
        let again = volume.read(&format!("sizes/{size}")).await.expect("readable again");
        assert!(again == pattern(size), "{size} bytes, again");
    }
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_seeks_in_any_order_give_the_bytes_that_lie_there() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    let content = pattern(24 * MIB + 4321);
    world.put("large", content.clone()).await;
    let volume = world.mount().await;
    let file = volume.open("large").await.expect("opens");
    blocking(move || {
        let end = content.len();
        let fixed = [(end - 10, 10), (0, 1), (end - 1, 100), (end, 10), (end + MIB, 10), (5 * MIB - 3, 7), (0, MIB)];
        for (offset, length) in fixed {
            check(&file, &content, offset, length);
        }
        // Two readers in one handle, one behind the other, and jumps in between.
        let mut place: u64 = 42;
        for step in 0..300 {
            place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (place >> 33) as usize % end;
            check(&file, &content, at, 1 + at % 70_000);
            check(&file, &content, step * 50_000, 50_000);
            check(&file, &content, end / 2 + step * 20_000, 20_000);
        }
    })
    .await;
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_at_once_with_hardly_any_memory_all_get_their_bytes() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    let content = pattern(6 * MIB);
    for name in ["a", "b", "c"] {
        world.put(name, content.clone()).await;
    }
    let limits = Limits { ahead_bytes: 2 * MIB, demand_bytes: MIB / 2, ..Limits::default() };
    let volume = world.mount_from(&world.endpoint(), limits).await;
    let content: Arc<Bytes> = Arc::new(content);
    let mut readers = Vec::new();
    for number in 0..24 {
        let (path, content) = (volume.path(["a", "b", "c"][number % 3]), content.clone());
        readers.push(tokio::task::spawn_blocking(move || {
            let file = File::open(path).expect("opens");
            for step in 0..20 {
                let at = (number * 977_777 + step * 300_001) % content.len();
                check(&file, &content, at, 200_000);
            }
        }));
    }
    for reader in readers {
        reader.await.expect("its bytes are right");
    }
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_inodes_than_allowed_are_forgotten_and_found_again() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    for number in 0..60 {
        world.put(&format!("some/{number:02}"), number.to_string()).await;
    }
    let limits = Limits { inodes: 10, ..Limits::default() };
    let volume = world.mount_from(&world.endpoint(), limits).await;
    for _ in 0..3 {
        assert_eq!(volume.names("some").await.len(), 60);
        for number in 0..60 {
            let got = volume.read(&format!("some/{number:02}")).await.expect("readable");
            assert_eq!(got, number.to_string().as_bytes());
        }
    }
    volume.unmount().await;
}
