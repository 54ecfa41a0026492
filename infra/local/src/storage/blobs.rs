//! Content on disk: one file per blob, written by a thread of its own, durable before anyone refers to it.
//!
//! The order that a SIGKILL or a power cut may stop anywhere:
//! ```text
//! write file ─► fsync file ─► fsync directory ─► commit the record (fsynced by the database) ─► answer
//! commit that the record is gone ─► unlink, not synced: a file that comes back is collected at the next start
//! ```
//! A blob's name is random and unknown until a commit refers to it, so it is written in place: the commit is what a
//! rename would be. A reader holds the open file, so deleting a blob never cuts a download short. What this room did not
//! write is none of its business: at the start it is named and put aside, as [`super::aside`] says.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::{DirEntry, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::checksum::{Progress, Running, Sums};
use super::shelf::Content;

/// Content up to this many bytes lies in the database instead.
pub(super) const INLINE_BYTES: usize = 64 * 1024;
/// Chunks in flight between the network and the disk, per upload.
const QUEUE: usize = 4;
/// Google keeps what a resumable upload has sent in multiples of this many bytes.
pub(super) const QUANTUM: u64 = 256 * 1024;

/// The name of a blob: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct BlobId(String);

impl BlobId {
    fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// The blob that a file of this name is, if it can be one.
    pub(super) fn of_file(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?;
        let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        (name.len() == 32 && name.bytes().all(digit)).then(|| Self(name.to_owned()))
    }
}

/// The directory of blobs.
#[derive(Clone, Debug)]
pub(super) struct Blobs {
    dir: Arc<Path>,
}

/// What of a file is durable.
#[derive(Clone, Debug)]
pub(super) struct Durable {
    /// All that was written.
    pub(super) whole: Progress,
    /// The last multiple of [`QUANTUM`] in it, or where it began.
    pub(super) quanta: Progress,
}

/// Content that has arrived whole.
#[derive(Debug)]
pub(super) struct Received {
    /// Where it is.
    pub(super) content: Content,
    /// Bytes of it.
    pub(super) size: u64,
    /// Its checksums.
    pub(super) sums: Sums,
}

enum Command {
    Write(Bytes),
    Sync(oneshot::Sender<Durable>),
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
            let result = append(&dir, &path, &from, queue);
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

    /// The names in the directory, and how long each file is; `None` is no file.
    pub(super) fn entries(&self) -> io::Result<Vec<(OsString, Option<u64>)>> {
        let entry = |entry: io::Result<DirEntry>| {
            let entry = entry?;
            let kind = entry.metadata()?;
            Ok((entry.file_name(), kind.is_file().then_some(kind.len())))
        };
        std::fs::read_dir(&self.dir)?.map(entry).collect()
    }

    /// Puts an entry of the directory where nobody looks but a person; returns where.
    pub(super) fn put_aside(&self, name: &OsStr) -> io::Result<PathBuf> {
        let aside = self.dir.with_extension("aside");
        std::fs::create_dir_all(&aside)?;
        // What was put aside before under the same name stays.
        let free = (0..).map(|number| {
            let mut name = name.to_owned();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            aside.join(name)
        });
        let place = free.into_iter().find(|place| !place.exists()).expect("numbers do not end");
        std::fs::rename(self.dir.join(name), &place)?;
        Ok(place)
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
            let whole = writer.sync().await?.whole;
            let id = writer.close().await?;
            return Ok(Received { content: Content::Blob(id), size: whole.size, sums: whole.sums() });
        }
        let (size, sums) = (head.len() as u64, Sums::of(&head));
        Ok(Received { content: Content::Inline(head.freeze()), size, sums })
    }
}

/// Bytes that are read from a file at a time: few trips to the threads that read, and no great part of anybody's memory.
const PIECE_BYTES: u64 = 256 * 1024;

/// Some bytes of a file.
pub(super) async fn piece(file: Arc<File>, range: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
    let read = move || file.read_exact_at(&mut bytes, range.start).map(|()| bytes.into());
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

/// Bytes of a file, the next piece being read while one is on its way.
pub(super) fn pieces(file: File, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> {
    let (file, end) = (Arc::new(file), range.end);
    let starts = futures::stream::iter((0..).map(move |number| range.start + number * PIECE_BYTES));
    let starts = starts.take_while(move |start| std::future::ready(*start < end));
    starts.map(move |start| piece(file.clone(), start..end.min(start + PIECE_BYTES))).buffered(2)
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
    pub(super) async fn sync(&mut self) -> io::Result<Durable> {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Sync(done)).await.is_err() {
            return Err(self.failure().await);
        }
        match wait.await {
            Ok(durable) => Ok(durable),
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

fn append(dir: &Path, path: &Path, from: &Progress, mut queue: mpsc::Receiver<Command>) -> io::Result<()> {
    // What is vouched for must be there: a hole of zeros would have the wrong checksum for ever.
    let mut file = OpenOptions::new().create(from.size == 0).truncate(false).write(true).open(path)?;
    if file.metadata()?.len() < from.size {
        return Err(io::Error::other(format!("{} is shorter than its durable size {}", path.display(), from.size)));
    }
    file.set_len(from.size)?;
    file.seek(SeekFrom::Start(from.size))?;
    let (mut at, mut named) = (Running::resume(from), from.size > 0);
    let mut quanta = at.clone();
    let result = loop {
        match queue.blocking_recv() {
            Some(Command::Write(chunk)) => {
                if let Err(error) = file.write_all(&chunk) {
                    break Err(error);
                }
                let mut rest = &chunk[..];
                while !rest.is_empty() {
                    let room = usize::try_from(QUANTUM - at.size() % QUANTUM).expect("no more than a quantum");
                    let (piece, behind) = rest.split_at(room.min(rest.len()));
                    at.update(piece);
                    rest = behind;
                    if at.size().is_multiple_of(QUANTUM) {
                        quanta = at.clone();
                    }
                }
            }
            Some(Command::Sync(done)) => {
                if let Err(error) = file.sync_all().and_then(|()| File::open(dir)?.sync_all()) {
                    break Err(error);
                }
                named = true;
                let durable = Durable { whole: at.progress(), quanta: quanta.progress() };
                // Nobody waits if the request was dropped; the loop then ends by itself.
                if done.send(durable).is_err() {
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
