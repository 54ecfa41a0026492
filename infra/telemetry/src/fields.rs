//! Names of span and event fields, so that one question finds every program's lines.
//!
//! Dotted, with the unit at the end where there is one. Use them as constants in tracing's macros:
//! `info_span!("message", { fields::TENANT_ID } = %tenant)`. Refuses contents: no field carries bytes of a customer's
//! file, a token or a signed link.

/// The review an event belongs to.
pub const REVIEW_ID: &str = "review.id";
/// The tenant an event belongs to.
pub const TENANT_ID: &str = "tenant.id";
/// The pack: the top folder in the tenant's uploads bucket.
pub const PACK_ID: &str = "pack.id";
/// Which attempt of the epoch, from 1.
pub const ATTEMPT: &str = "attempt";
/// Which epoch of the review, from 1.
pub const EPOCH: &str = "epoch";
/// How long a review waited for its launch, in milliseconds.
pub const QUEUE_WAIT_MS: &str = "queue.wait_ms";
/// A bucket.
pub const BUCKET_NAME: &str = "bucket.name";
/// An object's full name in its bucket.
pub const OBJECT_NAME: &str = "object.name";
/// A Pub/Sub message id.
pub const MESSAGE_ID: &str = "message.id";
/// A Cloud Run execution's resource name.
pub const EXECUTION_NAME: &str = "execution.name";
