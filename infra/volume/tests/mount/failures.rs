//! A server that stalls, dies or comes back: an error in bounded time, never a reader that hangs.

use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use carrel_volume::Limits;
use rustix::io::Errno;

use crate::proxy::Line;
use crate::world::{World, blocking, can_mount, pattern, stamp};

const MIB: usize = 1 << 20;
const SHORT: Duration = Duration::from_millis(400);

fn impatient() -> Limits {
    Limits { answer_within: SHORT, ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_server_fails_every_call_in_bounded_time_and_is_used_again_once_it_answers() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    let content = pattern(20 * MIB);
    world.put("large", content.clone()).await;
    world.put("d/small", "x").await;
    let line = Line::to(&world.endpoint()).await;
    let volume = world.mount_from(&line.endpoint(), impatient()).await;
    let file = std::sync::Arc::new(volume.open("large").await.expect("opens"));
    assert_eq!(volume.names("").await, ["d", "large"]);
    line.hold();

    let (read, listed, opened, found) = (file.clone(), volume.path("d"), volume.path("d/small"), volume.path("d/new"));
    let began = Instant::now();
    let outcomes = tokio::join!(
        blocking(move || read.read_at(&mut [0; 10], 15 << 20).map(drop)),
        blocking(move || std::fs::read_dir(listed)
            .and_then(|mut entries| entries.next().expect("an answer"))
            .map(drop)),
        blocking(move || std::fs::read(opened).map(drop)),
        blocking(move || found.metadata().map(drop)),
    );
    // Far more than the limit, far less than the minute that a client's own retries take.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    for outcome in [outcomes.0, outcomes.1, outcomes.2, outcomes.3] {
        let error = outcome.expect_err("nobody answers");
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    }

    line.release();
    let mut got = vec![0; 10];
    let got = blocking(move || file.read_at(&mut got, 15 << 20).map(|_| got)).await.expect("the same handle");
    assert_eq!(got, content[15 << 20..][..10]);
    assert_eq!(volume.read("d/small").await.expect("readable"), b"x");
    assert_eq!(volume.names("d").await, ["small"]);
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_in_the_middle_fails_and_goes_on_later() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    let content = pattern(64 * MIB);
    world.put("large", content.clone()).await;
    let line = Line::to(&world.endpoint()).await;
    let volume = world.mount_from(&line.endpoint(), impatient()).await;
    let file = std::sync::Arc::new(volume.open("large").await.expect("opens"));
    let read = |from: usize| {
        let (file, content) = (file.clone(), content.clone());
        blocking(move || {
            let mut got = vec![0; 128 * 1024];
            for offset in (from..content.len()).step_by(got.len()) {
                if let Err(error) = file.read_exact_at(&mut got, offset as u64) {
                    return Err((offset, error));
                }
                assert!(got == content[offset..offset + got.len()], "at {offset}");
                if offset == 8 * MIB && from == 0 {
                    return Ok(());
                }
            }
            Ok(())
        })
    };
    read(0).await.expect("eight mebibytes come");
    line.hold();
    let (stalled_at, error) = read(8 * MIB).await.expect_err("not everything was read ahead");
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    line.release();
    read(stalled_at).await.expect("the rest comes");
    // A mount ends once nothing in it is open.
    drop(file);
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_the_middle_of_a_read_gives_an_error_in_bounded_time() {
    if !can_mount() {
        return;
    }
    let mut world = World::start().await;
    // More than is ever read ahead.
    let mut content = pattern(MIB).repeat(160);
    stamp(&mut content, 0);
    let content = Bytes::from(content);
    world.put("large", content.clone()).await;
    let limits = Limits { answer_within: Duration::from_secs(2), ..Limits::default() };
    let volume = world.mount_from(&world.endpoint(), limits).await;
    let mut server = world.move_out().await;
    let file = volume.open("large").await.expect("opens");
    let (error, took) = blocking(move || {
        let mut got = vec![0; 128 * 1024];
        let mut killed = None;
        for offset in (0..content.len()).step_by(got.len()) {
            if offset == 8 * MIB {
                server.0.kill().expect("it is ours");
                killed = Some(Instant::now());
            }
            match (file.read_exact_at(&mut got, offset as u64), killed) {
                (Ok(()), _) => assert!(got == content[offset..offset + got.len()], "at {offset}"),
                (Err(error), Some(at)) => return (error, at.elapsed()),
                (Err(error), None) => panic!("at {offset}: {error}"),
            }
        }
        panic!("all of it was read ahead");
    })
    .await;
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_is_found_again() {
    if !can_mount() {
        return;
    }
    let mut world = World::start().await;
    let content = pattern(20 * MIB);
    world.put("large", content.clone()).await;
    world.put("small", "x").await;
    let volume = world
        .mount_from(&world.endpoint(), Limits { answer_within: Duration::from_secs(2), ..Limits::default() })
        .await;
    let file = volume.open("large").await.expect("opens");
    assert_eq!(volume.names("").await, ["large", "small"]);
    world.stop().await;
    let error = volume.read("small").await.expect_err("nobody is there");
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    world.start_again().await;
    // Tokens of the former cloud stay good, as Google's would.
    assert_eq!(volume.read("small").await.expect("it is back"), b"x");
    let mut got = vec![0; 10];
    let got = blocking(move || file.read_at(&mut got, 15 << 20).map(|_| got)).await.expect("the same handle");
    assert_eq!(got, content[15 << 20..][..10]);
    volume.unmount().await;
}
