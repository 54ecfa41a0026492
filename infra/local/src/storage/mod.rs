//! Cloud Storage: buckets from configuration, objects with generations, preconditions and checksums, over the JSON API
//! and google.storage.v2.
//!
//! | room | owns |
//! |---|---|
//! | `name` | what a legal name is |
//! | `generation` | generations and preconditions, pure |
//! | `record` | one generation's metadata and its JSON resource |
//! | `shelf` | the tables and every change of them |
//! | `listing` | prefix, delimiter, pages |
//! | `blobs` | content on disk |
//! | `sessions` | resumable uploads |
//! | `notify` | messages about objects |
//! | `operations` | permission, transaction, consequences |
//! | `multipart`, `params`, `refusal` | the wire's small parts |
//! | `upload`, `rest`, `grpc` | the protocols |
//!
//! Refused: versioning, ACLs, customer-supplied keys, compose, MD5.

mod blobs;
mod generation;
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
use operations::{Bucket, Inner, now_us};
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
    /// Opens the tables, creates the configured buckets, and collects blobs that nothing refers to.
    ///
    /// Buckets are only ever added; the notifications of a bucket are those given here.
    pub async fn open(parts: Parts, buckets: BTreeMap<String, Vec<Notification>>) -> Result<Self, OpenError> {
        let Parts { store, iam, faults, pubsub, blob_dir, endpoint, project, location } = parts;
        for bucket in buckets.keys() {
            name::BucketName::parse(bucket)?;
        }
        let failed = |source| OpenError::Blobs { dir: blob_dir.clone(), source };
        let blobs = blobs::Blobs::open(blob_dir.clone()).map_err(failed)?;
        let names: Vec<String> = buckets.keys().cloned().collect();
        let (created, live) = store
            .write(move |txn| {
                let now = now_us();
                shelf::create_tables(txn)?;
                sessions::create_table(txn)?;
                for bucket in &names {
                    shelf::ensure_bucket(txn, bucket, now)?;
                }
                let mut live = operations::referenced(txn)?;
                live.extend(sessions::expire(txn, now)?);
                Ok((shelf::buckets(txn)?, live))
            })
            .await?;
        let removed = blobs.collect(&live).map_err(failed)?;
        if removed > 0 {
            tracing::info!(storage.blobs_removed = removed, "collected blobs that no object refers to");
        }
        let mut notifications = buckets;
        let buckets = created
            .into_iter()
            .map(|(name, created_us)| {
                let notifications = notifications.remove(&name).unwrap_or_default();
                (name, Bucket { created_us, notifications })
            })
            .collect();
        let (uploading, changes) = (Arc::default(), TaskTracker::new());
        let base = endpoint.trim_end_matches('/').to_owned();
        Ok(Self(Arc::new(Inner {
            store,
            iam,
            faults,
            pubsub,
            blobs,
            base,
            project,
            location,
            buckets,
            uploading,
            changes,
        })))
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
