//! What cannot be moved on for long is filed, though it is tried on and on: nothing stands in between.
//!
//! Owns since when each pack and each review has failed. That is kept in memory, so a new process begins to count anew;
//! but a pack that should have closed long ago, or a record that has stood as long where none rests, is filed whatever was
//! started when.
//! A letter of something stuck is filed once, beside whatever letter its end may bring, and is resolved with that end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterSource, DeadLetterState};
use carrel_schemas::ids::{DeadLetterId, Epoch, PackId, ReviewId, Revision, TenantId};
use carrel_schemas::registry::{PackPolicy, Registry};
use carrel_schemas::timestamp::Timestamp;

use crate::dead_letters;
use crate::drive::{DriveError, Rest};
use crate::ledger::{Ledger, LedgerError, OpenPack, ReviewRecord, State};
use crate::pack::seal::{Considered, SealError};

/// What is stuck, and since when.
#[derive(Debug)]
pub struct Limbo {
    ledger: Ledger,
    registry: Arc<Registry>,
    after: Duration,
    failing: Mutex<HashMap<Thing, Failing>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Thing {
    Pack(TenantId, PackId, Revision),
    Review(TenantId, ReviewId),
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Timestamp,
    last: Timestamp,
    is_filed: bool,
}

/// Troubles that are further apart than so many times what is called long are two troubles, and not one that lasts.
const APART: u32 = 4;
/// What has stood for long by the ledger's word need fail for one part of these of what is called long: a moment's
/// trouble with something old is no limbo.
const MOMENT: u32 = 60;

impl Limbo {
    /// Files what has failed for as long as `after`.
    pub fn new(ledger: Ledger, registry: Arc<Registry>, after: Duration) -> Self {
        Self { ledger, registry, after, failing: Mutex::default() }
    }

    /// Somebody looked at an open pack.
    pub async fn pack_looked(&self, open: &OpenPack, found: &Result<Considered, SealError>, now: Timestamp) {
        let thing = Thing::Pack(open.tenant.clone(), open.pack.clone(), open.revision);
        let Err(error) = found else { return self.moved(&thing) };
        let Some(since) = self.fails(&thing, now) else { return };
        let since = since.min(self.closes_at(open));
        if now.since(since) < self.after {
            return;
        }
        let reason = format!(
            "pack {:?} could not be closed since {since}: {}; it is tried on, and goes on by itself once that is mended",
            open.pack.as_str(),
            crate::chain(error)
        );
        let (pack, revision, bucket) = (open.pack.clone(), open.revision, open.bucket.clone());
        self.file(thing, &open.tenant, reason, DeadLetterSource::Pack { pack, revision, bucket }, now).await;
    }

    /// Somebody looked at a review.
    pub async fn review_looked(
        &self,
        tenant: &TenantId,
        review: &ReviewId,
        found: &Result<Rest, DriveError>,
        now: Timestamp,
    ) {
        let thing = Thing::Review(tenant.clone(), review.clone());
        let error = match found {
            Err(error) => error,
            // What stands in its way may be met only once it has its turn.
            Ok(Rest::Waiting { .. } | Rest::Behind(_)) => return,
            Ok(Rest::Active { .. } | Rest::Finished(_) | Rest::Unknown) => return self.moved(&thing),
        };
        let Some(since) = self.fails(&thing, now) else { return };
        // A record that cannot be read is what is told of.
        let record = self.ledger.review(tenant, review).await.ok().flatten().map(|held| held.value);
        let since = stuck_since(since, record.as_ref());
        if now.since(since) < self.after {
            return;
        }
        let Ok(Some(open)) = self.ledger.open_review_of(tenant, review).await else { return };
        let epoch = record.map_or(Epoch::FIRST, |record| record.epoch);
        let reason = format!(
            "review {review} could not be moved on since {since}: {}; it is tried on, and goes on by itself once that is mended",
            crate::chain(error)
        );
        let source = DeadLetterSource::Review { review: review.clone(), epoch, pack: open.pack };
        self.file(thing, tenant, reason, source, now).await;
    }

    fn failing(&self) -> MutexGuard<'_, HashMap<Thing, Failing>> {
        self.failing.lock().expect("no code panics while it holds the map")
    }

    fn moved(&self, thing: &Thing) {
        self.failing().remove(thing);
    }

    /// When the pack closes at the latest, as its tenant's policy says.
    fn closes_at(&self, open: &OpenPack) -> Timestamp {
        let seconds = match self.registry.tenant(&open.tenant).map(|tenant| tenant.policy) {
            Some(PackPolicy::Marker { max_age_seconds } | PackPolicy::Quiet { max_age_seconds, .. }) => max_age_seconds,
            Some(PackPolicy::Each) | None => 0,
        };
        open.opened_at.plus(Duration::from_secs(seconds))
    }

    /// Since when it fails, unless that is filed, or too short to be more than a moment's trouble.
    fn fails(&self, thing: &Thing, now: Timestamp) -> Option<Timestamp> {
        let mut failing = self.failing();
        let first = Failing { since: now, last: now, is_filed: false };
        let held = failing.entry(thing.clone()).or_insert(first);
        if now.since(held.last) > self.after.saturating_mul(APART) {
            *held = first;
        }
        held.last = now;
        (!held.is_filed && now.since(held.since) >= self.after / MOMENT).then_some(held.since)
    }

    async fn file(&self, thing: Thing, tenant: &TenantId, reason: String, source: DeadLetterSource, now: Timestamp) {
        let letter = dead_letters::letter(Some(tenant.clone()), DeadLetterClass::Stuck, reason, source, now);
        let filed =
            async { Ok::<_, LedgerError>(self.ledger.file(&letter).await? || self.ledger.reopen(&letter).await?) };
        match filed.await {
            Ok(is_new) => {
                if is_new {
                    tracing::error!(dead_letter.id = %letter.id, reason = letter.reason, "stuck");
                }
                if let Some(held) = self.failing().get_mut(&thing) {
                    held.is_filed = true;
                }
            }
            Err(error) => tracing::warn!(error = crate::chain(&error), "what is stuck is filed later"),
        }
    }

    /// A pack is closed: what was filed of it is over.
    pub async fn resolve_pack(&self, open: &OpenPack, now: Timestamp) {
        if now.since(open.opened_at) < self.after {
            return;
        }
        let of_it = dead_letters::of_pack(&open.bucket, &open.pack, open.revision);
        self.resolve(&open.tenant, &dead_letters::of_stuck(&of_it), "the pack was closed after all").await;
    }

    /// An epoch of a review is decided: what was filed of it is over.
    pub async fn resolve_review(&self, record: &ReviewRecord, now: Timestamp) {
        // A letter tells of a trouble that lasted, so a young review has none to look for.
        if now.since(record.began_at()) < self.after {
            return;
        }
        let how = format!("the review ended as {} after all", record.state.word());
        // It may have been filed before memory or time ran out, in the epoch that nobody was told of.
        let filed_in = [Some(record.epoch), record.larger_since.and_then(Epoch::previous)];
        for epoch in filed_in.into_iter().flatten() {
            let of_it = dead_letters::of_epoch(&record.review, epoch);
            self.resolve(&record.tenant, &dead_letters::of_stuck(&of_it), &how).await;
        }
    }

    /// A letter that cannot be resolved must hold back neither a completion nor the end of a pack.
    async fn resolve(&self, tenant: &TenantId, id: &DeadLetterId, how: &str) {
        if let Err(error) = self.try_to_resolve(tenant, id, how).await {
            tracing::warn!(dead_letter.id = %id, error = crate::chain(&error), "a letter of what was stuck stays open");
        }
    }

    async fn try_to_resolve(&self, tenant: &TenantId, id: &DeadLetterId, how: &str) -> Result<(), LedgerError> {
        while let Some(held) = self.ledger.dead_letter(Some(tenant), id).await? {
            if held.value.state != DeadLetterState::Open {
                break;
            }
            let resolution = Some(how.to_owned());
            let next = DeadLetter { state: DeadLetterState::Resolved, resolution, ..held.value };
            if self.ledger.move_letter(held.generation, &next).await? {
                break;
            }
        }
        Ok(())
    }
}

/// Since when a review is stuck that has failed since then.
fn stuck_since(failing: Timestamp, record: Option<&ReviewRecord>) -> Timestamp {
    record.and_then(stands_since).map_or(failing, |stands| failing.min(stands))
}

/// Since when the record is as it is, in a state that nothing rests in: what waits for its turn, or runs, may be old and
/// well.
fn stands_since(record: &ReviewRecord) -> Option<Timestamp> {
    match &record.state {
        State::Launching { since, .. } => Some(*since),
        // When it was decided is not since when the ledger knows.
        State::Queued { .. } | State::Running { .. } | State::Settled { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use carrel_schemas::completion::Completion;
    use carrel_schemas::ids::{BucketName, ExecutionName, JobName, Nonce};
    use carrel_schemas::outcome::Verdict;
    use carrel_schemas::registry::Tenant;
    use carrel_schemas::seal::ClosedBy;
    use serde_json::json;

    use super::*;
    use crate::completion::own;
    use crate::pack::policy::Contents;
    use crate::pack::seal::draft;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds).expect("in range")
    }

    /// A record in each of its states, in order: queued at 1, launching at 2, running at 3, settled at 4, announced at 5.
    fn records() -> [ReviewRecord; 5] {
        let tenant: Tenant = serde_json::from_value(json!({
            "id": "acme", "uploads_bucket": "acme-uploads", "outputs_bucket": "acme-outputs",
            "service_account": "acme@p.iam.gserviceaccount.com", "job": "projects/p/locations/l/jobs/review-acme",
        }))
        .expect("a tenant");
        let (pack, by) = (PackId::parse("q3").expect("id"), ClosedBy::Marker);
        let seal = draft(&tenant, &pack, Revision::FIRST, Contents::default(), by, None, at(1));
        let queued = ReviewRecord::open(&seal, at(1), None, Nonce::from_bits(1));
        let job = JobName::parse("projects/p/locations/l/jobs/j").expect("name");
        let (launching, _) = queued.clone().authorise(job, at(2)).expect("from queued");
        let execution = ExecutionName::parse("projects/p/locations/l/jobs/j/executions/e").expect("name");
        let running = launching.clone().started(execution, at(3)).expect("from launching");
        let outcome = own(&running, Verdict::Cancelled { reason: "test".to_owned() }, at(4));
        let completion = Completion::of(&outcome, BucketName::parse("acme-outputs").expect("name"));
        let settled = running.clone().settle(completion).expect("from running");
        let announced = settled.clone().announced(at(5)).expect("from settled");
        [queued, launching, running, settled, announced]
    }

    #[test]
    fn only_a_state_that_nothing_rests_in_tells_since_when_a_record_is_stuck() {
        let wanted = [None, Some(at(2)), None, None, None];
        assert_eq!(records().each_ref().map(stands_since), wanted);
        let of_seen = wanted.map(|stands| stands.unwrap_or(at(100)));
        assert_eq!(records().each_ref().map(|record| stuck_since(at(100), Some(record))), of_seen);
        assert_eq!(stuck_since(at(100), None), at(100), "what cannot be read");
    }

    #[test]
    fn a_long_wait_and_a_moments_trouble_file_nothing() {
        let after = Duration::from_secs(3600);
        let (began, moment) = (at(20_000), at(20_000).plus(after / MOMENT));
        let is_filed = |record: &ReviewRecord| moment.since(stuck_since(began, Some(record))) >= after;
        assert_eq!(records().each_ref().map(is_filed), [false, true, false, false, false]);
    }
}
