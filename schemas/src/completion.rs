//! The completion event that integrators consume, and the wake-up that workers send for it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cloud_event::EventContext;
use crate::ids::{Attempt, BucketName, Epoch, EventId, PackId, ReviewId, Revision, TenantId};
use crate::outcome::{Outcome, Verdict};
use crate::timestamp::Timestamp;

/// CloudEvents type of [`Completion`].
pub const COMPLETED: &str = "dev.carrel.review.completed.v1";
/// CloudEvents type of [`OutcomeWritten`].
pub const OUTCOME_WRITTEN: &str = "dev.carrel.outcome.written.v1";
/// Pub/Sub attribute to filter on: the tenant's id.
pub const ATTRIBUTE_TENANT: &str = "tenant";
/// Pub/Sub attribute to filter on: the state, as in [`Verdict::state`].
pub const ATTRIBUTE_STATE: &str = "state";
/// Pub/Sub attribute to filter on: the pack.
pub const ATTRIBUTE_PACK: &str = "pack";

/// The data of one completion event, verified by the dispatcher against the outcome in the tenant's bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Completion {
    /// Schema number: [`Completion::SCHEMA`].
    pub schema: u32,
    /// Equal for every delivery of the same completion.
    pub event: EventId,
    /// The tenant.
    pub tenant: TenantId,
    /// The review.
    pub review: ReviewId,
    /// The epoch that ended.
    pub epoch: Epoch,
    /// The pack reviewed.
    pub pack: PackId,
    /// Which closing of it.
    pub revision: Revision,
    /// The bucket that holds the delivered files.
    pub outputs_bucket: BucketName,
    /// When the outcome was decided.
    pub decided_at: Timestamp,
    /// What was decided.
    pub verdict: Verdict,
    /// Fields of a newer schema, kept and announced as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl Completion {
    /// The schema number that this code writes.
    pub const SCHEMA: u32 = 1;

    /// The completion that announces `outcome`, whose files lie in `outputs_bucket`.
    pub fn of(outcome: &Outcome, outputs_bucket: BucketName) -> Self {
        Self {
            schema: Self::SCHEMA,
            event: EventId::of(&outcome.review, outcome.epoch),
            tenant: outcome.tenant.clone(),
            review: outcome.review.clone(),
            epoch: outcome.epoch,
            pack: outcome.pack.clone(),
            revision: outcome.revision,
            outputs_bucket,
            decided_at: outcome.decided_at,
            verdict: outcome.verdict.clone(),
            unknown: BTreeMap::new(),
        }
    }

    /// The event's context; its id is [`Completion::event`].
    pub fn context(&self) -> EventContext {
        EventContext {
            id: self.event.to_string(),
            source: format!("//carrel/tenants/{}", self.tenant),
            kind: COMPLETED.to_owned(),
            subject: Some(self.review.to_string()),
            time: Some(self.decided_at),
        }
    }

    /// The event's attributes. A pack's name has 1,024 bytes at most, which is what an attribute's value may have.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let mut attributes = self.context().to_attributes();
        attributes.insert(ATTRIBUTE_TENANT.to_owned(), self.tenant.to_string());
        attributes.insert(ATTRIBUTE_STATE.to_owned(), self.verdict.state().to_owned());
        attributes.insert(ATTRIBUTE_PACK.to_owned(), self.pack.to_string());
        attributes
    }
}

/// What a worker publishes after it wrote an outcome: a wake-up, nothing more. Nothing in it is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeWritten {
    /// The tenant's outputs bucket, from which the dispatcher takes the tenant.
    pub outputs_bucket: BucketName,
    /// The review to look at.
    pub review: ReviewId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The attempt that wrote it.
    pub attempt: Attempt,
}
