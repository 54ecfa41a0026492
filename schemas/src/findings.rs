//! `findings.json`: what a review states, each number with its evidence. Written by agents, validated by the worker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::FileId;

/// The document an agent writes to `/output/findings.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Findings {
    /// Schema number: [`Findings::SCHEMA`].
    pub schema: u32,
    /// What the agent calls itself, with its version: `analyst/0.1.0`.
    pub agent: String,
    /// The deck's title.
    pub title: String,
    /// The decision summary, one paragraph.
    pub summary: String,
    /// Most important first.
    pub findings: Vec<Finding>,
    /// What could not be computed, and why.
    pub not_computed: Vec<NotComputed>,
}

impl Findings {
    /// The schema number that this code writes.
    pub const SCHEMA: u32 = 1;

    /// Checks what serde cannot: ids are unique, numbers finite, and every metric stands beside evidence.
    pub fn validate(&self) -> Result<(), FindingsError> {
        if self.schema != Self::SCHEMA {
            return Err(FindingsError::Schema(self.schema));
        }
        let mut seen = std::collections::BTreeSet::new();
        for finding in &self.findings {
            if !seen.insert(finding.id.as_str()) {
                return Err(FindingsError::DuplicateId(finding.id.clone()));
            }
            if !finding.metrics.is_empty() && finding.evidence.is_empty() {
                return Err(FindingsError::NoEvidence(finding.id.clone()));
            }
            let impact = finding.impact.iter().flat_map(|i| [i.low, i.mid, i.high]);
            if finding.metrics.iter().map(|m| m.value).chain(impact).any(|v| !v.is_finite()) {
                return Err(FindingsError::NotFinite(finding.id.clone()));
            }
            if !(0.0..=1.0).contains(&finding.confidence) {
                return Err(FindingsError::Confidence(finding.id.clone()));
            }
        }
        Ok(())
    }
}

/// Why a findings document is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindingsError {
    /// Written for another schema.
    #[error("findings have schema {0}, expected 1")]
    Schema(u32),
    /// Two findings share an id.
    #[error("finding {0:?} appears twice")]
    DuplicateId(String),
    /// A number without evidence.
    #[error("finding {0:?} states metrics without evidence")]
    NoEvidence(String),
    /// An infinite or undefined number.
    #[error("finding {0:?} holds a number that is not finite")]
    NotFinite(String),
    /// A confidence that is none.
    #[error("finding {0:?} has a confidence that is not from 0 to 1")]
    Confidence(String),
}

/// One conclusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Unique within the document.
    pub id: String,
    /// The rule that found it: `totals.reconcile`, `keys.orphans`.
    pub rule_id: String,
    /// What sort of conclusion.
    pub kind: FindingKind,
    /// How much it matters.
    pub level: Level,
    /// A headline that states the conclusion.
    pub title: String,
    /// The conclusion in one or two sentences.
    pub statement: String,
    /// The numbers behind it.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// What it is worth, as a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impact: Option<Impact>,
    /// Where the numbers come from.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// From 0 to 1.
    pub confidence: f64,
    /// What a reader should hold against it.
    #[serde(default)]
    pub caveats: Vec<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<String>,
    /// Slides of the deck that show it, from 1.
    #[serde(default)]
    pub slides: Vec<u32>,
    /// The same for the same finding about the same bytes.
    pub fingerprint: String,
}

/// What sort of conclusion a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Something to gain.
    Opportunity,
    /// Something to lose.
    Risk,
    /// The files contradict themselves or each other.
    DataQuality,
    /// True and worth knowing.
    Fact,
}

/// How much a finding matters, as in SARIF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Decisions on these files would be wrong.
    Error,
    /// Look before deciding.
    Warning,
    /// For the record.
    Note,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// What it is.
    pub name: String,
    /// Its value in `unit`.
    pub value: f64,
    /// `rows`, `USD`, `%`, `units`.
    pub unit: String,
    /// How it was computed, in words or symbols.
    pub formula: String,
    /// Over how many observations.
    pub n: u64,
    /// The period it covers, if the data tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
}

/// What a finding is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Impact {
    /// Cautious.
    pub low: f64,
    /// Likely.
    pub mid: f64,
    /// Hopeful.
    pub high: f64,
    /// `USD`, `units`.
    pub unit: String,
    /// What was assumed.
    pub assumptions: Vec<String>,
}

/// Where a number comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The sealed member.
    pub file_id: FileId,
    /// Where in it.
    pub locator: Locator,
    /// What was asked of those cells, in words or SQL.
    pub query: String,
    /// SHA-256 of the member's bytes, in hex.
    pub sha256: String,
}

/// A place in a file. Rows count from 1 as a spreadsheet shows them, header included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Locator {
    /// Cells of a workbook.
    Sheet {
        /// The sheet's name.
        sheet: String,
        /// `A1:C9`.
        range: String,
    },
    /// Rows of a delimited file.
    Rows {
        /// Up to 100 row numbers.
        rows: Vec<u64>,
        /// The columns' names.
        columns: Vec<String>,
    },
    /// A page of a PDF.
    Page {
        /// From 1.
        page: u32,
        /// The text found there.
        text: String,
    },
    /// The file as a whole.
    File,
}

/// Something a reader might expect and will not find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotComputed {
    /// The metric or analysis.
    pub what: String,
    /// Why not, and what would make it possible.
    pub why: String,
    /// The file concerned, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<FileId>,
}
