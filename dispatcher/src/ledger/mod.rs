//! The ledger: the only writer of review state, in the control bucket.
//!
//! Owns the records, seals, open markers and dead letters, and the rule for lost replies: after a failed precondition
//! it reads the object and compares what it meant to write. Refuses decisions: which arrow to take is the caller's.

mod campaigns;
mod completions;
mod keeping;
mod letters;
mod names;
mod packs;
mod record;
mod schema;
mod sweeps;

use bytes::Bytes;
use carrel_cloud::{CallError, Created, ObjectMeta, Objects, ReadError, Swapped};
use carrel_schemas::ids::{BucketName, Epoch, IdempotencyKey, Nonce, PackId, ReviewId, Revision, TenantId};
use carrel_schemas::seal::Seal;
use carrel_schemas::timestamp::Timestamp;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

pub use completions::LogPage;
pub use keeping::CollectCursor;
pub use names::{Kept, LEADER};
pub use record::{ArrowError, AttemptEnd, EndedAttempt, ReviewRecord, State};
pub(crate) use schema::Stored;

const JSON: &str = "application/json";
/// No control object is larger than a seal may be.
const MAX_BYTES: u64 = Seal::MAX_BYTES;
/// Objects read at once where many are.
const READS: usize = 32;

/// A value and the generation it was read at.
#[derive(Debug, Clone)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// The generation a swap must name.
    pub generation: i64,
}

/// "This pack has uploads that no seal holds yet."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPack {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub pack: PackId,
    /// The revision its next seal will have.
    pub revision: Revision,
    /// The tenant's uploads bucket.
    pub bucket: BucketName,
    /// When the first upload was heard of.
    pub opened_at: Timestamp,
    /// W3C trace context of the message that opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Names the seal of a review that is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReview {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub review: ReviewId,
    /// Its pack.
    pub pack: PackId,
    /// The revision of the pack's seal.
    pub revision: Revision,
}

/// What beginning another epoch of a review came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Replayed {
    /// This is its record, in a later epoch.
    Begun(Box<ReviewRecord>),
    /// It has not ended in that epoch, or was delivered.
    NotEnded,
    /// The ledger holds no such review.
    Gone,
}

/// Where the cold sweep of one uploads bucket stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepCursor {
    /// The listing's next page; empty at the start of a cycle.
    pub page_token: String,
    /// When the last whole cycle ended.
    pub cycle_ended: Option<Timestamp>,
}

impl Stored for OpenPack {}
impl Stored for OpenReview {}
impl Stored for SweepCursor {}

/// Why the ledger could not answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The control bucket did not answer.
    #[error("ledger")]
    Call(#[from] CallError),
    /// An object of the control bucket could not be read.
    #[error("ledger")]
    Read(#[from] ReadError),
    /// A review whose seal is gone.
    #[error("review {0}: the ledger holds no seal for it; put the seal back, or ask for a review of the pack")]
    NoSeal(ReviewId),
    /// An object is not what its name promises.
    #[error("read ledger object {name}: {source}; move it aside and let the reconciler rebuild it")]
    Corrupt {
        /// Its name in the control bucket.
        name: String,
        /// What did not fit.
        #[source]
        source: serde_json::Error,
    },
    /// An object that a later program wrote.
    #[error(
        "ledger object {name} has schema {schema}, and this program reads up to {known}; leave it as it is, and run the \
         program that wrote it"
    )]
    Newer {
        /// Its name in the control bucket.
        name: String,
        /// Its number.
        schema: u32,
        /// The highest that is known here.
        known: u32,
    },
    /// An object that another one names is not there.
    #[error("ledger object {name} is gone; put it back from the control bucket's versions")]
    Gone {
        /// Its name in the control bucket.
        name: String,
    },
    /// An arrow that does not start here.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

impl LedgerError {
    /// Whether asking again would meet it again, until somebody mends the ledger.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. } | Self::Gone { .. } | Self::NoSeal(_) | Self::Read(ReadError::TooLarge { .. })
        )
    }
}

/// The control bucket.
#[derive(Debug, Clone)]
pub struct Ledger {
    objects: Objects,
    bucket: String,
}

impl Ledger {
    /// The ledger in `bucket`.
    pub fn new(objects: Objects, bucket: &BucketName) -> Self {
        Self { objects, bucket: bucket.to_string() }
    }

    /// Opens the review of a seal unless it was opened before. The marker comes first: a marker without a record is
    /// a wish that the reconciler fulfils, a record without a marker would be forgotten. Of a review that was superseded
    /// the marker is written anew: this seal may be the pack's last, and then it is reviewed after all.
    pub async fn open_review(&self, seal: &Seal, record: &ReviewRecord) -> Result<bool, LedgerError> {
        let open = OpenReview {
            tenant: seal.tenant.clone(),
            review: seal.review.clone(),
            pack: seal.pack.clone(),
            revision: seal.revision,
        };
        let marker = names::open_review(&open.tenant, &open.review);
        if let Some(held) = self.review(&seal.tenant, &seal.review).await? {
            if held.value.is_superseded() {
                self.objects.put(&self.bucket, &marker, encode(&open), JSON).await?;
            }
            return Ok(false);
        }
        self.objects.create(&self.bucket, &marker, encode(&open), JSON).await?;
        let name = names::record(&record.tenant, &record.review);
        match self.objects.create(&self.bucket, &name, encode(record), JSON).await? {
            Created::New(_) => Ok(true),
            Created::Exists => {
                let held: Option<Versioned<ReviewRecord>> = self.read(&name).await?;
                Ok(held.is_some_and(|held| held.value.writer == record.writer))
            }
        }
    }

    /// Begins the epoch after `ended` of a review that ended in it without delivery, unless that was done before. The
    /// marker comes last and is made sure of each time: whoever saw the old end may delete it once more.
    pub async fn replay_review(
        &self,
        tenant: &TenantId,
        review: &ReviewId,
        ended: Epoch,
        now: Timestamp,
    ) -> Result<Replayed, LedgerError> {
        let Some(mut held) = self.review(tenant, review).await? else { return Ok(Replayed::Gone) };
        if held.value.epoch == ended {
            if !held.value.may_be_replayed() {
                return Ok(Replayed::NotEnded);
            }
            let next = held.value.replay(now)?;
            match self.swap(held.generation, next).await? {
                Some(swapped) => held = swapped,
                None => return Ok(Replayed::NotEnded),
            }
        }
        let record = held.value;
        if !matches!(record.state, State::Settled { announced_at: Some(_), .. }) {
            let open = OpenReview {
                tenant: record.tenant.clone(),
                review: record.review.clone(),
                pack: record.pack.clone(),
                revision: record.revision,
            };
            self.create(&names::open_review(&open.tenant, &open.review), &open).await?;
        }
        Ok(Replayed::Begun(Box::new(record)))
    }

    /// Every review that is not finished.
    pub async fn open_reviews(&self) -> Result<Vec<OpenReview>, LedgerError> {
        self.read_all(names::OPEN_REVIEWS).await
    }

    /// The names alone of every review that is not finished: one listing, no reads.
    pub async fn open_review_ids(&self) -> Result<Vec<(TenantId, ReviewId)>, LedgerError> {
        let found = self.objects.list(&self.bucket, names::OPEN_REVIEWS).await?;
        let parse = |name: &str| {
            let (tenant, _) = name.strip_prefix(names::OPEN_REVIEWS)?.split_once('/')?;
            Some((TenantId::parse(tenant).ok()?, ReviewId::parse(names::stem(name)).ok()?))
        };
        Ok(found.iter().filter_map(|meta| parse(&meta.name)).collect())
    }

    /// What an unfinished review was opened for.
    pub async fn open_review_of(
        &self,
        tenant: &TenantId,
        review: &ReviewId,
    ) -> Result<Option<OpenReview>, LedgerError> {
        Ok(self.read(&names::open_review(tenant, review)).await?.map(|open| open.value))
    }

    /// The review is finished: nobody looks at it again unasked.
    pub async fn finish_review(&self, tenant: &TenantId, review: &ReviewId) -> Result<(), LedgerError> {
        self.objects.delete(&self.bucket, &names::open_review(tenant, review), None).await?;
        Ok(())
    }

    /// Which version of a review's marker is there.
    pub async fn open_review_generation(
        &self,
        tenant: &TenantId,
        review: &ReviewId,
    ) -> Result<Option<i64>, LedgerError> {
        let found = self.objects.find(&self.bucket, &names::open_review(tenant, review)).await?;
        Ok(found.map(|meta| meta.generation))
    }

    /// The review is finished, unless its marker was written anew.
    pub async fn finish_review_of(
        &self,
        tenant: &TenantId,
        review: &ReviewId,
        generation: i64,
    ) -> Result<(), LedgerError> {
        self.objects.delete(&self.bucket, &names::open_review(tenant, review), Some(generation)).await?;
        Ok(())
    }

    /// One review's record.
    pub async fn review(
        &self,
        tenant: &TenantId,
        review: &ReviewId,
    ) -> Result<Option<Versioned<ReviewRecord>>, LedgerError> {
        self.read(&names::record(tenant, review)).await
    }

    /// The first `most` records of a tenant after this review, in order of ids, and the last id that was looked at if
    /// more follow.
    pub async fn reviews_after(
        &self,
        tenant: &TenantId,
        after: Option<&ReviewId>,
        most: usize,
    ) -> Result<(Vec<ReviewRecord>, Option<ReviewId>), LedgerError> {
        let prefix = names::record_prefix(tenant);
        let start = after.map(|id| names::record(tenant, id)).unwrap_or_default();
        // The object of that very name, if it is still there, is the first of the listing; one more tells that more follow.
        let mut found = self.objects.list_from(&self.bucket, &prefix, &start, most + 2).await?;
        found.retain(|meta| meta.name > start);
        let more = found.len() > most;
        found.truncate(most);
        let last = found.last().filter(|_| more).and_then(|meta| ReviewId::parse(names::stem(&meta.name)).ok());
        Ok((self.read_each(found, MAX_BYTES, |_, held: Versioned<ReviewRecord>| held.value).await?, last))
    }

    /// Writes `next` if the record is still the one read; `None` if somebody else moved it.
    pub async fn swap(
        &self,
        generation: i64,
        mut next: ReviewRecord,
    ) -> Result<Option<Versioned<ReviewRecord>>, LedgerError> {
        (next.schema, next.writer) = (ReviewRecord::SCHEMA, fresh_nonce());
        let name = names::record(&next.tenant, &next.review);
        match self.objects.swap(&self.bucket, &name, generation, encode(&next), JSON).await? {
            Swapped::Done(generation) => Ok(Some(Versioned { value: next, generation })),
            Swapped::Mismatch => {
                let held: Option<Versioned<ReviewRecord>> = self.read(&name).await?;
                Ok(held.filter(|held| held.value.writer == next.writer))
            }
        }
    }

    /// The seal that a request's idempotency key stands for: the one remembered, or `draft` if none was.
    pub async fn remember_request(&self, key: &IdempotencyKey, draft: Seal) -> Result<Seal, LedgerError> {
        let name = names::request(&draft.tenant, key);
        match self.create(&name, &draft).await? {
            Some(_) => Ok(draft),
            None => Ok(self.read(&name).await?.map_or(draft, |held| held.value)),
        }
    }

    /// The seal that a request's idempotency key stands for, if the key was used.
    pub async fn request(&self, tenant: &TenantId, key: &IdempotencyKey) -> Result<Option<Seal>, LedgerError> {
        Ok(self.read(&names::request(tenant, key)).await?.map(|held| held.value))
    }

    /// Returns once the control bucket has answered.
    pub async fn answers(&self) -> Result<(), LedgerError> {
        self.objects.find(&self.bucket, LEADER).await?;
        Ok(())
    }

    /// Where the cold sweep of a tenant stands; `None` if it never began.
    pub async fn sweep_cursor(&self, tenant: &TenantId) -> Result<Option<Versioned<SweepCursor>>, LedgerError> {
        self.read(&names::sweep(tenant)).await
    }

    /// Notes where the cold sweep stands, if it still stands where it was read; a lost note only sweeps a page twice.
    /// False if another leader has moved it.
    pub async fn keep_sweep_cursor(
        &self,
        tenant: &TenantId,
        read: Option<i64>,
        cursor: &SweepCursor,
    ) -> Result<bool, LedgerError> {
        let name = names::sweep(tenant);
        let kept = match read {
            Some(generation) => self.replace(&name, generation, cursor).await?,
            None => self.create(&name, cursor).await?,
        };
        Ok(kept.is_some())
    }

    /// Reads any control object.
    pub(crate) async fn read<T: Stored>(&self, name: &str) -> Result<Option<Versioned<T>>, LedgerError> {
        self.read_up_to(name, MAX_BYTES).await
    }

    async fn read_up_to<T: Stored>(&self, name: &str, max_bytes: u64) -> Result<Option<Versioned<T>>, LedgerError> {
        let Some(body) = self.objects.get(&self.bucket, name, max_bytes).await? else { return Ok(None) };
        Ok(Some(Versioned { value: schema::decode(name, &body.bytes)?, generation: body.generation }))
    }

    /// Creates any control object; `None` if it exists.
    pub(crate) async fn create<T: Serialize>(&self, name: &str, value: &T) -> Result<Option<i64>, LedgerError> {
        match self.objects.create(&self.bucket, name, encode(value), JSON).await? {
            Created::New(generation) => Ok(Some(generation)),
            Created::Exists => Ok(None),
        }
    }

    /// Swaps any control object; `None` on a mismatch.
    pub(crate) async fn replace<T: Serialize>(
        &self,
        name: &str,
        generation: i64,
        value: &T,
    ) -> Result<Option<i64>, LedgerError> {
        match self.objects.swap(&self.bucket, name, generation, encode(value), JSON).await? {
            Swapped::Done(generation) => Ok(Some(generation)),
            Swapped::Mismatch => Ok(None),
        }
    }

    /// Reads every object under a prefix.
    async fn read_all<T: Stored>(&self, prefix: &str) -> Result<Vec<T>, LedgerError> {
        let found = self.objects.list(&self.bucket, prefix).await?;
        self.read_each(found, MAX_BYTES, |_, held: Versioned<T>| held.value).await
    }

    /// Reads these objects and keeps of each what `keep` keeps.
    async fn read_each<T: Stored, K>(
        &self,
        found: Vec<ObjectMeta>,
        max_bytes: u64,
        keep: impl Fn(String, Versioned<T>) -> K + Copy,
    ) -> Result<Vec<K>, LedgerError> {
        let reads = found.into_iter().map(|meta| async move {
            match self.read_up_to::<T>(&meta.name, max_bytes).await {
                // One broken object must not hide its neighbours.
                Err(
                    error @ (LedgerError::Corrupt { .. }
                    | LedgerError::Newer { .. }
                    | LedgerError::Read(ReadError::TooLarge { .. })),
                ) => {
                    tracing::error!(error = crate::chain(&error), "skipped");
                    Ok::<_, LedgerError>(None)
                }
                read => Ok(read?.map(|held| keep(meta.name, held))),
            }
        });
        let read: Vec<_> = futures::stream::iter(reads).buffered(READS).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }
}

/// 128 random bits.
pub(crate) fn fresh_nonce() -> Nonce {
    Nonce::from_bits(rand::random())
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("ledger types are plain JSON"))
}
