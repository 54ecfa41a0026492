//! Dead letters: our own durable record of what was not reviewed, why, and what may be done about it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, BucketName, CampaignId, DeadLetterId, Epoch, PackId, ReviewId, Revision, TenantId};
use crate::outcome::Usage;
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
    /// How the attempts before its end came to nothing, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<LetterAttempt>,
    /// What is known of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The letter whose replay ended in this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<DeadLetterId>,
    /// What has become of it.
    pub state: DeadLetterState,
    /// The campaign that replays it or has replayed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<CampaignId>,
    /// How it was dealt with, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
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
    /// Its review was not decided by its deadline.
    Expired,
    /// It could not be moved on for long, and is still tried: the letter is resolved by itself once that helps.
    Stuck,
}

/// One attempt that ended without an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LetterAttempt {
    /// Which.
    pub attempt: Attempt,
    /// When it was noticed.
    pub at: Timestamp,
    /// Why, in words.
    pub cause: String,
    /// What it left behind, as far as it left anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Fields of a newer schema, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// What an attempt left behind. Its texts are a stranger's: escape them before they reach a terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// How it ended: the agent as its worker saw it, or the task as the cloud says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
    /// The stage it was last heard of in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// What it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The last lines that its agent wrote, or why its worker gave up, at most 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
    /// Fields of a newer schema, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
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
    /// A campaign replays it.
    Replaying,
    /// It was dealt with: a replay delivered it, found nothing left to do, or failed again and stands in a letter of its
    /// own; or what was stuck has ended.
    Resolved,
    /// An operator has put it aside.
    Discarded,
}

/// The body that puts a letter aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscardLetter {
    /// Why, in words; kept with the letter.
    pub reason: String,
}
