//! Cloud Storage: buckets, objects with generations and versions, preconditions and checksums, over the JSON API and
//! google.storage.v2.
//!
//! | room | owns |
//! |---|---|
//! | `name` | what a legal name is |
//! | `generation` | generations and preconditions, pure |
//! | `checksum` | CRC-32C and MD5 of content on its way |
//! | `record` | one generation's metadata and its JSON resource |
//! | `shelf` | the tables of objects and every change of them |
//! | `listing`, `glob` | prefix, delimiter, patterns, versions, pages |
//! | `blobs` | content on disk |
//! | `aside` | what is found torn or foreign at the start |
//! | `sessions` | resumable uploads |
//! | `bucket` | one bucket's record, its table and faces |
//! | `buckets` | what is done to buckets, their notifications and policies |
//! | `notify` | messages about objects |
//! | `operations` | permission, transaction, consequences |
//! | `derive` | copies and compositions |
//! | `multipart`, `params`, `refusal` | the wire's small parts |
//! | `upload`, `rest`, `bucket_rest`, `grpc`, `bidi` | the protocols |
//!
//! Refused: ACLs, customer-supplied keys, holds and retention, lifecycle, soft deletion, other classes than STANDARD,
//! decompression on the way out, dates as conditions, the XML API.

mod aside;
mod bidi;
mod blobs;
mod bucket;
mod bucket_rest;
mod buckets;
mod checksum;
mod derive;
mod generation;
mod glob;
mod grpc;
mod listing;
mod multipart;
mod name;
mod notify;
mod operations;
mod params;
mod record;
mod refusal;
mod rest;
mod sessions;
mod shelf;
mod upload;

#[cfg(test)]
mod tests;

pub use name::NameError;
pub use notify::Notification;
pub use operations::Storage;

use crate::faults::Faults;
use crate::iam::Iam;
use crate::pubsub::PubSub;
use crate::store::{Store, StoreError};
use axum::Router;
use bucket::BucketRecord;
use operations::{Inner, now_us};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// The generated server of google.storage.v2.
pub(crate) mod proto {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated from the proto"
    )]
    tonic::include_proto!("google.storage.v2");
}

/// The rooms of the cloud that storage builds on.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Who may do what.
    pub iam: Iam,
    /// The fault plan.
    pub faults: Faults,
    /// Where notifications go.
    pub pubsub: PubSub,
    /// The directory for large content; created if absent.
    pub blob_dir: PathBuf,
    /// The listener's address, such as `http://127.0.0.1:8080`: links and upload addresses start with it.
    pub endpoint: String,
    /// The project that owns the buckets.
    pub project: String,
    /// Where the buckets say they are.
    pub location: String,
}

/// Why storage did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A name in the configuration.
    #[error("configure the buckets")]
    Name(#[from] NameError),
    /// The database.
    #[error("open the tables of cloud storage")]
    Store(#[from] StoreError),
    /// A configured bucket of which nobody knows any more how it was set.
    #[error(
        "create bucket {0}: there was one whose record could not be read and lies in table storage.aside, with its \
         versioning, labels, notifications and policy; bring the data directory back from a backup, or start once \
         without this bucket in the configuration, create it over the API with the settings it had, and configure it again"
    )]
    LostBucket(String),
    /// The blob directory.
    #[error("open the blob directory {dir}")]
    Blobs {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl Storage {
    /// Opens the tables, creates the configured buckets, and looks over everything that is kept.
    ///
    /// Buckets are only ever added, and none in the place of one whose record was put aside; of the notifications of a
    /// bucket, those given here stand beside those of clients.
    pub async fn open(parts: Parts, buckets: BTreeMap<String, Vec<Notification>>) -> Result<Self, OpenError> {
        let Parts { store, iam, faults, pubsub, blob_dir, endpoint, project, location } = parts;
        for bucket in buckets.keys() {
            name::BucketName::parse(bucket)?;
        }
        let failed = |source| OpenError::Blobs { dir: blob_dir.clone(), source };
        let blobs = blobs::Blobs::open(blob_dir.clone()).map_err(failed)?;
        let (owner, place) = (project, location.clone());
        let (whose, at) = (owner.clone(), place.clone());
        let referred = store
            .write(move |txn| {
                bucket::create_table(txn, &whose, &at)?;
                shelf::create_tables(txn)?;
                sessions::create_table(txn)?;
                aside::read_all(txn, now_us())
            })
            .await?;
        // What was put aside stays there, whatever is refused now.
        let lost = store
            .write(move |txn| {
                if let Some(lost) = aside::lost_bucket(txn, buckets.keys())? {
                    return Ok(Some(lost));
                }
                let now = now_us();
                for (name, notifications) in &buckets {
                    let known = bucket::find(&txn.open_table(bucket::BUCKETS)?, name)?;
                    let mut bucket = known.unwrap_or_else(|| BucketRecord::new(name, &owner, &place, now));
                    bucket.configure(notifications.clone());
                    bucket::save(txn, &bucket)?;
                }
                Ok(None)
            })
            .await?;
        if let Some(lost) = lost {
            return Err(OpenError::LostBucket(lost));
        }
        aside::tidy(&blobs, &referred).map_err(failed)?;
        let (uploading, changes) = (Arc::default(), TaskTracker::new());
        let base = endpoint.trim_end_matches('/').to_owned();
        Ok(Self(Arc::new(Inner { store, iam, faults, pubsub, blobs, base, location, uploading, changes })))
    }

    /// The JSON API.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }

    /// google.storage.v2, for `tonic::service::Routes`.
    pub fn grpc(&self) -> proto::storage_server::StorageServer<Self> {
        proto::storage_server::StorageServer::new(self.clone())
    }
}
