//! A request for a review, from the platform by Pub/Sub or from a tenant over HTTP.

use std::num::NonZeroU64;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{BucketName, IdempotencyKey, PackId, TenantId};

/// CloudEvents type of [`ReviewRequested`].
pub const REVIEW_REQUESTED: &str = "dev.carrel.review.requested.v1";

/// The data of a message on topic `review-requests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewRequested {
    /// Whose pack.
    pub tenant: TenantId,
    /// Which pack of that tenant.
    pub pack: PackId,
    /// The bucket the caller believes the pack lies in; refused where it is not that tenant's uploads bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<BucketName>,
    /// Asking twice with the same key is asking once; a new key reviews the same files again.
    pub idempotency_key: IdempotencyKey,
    /// Seconds from now after which the review is given up, where that is sooner than the tenant's deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<NonZeroU64>,
}

/// The body of `POST /v1/tenants/{tenant}/reviews`; the idempotency key travels in the header `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateReview {
    /// Which pack of the tenant named in the path.
    pub pack: PackId,
    /// Seconds from now after which the review is given up, where that is sooner than the tenant's deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<NonZeroU64>,
}

/// The body that ends a review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelReview {
    /// Why, in words: it stands in the outcome and in the completion event, cut at 1,000 characters.
    pub reason: String,
}
