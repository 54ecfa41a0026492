//! What ends a review, or gives it another try, before anybody else decides: its tenant leaves, a later revision takes
//! its place, its deadline has passed, its memory or time ran out, its execution ended without a word.
//!
//! Owns these rules. Who creates the outcome first has decided all the same, so each may lose to a worker.

use std::num::NonZeroU64;
use std::time::Duration;

use carrel_cloud::{Ended, Limit};
use carrel_schemas::claim::exit_code;
use carrel_schemas::completion::Completion;
use carrel_schemas::dead_letter::Evidence;
use carrel_schemas::ids::{ExecutionName, ReviewId};
use carrel_schemas::outcome::{FailureClass, Verdict};
use carrel_schemas::registry::Tenant;
use carrel_schemas::timestamp::Timestamp;

use super::{DriveError, Driver, Step, is_last_attempt};
use crate::ledger::{AttemptEnd, LedgerError, ReviewRecord, State, Versioned};

impl Driver {
    /// How a review that waits or runs is to end now, if it is.
    pub(super) async fn ending(
        &self,
        tenant: &Tenant,
        record: &ReviewRecord,
        now: Timestamp,
    ) -> Result<Option<Verdict>, LedgerError> {
        if tenant.deleting {
            return Ok(Some(Verdict::Cancelled { reason: format!("tenant {} is being deleted", tenant.id) }));
        }
        let waits = matches!(record.state, State::Queued { .. });
        if (waits || tenant.supersede_running)
            && let Some(by) = self.superseded_by(record).await?
        {
            return Ok(Some(Verdict::Superseded { by }));
        }
        Ok(expires_at(tenant, record).filter(|at| now >= *at).map(|at| expired(record, at)))
    }

    /// An execution ended and decided nothing.
    pub(super) async fn lost(
        &self,
        tenant: &Tenant,
        held: Versioned<ReviewRecord>,
        execution: &ExecutionName,
        ended: Ended,
    ) -> Result<Step, DriveError> {
        let exit = Some(ended.message).filter(|message| !message.is_empty());
        // Not in the cloud's words, which name a task: letters of what ended alike are one group.
        let cause = format!("{execution} ended without an outcome");
        let (class, why) = match (ended.limit, ended.exit_code.and_then(|code| u8::try_from(code).ok())) {
            (Some(Limit::Memory), _) => (FailureClass::OutOfMemory, " at the memory limit of its job"),
            (Some(Limit::Time), _) => (FailureClass::TimedOut, " at the timeout of its job"),
            // Another attempt would end as this one did.
            (None, Some(exit_code::WRONG_SETTINGS)) => (
                FailureClass::Crashed,
                ": its worker's settings are wrong, mend the tenant's job and replay the review",
            ),
            (None, Some(exit_code::DISTRUSTED_SEAL)) => (
                FailureClass::Crashed,
                ": its worker does not trust the seal that it was given, find out who wrote it and replay the review",
            ),
            (None, _) if is_last_attempt(tenant, &held.value) => (FailureClass::Crashed, ""),
            (None, _) => {
                tracing::warn!(review.id = %held.value.review, cause, "will retry");
                let left = self.evidence(tenant, &held.value).await;
                let left = Evidence { exit, ..left };
                return self.requeue(tenant, held, AttemptEnd::Lost(cause), left).await;
            }
        };
        let spent = held.value.spent_attempts() + 1;
        let message = format!("the last of {spent} execution(s), {cause}{why}; see its log");
        let verdict = Verdict::Failed { class, message, log_tail: None };
        let completion = self.outcomes.decide(tenant, &held.value, verdict, exit, crate::now()).await?;
        self.settle(tenant, held, completion).await
    }

    /// The review that took this one's place: that of the pack's last revision, if it is of other files. The same files
    /// reviewed once more, because somebody asked, replace nothing.
    async fn superseded_by(&self, record: &ReviewRecord) -> Result<Option<ReviewId>, LedgerError> {
        let (tenant, pack) = (&record.tenant, &record.pack);
        // One small read where there is nothing later, as nearly always.
        if self.ledger.seal(tenant, pack, record.revision.next()).await?.is_none() {
            return Ok(None);
        }
        let Some(last) = self.ledger.last_filled_seal(tenant, pack).await? else { return Ok(None) };
        if last.review == record.review {
            return Ok(None);
        }
        let own = self.ledger.seal(tenant, pack, record.revision).await?;
        let is_of_the_same = own.is_some_and(|own| (&own.members, &own.manifest) == (&last.members, &last.manifest));
        Ok(Some(last.review).filter(|_| !is_of_the_same))
    }
}

/// When the review is given up: by the tenant's deadline or by that of whoever asked for it, the sooner of the two.
pub(super) fn expires_at(tenant: &Tenant, record: &ReviewRecord) -> Option<Timestamp> {
    let asked = record.deadline_seconds.map(NonZeroU64::get);
    let seconds = tenant.deadline_seconds.into_iter().chain(asked).min()?;
    Some(record.began_at().plus(Duration::from_secs(seconds)))
}

fn expired(record: &ReviewRecord, at: Timestamp) -> Verdict {
    let waited = at.since(record.began_at()).as_secs();
    let (state, attempts) = (record.state.word(), record.attempts);
    let message = format!(
        "the deadline of {waited} s passed at {at} while the review was {state}, after {attempts} attempt(s); replay it, \
         or give the tenant a longer deadline"
    );
    Verdict::Failed { class: FailureClass::Expired, message, log_tail: None }
}

/// True if the verdict came over the head of whatever runs, which can decide nothing any more.
pub(super) fn is_over_its_head(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Cancelled { .. } | Verdict::Superseded { .. } => true,
        Verdict::Failed { class, .. } => *class == FailureClass::Expired,
        Verdict::Delivered { .. } | Verdict::Refused { .. } | Verdict::InputsChanged { .. } => false,
    }
}

/// Why the review is tried once more, with the tenant's larger limits, if it is.
pub(super) fn worth_more(tenant: &Tenant, record: &ReviewRecord, completion: &Completion) -> Option<String> {
    let Verdict::Failed { class: FailureClass::OutOfMemory | FailureClass::TimedOut, message, .. } =
        &completion.verdict
    else {
        return None;
    };
    (tenant.retry_limits.is_some() && record.larger_since.is_none())
        .then(|| format!("{message}; it is tried once more with larger limits"))
}

#[cfg(test)]
mod tests {
    use carrel_schemas::ids::{Nonce, PackId, Revision};
    use carrel_schemas::seal::ClosedBy;
    use serde_json::json;

    use super::*;
    use crate::pack::policy::Contents;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds).expect("in range")
    }

    fn tenant(changes: serde_json::Value) -> Tenant {
        let mut tenant = json!({
            "id": "acme", "uploads_bucket": "acme-uploads", "outputs_bucket": "acme-outputs",
            "service_account": "acme@p.iam.gserviceaccount.com", "job": "projects/p/locations/l/jobs/review-acme",
        });
        tenant.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        serde_json::from_value(tenant).expect("a tenant")
    }

    fn record(deadline_seconds: Option<u64>) -> ReviewRecord {
        let (pack, acme) = (PackId::parse("q3").expect("id"), tenant(json!({})));
        let by = ClosedBy::Request;
        let mut seal = crate::pack::seal::draft(&acme, &pack, Revision::FIRST, Contents::default(), by, None, at(0));
        seal.deadline_seconds = deadline_seconds.and_then(NonZeroU64::new);
        ReviewRecord::open(&seal, at(0), None, Nonce::from_bits(1))
    }

    #[test]
    fn the_sooner_of_the_two_deadlines_holds_and_a_replay_begins_anew() {
        let (free, bound) = (tenant(json!({})), tenant(json!({ "deadline_seconds": 100 })));
        assert_eq!(expires_at(&free, &record(None)), None);
        assert_eq!(expires_at(&free, &record(Some(7))), Some(at(7)));
        for (asked, seconds) in [(None, 100), (Some(7), 7), (Some(700), 100)] {
            assert_eq!(expires_at(&bound, &record(asked)), Some(at(seconds)));
        }
        let replayed = ReviewRecord { replayed_at: Some(at(1000)), ..record(None) };
        assert_eq!(expires_at(&bound, &replayed), Some(at(1100)));
    }
}
