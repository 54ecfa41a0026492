//! Content on disk: one file per blob, written by a thread of its own, durable before anyone refers to it.
//!
//! A blob's name is random and unknown until a commit refers to it, so it is written in place: the commit is what a
//! rename would be. Files that no record refers to (a crash came between) are collected at the next start. A reader
//! holds the open file, so deleting a blob never cuts a download short.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::shelf::Content;

/// Content up to this many bytes lies in the database instead.
pub(super) const INLINE_BYTES: usize = 64 * 1024;
/// Chunks in flight between the network and the disk, per upload.
const QUEUE: usize = 4;

/// The name of a blob: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct BlobId(String);

impl BlobId {
    fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }
}

/// The directory of blobs.
#[derive(Clone, Debug)]
pub(super) struct Blobs {
    dir: Arc<Path>,
}

/// How far a file is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Bytes from the start.
    pub(super) size: u64,
    /// Their CRC-32C.
    pub(super) crc32c: u32,
}

/// Content that has arrived whole.
#[derive(Debug)]
pub(super) struct Received {
    /// Where it is.
    pub(super) content: Content,
    /// Its size and checksum.
    pub(super) progress: Progress,
}

enum Command {
    Write(Bytes),
    Sync(oneshot::Sender<Progress>),
}

/// Appends to one blob from a thread; dropping it lets the thread end by itself.
#[derive(Debug)]
pub(super) struct Writer {
    id: BlobId,
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<io::Result<()>>,
}

impl Blobs {
    /// Opens or creates the directory.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir: dir.into() })
    }

    fn path(&self, id: &BlobId) -> PathBuf {
        self.dir.join(&id.0)
    }

    /// Opens a blob for reading.
    pub(super) fn read(&self, id: &BlobId) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// Starts a new blob. It is removed again if the writer is dropped before its first sync.
    pub(super) fn create(&self) -> Writer {
        self.writer(BlobId::random(), Progress::default(), Box::new(()))
    }

    /// Goes on with a blob at `from`, forgetting whatever lies behind; `held` is dropped when the file is closed.
    pub(super) fn resume(&self, id: BlobId, from: Progress, held: Box<dyn Send>) -> Writer {
        self.writer(id, from, held)
    }

    fn writer(&self, id: BlobId, from: Progress, held: Box<dyn Send>) -> Writer {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (dir, path) = (self.dir.clone(), self.path(&id));
        let thread = tokio::task::spawn_blocking(move || {
            let result = append(&dir, &path, from, queue);
            drop(held);
            result
        });
        Writer { id, commands, thread }
    }

    /// A second name for the same bytes: what a copy costs.
    pub(super) fn link(&self, id: &BlobId) -> io::Result<BlobId> {
        let copy = BlobId::random();
        std::fs::hard_link(self.path(id), self.path(&copy))?;
        File::open(&self.dir)?.sync_all()?;
        Ok(copy)
    }

    /// A name for a blob that will be written later.
    pub(super) fn reserve(&self) -> BlobId {
        BlobId::random()
    }

    /// Removes a blob that nothing refers to any more. What fails here is collected at the next start.
    pub(super) fn remove(&self, id: &BlobId) {
        if let Err(error) = std::fs::remove_file(self.path(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(blob = %id.0, %error, "cannot remove a blob that nothing refers to; it is collected at the next start");
        }
    }

    /// Removes every file but `live`; returns how many went.
    pub(super) fn collect(&self, live: &HashSet<BlobId>) -> io::Result<usize> {
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let known = entry.file_name().to_str().is_some_and(|name| live.contains(&BlobId(name.to_owned())));
            if !known && entry.file_type()?.is_file() {
                std::fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Takes in a whole body: small ones stay in memory, others are durable on disk when this returns.
    pub(super) async fn receive<E: Into<io::Error>>(
        &self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> io::Result<Received> {
        let mut head = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(Into::into)?;
            if head.len() + chunk.len() <= INLINE_BYTES {
                head.extend_from_slice(&chunk);
                continue;
            }
            let mut writer = self.create();
            writer.write(head.freeze()).await?;
            writer.write(chunk).await?;
            while let Some(chunk) = body.next().await {
                writer.write(chunk.map_err(Into::into)?).await?;
            }
            let progress = writer.sync().await?;
            let id = writer.close().await?;
            return Ok(Received { content: Content::Blob(id), progress });
        }
        let progress = Progress { size: head.len() as u64, crc32c: crc32c::crc32c(&head) };
        Ok(Received { content: Content::Inline(head.freeze()), progress })
    }
}

impl Writer {
    /// Appends, waiting while the disk is behind.
    pub(super) async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        match self.commands.send(Command::Write(chunk)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Makes everything written so far durable.
    pub(super) async fn sync(&mut self) -> io::Result<Progress> {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Sync(done)).await.is_err() {
            return Err(self.failure().await);
        }
        match wait.await {
            Ok(progress) => Ok(progress),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Closes the file.
    pub(super) async fn close(self) -> io::Result<BlobId> {
        drop(self.commands);
        self.thread.await.map_err(io::Error::other)??;
        Ok(self.id)
    }

    async fn failure(&mut self) -> io::Error {
        match (&mut self.thread).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => io::Error::other("the blob's writer ended early"),
            Err(error) => io::Error::other(error),
        }
    }
}

fn append(dir: &Path, path: &Path, from: Progress, mut queue: mpsc::Receiver<Command>) -> io::Result<()> {
    // What is vouched for must be there: a hole of zeros would have the wrong checksum for ever.
    let mut file = OpenOptions::new().create(from.size == 0).truncate(false).write(true).open(path)?;
    if file.metadata()?.len() < from.size {
        return Err(io::Error::other(format!("{} is shorter than its durable size {}", path.display(), from.size)));
    }
    file.set_len(from.size)?;
    file.seek(SeekFrom::Start(from.size))?;
    let (mut at, mut named) = (from, from.size > 0);
    let result = loop {
        match queue.blocking_recv() {
            Some(Command::Write(chunk)) => {
                if let Err(error) = file.write_all(&chunk) {
                    break Err(error);
                }
                at.size += chunk.len() as u64;
                at.crc32c = crc32c::crc32c_append(at.crc32c, &chunk);
            }
            Some(Command::Sync(done)) => {
                if let Err(error) = file.sync_all().and_then(|()| File::open(dir)?.sync_all()) {
                    break Err(error);
                }
                named = true;
                // Nobody waits if the request was dropped; the loop then ends by itself.
                if done.send(at).is_err() {
                    tracing::debug!(path = %path.display(), "nobody waits for the sync of this blob");
                }
            }
            None => break Ok(()),
        }
    };
    if !named {
        std::fs::remove_file(path)?;
    }
    result
}
