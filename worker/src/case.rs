//! What every stage carries: the settings, the tenant's buckets, the seal; and the ways a stage may end the journey.
//!
//! A fault of the cloud is never a verdict: [`Stop::Retry`] leaves no outcome, and the next attempt starts afresh.

use std::sync::Arc;
use std::time::{Duration, Instant};

use carrel_cloud::Objects;
use carrel_schemas::ids::{FileId, Nonce, ObjectName};
use carrel_schemas::outcome::{InputReport, InputVerdict, RefusalCode, RoomReport, Usage, Verdict};
use carrel_schemas::scan::ScanFlag;
use carrel_schemas::seal::Seal;

use crate::config::Config;
use crate::progress::Progress;

/// One claimed attempt.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) config: Arc<Config>,
    pub(crate) objects: Objects,
    pub(crate) progress: Progress,
    pub(crate) seal: Arc<Seal>,
    pub(crate) nonce: Nonce,
    pub(crate) began: Instant,
    /// What has looked at the files so far.
    pub(crate) scanners: Vec<String>,
    /// How what touched hostile bytes so far was confined; before that, what this machine gives.
    pub(crate) room: RoomReport,
    /// How the agent ended, in words; absent before that.
    pub(crate) exit: Option<String>,
}

/// Why the journey ends before its last stage.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Somebody else has this attempt, or the epoch is decided: nothing was done, nothing is to do.
    StandDown(String),
    /// There is a verdict.
    Decide(Box<Decision>),
    /// The cloud or this machine failed; another attempt may succeed.
    Retry(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Retry(error.into())
    }
}

/// A verdict with everything the outcome says beside it.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) case: Case,
    pub(crate) verdict: Verdict,
    pub(crate) inputs: Vec<InputReport>,
    pub(crate) usage: Usage,
}

/// Why one file is not shown to the agent, in a code and in words that end with the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For the uploader.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What became of one member so far.
#[derive(Debug, Clone)]
pub(crate) struct Looked {
    pub(crate) file_id: FileId,
    pub(crate) name: ObjectName,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) flags: Vec<ScanFlag>,
}

impl Looked {
    pub(crate) fn report(&self) -> InputReport {
        let verdict = match &self.refusal {
            None => InputVerdict::Accepted,
            Some(refusal) => InputVerdict::Refused { code: refusal.code, message: refusal.message.clone() },
        };
        InputReport { file_id: self.file_id.clone(), name: self.name.clone(), verdict, flags: self.flags.clone() }
    }
}

impl Case {
    /// Ends the journey with a verdict, before an agent has run.
    pub(crate) fn decide(self, verdict: Verdict, looked: &[Looked]) -> Stop {
        let usage = Usage { wall_ms: 0, agent_cpu_ms: 0, agent_peak_bytes: 0, input_bytes: 0, output_bytes: 0 };
        let inputs = looked.iter().map(Looked::report).collect();
        Stop::Decide(Box::new(Decision { case: self, verdict, inputs, usage }))
    }

    /// What remains of the review's time, less a fifth (30 s at most) for judging and delivering.
    pub(crate) fn time_left(&self) -> Duration {
        let all = Duration::from_secs(self.config.limits.timeout_seconds);
        let reserve = (all / 5).min(Duration::from_secs(30));
        all.saturating_sub(reserve).saturating_sub(self.began.elapsed()).max(Duration::from_secs(1))
    }

    /// A member's name within its pack: what the customer calls it.
    pub(crate) fn short_name<'a>(&self, name: &'a ObjectName) -> &'a str {
        let whole = name.as_str();
        whole.strip_prefix(self.seal.pack.as_str()).and_then(|rest| rest.strip_prefix('/')).unwrap_or(whole)
    }
}
