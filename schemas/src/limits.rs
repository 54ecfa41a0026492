//! What a tenant may use, and what a second try may use that ran out of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a tenant may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Files of a pack; the rest are refused.
    pub max_files: u32,
    /// Bytes of one file; a larger one is refused unread.
    pub max_file_bytes: u64,
    /// Bytes a file may inflate to.
    pub max_inflated_bytes: u64,
    /// Seconds one review may take.
    pub timeout_seconds: u64,
    /// Bytes of memory the agent may use.
    pub agent_memory_bytes: u64,
    /// Bytes the agent may deliver.
    pub max_output_bytes: u64,
    /// Reviews of this tenant that run at once.
    pub max_concurrent: u32,
    /// Attempts within one epoch.
    pub max_attempts: u32,
    /// Uploads that each replica of the dispatcher deals with one by one in a minute, and of which ten seconds' worth may
    /// come at once; of more, it lists the bucket.
    pub max_events_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_files: 64,
            max_file_bytes: 256 << 20,
            max_inflated_bytes: 1 << 30,
            timeout_seconds: 900,
            agent_memory_bytes: 1 << 30,
            max_output_bytes: 128 << 20,
            max_concurrent: 2,
            max_attempts: 3,
            max_events_per_minute: 6000,
        }
    }
}

/// What one more try may use whose former ran out of memory or time. A launch cannot give a task more memory than its
/// job has, so such a try runs in a job of its own, [`crate::registry::Tenant::job_for`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryLimits {
    /// Seconds it may take.
    pub timeout_seconds: u64,
    /// Bytes of memory its agent may use.
    pub agent_memory_bytes: u64,
}

impl RetryLimits {
    /// These in the place of the tenant's own.
    pub fn over(self, limits: Limits) -> Limits {
        Limits { timeout_seconds: self.timeout_seconds, agent_memory_bytes: self.agent_memory_bytes, ..limits }
    }
}
