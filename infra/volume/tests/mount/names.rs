//! What is listed, and what is found by name.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;

use crate::world::{World, blocking, can_mount};

#[tokio::test(flavor = "multi_thread")]
async fn nested_prefixes_are_directories() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    for name in ["top.csv", "2024/q1/a.csv", "2024/q1/b.csv", "2024/q2/a.csv", "2024/notes.txt", "empty/"] {
        world.put(name, name.to_owned()).await;
    }
    let volume = world.mount().await;
    assert_eq!(volume.names("").await, ["2024", "empty", "top.csv"]);
    assert_eq!(volume.names("2024").await, ["notes.txt", "q1", "q2"]);
    assert_eq!(volume.names("2024/q1").await, ["a.csv", "b.csv"]);
    assert_eq!(volume.names("empty").await, Vec::<String>::new());
    assert_eq!(volume.read("2024/q1/b.csv").await.expect("readable"), b"2024/q1/b.csv");
    let path = volume.path("2024");
    let (directory, file) = blocking(move || (path.metadata(), path.join("notes.txt").metadata())).await;
    let (directory, file) = (directory.expect("there"), file.expect("there"));
    assert!(directory.is_dir() && file.is_file());
    assert_eq!((directory.mode() & 0o7777, file.mode() & 0o7777), (0o555, 0o444));
    assert_eq!((file.len(), file.uid()), (14, rustix::process::getuid().as_raw()));
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_found_without_being_listed_first_and_what_is_missing_is_missing() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put("deep/er/file", "x").await;
    // More objects that begin with the name than one glance shows, all before the folder `deep/`.
    for number in 0..40 {
        world.put(&format!("deep-{number:02}"), "y").await;
    }
    let volume = world.mount().await;
    assert_eq!(volume.read("deep/er/file").await.expect("found"), b"x");
    assert_eq!(volume.read("deep-07").await.expect("found"), b"y");
    for missing in ["dee", "deep/e", "deep/er/file2", "deep-99"] {
        let error = volume.read(missing).await.expect_err("nothing of that name");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{missing}");
    }
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_directory_cannot_hold_are_left_out_and_the_rest_is_shown() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    let long = "l".repeat(256);
    let shown = ["d/ok", "d/with space", "d/ünï¢ödé", "d/-rf", "d/a\tb", "d/\u{202e}txt", "d/both/inside"];
    let hidden = ["d//double", "d/./dot", "d/../dots", "d/both", &format!("d/{long}"), "/rooted"];
    for name in shown.into_iter().chain(hidden) {
        world.put(name, name.to_owned()).await;
    }
    let volume = world.mount().await;
    let wanted: BTreeSet<String> =
        shown.iter().map(|name| name["d/".len()..].trim_end_matches("/inside").to_owned()).collect();
    assert_eq!(volume.names("d").await.into_iter().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(volume.names("").await, ["d"]);
    for name in shown {
        assert_eq!(volume.read(name).await.expect("readable"), name.as_bytes());
    }
    assert_eq!(volume.names("d/both").await, ["inside"], "a directory hides the object of its name");
    volume.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_files_are_listed_with_their_attributes() {
    const FILES: usize = 10_000;
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put_many(FILES, |number| number.to_string()).await;
    let volume = world.mount().await;
    let path = volume.path("many");
    let sizes = blocking(move || {
        let entries = std::fs::read_dir(path).expect("a directory");
        let sizes = entries.map(|entry| {
            let entry = entry.expect("listed");
            (entry.file_name().into_string().expect("UTF-8"), entry.metadata().expect("known").len())
        });
        sizes.collect::<Vec<_>>()
    })
    .await;
    assert_eq!(sizes.len(), FILES);
    assert_eq!(sizes.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), FILES);
    for (name, size) in sizes {
        assert_eq!(size, name.parse::<usize>().expect("a number").to_string().len() as u64, "{name}");
    }
    volume.unmount().await;
}
