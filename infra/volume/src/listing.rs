//! A directory in the kernel's buffers: `.`, `..` and the entries, from an offset on.
//!
//! An offset is the number of entries before, dots included, so that it stays right for as long as the handle shows the
//! same listing.

use std::ffi::OsStr;
use std::time::Duration;

use fuser::{Errno, FileType, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use crate::entry::{Entry, Kind};
use crate::shared::Shared;

/// libfuse's number for an inode that nobody was told of.
const UNTOLD: u64 = 0xffff_ffff;

/// A reply that lists a directory, with attributes or without.
pub(crate) trait Lists: Send + 'static {
    /// Adds an entry; false if it found no room.
    fn entry(&mut self, shared: &Shared, offset: u64, prefix: &str, entry: &Entry) -> bool;
    /// Adds `.` or `..`; false if it found no room.
    fn dot(&mut self, shared: &Shared, offset: u64, ino: u64, name: &str) -> bool;
    /// Sends it.
    fn send(self, result: Result<(), Errno>);
}

impl Lists for ReplyDirectoryPlus {
    fn entry(&mut self, shared: &Shared, offset: u64, prefix: &str, entry: &Entry) -> bool {
        let ino = shared.nodes().tell(prefix, &entry.leaf, entry.kind);
        let attributes = shared.owner.attributes(ino, entry.kind);
        let (name, believed) = (OsStr::new(&*entry.leaf), shared.limits.believe_present);
        let full = self.add(INodeNo(ino), offset, name, &believed, &attributes, Generation(0));
        if full {
            shared.nodes().forget(ino, 1);
        }
        !full
    }

    fn dot(&mut self, shared: &Shared, offset: u64, ino: u64, name: &str) -> bool {
        let attributes = shared.owner.attributes(ino, Kind::Directory);
        !self.add(INodeNo(ino), offset, name, &Duration::ZERO, &attributes, Generation(0))
    }

    fn send(self, result: Result<(), Errno>) {
        match result {
            Ok(()) => self.ok(),
            Err(error) => self.error(error),
        }
    }
}

impl Lists for ReplyDirectory {
    fn entry(&mut self, _: &Shared, offset: u64, _: &str, entry: &Entry) -> bool {
        let kind = match entry.kind {
            Kind::Directory => FileType::Directory,
            Kind::File(_) => FileType::RegularFile,
        };
        !self.add(INodeNo(UNTOLD), offset, kind, &*entry.leaf)
    }

    fn dot(&mut self, _: &Shared, offset: u64, ino: u64, name: &str) -> bool {
        !self.add(INodeNo(ino), offset, FileType::Directory, name)
    }

    fn send(self, result: Result<(), Errno>) {
        match result {
            Ok(()) => self.ok(),
            Err(error) => self.error(error),
        }
    }
}

/// Answers with what follows `offset`.
pub(crate) fn answer(shared: &Shared, mut reply: impl Lists, ino: u64, prefix: &str, offset: u64, entries: &[Entry]) {
    let before = usize::try_from(offset).unwrap_or(usize::MAX);
    for (name, offset) in [".", ".."].into_iter().zip(1..).skip(before) {
        if !reply.dot(shared, offset, ino, name) {
            return reply.send(Ok(()));
        }
    }
    for (entry, offset) in entries.iter().zip(3..).skip(before.saturating_sub(2)) {
        if !reply.entry(shared, offset, prefix, entry) {
            break;
        }
    }
    reply.send(Ok(()));
}
