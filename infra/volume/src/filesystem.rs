//! The kernel's calls. What is known is answered where the call came in; what has to be asked for is answered by a task,
//! so that one call that waits holds up no other.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use carrel_cloud::Objects;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use crate::Limits;
use crate::entry::Kind;
use crate::file::{Begun, Open};
use crate::handles::Handles;
use crate::listing::{Lists, answer};
use crate::names::Known;
use crate::nodes::Node;
use crate::shared::{Shared, joined, told};
use crate::siblings::fetch_siblings;
use crate::trim::Trim;

/// An inode stands for one generation, so what `stat` shows of it never changes.
const FOR_EVER: Duration = Duration::from_secs(86_400);
/// Calls the kernel may have open without a reader that waits: the read-ahead of many readers at once.
const BACKGROUND: u16 = 128;
/// Pages of a generation stay right for ever, and there is nothing to flush.
const KEPT: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);

/// A bucket as a filesystem.
#[derive(Debug)]
pub struct Volume {
    pub(crate) shared: Arc<Shared>,
    handles: Arc<Handles>,
    tasks: Handle,
    trim: Trim,
}

impl Volume {
    /// The objects of `bucket`; what has to be asked for is asked on `tasks`.
    pub fn new(objects: Objects, bucket: &str, limits: Limits, tasks: Handle) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(objects, bucket, limits));
        let trim = Trim::start(shared.clone())?;
        Ok(Self { shared, handles: Arc::default(), tasks, trim })
    }

    fn node(&self, ino: INodeNo) -> Option<Node> {
        self.shared.nodes().get(ino.0).cloned()
    }

    fn bound_inodes(&self) {
        if self.shared.nodes().len() > self.shared.limits.inodes {
            self.trim.wake();
        }
    }

    fn list(&self, ino: INodeNo, handle: FileHandle, offset: u64, reply: impl Lists) {
        self.bound_inodes();
        let Some(Node::Directory(prefix)) = self.node(ino) else { return reply.send(Err(Errno::ENOTDIR)) };
        if let Some(entries) = self.handles.listing(handle).filter(|_| offset > 0) {
            return answer(&self.shared, reply, ino.0, &prefix, offset, &entries);
        }
        let (shared, handles) = (self.shared.clone(), self.handles.clone());
        self.tasks.spawn(async move {
            match shared.in_time(shared.list(&prefix)).await {
                Ok(entries) => {
                    handles.show(handle, entries.clone());
                    answer(&shared, reply, ino.0, &prefix, offset, &entries);
                }
                Err(fail) => reply.send(Err(told("readdir", &prefix, &fail))),
            }
        });
    }
}

/// Tells the kernel of a name it looked up.
fn present(shared: &Shared, reply: ReplyEntry, prefix: &str, leaf: &str, kind: Kind, believed: Duration) {
    let ino = shared.nodes().tell(prefix, leaf, kind);
    let attributes: FileAttr = shared.owner.attributes(ino, kind);
    reply.entry_with_ttls(&FOR_EVER, &believed, &attributes, Generation(0));
}

/// Tells the kernel that there is no such name.
fn absent(shared: &Shared, reply: ReplyEntry, believed: Duration) {
    reply.entry(&believed, &shared.owner.nothing(), Generation(0));
}

impl Filesystem for Volume {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_PARALLEL_DIROPS;
        if let Err(lacking) = config.add_capabilities(wanted) {
            tracing::warn!(?lacking, "the kernel is old: names are looked up one by one");
        }
        if let Err(granted) = config.set_max_readahead(u32::MAX) {
            tracing::debug!(granted, "the kernel bounds its read-ahead; the volume has its own");
            config.set_max_readahead(granted).map_err(|_| io::Error::other("read-ahead refused"))?;
        }
        config.set_max_background(BACKGROUND).map_err(|_| io::Error::other("background refused"))?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.bound_inodes();
        let Some(Node::Directory(prefix)) = self.node(parent) else { return reply.error(Errno::ENOTDIR) };
        // Object names are UTF-8.
        let Some(leaf) = name.to_str() else { return absent(&self.shared, reply, FOR_EVER) };
        let known = self.shared.names().find(&prefix, leaf, Instant::now());
        match known {
            Known::Present(kind, believed) => return present(&self.shared, reply, &prefix, leaf, kind, believed),
            Known::Absent(believed) => return absent(&self.shared, reply, believed),
            Known::Unknown => {}
        }
        let (shared, leaf) = (self.shared.clone(), leaf.to_owned());
        self.tasks.spawn(async move {
            match shared.in_time(shared.look(&prefix, &leaf)).await {
                Ok(Some(kind)) => present(&shared, reply, &prefix, &leaf, kind, shared.limits.believe_present),
                Ok(None) => absent(&shared, reply, shared.limits.believe_absent),
                Err(fail) => reply.error(told("lookup", &format!("{prefix}{leaf}"), &fail)),
            }
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.shared.nodes().forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let kind = match self.node(ino) {
            Some(Node::Directory(_)) => Kind::Directory,
            Some(Node::File(file)) => Kind::File(file.facts),
            None => return reply.error(Errno::ESTALE),
        };
        reply.attr(&FOR_EVER, &self.shared.owner.attributes(ino.0, kind));
    }

    fn access(&self, _: &Request, _: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if mask.contains(AccessFlags::W_OK) { reply.error(Errno::EROFS) } else { reply.ok() }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        let file = match self.node(ino) {
            Some(Node::File(file)) => file,
            Some(Node::Directory(_)) => return reply.error(Errno::EISDIR),
            None => return reply.error(Errno::ESTALE),
        };
        fetch_siblings(&self.shared, &file, &self.tasks);
        if let Some(open) = Open::at_once(&self.shared, &file) {
            return reply.opened(self.handles.open(open), KEPT);
        }
        let (shared, handles, tasks) = (self.shared.clone(), self.handles.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            match shared.in_time(Open::fetched(&shared, file.clone(), &tasks)).await {
                Ok(open) => reply.opened(handles.open(open), KEPT),
                Err(fail) => reply.error(told("open", &file.name, &fail)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(open) = self.handles.file(handle) else { return reply.error(Errno::EBADF) };
        let range = offset..open.size().min(offset.saturating_add(u64::from(size)));
        if range.is_empty() {
            return reply.data(&[]);
        }
        let begun = open.begin(&self.shared, &range, &self.tasks);
        if let Begun::Ready(pieces) = begun {
            return reply.data(&joined(pieces));
        }
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            match shared.in_time(open.finish(&shared, range, begun)).await {
                Ok(pieces) => reply.data(&joined(pieces)),
                Err(fail) => {
                    open.give_up();
                    reply.error(told("read", open.name(), &fail));
                }
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.handles.close(handle);
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(self.handles.open_directory(), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.list(ino, handle, offset, reply);
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.list(ino, handle, offset, reply);
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.handles.close_directory(handle);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    // ENOSYS makes the kernel never ask again, for any file.
    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    // Everything below writes, and is refused.

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(&self, _: &Request, _: INodeNo, _: &OsStr, _: INodeNo, _: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
}
