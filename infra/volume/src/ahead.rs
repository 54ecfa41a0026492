//! Parts of a file that are fetched ahead, each by one request, readable while they arrive.
//!
//! A part is owned by the stream that asked for it: dropping it ends its request and tells whoever waits.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::budget::Room;
use crate::fail::Fail;
use crate::nodes::FileNode;
use crate::shared::Shared;

/// What has arrived of one part.
#[derive(Debug)]
pub(crate) struct Arrived {
    range: Range<u64>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Where each chunk begins, and the chunk.
    chunks: Vec<(u64, Bytes)>,
    /// Everything before is here.
    until: u64,
    failed: Option<Fail>,
}

/// A part on its way, and the request that brings it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) arrived: Arc<Arrived>,
    _request: AbortOnDropHandle<()>,
    _room: Room,
}

impl Part {
    /// Asks for `range` of the file.
    pub(crate) fn ask(shared: &Arc<Shared>, file: &Arc<FileNode>, range: Range<u64>, room: Room, on: &Handle) -> Self {
        let state = State { chunks: Vec::new(), until: range.start, failed: None };
        let arrived = Arc::new(Arrived { range, state: Mutex::new(state), changed: Notify::new() });
        let (shared, file, arriving) = (shared.clone(), file.clone(), arrived.clone());
        let request = on.spawn(async move {
            if let Err(fail) = fill(&shared, &file, &arriving).await {
                arriving.fail(shared.failed(&file, fail));
            }
        });
        Self { arrived, _request: AbortOnDropHandle::new(request), _room: room }
    }

    pub(crate) fn range(&self) -> &Range<u64> {
        &self.arrived.range
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.arrived.fail(Fail::GivenUp);
    }
}

async fn fill(shared: &Shared, file: &FileNode, arrived: &Arrived) -> Result<(), Fail> {
    let Arrived { range, .. } = arrived;
    let mut arriving =
        shared.objects.read_range(&shared.bucket, &file.name, file.facts.generation, range.clone()).await?;
    shared.proven(file);
    while let Some(chunk) = arriving.chunk().await? {
        arrived.push(chunk);
    }
    let got = arrived.state().until - range.start;
    if got == range.end - range.start {
        return Ok(());
    }
    Err(Fail::Length { bucket: shared.bucket.clone(), name: file.name.clone(), got, wanted: range.end - range.start })
}

impl Arrived {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }

    fn push(&self, chunk: Bytes) {
        let mut state = self.state();
        let at = state.until;
        state.until += chunk.len() as u64;
        state.chunks.push((at, chunk));
        drop(state);
        self.changed.notify_waiters();
    }

    fn fail(&self, fail: Fail) {
        let mut state = self.state();
        if state.until < self.range.end && state.failed.is_none() {
            state.failed = Some(fail);
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// The pieces of this part's share of `wanted`, in order; `None` if some are still on their way.
    pub(crate) fn pieces(&self, wanted: &Range<u64>) -> Result<Option<Vec<Bytes>>, Fail> {
        let start = wanted.start.max(self.range.start);
        let end = wanted.end.min(self.range.end);
        let state = self.state();
        if end > state.until {
            return state.failed.clone().map_or(Ok(None), Err);
        }
        let first = state.chunks.partition_point(|(at, chunk)| at + chunk.len() as u64 <= start);
        let within = state.chunks[first..].iter().take_while(|(at, _)| *at < end);
        let cut = within.map(|(at, chunk)| {
            let from = usize::try_from(start.saturating_sub(*at)).expect("inside a chunk");
            let to = usize::try_from((end - at).min(chunk.len() as u64)).expect("inside a chunk");
            chunk.slice(from..to)
        });
        Ok(Some(cut.collect()))
    }

    /// Waits for this part's share of `wanted`.
    pub(crate) async fn wait(&self, wanted: &Range<u64>) -> Result<Vec<Bytes>, Fail> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(pieces) = self.pieces(wanted)? {
                return Ok(pieces);
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(range: Range<u64>) -> Arrived {
        let state = State { chunks: Vec::new(), until: range.start, failed: None };
        Arrived { range, state: Mutex::new(state), changed: Notify::new() }
    }

    #[test]
    fn what_has_arrived_is_readable_across_chunks_and_what_has_not_is_not() {
        let part = part(100..110);
        for chunk in ["0123", "45", "6789"] {
            part.push(Bytes::from(chunk));
        }
        for (wanted, text) in [(100..110, "0123456789"), (103..107, "3456"), (104..106, "45"), (90..101, "0")] {
            let pieces = part.pieces(&wanted).expect("whole").expect("here");
            assert_eq!(pieces.concat(), text.as_bytes(), "{wanted:?}");
        }
        let half = Arrived { range: 100..120, ..part };
        assert!(half.pieces(&(109..111)).expect("not failed").is_none());
        half.fail(Fail::GivenUp);
        assert!(half.pieces(&(109..111)).is_err());
        assert!(half.pieces(&(109..110)).is_ok(), "what is here stays readable");
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_bytes_and_by_their_failure() {
        let part = Arc::new(part(0..8));
        let reader = |range: Range<u64>| {
            let part = part.clone();
            tokio::spawn(async move { part.wait(&range).await })
        };
        let (first, second) = (reader(0..4), reader(0..8));
        part.push(Bytes::from("0123"));
        assert_eq!(first.await.expect("joins").expect("arrived").concat(), b"0123");
        part.fail(Fail::GivenUp);
        assert!(second.await.expect("joins").is_err());
    }
}
