//! Bounds the inodes: once there are too many, the kernel is asked to forget the oldest files it does not use.
//!
//! On a thread of its own, since the kernel may hold a directory's lock until a call is answered.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use fuser::INodeNo;

use crate::shared::Shared;

/// Files the kernel is asked to forget before the count is looked at again.
const AT_ONCE: usize = 1024;

/// Wakes the trimming thread; the thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Trim(SyncSender<()>);

impl Trim {
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        std::thread::Builder::new().name("trim".to_owned()).spawn(move || run(&shared, &woken))?;
        Ok(Self(wake))
    }

    /// Asks for a look at the count.
    pub(crate) fn wake(&self) {
        match self.0.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => tracing::warn!("nobody bounds the inodes any more"),
        }
    }
}

fn run(shared: &Shared, woken: &Receiver<()>) {
    let mut from = 0;
    while woken.recv().is_ok() {
        let Some(kernel) = shared.notifier.get() else { continue };
        // One round over all inodes at most: those in use stay, however many they are.
        let mut rounds = shared.nodes().len() / AT_ONCE + 1;
        while rounds > 0 && shared.nodes().len() > shared.limits.inodes {
            rounds -= 1;
            let files = shared.nodes().files_from(from, AT_ONCE);
            from = files.last().map_or(0, |(ino, ..)| ino + 1);
            for (_, parent, leaf) in files {
                if let Err(error) = kernel.inval_entry(INodeNo(parent), OsStr::new(&leaf)) {
                    tracing::debug!(%error, leaf, "the kernel keeps an entry");
                }
            }
        }
    }
}
