//! Nothing is ever written: each way to try is told that the filesystem is read-only.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use rustix::fs::{Access, Mode};
use rustix::io::Errno;

use crate::world::{World, blocking, can_mount};

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_write_is_refused_as_read_only() {
    if !can_mount() {
        return;
    }
    let world = World::start().await;
    world.put("d/file", "x").await;
    let volume = world.mount().await;
    let (file, directory, new) = (volume.path("d/file"), volume.path("d"), volume.path("d/new"));
    let tried: Vec<(&str, io::Result<()>)> = blocking(move || {
        vec![
            ("open to write", OpenOptions::new().write(true).open(&file).map(drop)),
            ("open to append", OpenOptions::new().append(true).open(&file).map(drop)),
            ("create", File::create(&new).map(drop)),
            ("mkdir", fs::create_dir(&new)),
            ("symlink", symlink("elsewhere", &new)),
            ("link", fs::hard_link(&file, &new)),
            ("rename", fs::rename(&file, &new)),
            ("unlink", fs::remove_file(&file)),
            ("rmdir", fs::remove_dir(&directory)),
            ("chmod", fs::set_permissions(&file, Permissions::from_mode(0o777))),
            ("truncate", OpenOptions::new().write(true).truncate(true).open(&file).map(drop)),
            ("mkfifo", rustix::fs::mkfifoat(rustix::fs::CWD, &new, Mode::RWXU).map_err(io::Error::from)),
            ("access", rustix::fs::access(&file, Access::WRITE_OK).map_err(io::Error::from)),
        ]
    })
    .await;
    for (what, result) in tried {
        let error = result.expect_err(what);
        assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()), "{what}: {error}");
    }
    assert_eq!(volume.read("d/file").await.expect("unharmed"), b"x");
    volume.unmount().await;
}
