//! What a file may hold besides its data: what the scan calls it, and what a tenant wants done about it.
//!
//! Nothing of it is ever run or followed here; the policy decides only whether such a file is reviewed. Refuses a
//! policy for macros, encryption and bombs: those are always refused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a tenant wants done about what the scan finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScanPolicy {
    /// What runs once a person opens the file, or may, for it cannot be seen through: `javascript`, `launch`, `dde`,
    /// `embedded_program`, `command_formula`, `unseen_objects`.
    pub active: Treatment,
    /// What reaches out of the file or carries another: every other code.
    pub outside: Treatment,
    /// Whether a file may be reviewed that no virus scanner has seen.
    pub antivirus: Antivirus,
}

impl ScanPolicy {
    /// What is done about a file that holds this.
    pub fn treatment(&self, code: FlagCode) -> Treatment {
        if code.is_active() { self.active } else { self.outside }
    }
}

impl Default for ScanPolicy {
    fn default() -> Self {
        Self { active: Treatment::Refuse, outside: Treatment::Flag, antivirus: Antivirus::IfSet }
    }
}

/// What is done about a file in which something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Treatment {
    /// The file is not reviewed.
    Refuse,
    /// The file is reviewed, and what was found stands beside it in the outcome and in the agent's request.
    Flag,
}

/// When files pass a virus scanner. Where one is set, a file that it could not look at is never reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Antivirus {
    /// Where the worker is told of one.
    IfSet,
    /// Always: a worker that is told of none does not start.
    Required,
}

/// What was found in a file that is reviewed nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScanFlag {
    /// For programs.
    pub code: FlagCode,
    /// What, how often and where first, in words that follow the file's name; at most 200 characters.
    pub message: String,
}

/// What a file may hold besides its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlagCode {
    /// PDF: JavaScript.
    Javascript,
    /// PDF: an action that starts a program.
    Launch,
    /// XLSX, CSV: Dynamic Data Exchange, which starts or asks another program.
    Dde,
    /// XLSX: an OLE object or an ActiveX control. PDF: an attached executable, rich media.
    EmbeddedProgram,
    /// XLSX, CSV: a formula that calls into the system, as `EXEC`, `CALL`, `REGISTER`, `RTD`.
    CommandFormula,
    /// XLSX: a link to another file. PDF: a jump into one.
    ExternalLink,
    /// XLSX: a connection to a database or a web query.
    DataConnection,
    /// XLSX, CSV: a formula that fetches, as `WEBSERVICE`, `IMAGE`, `IMPORTDATA`.
    FetchingFormula,
    /// CSV: cells that a spreadsheet would take for formulas.
    FormulaCells,
    /// PDF, XLSX: another file inside.
    EmbeddedFile,
    /// PDF: an action upon opening, closing or turning a page.
    AutomaticAction,
    /// PDF: a form that sends or fetches what is filled in.
    SubmittingForm,
    /// PDF: a form in XFA, which may hold scripts of its own.
    XfaForm,
    /// PDF: objects packed in a way that the scan does not read.
    UnseenObjects,
}

impl FlagCode {
    /// True for what runs, or may where nobody has looked; false for what reaches out or carries.
    pub fn is_active(self) -> bool {
        match self {
            Self::Javascript
            | Self::Launch
            | Self::Dde
            | Self::EmbeddedProgram
            | Self::CommandFormula
            | Self::UnseenObjects => true,
            Self::ExternalLink
            | Self::DataConnection
            | Self::FetchingFormula
            | Self::FormulaCells
            | Self::EmbeddedFile
            | Self::AutomaticAction
            | Self::SubmittingForm
            | Self::XfaForm => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_refused_and_what_reaches_out_is_flagged_unless_a_tenant_says_otherwise() {
        let usual: ScanPolicy = serde_json::from_str("{}").expect("every part has a default");
        assert_eq!(usual.treatment(FlagCode::Launch), Treatment::Refuse);
        assert_eq!(usual.treatment(FlagCode::UnseenObjects), Treatment::Refuse, "what hides there may run");
        assert_eq!(usual.treatment(FlagCode::ExternalLink), Treatment::Flag);
        let turned: ScanPolicy = serde_json::from_str(r#"{"active":"flag","outside":"refuse"}"#).expect("a policy");
        assert_eq!(turned.treatment(FlagCode::Launch), Treatment::Flag);
        assert_eq!(turned.treatment(FlagCode::ExternalLink), Treatment::Refuse);
        for wrong in [r#"{"active":"ignore"}"#, r#"{"macros":"flag"}"#, r#"{"antivirus":"off"}"#] {
            assert!(serde_json::from_str::<ScanPolicy>(wrong).is_err(), "{wrong}");
        }
    }
}
