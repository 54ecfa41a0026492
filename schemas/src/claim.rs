//! The claim: which execution may act for one authorised attempt. Created if absent, never changed, no clock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, Epoch, ExecutionName, Nonce, ReviewId};
use crate::timestamp::Timestamp;

/// `claims/<review>/<epoch>-<attempt>.json` in the tenant's outputs bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// Schema number of this record: [`Claim::SCHEMA`].
    pub schema: u32,
    /// The review claimed.
    pub review: ReviewId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The attempt the ledger authorised.
    pub attempt: Attempt,
    /// Who created the claim.
    pub holder: ClaimHolder,
    /// Tells the writer's own success from another's when a reply was lost.
    pub nonce: Nonce,
    /// When the claim was written.
    pub claimed_at: Timestamp,
}

impl Claim {
    /// The schema number that this code writes.
    pub const SCHEMA: u32 = 1;
}

/// Who holds a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ClaimHolder {
    /// A worker; it alone may act for this attempt.
    Execution {
        /// The execution it runs in.
        execution: ExecutionName,
    },
    /// The dispatcher, so that nobody ever acts for this attempt.
    Revoked,
}

/// Exit codes of a worker that made no attempt, where no other attempt with the same job and seal would end better. Of
/// any other code another attempt may succeed.
pub mod exit_code {
    /// Its settings are wrong: EX_USAGE of sysexits.h.
    pub const WRONG_SETTINGS: u8 = 64;
    /// It does not trust the seal that it was given: EX_DATAERR.
    pub const DISTRUSTED_SEAL: u8 = 65;
}
