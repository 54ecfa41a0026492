//! What is open: files, and directories with what they showed when they were last read from the start.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use fuser::FileHandle;

use crate::entry::Entry;
use crate::file::Open;

#[derive(Debug, Default)]
pub(crate) struct Handles {
    files: Mutex<HashMap<u64, Arc<Open>>>,
    directories: Mutex<HashMap<u64, Option<Arc<[Entry]>>>>,
    last: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds the lock")
}

impl Handles {
    fn number(&self) -> FileHandle {
        FileHandle(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn open(&self, file: Open) -> FileHandle {
        let handle = self.number();
        locked(&self.files).insert(handle.0, Arc::new(file));
        handle
    }

    pub(crate) fn file(&self, handle: FileHandle) -> Option<Arc<Open>> {
        locked(&self.files).get(&handle.0).cloned()
    }

    pub(crate) fn close(&self, handle: FileHandle) {
        // Dropped outside the lock: a stream ends its requests.
        let file = locked(&self.files).remove(&handle.0);
        drop(file);
    }

    pub(crate) fn open_directory(&self) -> FileHandle {
        let handle = self.number();
        locked(&self.directories).insert(handle.0, None);
        handle
    }

    /// What the handle shows, once it has been read.
    pub(crate) fn listing(&self, handle: FileHandle) -> Option<Arc<[Entry]>> {
        locked(&self.directories).get(&handle.0).cloned().flatten()
    }

    /// Shows `entries` from now on.
    pub(crate) fn show(&self, handle: FileHandle, entries: Arc<[Entry]>) {
        if let Some(shown) = locked(&self.directories).get_mut(&handle.0) {
            *shown = Some(entries);
        }
    }

    pub(crate) fn close_directory(&self, handle: FileHandle) {
        let listing = locked(&self.directories).remove(&handle.0);
        drop(listing);
    }
}
