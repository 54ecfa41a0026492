//! Resumable uploads: where each stands, durably, so that a restarted cloud goes on at the byte it last vouched for.
//!
//! ```text
//! POST ─► open(0) ── PUT ─► open(n), fsynced ── last PUT ─► finished(object), in the commit that finalizes it
//!            └── DELETE, or a week ─► over ◄── a week ──────────────┘
//! ```
//! A session remembers its object after it finished: a client whose last reply was lost asks for the status and gets
//! the object. What is over is answered with 410 for another week, and forgotten, with all it wrote, when the cloud starts
//! after that.

use super::blobs::BlobId;
use super::checksum::Progress;
use super::generation::Preconditions;
use super::record::{ObjectRecord, Settings};
use crate::store::StoreError;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

/// Upload id to the session, as JSON.
pub(super) const SESSIONS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("storage.uploads");
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
    /// The checksums that the caller announced.
    pub(super) expected_crc32c: Option<u32>,
    /// Likewise, in base64.
    #[serde(default)]
    pub(super) expected_md5: Option<String>,
    /// The file that takes the content.
    pub(super) blob: BlobId,
    /// How much of it is durable.
    pub(super) progress: Progress,
    /// The object, once it is finalized.
    pub(super) finished: Option<ObjectRecord>,
    /// When the upload started.
    pub(super) created_us: i64,
    /// It was cancelled.
    #[serde(default)]
    pub(super) cancelled: bool,
}

impl Session {
    /// Whether there is nothing to go on with.
    pub(super) fn is_over(&self, now_us: i64) -> bool {
        self.cancelled || self.created_us + LIFETIME_US < now_us
    }
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

/// The object that a session has become, if it has; the outer `None` means that the session is gone or was cancelled.
pub(super) fn finished(txn: &WriteTransaction, id: &str) -> Result<Option<Option<ObjectRecord>>, StoreError> {
    let sessions = txn.open_table(SESSIONS)?;
    let session: Option<Session> = sessions.get(id)?.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?;
    Ok(session.filter(|s| !s.cancelled).map(|s| s.finished))
}

/// Writes how a session stands that goes on; false, and nothing is written, if it has ended meanwhile.
pub(super) fn advance(txn: &WriteTransaction, id: &str, session: &Session) -> Result<bool, StoreError> {
    let goes_on = matches!(finished(txn, id)?, Some(None));
    if goes_on {
        save(txn, id, session)?;
    }
    Ok(goes_on)
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

/// What the files of open uploads hold at least: blob, session and durable size.
pub(super) type Open = Vec<(BlobId, String, u64)>;

/// Forgets what has been over for long and returns the uploads still open.
pub(super) fn expire(txn: &WriteTransaction, now_us: i64) -> Result<Open, StoreError> {
    let mut sessions = txn.open_table(SESSIONS)?;
    let (mut old, mut open) = (Vec::new(), Vec::new());
    for entry in sessions.iter()? {
        let (id, bytes) = entry?;
        let session: Session = serde_json::from_slice(bytes.value())?;
        if session.created_us + 2 * LIFETIME_US < now_us {
            old.push(id.value().to_owned());
        } else if session.finished.is_none() && !session.is_over(now_us) {
            open.push((session.blob, id.value().to_owned(), session.progress.size));
        }
    }
    for id in old {
        sessions.remove(id.as_str())?;
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::{Database, ReadableDatabase, backends::InMemoryBackend};

    #[test]
    fn an_upload_is_open_for_a_week_and_known_for_another() {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).expect("creates");
        let text = r#"{"bucket":"b","name":"n","settings":{},"conditions":{},"blob":"0","progress":{"size":7,"crc32c":0},
            "finished":null,"created_us":0}"#;
        let open: Session = serde_json::from_str(text).expect("what was kept before can be read");
        let cancelled = Session { cancelled: true, ..open.clone() };
        let txn = db.begin_write().expect("begins");
        create_table(&txn).expect("creates");
        save(&txn, "open", &open).expect("saves");
        save(&txn, "cancelled", &cancelled).expect("saves");
        let opened =
            |at| expire(&txn, at).expect("looks").into_iter().map(|(_, id, size)| (id, size)).collect::<Vec<_>>();
        assert_eq!(opened(LIFETIME_US), [("open".to_owned(), 7)]);
        assert!(!open.is_over(LIFETIME_US) && open.is_over(LIFETIME_US + 1) && cancelled.is_over(0));
        assert_eq!(opened(2 * LIFETIME_US), []);
        assert!(txn.open_table(SESSIONS).expect("opens").get("open").expect("reads").is_some());
        assert_eq!(opened(2 * LIFETIME_US + 1), []);
        txn.commit().expect("commits");
        assert!(find(&db.begin_read().expect("begins"), "open").expect("reads").is_none());
    }
}
