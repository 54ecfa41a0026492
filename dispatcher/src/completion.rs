//! From an outcome in the tenant's bucket to one completion event.
//!
//! Owns reading and, where the dispatcher decides, writing outcomes; and publishing `completions`. An outcome lies
//! where the tenant's worker writes, so it is read with a cap and held against the record: what does not fit is not
//! copied but replaced by a failure that says so.

use std::collections::BTreeMap;

use bytes::Bytes;
use carrel_cloud::{CallError, Created, Objects, ReadError, Topic};
use carrel_schemas::completion::Completion;
use carrel_schemas::dead_letter::Evidence;
use carrel_schemas::ids::{Attempt, ObjectName};
use carrel_schemas::layout;
use carrel_schemas::outcome::{DecidedBy, FailureClass, Outcome, Verdict};
use carrel_schemas::registry::Tenant;
use carrel_schemas::timestamp::Timestamp;

use crate::ledger::{ReviewRecord, fresh_nonce};

/// Characters of a stage, and of how something ended, that a letter keeps.
const MAX_WORDS: usize = 200;
/// Bytes of a log's end that a letter keeps.
const MAX_TAIL: usize = 4096;

/// Why an outcome could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("outcome of review {review}")]
pub struct OutcomeError {
    review: carrel_schemas::ids::ReviewId,
    #[source]
    source: CallError,
}

/// The outcomes of every tenant's reviews.
#[derive(Debug)]
pub struct Outcomes {
    objects: Objects,
}

/// Publishes completions.
#[derive(Debug)]
pub struct Announcer {
    topic: Topic,
}

impl Outcomes {
    /// Outcomes as the dispatcher may see them.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }

    /// The completion of the record's epoch, if it is decided.
    pub async fn read(&self, tenant: &Tenant, record: &ReviewRecord) -> Result<Option<Completion>, OutcomeError> {
        let name = layout::outcome(&record.review, record.epoch);
        let bucket = tenant.outputs_bucket.as_str();
        let outcome = match self.objects.get(bucket, name.as_str(), Outcome::MAX_BYTES).await {
            Ok(None) => return Ok(None),
            Ok(Some(body)) => parse(&body.bytes, record),
            Err(error @ ReadError::TooLarge { .. }) => Err(error.to_string()),
            // Whatever else stands in the way says nothing of the outcome.
            Err(ReadError::Call(source)) => return Err(OutcomeError { review: record.review.clone(), source }),
        };
        let outcome = outcome.unwrap_or_else(|why| {
            tracing::error!(review.id = %record.review, why, "outcome refused");
            let message = format!("the worker wrote an outcome that is not one: {why}");
            // The time is the record's: whoever reads the same bad outcome makes the same completion of it.
            let verdict = Verdict::Failed { class: FailureClass::AgentFailed, message, log_tail: None };
            own(record, verdict, record.opened_at)
        });
        Ok(Some(Completion::of(&outcome, tenant.outputs_bucket.clone())))
    }

    /// What the last attempt of the record's epoch left behind. It lies where the tenant's worker writes: what is no
    /// evidence is left out.
    pub async fn evidence(&self, tenant: &Tenant, record: &ReviewRecord) -> Result<Evidence, OutcomeError> {
        let outcome = self.object(tenant, record, layout::outcome(&record.review, record.epoch)).await?;
        let outcome = outcome.and_then(|bytes| parse(&bytes, record).ok());
        let decided_in = outcome.as_ref().and_then(|outcome| outcome.stage.clone());
        // A worker that decided has said all; of one that did not, its last progress is all there is.
        let heard = match decided_in {
            Some(_) => serde_json::Value::Null,
            None => self.last_heard(tenant, record).await?,
        };
        let said = |field: &str| heard[field].as_str().map(str::to_owned);
        let stage = decided_in.or_else(|| said("stage"));
        let cut = |words: String| words.chars().take(MAX_WORDS).collect();
        let exit = outcome.as_ref().and_then(|outcome| outcome.exit.clone()).map(cut);
        let log_tail = match outcome.as_ref().map(|outcome| &outcome.verdict) {
            Some(Verdict::Failed { log_tail: Some(tail), .. }) => Some(tail.clone()),
            _ => said("message"),
        };
        let end = |tail: String| tail[tail.ceil_char_boundary(tail.len().saturating_sub(MAX_TAIL))..].to_owned();
        Ok(Evidence {
            exit,
            stage: stage.map(cut),
            usage: outcome.and_then(|outcome| outcome.usage),
            log_tail: log_tail.map(end),
            unknown: BTreeMap::new(),
        })
    }

    /// What the record's last attempt said last of how far it was; null if it said nothing.
    async fn last_heard(&self, tenant: &Tenant, record: &ReviewRecord) -> Result<serde_json::Value, OutcomeError> {
        let Some(attempt) = Attempt::new(record.attempts) else { return Ok(serde_json::Value::Null) };
        let progress = self.object(tenant, record, layout::progress(&record.review, record.epoch, attempt)).await?;
        Ok(progress.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// A small object of the tenant's outputs bucket, unless there is none or it is too large to be one.
    async fn object(
        &self,
        tenant: &Tenant,
        record: &ReviewRecord,
        name: ObjectName,
    ) -> Result<Option<Bytes>, OutcomeError> {
        match self.objects.get(tenant.outputs_bucket.as_str(), name.as_str(), Outcome::MAX_BYTES).await {
            Ok(body) => Ok(body.map(|body| body.bytes)),
            Err(ReadError::TooLarge { .. }) => Ok(None),
            Err(ReadError::Call(source)) => Err(OutcomeError { review: record.review.clone(), source }),
        }
    }

    /// Decides the record's epoch, unless somebody has: then theirs is returned. `exit` is how its last execution ended,
    /// where that decides it.
    pub async fn decide(
        &self,
        tenant: &Tenant,
        record: &ReviewRecord,
        verdict: Verdict,
        exit: Option<String>,
        now: Timestamp,
    ) -> Result<Completion, OutcomeError> {
        let failed = |source| OutcomeError { review: record.review.clone(), source };
        let outcome = Outcome { exit, ..own(record, verdict, now) };
        let name = layout::outcome(&record.review, record.epoch);
        let body = Bytes::from(serde_json::to_vec(&outcome).expect("an outcome is plain JSON"));
        let bucket = tenant.outputs_bucket.as_str();
        match self.objects.create(bucket, name.as_str(), body, "application/json").await.map_err(failed)? {
            Created::New(_) => Ok(Completion::of(&outcome, tenant.outputs_bucket.clone())),
            Created::Exists => {
                let held = self.read(tenant, record).await?;
                Ok(held.unwrap_or_else(|| Completion::of(&outcome, tenant.outputs_bucket.clone())))
            }
        }
    }
}

pub(crate) fn own(record: &ReviewRecord, verdict: Verdict, decided_at: Timestamp) -> Outcome {
    Outcome {
        schema: Outcome::SCHEMA,
        review: record.review.clone(),
        tenant: record.tenant.clone(),
        pack: record.pack.clone(),
        revision: record.revision,
        epoch: record.epoch,
        decided_by: DecidedBy::Dispatcher,
        nonce: fresh_nonce(),
        decided_at,
        verdict,
        stage: None,
        exit: None,
        inputs: Vec::new(),
        inputs_omitted: 0,
        scanners: Vec::new(),
        room: None,
        usage: None,
    }
}

/// Reads an outcome and holds it against the record; the error says what does not fit.
pub(crate) fn parse(bytes: &[u8], record: &ReviewRecord) -> Result<Outcome, String> {
    let outcome: Outcome = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let about = (&outcome.tenant, &outcome.review, outcome.epoch, &outcome.pack, outcome.revision);
    if about != (&record.tenant, &record.review, record.epoch, &record.pack, record.revision) {
        return Err("it speaks of another review".to_owned());
    }
    if let DecidedBy::Worker { attempt, .. } = outcome.decided_by
        && attempt.get() > record.attempts
    {
        return Err(format!("attempt {attempt} was never authorised"));
    }
    if let Verdict::Delivered { files, .. } = &outcome.verdict {
        let prefix = format!("reviews/{}/{}-", record.review, record.epoch);
        if files.is_empty() {
            return Err("it delivers no file".to_owned());
        }
        if let Some(stray) = files.iter().find(|file| !file.object.as_str().starts_with(&prefix)) {
            return Err(format!("it names {:?}, which is no file of this review", stray.object));
        }
    }
    Ok(outcome)
}

impl Announcer {
    /// Publishes to topic `completions`.
    pub fn new(topic: Topic) -> Self {
        Self { topic }
    }

    /// Publishes one completion; the event's id is the same however often this is called.
    pub async fn announce(&self, completion: &Completion, traceparent: Option<&str>) -> Result<(), CallError> {
        let mut attributes = completion.attributes();
        if let Some(traceparent) = traceparent {
            attributes.insert(carrel_telemetry::ATTRIBUTE.to_owned(), traceparent.to_owned());
        }
        let data = Bytes::from(serde_json::to_vec(completion).expect("a completion is plain JSON"));
        self.topic.publish(data, attributes).await?;
        Ok(())
    }
}
