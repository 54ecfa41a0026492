//! The embedded database: transactions grouped into commits, each fsynced before anybody is answered.
//!
//! The order on disk: what a record names beside the database (a blob, a log) is fsynced first, with its directory; then
//! the commit, in which redb overwrites no page that the last commit refers to; then the answer. After a power cut the
//! database opens at its last whole commit, which its checksums tell, so what was answered is there and what was not is
//! there whole or not at all. A database that cannot be opened is an error that names the file; nothing starts without it.
//!
//! Owns the one committer thread. Works that arrive while a commit is under way share the next one, so that a
//! thousand small writes a second cost a few dozen fsyncs. A work that fails poisons its group: the group is rolled
//! back and its works are run again one by one, so only the failing one is told so.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, mpsc};

use redb::{Database, ReadTransaction, ReadableDatabase as _, WriteTransaction};
use tokio::sync::oneshot;

/// Works that share one commit at most.
const GROUP: usize = 512;
/// Memory for pages of the file. More is held by the kernel anyway, which gives it back.
const CACHE: usize = 16 << 20;

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be opened.
    #[error("open database {path}")]
    Open {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: redb::DatabaseError,
    },
    /// It failed.
    #[error("database")]
    Database(#[source] Box<redb::Error>),
    /// A record in it cannot be read or written.
    #[error("database record {0} cannot be read")]
    Corrupt(String),
    /// A record in it is not the JSON it should be.
    #[error("database record")]
    Json(#[from] serde_json::Error),
    /// It was closed.
    #[error("database is closed")]
    Closed,
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}

from_redb!(redb::TableError, redb::StorageError, redb::CommitError, redb::TransactionError);

/// The database; clones share it.
#[derive(Clone)]
pub struct Store {
    /// `None` once closed.
    database: Arc<RwLock<Option<Arc<Database>>>>,
    works: mpsc::Sender<Ask>,
}

/// What the committer is asked.
enum Ask {
    Work(Box<dyn Work>),
    Close(oneshot::Sender<()>),
}

trait Work: Send {
    fn run(&mut self, txn: &WriteTransaction) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Pending<T, F> {
    work: F,
    value: Option<T>,
    done: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Work for Pending<T, F>
where
    T: Send,
    F: FnMut(&WriteTransaction) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, txn: &WriteTransaction) -> Result<(), StoreError> {
        self.value = Some((self.work)(txn)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { value, done, .. } = *self;
        // The asker may have gone away; what is committed stays.
        drop(done.send(committed.and_then(|()| value.ok_or(StoreError::Closed))));
    }
}

impl Store {
    /// Opens or creates the database file.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open { path: file.display().to_string(), source };
        let database = Arc::new(Database::builder().set_cache_size(CACHE).create(file).map_err(open)?);
        let (works, queue) = mpsc::channel();
        let committer = database.clone();
        std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || commit_all(committer, &queue))
            .map_err(|error| StoreError::Database(Box::new(redb::Error::Io(error))))?;
        Ok(Self { database: Arc::new(RwLock::new(Some(database))), works })
    }

    /// Commits what was asked before, then frees the file, however many clones there are; they answer
    /// [`StoreError::Closed`] from now on.
    pub async fn close(&self) {
        drop(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
        let (done, closed) = oneshot::channel();
        if self.works.send(Ask::Close(done)).is_ok() {
            // An error means that the committer has ended already.
            drop(closed.await);
        }
    }

    /// Runs `work` inside a write transaction and returns once that is on disk. `work` checks first and writes after:
    /// a refusal is a value and has written nothing. It may be run more than once.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let pending = Box::new(Pending { work, value: None, done });
        self.works.send(Ask::Work(pending)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` on a snapshot of what is committed.
    pub fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner).clone();
        work(&database.ok_or(StoreError::Closed)?.begin_read()?)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Ends when it is closed or every [`Store`] is gone.
fn commit_all(database: Arc<Database>, queue: &mpsc::Receiver<Ask>) {
    let mut closing = None;
    while closing.is_none()
        && let Ok(first) = queue.recv()
    {
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(ask) = next {
            match ask {
                Ask::Work(work) => group.push(work),
                Ask::Close(done) => {
                    closing = Some(done);
                    break;
                }
            }
            next = if group.len() < GROUP { queue.try_recv().ok() } else { None };
        }
        if group.len() > 1 {
            match commit(&database, &mut group) {
                Ok(()) => group.into_iter().for_each(|work| work.answer(Ok(()))),
                Err(_) => group.into_iter().for_each(|work| commit_alone(&database, work)),
            }
        } else {
            group.into_iter().for_each(|work| commit_alone(&database, work));
        }
    }
    drop(database);
    if let Some(done) = closing
        && done.send(()).is_err()
    {
        tracing::debug!("the database was closed for nobody");
    }
}

fn commit_alone(database: &Database, mut work: Box<dyn Work>) {
    let committed = commit(database, std::slice::from_mut(&mut work));
    work.answer(committed);
}

fn commit(database: &Database, group: &mut [Box<dyn Work>]) -> Result<(), StoreError> {
    let txn = database.begin_write()?;
    for work in group {
        work.run(&txn)?;
    }
    txn.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use redb::{ReadableTable as _, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("numbers");

    async fn put(store: &Store, key: u64) -> Result<(), StoreError> {
        store
            .write(move |txn| {
                let mut table = txn.open_table(TABLE)?;
                table.insert(key, key)?;
                if key == 13 { Err(StoreError::Corrupt("thirteen".into())) } else { Ok(()) }
            })
            .await
    }

    #[tokio::test]
    async fn a_failing_work_undoes_only_itself_and_the_rest_survives_a_reopen() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("db");
        let store = Store::open(&file).expect("opens");
        let puts = futures::future::join_all((0..40).map(|key| put(&store, key))).await;
        let failed: Vec<_> = puts.iter().enumerate().filter(|(_, put)| put.is_err()).map(|(key, _)| key).collect();
        assert_eq!(failed, [13]);
        let clone = store.clone();
        store.close().await;
        assert!(matches!(put(&clone, 99).await, Err(StoreError::Closed)));
        let store = Store::open(&file).expect("the file is free once it was closed");
        let keys = store.read(|txn| Ok(txn.open_table(TABLE)?.iter()?.count())).expect("reads");
        assert_eq!(keys, 39);
    }
}
