//! Dead letters: our own durable record of what was not reviewed, why, and what may be done about it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{BucketName, DeadLetterId, Epoch, PackId, ReviewId, Revision, TenantId};
use crate::timestamp::Timestamp;

/// One letter, filed under its content hash in the control bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Schema number: [`DeadLetter::SCHEMA`].
    pub schema: u32,
    /// Hash of source and content; filing twice is filing once.
    pub id: DeadLetterId,
    /// The tenant, if the sender could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Why it stands here.
    pub class: DeadLetterClass,
    /// What was wrong on which thing, and what to do next.
    pub reason: String,
    /// The reason with ids, numbers and paths removed, so that like letters group.
    pub fingerprint: String,
    /// What was refused.
    pub source: DeadLetterSource,
    /// When it was filed.
    pub filed_at: Timestamp,
    /// What has become of it.
    pub state: DeadLetterState,
    /// Fields of a newer schema, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl DeadLetter {
    /// The schema number that this code writes.
    pub const SCHEMA: u32 = 1;

    /// The letter without the bytes of its message, which may be millions: what a list holds.
    #[must_use]
    pub fn without_data(mut self) -> Self {
        if let DeadLetterSource::Message { data, .. } = &mut self.source {
            data.clear();
        }
        self
    }
}

/// Why something was not reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterClass {
    /// A message that is not what its topic carries.
    Malformed,
    /// A bucket or tenant that the registry does not know.
    UnknownTenant,
    /// A request that reaches for something that is not the caller's.
    Forbidden,
    /// Every file was refused, or there are more than a pack may have.
    Refused,
    /// The sealed versions were gone.
    InputsGone,
    /// A pack that never closed, or closed with nothing in it.
    EmptyPack,
    /// Executions ended without an outcome.
    Crashed,
    /// The deadline passed.
    TimedOut,
    /// The memory limit was reached.
    OutOfMemory,
    /// The agent failed.
    AgentFailed,
    /// The cloud refused the launch.
    CloudRefused,
    /// Pub/Sub gave up delivering it.
    Undeliverable,
}

/// What was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DeadLetterSource {
    /// A Pub/Sub message, whole.
    Message {
        /// The subscription it came from.
        subscription: String,
        /// Its id there.
        message_id: String,
        /// Its attributes.
        attributes: BTreeMap<String, String>,
        /// Its body, in standard base64; left empty where letters are listed.
        data: String,
    },
    /// A review that ended without delivery.
    Review {
        /// Which.
        review: ReviewId,
        /// The epoch that ended.
        epoch: Epoch,
        /// Its pack.
        pack: PackId,
    },
    /// A pack that closed without becoming a review.
    Pack {
        /// Which.
        pack: PackId,
        /// Which closing of it.
        revision: Revision,
        /// The bucket it lies in.
        bucket: BucketName,
    },
}

/// What has become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterState {
    /// Nobody has dealt with it.
    Open,
    /// A replay is under way.
    Replaying,
    /// A replay was delivered.
    Resolved,
    /// An operator has put it aside.
    Discarded,
}
