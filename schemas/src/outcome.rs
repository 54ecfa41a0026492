//! The outcome: whoever creates `outcomes/<review>/<epoch>.json` has decided the epoch. The ledger copies it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::findings::{FindingKind, Level};
use crate::ids::{
    Attempt, Epoch, ExecutionName, FileId, Generation, Nonce, ObjectName, PackId, ReviewId, Revision, TenantId,
};
use crate::scan::ScanFlag;
use crate::timestamp::Timestamp;

/// The decided end of one epoch of a review. At most [`Outcome::MAX_BYTES`] as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// Schema number of this record: [`Outcome::SCHEMA`].
    pub schema: u32,
    /// The review decided.
    pub review: ReviewId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its pack.
    pub pack: PackId,
    /// Which closing of the pack.
    pub revision: Revision,
    /// The epoch decided.
    pub epoch: Epoch,
    /// Who decided.
    pub decided_by: DecidedBy,
    /// Tells the writer's own success from another's when a reply was lost.
    pub nonce: Nonce,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// What was decided.
    pub verdict: Verdict,
    /// The stage that the worker decided in, as it or the agent called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// How what it was about ended, in words: the agent, or the task where it ended without an outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
    /// What became of each sealed member, in the seal's order; empty where the inputs were never looked at.
    #[serde(default)]
    pub inputs: Vec<InputReport>,
    /// Members whose report is left out, the last of the seal, to keep the outcome within its size.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inputs_omitted: u32,
    /// What looked at the files before the agent: `structure`, and the virus scanner as it names itself and its signatures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scanners: Vec<String>,
    /// How the code that touched hostile bytes was confined; where none did, what the machine was found to give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomReport>,
    /// What the attempt used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl Outcome {
    /// The schema number that this code writes.
    pub const SCHEMA: u32 = 1;
    /// A larger outcome object is refused unread.
    pub const MAX_BYTES: u64 = 256 * 1024;
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Who created the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DecidedBy {
    /// The worker that held the claim.
    Worker {
        /// Its execution.
        execution: ExecutionName,
        /// The attempt it had claimed.
        attempt: Attempt,
    },
    /// The dispatcher.
    Dispatcher,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Verdict {
    /// A review was delivered.
    Delivered {
        /// The delivered files with their checksums.
        files: Vec<DeliveredFile>,
        /// Up to ten findings, most important first, for people who read the event and not the deck.
        top_findings: Vec<FindingSummary>,
    },
    /// The inputs cannot be reviewed; the same files would be refused again.
    Refused {
        /// What was wrong and what the uploader can do, in words.
        reason: String,
    },
    /// The pack no longer held the sealed versions; what it holds now is reviewed once it closes again.
    InputsChanged {
        /// The members that were replaced or deleted.
        changed: Vec<ObjectName>,
    },
    /// The review could not be made, through no fault of the inputs.
    Failed {
        /// The kind of failure.
        class: FailureClass,
        /// What failed on which thing.
        message: String,
        /// The last lines the agent or worker wrote, at most 4 KiB.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log_tail: Option<String>,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// Why, in words.
        reason: String,
    },
    /// A later revision of the pack took its place.
    Superseded {
        /// The review that did.
        by: ReviewId,
    },
}

impl Verdict {
    /// The word for this verdict in events, filters and tables: `delivered`, `refused`, `inputs_changed`, `failed`,
    /// `cancelled` or `superseded`.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "delivered",
            Self::Refused { .. } => "refused",
            Self::InputsChanged { .. } => "inputs_changed",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::Superseded { .. } => "superseded",
        }
    }
}

/// The kind of a failure that no change to the inputs would mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Executions ended without an outcome, as often as attempts were allowed.
    Crashed,
    /// The agent passed its deadline.
    TimedOut,
    /// The agent passed its memory limit.
    OutOfMemory,
    /// The agent exited with an error or delivered nothing valid.
    AgentFailed,
    /// The cloud refused to launch the job.
    CloudRefused,
    /// It was not decided by its deadline.
    Expired,
}

/// One file of a delivered review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveredFile {
    /// The file's name in /output: `deck.html`, `findings.json`.
    pub name: String,
    /// The object's full name in the tenant's outputs bucket.
    pub object: ObjectName,
    /// The object's generation.
    pub generation: Generation,
    /// Bytes.
    pub size: u64,
    /// CRC-32C (Castagnoli) of the bytes.
    pub crc32c: u32,
    /// SHA-256 of the bytes, in hex.
    pub sha256: String,
    /// Media type, from the name.
    pub content_type: String,
}

/// A finding in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FindingSummary {
    /// The finding's id in `findings.json`.
    pub id: String,
    /// Its kind.
    pub kind: FindingKind,
    /// Its level.
    pub level: Level,
    /// Its title, at most 200 characters.
    pub title: String,
}

/// What became of one sealed member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InputReport {
    /// Its generated name.
    pub file_id: FileId,
    /// The object's name.
    pub name: ObjectName,
    /// Whether the agent saw it.
    pub verdict: InputVerdict,
    /// What it holds besides data, where the tenant's policy has such a file reviewed nevertheless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<ScanFlag>,
}

/// Whether a member was shown to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum InputVerdict {
    /// It was.
    Accepted,
    /// It was not.
    Refused {
        /// A stable code: `too_large`, `empty`, `encrypted`, `macros`, `archive_bomb`, `type_mismatch`,
        /// `unsupported_type`, `broken`, `active_content`, `outside_content`, `malware`.
        code: RefusalCode,
        /// What was wrong and what the uploader can do, in words.
        message: String,
    },
}

/// Why one file is not shown to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// No bytes.
    Empty,
    /// More bytes than the tenant's limit.
    TooLarge,
    /// More files than the tenant's limit.
    TooMany,
    /// Not a PDF, CSV or XLSX.
    UnsupportedType,
    /// The bytes are not what the name says.
    TypeMismatch,
    /// Protected by a password.
    Encrypted,
    /// Carries macros.
    Macros,
    /// Inflates beyond the limit.
    ArchiveBomb,
    /// Cannot be parsed at all.
    Broken,
    /// Not what the pack's manifest says.
    ManifestMismatch,
    /// Holds what would run once a person opens it, and the tenant's policy refuses that.
    ActiveContent,
    /// Reaches out of itself or carries another file, and the tenant's policy refuses that.
    OutsideContent,
    /// The virus scanner knows it.
    Malware,
}

/// How the children that touch hostile bytes were confined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomReport {
    /// The tier built: `process`, `namespaces`, `oci:<runtime>`.
    pub tier: String,
    /// True only if a kernel mechanism held the memory limit.
    pub memory_guarantee: bool,
    /// True where Cloud Run offers a sandbox of its own (Preview); the room is not built of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cloud_run_sandbox: bool,
    /// How the inputs came into the room.
    #[serde(default)]
    pub input: InputMode,
    /// What the room asked of the hosts outside; absent where it had no way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressReport>,
}

/// What a room asked of the hosts outside, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EgressReport {
    /// Bytes that left.
    pub bytes_up: u64,
    /// Bytes that came.
    pub bytes_down: u64,
    /// What was asked, each kind once, up to [`EgressReport::MOST`].
    pub decisions: Vec<EgressDecision>,
    /// Requests of kinds beyond those listed.
    pub unlisted: u64,
}

impl EgressReport {
    /// Decisions listed at most.
    pub const MOST: usize = 50;
}

/// One kind of request of a room, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EgressDecision {
    /// What was asked for, cut and escaped.
    pub host: String,
    /// `allowed`, `denied` or `failed`.
    pub verdict: String,
    /// Why, in words.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// How inputs come into a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InputMode {
    /// Fetched first.
    #[default]
    Hydrate,
    /// Read from the mounted bucket.
    Hybrid,
}

/// What one attempt used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// From claim to outcome, milliseconds.
    pub wall_ms: u64,
    /// The agent's processor time, milliseconds.
    pub agent_cpu_ms: u64,
    /// The agent's peak resident memory, bytes.
    pub agent_peak_bytes: u64,
    /// Bytes of input shown to the agent.
    pub input_bytes: u64,
    /// Bytes delivered.
    pub output_bytes: u64,
}
