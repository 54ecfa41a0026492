//! The contract between worker and agent: the request file, the events on stdout, the exit codes.
//!
//! An agent is started as `AGENT… REQUEST.json` with descriptors 0–2, a clean environment and its scratch directory
//! as the working directory. It writes `findings.json` and `deck.*` into the output directory. The worker judges by
//! validating those files; exit code and events are hints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{FileId, PackId, ReviewId};
use crate::outcome::RefusalCode;
use crate::scan::ScanFlag;
use crate::timestamp::Timestamp;

/// What the agent is asked to do. It names neither tenant nor bucket: the agent needs neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentRequest {
    /// Schema number: [`AgentRequest::SCHEMA`].
    pub schema: u32,
    /// The review to write.
    pub review: ReviewId,
    /// The pack's name as the customer gave it: text to print, never a path.
    pub pack: PackId,
    /// Directory of the inputs, read-only.
    pub input_dir: String,
    /// Directory for intermediate files.
    pub scratch_dir: String,
    /// Directory that is delivered.
    pub output_dir: String,
    /// The files to read.
    pub inputs: Vec<AgentInput>,
    /// Files of the pack that the agent does not see, for the deck's section on what is missing.
    pub refused: Vec<RefusedInput>,
    /// Seconds until the agent is ended.
    pub timeout_seconds: u64,
}

impl AgentRequest {
    /// The schema number that this code writes.
    pub const SCHEMA: u32 = 1;
}

/// One file to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentInput {
    /// Its id in evidence.
    pub file_id: FileId,
    /// Its generated name within `input_dir`: the id with an extension from the checked type, as in `f001.csv`.
    pub path: String,
    /// Its name within the pack as the customer gave it: text to print, never a path.
    pub name: String,
    /// The checked type.
    pub format: FileFormat,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the bytes, in hex.
    pub sha256: String,
    /// What it holds besides data: to be told, never to be followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<ScanFlag>,
}

/// The formats a review reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Delimited text.
    Csv,
    /// Office Open XML workbook.
    Xlsx,
    /// Portable Document Format.
    Pdf,
}

impl FileFormat {
    /// The extension of generated names: `csv`, `xlsx`, `pdf`.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Xlsx => "xlsx",
            Self::Pdf => "pdf",
        }
    }
}

/// One file the agent does not see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedInput {
    /// Its name within the pack.
    pub name: String,
    /// Why.
    pub code: RefusalCode,
    /// Why, in words.
    pub message: String,
}

/// One line of the agent's stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentEvent {
    /// From 1, without gaps.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// What sort of event.
    #[serde(rename = "type")]
    pub kind: AgentEventKind,
    /// The stage the agent is in: `ingest`, `profile`, `deck`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// From 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pct: Option<f64>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
}

/// What sort of event an agent reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentEventKind {
    /// How far it is.
    Progress,
    /// A line for the log.
    Log,
    /// A tool was used.
    Tool,
    /// Tokens or money were spent.
    Usage,
    /// A file was written.
    Artifact,
}

/// Exit codes of an agent; any other is a crash.
pub mod exit_code {
    /// The review is complete.
    pub const COMPLETE: i32 = 0;
    /// The review is complete but for what its caveats say.
    pub const PARTIAL: i32 = 10;
    /// No input could be used.
    pub const UNUSABLE_INPUT: i32 = 20;
    /// The model did not answer.
    pub const MODEL_UNAVAILABLE: i32 = 30;
    /// A limit was reached.
    pub const LIMIT_REACHED: i32 = 40;
    /// A policy was broken.
    pub const POLICY_VIOLATION: i32 = 50;
}
