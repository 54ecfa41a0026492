//! The process: on a directory and on a descriptor, ended by an unmount, by SIGTERM and by SIGKILL.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{Mount, Serving, World, blocking, can_mount, is_mounted, pattern};

const MIB: usize = 1 << 20;

fn pid(serving: &Serving) -> Pid {
    Pid::from_child(&serving.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_that_is_mounted_already_is_served_until_it_is_unmounted() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put("d/file", "by descriptor").await;
    let (at, mut serving) = world.spawn();
    let path = at.path("d/file");
    assert_eq!(blocking(move || std::fs::read(path)).await.expect("served"), b"by descriptor");
    at.unmount();
    let status = blocking(move || serving.0.wait()).await.expect("it ends");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_a_descriptor_will_do() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put("file", "seven").await;
    let (at, device) = Mount::new();
    let volume = world.command();
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", "exec \"$@\" /dev/fd/7 7<&0 0</dev/null", "sh"]).arg(volume.get_program());
    shell.args(volume.get_args()).env_clear();
    shell.envs(volume.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let _serving = Serving(shell.stdin(Stdio::from(device)).spawn().expect("it starts"));
    let path = at.path("file");
    assert_eq!(blocking(move || std::fs::read(path)).await.expect("served"), b"seven");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_with_0_and_readers_are_told_that_nobody_serves() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put("large", pattern(20 * MIB)).await;
    let (at, mut serving) = world.spawn();
    let path = at.path("large");
    let file = blocking(move || File::open(path)).await.expect("served");
    kill_process(pid(&serving), Signal::TERM).expect("it runs");
    let status = blocking(move || serving.0.wait()).await.expect("it ends");
    assert_eq!(status.code(), Some(0));
    let error = blocking(move || file.read_at(&mut [0; 10], 15 << 20)).await.expect_err("nobody serves");
    assert_eq!(error.raw_os_error(), Some(Errno::NOTCONN.raw_os_error()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_leaves_readers_with_an_error_and_no_process_that_hangs() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put("large", pattern(20 * MIB)).await;
    let (at, mut serving) = world.spawn();
    let path = at.path("large");
    let file = blocking(move || File::open(path)).await.expect("served");
    // Readers that wait at the moment of the kill: stopped, the process takes calls no more, and they cannot be answered.
    kill_process(pid(&serving), Signal::STOP).expect("it runs");
    let waiting = File::try_clone(&file).expect("open");
    let waiting = tokio::task::spawn_blocking(move || waiting.read_at(&mut [0; 10], 16 << 20));
    kill_process(pid(&serving), Signal::KILL).expect("it runs");
    blocking(move || serving.0.wait()).await.expect("it ends");
    let error = waiting.await.expect("no panic").expect_err("nobody serves");
    let told = [Errno::NOTCONN, Errno::CONNABORTED].map(|errno| Some(errno.raw_os_error()));
    assert!(told.contains(&error.raw_os_error()), "{error}");
    let error = blocking(move || file.read_at(&mut [0; 10], 15 << 20)).await.expect_err("nobody serves");
    assert_eq!(error.raw_os_error(), Some(Errno::NOTCONN.raw_os_error()), "{error}");
    let (path, error) = (at.path("other"), io::Error::from(Errno::NOTCONN));
    let found = blocking(move || path.metadata()).await.expect_err("nobody serves");
    assert_eq!(found.raw_os_error(), error.raw_os_error(), "{found}");
}

/// Waits until `at` is mounted, or is not.
fn mounted(at: &std::path::Path, wanted: bool) {
    let table = File::open("/proc/self/mountinfo").expect("proc");
    // The kernel marks the open table once the mounts have changed since it was last looked at.
    while is_mounted(at) != wanted {
        let mut changed = [PollFd::from_borrowed_fd(table.as_fd(), PollFlags::PRI)];
        poll(&mut changed, None).expect("proc can be waited for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_mounted_and_sigterm_unmounts_it_even_in_use() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put("large", pattern(20 * MIB)).await;
    let at = tempfile::tempdir().expect("a directory");
    let mut serving = Serving(world.command().arg(at.path()).spawn().expect("it starts"));
    let path = at.path().to_owned();
    let file = blocking(move || {
        mounted(&path, true);
        File::open(path.join("large"))
    })
    .await
    .expect("served");
    kill_process(pid(&serving), Signal::TERM).expect("it runs");
    let status = blocking(move || serving.0.wait()).await.expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(!is_mounted(at.path()));
    drop(file);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_namespace_of_its_own_it_needs_no_root_and_leaves_no_mount_behind() {
    const SCRIPT: &str = r#"
        exec 3<>/dev/fuse || exit 90
        mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 library "$0" || exit 91
        "$@" /dev/fd/3 & volume=$!
        exec 3<&-
        cat "$0/file" && kill -9 $volume
        wait $volume
        ls "$0" && exit 92
        exit 0
    "#;
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put("file", "in its own room").await;
    let at = tempfile::tempdir().expect("a directory");
    let volume = world.command();
    let mut room = std::process::Command::new("unshare");
    room.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", SCRIPT]).arg(at.path());
    room.arg(volume.get_program()).args(volume.get_args()).env_clear();
    room.envs(volume.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let room = blocking(move || room.output()).await.expect("unshare starts (Debian: util-linux)");
    let said = String::from_utf8_lossy(&room.stderr);
    if said.contains("unshare failed") || said.contains("unshare: ") {
        writeln!(io::stderr(), "SKIPPED: no user namespaces here: {}", said.trim()).expect("stderr");
        return;
    }
    assert_eq!(String::from_utf8_lossy(&room.stdout), "in its own room", "{said}");
    assert_eq!(room.status.code(), Some(0), "{said}");
    assert!(!is_mounted(at.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_is_refused_with_the_thing_and_the_cause() {
    let world = World::start().await;
    let refused = |args: &'static [&'static str]| {
        let mut command = world.command();
        command.args(args).stdin(Stdio::null());
        async move {
            let output = blocking(move || command.output()).await.expect("it starts");
            (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
        }
    };
    let (code, said) = refused(&["/dev/fd/99"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("take over descriptor 99"), "{said}");
    let (code, said) = refused(&["--nothing", "/mnt"]).await;
    assert_eq!(code, Some(64));
    assert!(said.contains("--nothing"), "{said}");
    let mut command = world.command();
    command.args(["--bucket", "strange", "/dev/fd/0"]).stdin(Stdio::null());
    let output = blocking(move || command.output()).await.expect("it starts");
    assert_eq!(output.status.code(), Some(64), "a bucket is named once");
}
