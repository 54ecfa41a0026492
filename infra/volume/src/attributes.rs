//! What `stat` shows: read-only, owned by whoever serves.

use std::time::SystemTime;

use fuser::{FileAttr, FileType, INodeNo};

use crate::entry::Kind;

/// Who owns everything that is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    uid: u32,
    gid: u32,
    /// Prefixes have no times: directories are as old as the mount.
    since: SystemTime,
}

impl Owner {
    pub(crate) fn this_process() -> Self {
        Self {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            since: SystemTime::now(),
        }
    }

    pub(crate) fn attributes(&self, ino: u64, kind: Kind) -> FileAttr {
        let (kind, size, time, perm) = match kind {
            Kind::Directory => (FileType::Directory, 0, self.since, 0o555),
            Kind::File(facts) => (FileType::RegularFile, facts.size, facts.created, 0o444),
        };
        FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            // One, also for directories: tools that count subdirectories by links then do not.
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// What stands for "there is no such name": number 0 by FUSE's definition.
    pub(crate) fn nothing(&self) -> FileAttr {
        self.attributes(0, Kind::Directory)
    }
}
