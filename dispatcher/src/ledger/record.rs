//! One review's record and the arrows between its states. Pure: every arrow takes `now` and returns the next record.
//!
//! ```text
//! open ─► Queued ─authorise─► Launching ─started─► Running ─settle─► Settled ─announced─► Settled (announced)
//!            ▲                    │                   │ ▲ follow        ▲
//!            └───── requeue ──────┴───────────────────┘                 │
//!            └──────────────── settle (whoever created the outcome) ────┘
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use carrel_schemas::completion::Completion;
use carrel_schemas::ids::{Attempt, Epoch, ExecutionName, Nonce, PackId, ReviewId, Revision, TenantId};
use carrel_schemas::seal::{ClosedBy, Seal};
use carrel_schemas::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// What the ledger knows of one review.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Which life of the review.
    pub epoch: Epoch,
    /// Attempts authorised in this epoch so far.
    pub attempts: u32,
    /// How earlier attempts of this epoch ended, oldest first.
    #[serde(default)]
    pub ended: Vec<EndedAttempt>,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedAttempt {
    /// Which.
    pub attempt: Attempt,
    /// When it was noticed.
    pub at: Timestamp,
    /// Why, in words.
    pub cause: String,
    /// Whether it counts against the tenant's attempts: a launch that the cloud put off does not.
    pub counted: bool,
}

/// How an attempt came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// It may have run, and can never act again.
    Lost(String),
    /// The cloud put it off: nothing ran.
    PutOff(String),
}

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
    /// The schema number that this code writes.
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
            epoch: Epoch::FIRST,
            attempts: 0,
            ended: Vec::new(),
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

    fn refuse(&self, arrow: &'static str) -> ArrowError {
        ArrowError { review: self.review.clone(), state: self.state.word(), arrow }
    }

    /// Queued → Launching: the next attempt may be made, and no other.
    pub fn authorise(mut self, now: Timestamp) -> Result<(Self, Attempt), ArrowError> {
        let State::Queued { .. } = self.state else { return Err(self.refuse("authorise")) };
        self.attempts += 1;
        let attempt = Attempt::new(self.attempts).expect("one was just added");
        self.state = State::Launching { attempt, since: now };
        Ok((self, attempt))
    }

    /// Launching → Running: the attempt's execution is known.
    pub fn started(mut self, execution: ExecutionName, now: Timestamp) -> Result<Self, ArrowError> {
        let State::Launching { attempt, .. } = self.state else { return Err(self.refuse("started")) };
        self.state = State::Running { attempt, execution, since: now };
        Ok(self)
    }

    /// Running → Running: of two executions started for the attempt, this one holds its claim.
    pub fn follow(mut self, claimant: ExecutionName, now: Timestamp) -> Result<Self, ArrowError> {
        let State::Running { attempt, .. } = self.state else { return Err(self.refuse("follow")) };
        self.state = State::Running { attempt, execution: claimant, since: now };
        Ok(self)
    }

    /// Launching or Running → Queued: the attempt can never act any more. The caller has made sure of that.
    pub fn requeue(mut self, end: AttemptEnd, backoff: Duration, now: Timestamp) -> Result<Self, ArrowError> {
        let attempt = match self.state {
            State::Launching { attempt, .. } | State::Running { attempt, .. } => attempt,
            State::Queued { .. } | State::Settled { .. } => return Err(self.refuse("requeue")),
        };
        let (cause, counted) = match end {
            AttemptEnd::Lost(cause) => (cause, true),
            AttemptEnd::PutOff(cause) => (cause, false),
        };
        self.ended.push(EndedAttempt { attempt, at: now, cause, counted });
        self.state = State::Queued { not_before: now.plus(backoff) };
        Ok(self)
    }

    /// Any unsettled state → Settled: an outcome exists, the ledger copies it.
    pub fn settle(mut self, completion: Completion) -> Result<Self, ArrowError> {
        if let State::Settled { .. } = self.state {
            return Err(self.refuse("settle"));
        }
        self.state = State::Settled { completion: Box::new(completion), announced_at: None };
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
