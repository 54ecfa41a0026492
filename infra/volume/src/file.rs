//! An open file: one generation, read whole if it is small, as a stream with lone reads beside it if not.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use fuser::INodeNo;
use tokio::runtime::Handle;

use crate::ahead::{Arrived, Part};
use crate::fail::Fail;
use crate::nodes::FileNode;
use crate::shared::{Shared, joined};
use crate::window::{FIRST, Plan, Window};

/// Up to here a file is fetched whole when it is opened: one request, as many as a stream would begin with.
pub(crate) const SMALL: u64 = FIRST;

/// An open handle.
#[derive(Debug)]
pub(crate) struct Open {
    file: Arc<FileNode>,
    stream: Mutex<Stream>,
}

#[derive(Debug)]
struct Stream {
    window: Window,
    parts: VecDeque<Part>,
}

/// How far a read came without waiting.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The bytes were here.
    Ready(Vec<Bytes>),
    /// They are on their way, in these parts.
    Coming(Vec<Arc<Arrived>>),
    /// Nobody has asked for them.
    Alone,
}

/// Puts the whole of a small file into the kernel's page cache, which also proves that the generation is still there.
pub(crate) async fn fill(shared: &Shared, file: &FileNode) -> Result<(), Fail> {
    let _filling = file.filling.lock().await;
    if shared.is_proven(file) {
        return Ok(());
    }
    // Only what has never been open is stored: a page that a reader waits for is locked, and storing would wait for it
    // while the answer waits for this.
    if file.stored.load(Ordering::Relaxed) {
        fetch(shared, file, 0..1).await?;
    } else {
        let bytes = joined(fetch(shared, file, 0..file.facts.size).await?);
        let got = crc32c::crc32c(&bytes);
        if let Some(wanted) = file.facts.crc32c.filter(|wanted| *wanted != got) {
            return Err(Fail::Checksum { bucket: shared.bucket.clone(), name: file.name.clone(), got, wanted });
        }
        file.stored.store(true, Ordering::Relaxed);
        let stored = shared.notifier.get().map(|kernel| kernel.store(INodeNo(file.ino), 0, &bytes));
        if let Some(Err(error)) = stored {
            tracing::debug!(%error, name = &*file.name, "the kernel takes no pages; they are fetched when it asks");
        }
    }
    shared.proven(file);
    Ok(())
}

impl Open {
    fn new(file: Arc<FileNode>) -> Self {
        let stream = Stream { window: Window::new(file.facts.size), parts: VecDeque::new() };
        Self { file, stream: Mutex::new(stream) }
    }

    /// Opens without asking the cloud, if nothing needs to be asked.
    pub(crate) fn at_once(shared: &Shared, file: &Arc<FileNode>) -> Option<Self> {
        (file.facts.size == 0 || shared.is_proven(file)).then(|| Self::new(file.clone()))
    }

    /// Opens with the first bytes in hand, which proves that the generation is still there: an `ESTALE` now makes the
    /// kernel look the path up again, one in the middle of reading would reach the reader.
    pub(crate) async fn fetched(shared: &Arc<Shared>, file: Arc<FileNode>, on: &Handle) -> Result<Self, Fail> {
        if file.facts.size <= SMALL {
            fill(shared, &file).await?;
            return Ok(Self::new(file));
        }
        let (open, first) = (Self::new(file), 0..1);
        let begun = open.begin(shared, &first, on);
        open.finish(shared, first, begun).await?;
        Ok(open)
    }

    pub(crate) fn name(&self) -> &str {
        &self.file.name
    }

    pub(crate) fn size(&self) -> u64 {
        self.file.facts.size
    }

    /// Reads what is here. `range` is not empty.
    pub(crate) fn begin(&self, shared: &Arc<Shared>, range: &Range<u64>, on: &Handle) -> Begun {
        let mut stream = self.stream();
        let Stream { window, parts } = &mut *stream;
        let ask = match window.read(range) {
            Plan::Alone => return Begun::Alone,
            Plan::Restart { ask } => {
                parts.clear();
                ask
            }
            Plan::Stream { ask, keep_from } => {
                while parts.front().is_some_and(|part| part.range().end <= keep_from) {
                    parts.pop_front();
                }
                ask
            }
        };
        for part in ask {
            let Some(room) = shared.budget.ahead(part.end - part.start) else {
                window.cut(part.start);
                break;
            };
            parts.push_back(Part::ask(shared, &self.file, part, room, on));
        }
        let within = parts.iter().filter(|part| part.range().start < range.end && range.start < part.range().end);
        let parts: Vec<Arc<Arrived>> = within.map(|part| part.arrived.clone()).collect();
        drop(stream);
        // The parts have no gaps between them, so first and last tell whether they cover the range.
        let mut pieces = Vec::new();
        for part in &parts {
            match part.pieces(range) {
                Ok(Some(more)) => pieces.extend(more),
                Ok(None) | Err(_) => return Begun::Coming(parts),
            }
        }
        let here: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if here == range.end - range.start { Begun::Ready(pieces) } else { Begun::Alone }
    }

    /// Waits for what `begin` could not give.
    pub(crate) async fn finish(&self, shared: &Shared, range: Range<u64>, begun: Begun) -> Result<Vec<Bytes>, Fail> {
        let coming = match begun {
            Begun::Ready(pieces) => return Ok(pieces),
            Begun::Coming(parts) => self.coming(&parts, &range).await,
            Begun::Alone => Ok(None),
        };
        match coming {
            Ok(Some(pieces)) => Ok(pieces),
            // Another reader of the same handle moved the stream, or it has no room: these bytes are asked for alone.
            Ok(None) | Err(Fail::GivenUp) => fetch(shared, &self.file, range).await,
            Err(fail) => {
                self.give_up();
                Err(fail)
            }
        }
    }

    async fn coming(&self, parts: &[Arc<Arrived>], range: &Range<u64>) -> Result<Option<Vec<Bytes>>, Fail> {
        let mut pieces = Vec::new();
        for part in parts {
            pieces.extend(part.wait(range).await?);
        }
        let here: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        Ok((here == range.end - range.start).then_some(pieces))
    }

    /// Drops the stream: what comes next is asked for anew.
    pub(crate) fn give_up(&self) {
        let mut stream = self.stream();
        stream.window.reset();
        stream.parts.clear();
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().expect("no code panics while it holds the lock")
    }
}

/// Asks for exactly `range`.
async fn fetch(shared: &Shared, file: &FileNode, range: Range<u64>) -> Result<Vec<Bytes>, Fail> {
    let wanted = range.end - range.start;
    let _room = shared.budget.demand(wanted).await;
    let pieces = async {
        let mut arriving = shared.objects.read_range(&shared.bucket, &file.name, file.facts.generation, range).await?;
        let mut pieces = Vec::new();
        while let Some(chunk) = arriving.chunk().await? {
            pieces.push(chunk);
        }
        Ok(pieces)
    };
    let pieces: Vec<Bytes> = pieces.await.map_err(|fail| shared.failed(file, fail))?;
    let got = pieces.iter().map(|piece| piece.len() as u64).sum();
    if got != wanted {
        return Err(Fail::Length { bucket: shared.bucket.clone(), name: file.name.clone(), got, wanted });
    }
    Ok(pieces)
}
