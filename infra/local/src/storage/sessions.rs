//! Resumable uploads: where each stands, durably, so that a restarted cloud goes on at the byte it last vouched for.
//!
//! ```text
//! POST ─► open(0) ── PUT ─► open(n), fsynced ── last PUT ─► finished(object), in the commit that finalizes it
//! ```
//! A session remembers its object after it finished: a client whose last reply was lost asks for the status and gets
//! the object. Sessions are forgotten after a week, as at Google.

use super::blobs::{BlobId, Progress};
use super::generation::Preconditions;
use super::record::{ObjectRecord, Settings};
use crate::store::StoreError;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

/// Upload id to the session, as JSON.
const SESSIONS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("storage.uploads");
/// A session's life, in microseconds.
const LIFETIME_US: i64 = 7 * 24 * 3600 * 1_000_000;

/// One resumable upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Session {
    /// The bucket's id.
    pub(super) bucket: String,
    /// The object's name.
    pub(super) name: String,
    /// The metadata of the object to be.
    pub(super) settings: Settings,
    /// Checked when the upload starts and again when the object is finalized.
    pub(super) conditions: Preconditions,
    /// The checksum that the caller announced.
    pub(super) expected_crc32c: Option<u32>,
    /// The file that takes the content.
    pub(super) blob: BlobId,
    /// How much of it is durable.
    pub(super) progress: Progress,
    /// The object, once it is finalized.
    pub(super) finished: Option<ObjectRecord>,
    /// When the upload started.
    pub(super) created_us: i64,
}

/// Creates the table.
pub(super) fn create_table(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(SESSIONS)?;
    Ok(())
}

/// A session, if it is known.
pub(super) fn find(txn: &ReadTransaction, id: &str) -> Result<Option<Session>, StoreError> {
    let sessions = txn.open_table(SESSIONS)?;
    let found = sessions.get(id)?;
    Ok(found.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?)
}

/// The object that a session has become, if it has; the outer `None` means that the session is gone.
pub(super) fn finished(txn: &WriteTransaction, id: &str) -> Result<Option<Option<ObjectRecord>>, StoreError> {
    let sessions = txn.open_table(SESSIONS)?;
    let session: Option<Session> = sessions.get(id)?.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?;
    Ok(session.map(|s| s.finished))
}

/// Writes a session as it now is.
pub(super) fn save(txn: &WriteTransaction, id: &str, session: &Session) -> Result<(), StoreError> {
    txn.open_table(SESSIONS)?.insert(id, serde_json::to_vec(session)?.as_slice())?;
    Ok(())
}

/// Forgets a session.
pub(super) fn remove(txn: &WriteTransaction, id: &str) -> Result<(), StoreError> {
    txn.open_table(SESSIONS)?.remove(id)?;
    Ok(())
}

/// Forgets what is older than a week and returns the blobs of the uploads still open.
pub(super) fn expire(txn: &WriteTransaction, now_us: i64) -> Result<Vec<BlobId>, StoreError> {
    let mut sessions = txn.open_table(SESSIONS)?;
    let (mut old, mut open) = (Vec::new(), Vec::new());
    for entry in sessions.iter()? {
        let (id, bytes) = entry?;
        let session: Session = serde_json::from_slice(bytes.value())?;
        if session.created_us + LIFETIME_US < now_us {
            old.push(id.value().to_owned());
        } else if session.finished.is_none() {
            open.push(session.blob);
        }
    }
    for id in old {
        sessions.remove(id.as_str())?;
    }
    Ok(open)
}
