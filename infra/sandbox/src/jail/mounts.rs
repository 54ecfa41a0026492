//! The files of a room: a new root in memory on which the view is laid, and nothing of the old one left.
//!
//! ```text
//! a root in memory ─► move into it ─► lay out, the old root reached by descriptor alone ─► let go of it ─► seal
//! ```
//! Runs in the room's own mount namespace, before anything of a stranger does. No path is walked that a symbolic link
//! could lead out: those inside resolve within the room's root, those outside within the old one.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat, openat2, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::process::{chdir, pivot_root};

use super::Handed;
use crate::messages::Fault;
use crate::room::{Entry, USER};
use crate::sys;

/// Old directories over one of which the new root is laid for a moment.
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

const MEMORY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
const HARDENED: MountAttrFlags = MEMORY.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
const SHOWN: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What of the old root can still be reached.
pub(super) struct Old(OwnedFd);

/// Moves into an empty root in memory. The old one lies over it, to be let go of.
pub(super) fn move_out() -> Result<Old, Fault> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(Fault::kernel("make the mounts of a room private"))?;
    let old = open("/", DIRECTORY, Mode::empty()).map_err(Fault::kernel("keep hold of the old root"))?;
    let base = BASES.into_iter().map(Path::new).find(|path| path.is_dir());
    let base = base.ok_or_else(|| missing("find a directory to build a room on", "none of /tmp, /run, /mnt, /usr"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", base, "tmpfs", flags, Some(c"mode=0755,size=16m,nr_inodes=100000"))
        .map_err(Fault::kernel("mount the root of a room"))?;
    chdir(base).map_err(Fault::kernel("enter the root of a room"))?;
    pivot_root(".", ".").map_err(Fault::kernel("make it the root"))?;
    Ok(Old(old))
}

/// The old root goes.
pub(super) fn let_go(old: Old) -> Result<(), Fault> {
    drop(old);
    unmount(".", UnmountFlags::DETACH).map_err(Fault::kernel("let go of the old root"))?;
    chdir("/").map_err(Fault::kernel("enter the root of a room"))
}

/// Nothing can be added to what was laid out, or taken away.
pub(super) fn seal_root() -> Result<(), Fault> {
    let root = open("/", DIRECTORY, Mode::empty()).map_err(Fault::kernel("make / read-only"))?;
    sys::restrict_mount(root.as_fd(), libc::MOUNT_ATTR_RDONLY, false).map_err(Fault::at("make / read-only"))
}

/// Where a room is laid out.
pub(super) struct Site {
    root: OwnedFd,
    /// The directory that was opened last: files come by the thousand in one.
    last: Option<(PathBuf, OwnedFd)>,
}

impl Site {
    pub(super) fn at(root: &Path) -> Result<Self, Fault> {
        let root = open(root, DIRECTORY, Mode::empty()).map_err(Fault::kernel("open the root of a room"))?;
        Ok(Self { root, last: None })
    }

    /// What a program finds in /dev, and whatever `more` names.
    pub(super) fn devices(&mut self, old: &Old, more: &[&'static str]) -> Result<(), Fault> {
        let options = [("mode", "0755"), ("size", "64k"), ("nr_inodes", "32")];
        let dev = memory(&options, HARDENED).map_err(Fault::kernel("mount /dev of a room"))?;
        self.attach(&dev, Path::new("/dev"), true)?;
        for name in DEVICES.into_iter().chain(more.iter().copied()) {
            let (device, _) = old.clone(&Path::new("/dev").join(name), libc::MOUNT_ATTR_NOSUID)?;
            let on = create(dev.as_fd(), name.as_bytes(), false).map_err(Fault::kernel(format!("make /dev/{name}")))?;
            move_onto(&device, &on).map_err(Fault::kernel(format!("show /dev/{name}")))?;
        }
        for (name, to) in DEVICE_LINKS {
            symlinkat(to, &dev, name).map_err(Fault::kernel(format!("link /dev/{name}")))?;
        }
        sys::restrict_mount(dev.as_fd(), libc::MOUNT_ATTR_RDONLY, false).map_err(Fault::at("make /dev read-only"))
    }

    /// A user namespace may mount it only while it sees one that nothing covers: before the old root goes.
    pub(super) fn proc(&mut self) -> Result<(), Fault> {
        let mounted = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|kind| {
            fsconfig_create(&kind)?;
            fsmount(&kind, FsMountFlags::FSMOUNT_CLOEXEC, HARDENED)
        });
        self.attach(&mounted.map_err(Fault::kernel("mount proc at /proc"))?, Path::new("/proc"), true)
    }

    /// Makes the site a mount of its own, with all that lies below it, to which nothing can be added.
    pub(super) fn seal(self) -> Result<(), Fault> {
        let step = || "make the root of a container read-only";
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(&self.root, "", flags | OpenTreeFlags::AT_EMPTY_PATH).map_err(Fault::kernel(step()))?;
        sys::restrict_mount(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, false).map_err(Fault::at(step()))?;
        move_onto(&tree, &self.root).map_err(Fault::kernel(step()))
    }

    /// Control groups as runc wants to find some: its own, to look at only.
    pub(super) fn control_groups(&mut self) -> Result<(), Fault> {
        let mounted = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|kind| {
            fsconfig_create(&kind)?;
            fsmount(&kind, FsMountFlags::FSMOUNT_CLOEXEC, HARDENED | MountAttrFlags::MOUNT_ATTR_RDONLY)
        });
        let mounted = mounted.map_err(Fault::kernel("mount cgroup2, which runc asks for"))?;
        self.attach(&mounted, Path::new("/sys/fs/cgroup"), true)
    }

    /// Lays out the view, for a user by the namespace's number; hands out what the plan says.
    pub(super) fn lay_out(&mut self, old: &Old, view: &[Entry], user: u32, handed: &mut Handed) -> Result<(), Fault> {
        for entry in view {
            let at = entry.at();
            match entry {
                Entry::Show { from, .. } => {
                    let (tree, directory) = old.clone(from, SHOWN)?;
                    self.attach(&tree, at, directory)?;
                }
                Entry::Text { text, .. } => {
                    let step = || format!("write {}", at.display());
                    let file = self.file(at, true).map_err(Fault::kernel(step()))?;
                    let mut file = std::fs::File::from(file);
                    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(Fault::at(step()))?;
                }
                Entry::Link { to, .. } => {
                    let (parent, name) = self.parent(at).map_err(Fault::kernel(format!("link {}", at.display())))?;
                    symlinkat(to, parent, name).map_err(Fault::kernel(format!("link {}", at.display())))?;
                }
                Entry::Fresh { bytes, inodes, exec, .. } => {
                    let (user, bytes, inodes) = (user.to_string(), bytes.to_string(), inodes.to_string());
                    let options =
                        [("mode", "0755"), ("uid", &user), ("gid", &user), ("size", &bytes), ("nr_inodes", &inodes)];
                    let step = || format!("mount {} in memory", at.display());
                    let tree =
                        memory(&options, if *exec { MEMORY } else { HARDENED }).map_err(Fault::kernel(step()))?;
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let root = openat(&tree, ".", flags, Mode::empty()).map_err(Fault::kernel(step()))?;
                    self.attach(&tree, at, true)?;
                    handed.fresh.push((at.to_owned(), root));
                }
                Entry::Volume { .. } => {
                    let (tree, channel) = volume(old, at)?;
                    self.attach(&tree, at, true)?;
                    handed.volume = Some(channel);
                }
            }
        }
        Ok(())
    }

    fn attach(&mut self, tree: &OwnedFd, at: &Path, directory: bool) -> Result<(), Fault> {
        let on = if directory { self.directory(at) } else { self.file(at, false) };
        if directory {
            self.last = None;
        }
        on.and_then(|on| move_onto(tree, &on)).map_err(Fault::kernel(format!("show something at {}", at.display())))
    }

    fn resolve(&self, at: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat2(&self.root, inside(at), flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens a directory and makes what is missing of it.
    fn directory(&mut self, at: &Path) -> Result<OwnedFd, Errno> {
        match self.resolve(at, DIRECTORY) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (parent, name) = self.parent(at)?;
        mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
        self.resolve(at, DIRECTORY)
    }

    /// A new empty file; one that is there already if it need not be new.
    fn file(&mut self, at: &Path, new: bool) -> Result<OwnedFd, Errno> {
        let (parent, name) = self.parent(at)?;
        match create(parent, name, true) {
            Err(Errno::EXIST) if !new => self.resolve(at, OFlags::PATH | OFlags::CLOEXEC),
            other => other,
        }
    }

    fn parent<'a>(&mut self, at: &'a Path) -> Result<(BorrowedFd<'_>, &'a [u8]), Errno> {
        let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else { return Err(Errno::INVAL) };
        if self.last.as_ref().is_none_or(|(path, _)| path != parent) {
            let opened = self.directory(parent)?;
            self.last = Some((parent.to_owned(), opened));
        }
        let (_, opened) = self.last.as_ref().expect("it was just opened");
        Ok((opened.as_fd(), name.as_bytes()))
    }
}

impl Old {
    fn resolve(&self, from: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat2(&self.0, inside(from), flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    /// Something of the old root with everything below it, detached and restricted; and whether it is a directory.
    fn clone(&self, from: &Path, attributes: u64) -> Result<(OwnedFd, bool), Fault> {
        let step = || format!("show {}", from.display());
        let there = self.resolve(from, OFlags::PATH).map_err(Fault::kernel(step()))?;
        let kind = FileType::from_raw_mode(fstat(&there).map_err(Fault::kernel(step()))?.st_mode);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(&there, "", flags | OpenTreeFlags::AT_EMPTY_PATH).map_err(Fault::kernel(step()))?;
        sys::restrict_mount(tree.as_fd(), attributes, true).map_err(Fault::at(step()))?;
        Ok((tree, kind == FileType::Directory))
    }
}

fn missing(step: &str, what: &str) -> Fault {
    Fault::at(step)(std::io::Error::other(what.to_owned()))
}

/// As a path below a descriptor.
fn inside(at: &Path) -> &Path {
    match at.strip_prefix("/") {
        Ok(rest) if rest.as_os_str().is_empty() => Path::new("."),
        Ok(rest) => rest,
        Err(_) => at,
    }
}

fn create(parent: BorrowedFd<'_>, name: &[u8], write: bool) -> Result<OwnedFd, Errno> {
    let access = if write { OFlags::WRONLY } else { OFlags::RDONLY };
    let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::from_raw_mode(0o644))
}

fn move_onto(tree: &OwnedFd, on: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", on, "", flags)
}

fn memory(options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let kind = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    options.iter().try_for_each(|(name, value)| fsconfig_set_string(&kind, *name, *value))?;
    fsconfig_create(&kind)?;
    fsmount(&kind, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Nothing below it can be looked at until somebody serves the channel; whoever does must be let go of first.
fn volume(old: &Old, at: &Path) -> Result<(OwnedFd, OwnedFd), Fault> {
    let channel = old.resolve(Path::new("/dev/fuse"), OFlags::RDWR).map_err(Fault::kernel("open /dev/fuse"))?;
    let mounted = || {
        let kind = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let (fd, user) = (channel.as_raw_fd().to_string(), USER.to_string());
        for (name, value) in
            [("source", "volume"), ("fd", &fd), ("rootmode", "40000"), ("user_id", &user), ("group_id", &user)]
        {
            fsconfig_set_string(&kind, name, value)?;
        }
        ["allow_other", "ro"].into_iter().try_for_each(|flag| fsconfig_set_flag(&kind, flag))?;
        fsconfig_create(&kind)?;
        fsmount(&kind, FsMountFlags::FSMOUNT_CLOEXEC, HARDENED | MountAttrFlags::MOUNT_ATTR_RDONLY)
    };
    let tree = mounted().map_err(Fault::kernel(format!("mount a volume at {}", at.display())))?;
    Ok((tree, channel))
}

/// What is handed out, by where it lies inside.
pub(super) type Fresh = Vec<(PathBuf, OwnedFd)>;
