//! What a task says, kept up to a limit: its output goes through a pipe, so that a task that shouts fills no disk.
//!
//! What is beyond the limit is read, counted and dropped: a task is not stopped by its own words. The file says where it
//! was cut and how much is missing.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

/// What is kept of one task.
const KEPT_BYTES: u64 = 16 << 20;
const PIECE: usize = 64 << 10;
/// What is in the pipe when a task has ended is read in no time; a process that left its group may hold it open for good.
const DRAIN: Duration = Duration::from_secs(2);

/// Where a task's output goes.
pub(super) struct Log {
    into: OwnedFd,
    kept: JoinHandle<()>,
}

impl Log {
    /// Appends to this file, which several tasks of an execution may do at once.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (from, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let from = Receiver::from_owned_fd(from)?;
        let name = path.display().to_string();
        let kept = tokio::spawn(async move {
            if let Err(error) = keep(from, File::from_std(file), KEPT_BYTES).await {
                tracing::error!(path = name, %error, "cannot keep what a task says");
            }
        });
        Ok(Self { into, kept })
    }

    /// An end of the pipe, for whoever speaks.
    pub(super) fn end(&self) -> io::Result<OwnedFd> {
        self.into.try_clone()
    }

    /// Returns once all is written that was said; called when nobody is left to say more.
    pub(super) async fn close(self) {
        drop(self.into);
        let mut kept = self.kept;
        if tokio::time::timeout(DRAIN, &mut kept).await.is_err() {
            kept.abort();
        }
    }
}

/// Copies up to `most` bytes, then counts; reads to the end even if nothing can be written.
async fn keep(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, most: u64) -> io::Result<()> {
    let (mut left, mut dropped) = (most, 0_u64);
    let mut piece = vec![0; PIECE];
    let mut written = Ok(());
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            break;
        }
        let room = usize::try_from(left).unwrap_or(count).min(count);
        left -= room as u64;
        if written.is_ok() && room > 0 {
            written = append(&mut to, &piece[..room]).await;
        }
        if dropped == 0 && count > room && written.is_ok() {
            let cut = format!("\n[cut here: of a task's output {most} bytes are kept]\n");
            written = append(&mut to, cut.as_bytes()).await;
        }
        dropped += (count - room) as u64;
    }
    written?;
    if dropped > 0 {
        append(&mut to, format!("[{dropped} bytes were dropped]\n").as_bytes()).await?;
    }
    Ok(())
}

async fn append(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    async fn kept(said: &[u8], most: u64) -> String {
        let mut file = Vec::new();
        keep(said, &mut file, most).await.expect("memory takes it");
        String::from_utf8(file).expect("text")
    }

    #[tokio::test]
    async fn what_is_beyond_the_limit_is_counted_and_the_file_says_so() {
        assert_eq!(kept(b"all of it\n", 10).await, "all of it\n");
        let cut = "all \n[cut here: of a task's output 4 bytes are kept]\n[6 bytes were dropped]\n";
        assert_eq!(kept(b"all of it\n", 4).await, cut);
        let shouted = kept(&vec![b'x'; 3 * PIECE + 1], 5).await;
        assert!(shouted.ends_with(&format!("[{} bytes were dropped]\n", 3 * PIECE - 4)), "{shouted}");
    }

    #[tokio::test]
    async fn a_file_that_takes_no_more_does_not_stop_who_speaks() {
        struct Full;
        impl AsyncWrite for Full {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                _: &[u8],
            ) -> std::task::Poll<io::Result<usize>> {
                std::task::Poll::Ready(Err(io::ErrorKind::StorageFull.into()))
            }
            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
        }
        let said = vec![b'x'; 3 * PIECE];
        let mut rest = &said[..];
        let error = keep(&mut rest, Full, 1 << 20).await.expect_err("it is full");
        assert_eq!((error.kind(), rest.len()), (io::ErrorKind::StorageFull, 0), "read to its end");
    }

    #[tokio::test]
    async fn a_log_holds_what_was_said_once_it_is_closed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.log");
        for word in ["one\n", "two\n"] {
            let log = Log::open(&path).expect("opened");
            let mut end = std::fs::File::from(log.end().expect("an end"));
            end.write_all(word.as_bytes()).expect("said");
            drop(end);
            log.close().await;
        }
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "one\ntwo\n");
    }
}
