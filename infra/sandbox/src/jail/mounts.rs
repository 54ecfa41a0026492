//! The files of a room: a new root in memory on which the view is laid, and nothing of the old one left.
//!
//! ```text
//! clone what is shown (old paths still mean the host's) ─► tmpfs over an old directory ─► lay out ─► pivot ─► seal
//! ```
//! Runs in the room's own mount namespace, before anything of a stranger does.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, move_mount,
    open_tree, unmount,
};
use rustix::process::{chdir, pivot_root};

use super::Handed;
use crate::messages::Fault;
use crate::room::{Entry, USER};
use crate::sys;

/// Old directories over which the new root may be laid while it is built.
const BASES: [&str; 4] = ["/tmp", "/run", "/mnt", "/usr"];
/// What a program finds in /dev.
const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];
/// Links that programs expect there.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

const MEMORY: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Something of the old root, detached, and whether it is a directory.
struct Cloned {
    tree: OwnedFd,
    directory: bool,
}

/// Lays out the view and moves into it; hands out what the plan says.
pub(super) fn raise(view: &[Entry], handed: &mut Handed) -> Result<(), Fault> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(Fault::kernel("make the mounts of a room private"))?;
    let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let mut shown = Vec::new();
    for entry in view {
        shown.push(match entry {
            Entry::Show { from, .. } => Some(clone(from, read_only)?),
            _ => None,
        });
    }
    let devices = DEVICES.map(|name| clone(&Path::new("/dev").join(name), libc::MOUNT_ATTR_NOSUID));

    let base = BASES.into_iter().map(Path::new).find(|path| path.is_dir());
    let base = base.ok_or_else(|| missing("find a directory to build a room on", "none of /tmp, /run, /mnt, /usr"))?;
    mount("tmpfs", base, "tmpfs", MEMORY, Some(c"mode=0755,size=16m,nr_inodes=100000"))
        .map_err(Fault::kernel("mount the root of a room"))?;
    let inside = |at: &Path| base.join(at.strip_prefix("/").unwrap_or(at));

    let dev = inside(Path::new("/dev"));
    make_directory(&dev)?;
    let hardened = MEMORY | MountFlags::NOEXEC;
    mount("tmpfs", &dev, "tmpfs", hardened, Some(c"mode=0755,size=64k,nr_inodes=32"))
        .map_err(Fault::kernel("mount /dev of a room"))?;
    for (name, device) in DEVICES.into_iter().zip(devices) {
        attach(&device?, &dev.join(name))?;
    }
    for (name, to) in DEVICE_LINKS {
        std::os::unix::fs::symlink(to, dev.join(name)).map_err(Fault::at(format!("link /dev/{name}")))?;
    }
    seal(&dev)?;
    let proc = inside(Path::new("/proc"));
    make_directory(&proc)?;
    // Before the old root goes: a user namespace may mount it only while it sees one that nothing covers.
    mount("proc", &proc, "proc", hardened, None).map_err(Fault::kernel("mount proc at /proc"))?;

    for (entry, cloned) in view.iter().zip(&shown) {
        let at = inside(entry.at());
        if let Some(parent) = at.parent() {
            make_directory(parent)?;
        }
        match entry {
            Entry::Show { .. } => attach(cloned.as_ref().expect("cloned above"), &at)?,
            Entry::Text { text, at: path } => {
                std::fs::write(&at, text).map_err(Fault::at(format!("write {}", path.display())))?;
            }
            Entry::Link { to, at: path } => {
                std::os::unix::fs::symlink(to, &at).map_err(Fault::at(format!("link {}", path.display())))?;
            }
            Entry::Fresh { at: path, bytes, inodes, exec } => {
                handed.fresh.push((path.clone(), fresh(&at, *bytes, *inodes, *exec)?));
            }
            Entry::Volume { .. } => handed.volume = Some(volume(&at)?),
        }
    }

    chdir(base).map_err(Fault::kernel("enter the root of a room"))?;
    pivot_root(".", ".").map_err(Fault::kernel("make it the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(Fault::kernel("let go of the old root"))?;
    chdir("/").map_err(Fault::kernel("enter the root of a room"))?;
    seal(Path::new("/"))
}

fn missing(step: &str, what: &str) -> Fault {
    Fault::at(step)(std::io::Error::other(what.to_owned()))
}

fn clone(from: &Path, attributes: u64) -> Result<Cloned, Fault> {
    let step = || format!("show {}", from.display());
    let directory = std::fs::metadata(from).map_err(Fault::at(step()))?.is_dir();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, from, flags).map_err(Fault::kernel(step()))?;
    sys::restrict_mount(tree.as_fd(), attributes, true).map_err(Fault::at(step()))?;
    Ok(Cloned { tree, directory })
}

fn attach(cloned: &Cloned, at: &Path) -> Result<(), Fault> {
    let step = || format!("show something at {}", at.display());
    if cloned.directory {
        make_directory(at)?;
    } else if !at.exists() {
        std::fs::File::create(at).map_err(Fault::at(step()))?;
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&cloned.tree, "", CWD, at, flags).map_err(Fault::kernel(step()))
}

fn make_directory(at: &Path) -> Result<(), Fault> {
    std::fs::create_dir_all(at).map_err(Fault::at(format!("make {}", at.display())))
}

/// Nothing can be added to what was laid out, or taken away.
fn seal(at: &Path) -> Result<(), Fault> {
    let step = || format!("make {} read-only", at.display());
    let root =
        open(at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(Fault::kernel(step()))?;
    sys::restrict_mount(root.as_fd(), libc::MOUNT_ATTR_RDONLY, false).map_err(Fault::at(step()))
}

fn options(text: String) -> std::ffi::CString {
    std::ffi::CString::new(text).expect("mount options are made of numbers and letters")
}

fn fresh(at: &Path, bytes: u64, inodes: u64, exec: bool) -> Result<OwnedFd, Fault> {
    let step = || format!("mount {} in memory", at.display());
    make_directory(at)?;
    let flags = if exec { MEMORY } else { MEMORY | MountFlags::NOEXEC };
    let caps = options(format!("mode=0755,uid={USER},gid={USER},size={bytes},nr_inodes={inodes}"));
    mount("tmpfs", at, "tmpfs", flags, Some(caps.as_c_str())).map_err(Fault::kernel(step()))?;
    open(at, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(Fault::kernel(step()))
}

/// Nothing below it can be looked at until somebody serves the channel; whoever does must be let go of first.
fn volume(at: &Path) -> Result<OwnedFd, Fault> {
    make_directory(at)?;
    let channel =
        open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(Fault::kernel("open /dev/fuse"))?;
    let fd = channel.as_raw_fd();
    let say = options(format!("fd={fd},rootmode=40000,user_id={USER},group_id={USER},allow_other"));
    let flags = MEMORY | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("volume", at, "fuse", flags, Some(say.as_c_str()))
        .map_err(Fault::kernel(format!("mount a volume at {}", at.display())))?;
    Ok(channel)
}

/// What is handed out, by where it lies inside.
pub(super) type Fresh = Vec<(PathBuf, OwnedFd)>;
