//! What every call of one volume shares, and the locks around it.
//!
//! No lock is held across an await, and none while another is taken.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use carrel_cloud::Objects;
use fuser::Notifier;

use crate::Limits;
use crate::attributes::Owner;
use crate::budget::Budget;
use crate::fail::Fail;
use crate::names::Names;
use crate::nodes::{FileNode, Nodes};
use crate::siblings::Siblings;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) objects: Objects,
    pub(crate) bucket: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) owner: Owner,
    pub(crate) budget: Budget,
    pub(crate) siblings: Siblings,
    /// Set once the session exists; without it the kernel is told nothing unasked.
    pub(crate) notifier: OnceLock<Notifier>,
    names: Mutex<Names>,
    nodes: Mutex<Nodes>,
}

const UNHURT: &str = "no code panics while it holds the lock";

impl Shared {
    pub(crate) fn new(objects: Objects, bucket: &str, limits: Limits) -> Self {
        Self {
            objects,
            bucket: bucket.into(),
            owner: Owner::this_process(),
            budget: Budget::new(&limits),
            siblings: Siblings::default(),
            notifier: OnceLock::new(),
            names: Mutex::new(Names::new(&limits)),
            nodes: Mutex::new(Nodes::new()),
            limits,
        }
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().expect(UNHURT)
    }

    pub(crate) fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().expect(UNHURT)
    }

    /// The server gave bytes of this generation.
    pub(crate) fn proven(&self, file: &FileNode) {
        *file.proven.lock().expect(UNHURT) = Some(Instant::now());
    }

    /// True if this generation need not be asked for again before a reader may have it.
    pub(crate) fn is_proven(&self, file: &FileNode) -> bool {
        file.proven.lock().expect(UNHURT).is_some_and(|at| at.elapsed() < self.limits.believe_present)
    }

    /// Draws the conclusions of a failure and passes it on: whoever met a generation that is gone makes the next open
    /// look for the one in its place.
    pub(crate) fn failed(&self, file: &FileNode, fail: Fail) -> Fail {
        if matches!(fail, Fail::Gone(_)) {
            *file.proven.lock().expect(UNHURT) = None;
            self.names().doubt(&file.name);
        }
        fail
    }

    /// `work`, or an error once the reader has waited long enough.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = Result<T, Fail>>) -> Result<T, Fail> {
        let limit = self.limits.answer_within;
        tokio::time::timeout(limit, work).await.unwrap_or(Err(Fail::Late(limit)))
    }
}

/// Logs a failure where it is handled, and gives the number the reader is told.
pub(crate) fn told(call: &'static str, what: &str, fail: &Fail) -> fuser::Errno {
    let causes = std::iter::successors(fail.source(), |&cause| cause.source());
    let error = causes.fold(fail.to_string(), |said, cause| format!("{said}: {cause}"));
    match fail {
        Fail::Gone(_) => tracing::info!(call, what, error, "a reader gets ESTALE"),
        _ => tracing::warn!(call, what, error, "a reader gets an error"),
    }
    fail.errno()
}

/// One slice of all pieces; copies only if there are several.
pub(crate) fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 { pieces.remove(0) } else { pieces.concat().into() }
}
