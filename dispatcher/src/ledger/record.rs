//! One review's record and the arrows between its states. Pure: every arrow takes `now` and returns the next record.
//!
//! ```text
//! open ─► Queued ─authorise─► Launching ─started─► Running ─settle─► Settled ─announced─► Settled (announced)
//!            ▲                    │                   │ ▲ follow        ▲
//!            └───── requeue ──────┴───────────────────┘                 │
//!            ├──────────────── settle (whoever created the outcome) ────┘
//!            ├◄─ enlarge (the next epoch, once) ── any of these, its outcome says that memory or time ran out
//!            └◄─ replay (the next epoch) ── Settled without delivery (announced)
//! ```

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use carrel_schemas::completion::Completion;
use carrel_schemas::dead_letter::Evidence;
use carrel_schemas::ids::{Attempt, Epoch, ExecutionName, JobName, Nonce, PackId, ReviewId, Revision, TenantId};
use carrel_schemas::outcome::Verdict;
use carrel_schemas::seal::{ClosedBy, Seal};
use carrel_schemas::timestamp::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What the ledger knows of one review.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReviewRecord {
    /// Schema number of this record: [`ReviewRecord::SCHEMA`].
    pub schema: u32,
    /// The review.
    pub review: ReviewId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its pack.
    pub pack: PackId,
    /// Which closing of the pack.
    pub revision: Revision,
    /// What closed the pack.
    pub closed_by: ClosedBy,
    /// Files sealed.
    pub files: u32,
    /// When the review was opened.
    pub opened_at: Timestamp,
    /// Seconds by which whoever asked for it wants an outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<NonZeroU64>,
    /// Which life of the review.
    pub epoch: Epoch,
    /// When a replay began it last; absent where none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_at: Option<Timestamp>,
    /// The first epoch that is tried with the tenant's larger limits; absent where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub larger_since: Option<Epoch>,
    /// Attempts authorised in this epoch so far.
    pub attempts: u32,
    /// How earlier attempts of this epoch ended, oldest first; of those that do not count, only the last few.
    #[serde(default)]
    pub ended: Vec<EndedAttempt>,
    /// Launches in a row that the cloud put off.
    #[serde(default)]
    pub put_off: u32,
    /// Milliseconds that the deciding execution of the last epoch ran, as far as is known.
    #[serde(default)]
    pub ran_ms: u64,
    /// Where it stands.
    pub state: State,
    /// W3C trace context of the message that opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Tells a writer's own swap from another's when a reply was lost.
    pub writer: Nonce,
    /// Fields of a newer schema, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// Where a review stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[schemars(rename = "ReviewState")]
pub enum State {
    /// It waits for a slot, not before the given instant.
    Queued {
        /// Earliest launch.
        not_before: Timestamp,
    },
    /// An attempt is authorised; whether an execution runs must be found out.
    Launching {
        /// The attempt.
        attempt: Attempt,
        /// The job it is launched in, whatever the registry says by now; absent in records of before this was noted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobName>,
        /// Since when.
        since: Timestamp,
    },
    /// An execution of the attempt is known.
    Running {
        /// The attempt.
        attempt: Attempt,
        /// Its execution.
        execution: ExecutionName,
        /// Since when.
        since: Timestamp,
    },
    /// The epoch is decided; the completion is to be announced, or was.
    Settled {
        /// What is announced.
        completion: Box<Completion>,
        /// When Pub/Sub took it.
        announced_at: Option<Timestamp>,
    },
}

/// How one attempt ended without an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndedAttempt {
    /// Which.
    pub attempt: Attempt,
    /// When it was noticed.
    pub at: Timestamp,
    /// Why, in words.
    pub cause: String,
    /// Whether it counts against the tenant's attempts: a launch that the cloud put off does not, nor does what came
    /// before the larger limits.
    pub counted: bool,
    /// What it left behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Fields of a newer schema, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl EndedAttempt {
    fn new(attempt: Attempt, at: Timestamp, cause: String, counted: bool) -> Self {
        Self { attempt, at, cause, counted, evidence: None, unknown: BTreeMap::new() }
    }
}

/// How an attempt came to nothing, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// It may have run, and can never act again.
    Lost(String),
    /// The cloud would not launch it before somebody mends a permission or the job: nothing ran.
    Denied(String),
    /// The cloud put it off, or the launch was lost on the way: nothing ran.
    PutOff(String),
}

/// Ended attempts that do not count are kept up to this many.
const PUT_OFFS_KEPT: usize = 16;
/// No pause before the next attempt is longer than this power of two, in seconds.
const LONGEST_BACKOFF: usize = 8;
/// A permission takes a minute or so to be known everywhere: the pauses after a denial begin that much longer.
const DENIED_BACKOFF: usize = 3;

/// Launches that may be put off one after another: with the longest pause between them, about a day.
const MOST_PUT_OFFS: u32 = 340;

/// An arrow that does not start at the record's state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("review {review} is {state}, {arrow} does not start there")]
pub struct ArrowError {
    review: ReviewId,
    state: &'static str,
    arrow: &'static str,
}

impl State {
    /// The word for this state in tables and filters.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Launching { .. } => "launching",
            Self::Running { .. } => "running",
            Self::Settled { completion, .. } => completion.verdict.state(),
        }
    }
}

impl ReviewRecord {
    /// The schema number that this code writes. Another comes with a field whose loss would hurt, not with each new one.
    pub const SCHEMA: u32 = 1;

    /// The first record of a sealed pack.
    pub fn open(seal: &Seal, now: Timestamp, traceparent: Option<String>, writer: Nonce) -> Self {
        Self {
            schema: Self::SCHEMA,
            review: seal.review.clone(),
            tenant: seal.tenant.clone(),
            pack: seal.pack.clone(),
            revision: seal.revision,
            closed_by: seal.closed_by,
            files: u32::try_from(seal.members.len()).unwrap_or(u32::MAX),
            opened_at: now,
            deadline_seconds: seal.deadline_seconds,
            epoch: Epoch::FIRST,
            replayed_at: None,
            larger_since: None,
            attempts: 0,
            ended: Vec::new(),
            put_off: 0,
            ran_ms: 0,
            state: State::Queued { not_before: now },
            traceparent,
            writer,
            unknown: BTreeMap::new(),
        }
    }

    /// Attempts of this epoch that count against the tenant's limit.
    pub fn spent_attempts(&self) -> usize {
        self.ended.iter().filter(|ended| ended.counted).count()
    }

    /// Whether the cloud has put it off for so long that waiting is no answer any more.
    pub fn is_put_off_for_good(&self) -> bool {
        self.put_off >= MOST_PUT_OFFS
    }

    /// Since when somebody has waited for this outcome.
    pub fn began_at(&self) -> Timestamp {
        self.replayed_at.unwrap_or(self.opened_at)
    }

    /// The epoch that was announced before this one.
    pub fn former_epoch(&self) -> Option<Epoch> {
        let former = self.epoch.previous()?;
        if self.larger_since == Some(self.epoch) { former.previous() } else { Some(former) }
    }

    /// True if a later revision took its place.
    pub fn is_superseded(&self) -> bool {
        matches!(&self.state, State::Settled { completion, .. } if matches!(completion.verdict, Verdict::Superseded { .. }))
    }

    fn refuse(&self, arrow: &'static str) -> ArrowError {
        ArrowError { review: self.review.clone(), state: self.state.word(), arrow }
    }

    /// Queued → Launching: the next attempt may be made, in this job, and no other.
    pub fn authorise(mut self, job: JobName, now: Timestamp) -> Result<(Self, Attempt), ArrowError> {
        let State::Queued { .. } = self.state else { return Err(self.refuse("authorise")) };
        self.attempts += 1;
        let attempt = Attempt::new(self.attempts).expect("one was just added");
        self.state = State::Launching { attempt, job: Some(job), since: now };
        Ok((self, attempt))
    }

    /// Launching → Running: the attempt's execution is known.
    pub fn started(mut self, execution: ExecutionName, now: Timestamp) -> Result<Self, ArrowError> {
        let State::Launching { attempt, .. } = self.state else { return Err(self.refuse("started")) };
        self.put_off = 0;
        self.state = State::Running { attempt, execution, since: now };
        Ok(self)
    }

    /// A share of a pause, from 0 to a quarter, by review and attempt: what was lost together does not come back together.
    fn jitter(&self, attempt: Attempt) -> f64 {
        let [first, second, ..] = *Sha256::digest(format!("{}/{attempt}", self.review)) else { return 0.0 };
        f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX) / 4.0
    }

    /// Running → Running: of two executions started for the attempt, this one holds its claim.
    pub fn follow(mut self, claimant: ExecutionName, now: Timestamp) -> Result<Self, ArrowError> {
        let State::Running { attempt, .. } = self.state else { return Err(self.refuse("follow")) };
        self.state = State::Running { attempt, execution: claimant, since: now };
        Ok(self)
    }

    /// Launching or Running → Queued, after a pause that doubles each time, and up to a quarter more: the attempt can never act any more. The
    /// caller has made sure of that.
    pub fn requeue(mut self, end: AttemptEnd, now: Timestamp) -> Result<Self, ArrowError> {
        let attempt = match self.state {
            State::Launching { attempt, .. } | State::Running { attempt, .. } => attempt,
            State::Queued { .. } | State::Settled { .. } => return Err(self.refuse("requeue")),
        };
        let (cause, doublings, counted) = match end {
            AttemptEnd::Lost(cause) => (cause, self.spent_attempts() + 1, true),
            AttemptEnd::Denied(cause) => (cause, self.spent_attempts() + 1 + DENIED_BACKOFF, true),
            AttemptEnd::PutOff(cause) => (cause, self.put_off as usize, false),
        };
        self.put_off = if counted { 0 } else { self.put_off.saturating_add(1) };
        self.ended.push(EndedAttempt::new(attempt, now, cause, counted));
        if self.ended.iter().filter(|ended| !ended.counted).count() > PUT_OFFS_KEPT
            && let Some(oldest) = self.ended.iter().position(|ended| !ended.counted)
        {
            self.ended.remove(oldest);
        }
        let backoff = Duration::from_secs(1 << doublings.min(LONGEST_BACKOFF));
        let not_before = now.plus(backoff + backoff.mul_f64(self.jitter(attempt)));
        self.state = State::Queued { not_before };
        Ok(self)
    }

    /// Notes what the attempt that ended last left behind.
    #[must_use]
    pub fn noting(mut self, evidence: Evidence) -> Self {
        if let Some(last) = self.ended.last_mut() {
            last.evidence = Some(evidence).filter(|evidence| *evidence != Evidence::default());
        }
        self
    }

    /// Any unsettled state → Settled: an outcome exists, the ledger copies it.
    pub fn settle(mut self, completion: Completion) -> Result<Self, ArrowError> {
        match &self.state {
            State::Settled { .. } => return Err(self.refuse("settle")),
            State::Running { since, .. } => {
                self.ran_ms = u64::try_from(completion.decided_at.since(*since).as_millis()).unwrap_or(u64::MAX);
            }
            State::Queued { .. } | State::Launching { .. } => {}
        }
        self.state = State::Settled { completion: Box::new(completion), announced_at: None };
        Ok(self)
    }

    /// Any unsettled state → Queued, in the next epoch and with the tenant's larger limits: an outcome says that memory
    /// or time ran out. Nobody is told of that outcome. Once: replays stay with the larger limits.
    pub fn enlarge(mut self, cause: String, now: Timestamp) -> Result<Self, ArrowError> {
        if self.larger_since.is_some() || matches!(self.state, State::Settled { .. }) {
            return Err(self.refuse("enlarge"));
        }
        let attempt = Attempt::new(self.attempts).unwrap_or(Attempt::FIRST);
        self.ended.push(EndedAttempt::new(attempt, now, cause, false));
        self.ended.iter_mut().for_each(|ended| ended.counted = false);
        self.epoch = self.epoch.next();
        self.larger_since = Some(self.epoch);
        self.attempts = 0;
        self.put_off = 0;
        self.state = State::Queued { not_before: now };
        Ok(self)
    }

    /// True if the epoch has ended without delivery and everybody was told: another may begin.
    pub fn may_be_replayed(&self) -> bool {
        match &self.state {
            State::Settled { completion, announced_at: Some(_) } => {
                !matches!(completion.verdict, Verdict::Delivered { .. })
            }
            _ => false,
        }
    }

    /// Settled without delivery and announced → Queued, in the next epoch, with all attempts to spend.
    pub fn replay(mut self, now: Timestamp) -> Result<Self, ArrowError> {
        if !self.may_be_replayed() {
            return Err(self.refuse("replay"));
        }
        self.epoch = self.epoch.next();
        self.replayed_at = Some(now);
        self.attempts = 0;
        self.put_off = 0;
        self.ended.clear();
        self.state = State::Queued { not_before: now };
        Ok(self)
    }

    /// Settled → Settled, announced: Pub/Sub has taken the completion.
    pub fn announced(mut self, now: Timestamp) -> Result<Self, ArrowError> {
        match &mut self.state {
            State::Settled { announced_at: announced_at @ None, .. } => *announced_at = Some(now),
            _ => return Err(self.refuse("announced")),
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
