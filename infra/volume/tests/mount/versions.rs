//! An open handle keeps its generation; the next open looks again.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use carrel_volume::Limits;
use rustix::io::Errno;

use crate::world::{World, blocking, can_mount, pattern};

const MIB: usize = 1 << 20;

fn number(error: &io::Error) -> Option<i32> {
    error.raw_os_error()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_handle_never_sees_the_bytes_of_another_generation_and_the_next_open_does() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    let (old, new) = (pattern(20 * MIB), vec![b'n'; 20 * MIB]);
    world.put("large", old.clone()).await;
    let volume = world.mount().await;
    let file = volume.open("large").await.expect("opens");
    world.put("large", new.clone()).await;
    let refused = blocking(move || {
        let mut refused = 0;
        let mut got = vec![0; 128 * 1024];
        for offset in (0..old.len()).step_by(got.len()) {
            match file.read_at(&mut got, offset as u64) {
                Ok(count) => assert!(got[..count] == old[offset..offset + count], "the old bytes, or none"),
                Err(error) => {
                    assert_eq!(number(&error), Some(Errno::STALE.raw_os_error()), "{error}");
                    refused += 1;
                }
            }
        }
        refused
    })
    .await;
    assert!(refused > 0, "20 MiB were not read ahead");
    assert!(volume.read("large").await.expect("opens anew") == new);
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_only_listed_opens_as_what_is_there_now() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    for (name, size) in [("small", 10), ("large", 3 * MIB)] {
        world.put(name, vec![b'o'; size]).await;
    }
    let volume = world.mount().await;
    assert_eq!(volume.names("").await, ["large", "small"]);
    for (name, size) in [("small", 11), ("large", 3 * MIB + 1)] {
        world.put(name, vec![b'n'; size]).await;
        // Within the minute for which the listing is believed: the open meets a generation that is gone.
        assert!(volume.read(name).await.expect("opens") == vec![b'n'; size], "{name}");
    }
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_read_one_after_another_are_each_what_is_there_when_they_are_opened() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    for number in 0..120 {
        world.put(&format!("d/{number:03}"), format!("old {number}")).await;
    }
    let volume = world.mount().await;
    assert_eq!(volume.names("d").await.len(), 120);
    // Listed, but far beyond what is fetched ahead of the first reader.
    for number in 60..120 {
        world.put(&format!("d/{number:03}"), format!("new {number}")).await;
    }
    for number in 0..120 {
        let age = if number < 60 { "old" } else { "new" };
        let got = volume.read(&format!("d/{number:03}")).await.expect("opens");
        assert_eq!(String::from_utf8(got).expect("text"), format!("{age} {number}"));
    }
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_object_is_stale_to_those_who_have_it_open_and_missing_to_others() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put("large", pattern(20 * MIB)).await;
    world.put("small", "x").await;
    let volume = world.mount().await;
    let file = volume.open("large").await.expect("opens");
    assert_eq!(volume.names("").await, ["large", "small"]);
    world.delete("large").await;
    world.delete("small").await;
    let error = blocking(move || file.read_at(&mut [0; 10], 15 << 20)).await.expect_err("not read ahead");
    assert_eq!(number(&error), Some(Errno::STALE.raw_os_error()), "{error}");
    for name in ["large", "small"] {
        let error = volume.read(name).await.expect_err("deleted");
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{name}");
    }
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_believed_every_open_sees_the_newest_version() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    let limits = Limits { believe_present: Duration::ZERO, believe_absent: Duration::ZERO, ..Limits::default() };
    let volume = world.mount_from(&world.endpoint(), limits).await;
    assert!(volume.read("note").await.is_err());
    for version in 0..5 {
        let text = format!("version {version}");
        world.put("note", text.clone()).await;
        assert_eq!(volume.read("note").await.expect("there"), text.as_bytes());
    }
    volume.unmount().await;
}
