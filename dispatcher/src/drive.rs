//! Drives one review along the ledger's arrows until it has to wait for somebody else.
//!
//! Owns the meaning of every state: what is looked at, which arrow follows. A wake-up, a reply and the reconciler all
//! call the same [`Driver::drive`], so the normal path and the recovery path are one. Any step may be repeated, by
//! this process or another: each effect is a create-if-absent, a compare-and-swap, or harmless twice.

mod ending;
mod former;

use std::sync::Arc;

use carrel_cloud::CallError;
use carrel_schemas::completion::Completion;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterSource, Evidence};
use carrel_schemas::ids::{DeadLetterId, ReviewId, TenantId};
use carrel_schemas::outcome::{FailureClass, Verdict};
use carrel_schemas::registry::{PackPolicy, Registry, Tenant};
use carrel_schemas::seal::ClosedBy;
use carrel_schemas::timestamp::Timestamp;
use tracing::Instrument as _;

use crate::completion::{Announcer, OutcomeError, Outcomes};
use crate::dead_letters;
use crate::launch::{Launched, Launcher, Look, job_of};
use crate::leadership::Leadership;
use crate::ledger::{AttemptEnd, Ledger, LedgerError, ReviewRecord, State, Versioned, fresh_nonce};
use crate::limbo::Limbo;
use crate::pack::open::Opener;
use crate::schedule::Urgency;

pub use former::Former;

use ending::{expires_at, is_over_its_head, worth_more};

/// Where a review rests after it was driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// It waits for a slot.
    Waiting {
        /// Not before this instant.
        not_before: Timestamp,
        /// Whether somebody asked for it.
        urgency: Urgency,
        /// When it is given up, if it has a deadline.
        expires_at: Option<Timestamp>,
    },
    /// It waits for its tenant to be let go on, or for the former revision of its pack: for this review, if that waits
    /// too and can make way.
    Behind(Option<ReviewId>),
    /// An attempt is authorised or runs.
    Active {
        /// Since when, as far as the ledger knows.
        since: Timestamp,
    },
    /// It is finished; the next revision of its pack may go.
    Finished(Option<ReviewId>),
    /// The ledger does not know it.
    Unknown,
}

/// Why a review could not be driven on; it is tried again later.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Another service did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The outcome could not be read or written.
    #[error(transparent)]
    Outcome(#[from] OutcomeError),
    /// The registry does not know the tenant any more.
    #[error("review {review}: tenant {tenant} is not in the registry; add it again to finish its reviews")]
    UnknownTenant {
        /// Whose.
        tenant: TenantId,
        /// Which.
        review: ReviewId,
    },
}

/// Everything a review needs on its way.
#[derive(Debug)]
pub struct Driver {
    /// The ledger.
    pub ledger: Ledger,
    /// The tenants.
    pub registry: Arc<Registry>,
    /// What was decided.
    pub outcomes: Outcomes,
    /// Starts and finds executions.
    pub launcher: Launcher,
    /// Publishes completions.
    pub announcer: Announcer,
    /// Opens packs again whose files changed.
    pub opener: Arc<Opener>,
    /// Only the leader looks for executions.
    pub leadership: Leadership,
    /// What was stuck, and ends.
    pub limbo: Arc<Limbo>,
}

/// What one look at a record led to.
enum Step {
    /// The record moved; look again.
    Moved(Box<Versioned<ReviewRecord>>),
    /// Somebody else moved it; read it again.
    Overtaken,
    /// It waits.
    Rest(Rest),
}

impl From<Option<Versioned<ReviewRecord>>> for Step {
    fn from(swapped: Option<Versioned<ReviewRecord>>) -> Self {
        swapped.map_or(Step::Overtaken, |held| Step::Moved(Box::new(held)))
    }
}

impl Driver {
    /// Drives a review as far as it goes. `granted` says that the schedule gave it a slot to launch in.
    pub async fn drive(&self, tenant: &TenantId, review: &ReviewId, granted: bool) -> Result<Rest, DriveError> {
        let unknown = || DriveError::UnknownTenant { tenant: tenant.clone(), review: review.clone() };
        let tenant = self.registry.tenant(tenant).ok_or_else(unknown)?;
        let mut granted = granted;
        let mut held = self.ledger.review(&tenant.id, review).await?;
        loop {
            let Some(record) = held else {
                if !self.revive(tenant, review).await? {
                    return Ok(Rest::Unknown);
                }
                held = self.ledger.review(&tenant.id, review).await?;
                continue;
            };
            match self.step(tenant, record, &mut granted).await? {
                Step::Moved(next) => held = Some(*next),
                Step::Overtaken => held = self.ledger.review(&tenant.id, review).await?,
                Step::Rest(rest) => return Ok(rest),
            }
        }
    }

    /// Decides that the review's epoch ends as cancelled, unless it is decided; returns the verdict that holds, none
    /// where the ledger holds no such review. What runs is ended by whoever looks at the review next.
    pub async fn cancel(
        &self,
        tenant: &Tenant,
        review: &ReviewId,
        reason: String,
    ) -> Result<Option<Verdict>, DriveError> {
        loop {
            let Some(held) = self.ledger.review(&tenant.id, review).await? else { return Ok(None) };
            if let State::Settled { completion, .. } = &held.value.state {
                return Ok(Some(completion.verdict.clone()));
            }
            let verdict = Verdict::Cancelled { reason: reason.clone() };
            let completion = self.outcomes.decide(tenant, &held.value, verdict, None, crate::now()).await?;
            if worth_more(tenant, &held.value, &completion).is_some() {
                // That would not be the end of it: its next epoch is cancelled.
                self.settle(tenant, held, completion).await?;
                continue;
            }
            let verdict = completion.verdict.clone();
            // One that waits has nobody else to look whether it was decided before its turn comes; and it may wait by
            // now. Whoever puts it there looks for an outcome after that, so that one of the two sees the other.
            let Some(held) = self.ledger.review(&tenant.id, review).await? else { return Ok(None) };
            let is_queued = held.value.epoch == completion.epoch && matches!(held.value.state, State::Queued { .. });
            if !is_queued || matches!(self.settle(tenant, held, completion).await?, Step::Moved(_)) {
                return Ok(Some(verdict));
            }
        }
    }

    async fn step(
        &self,
        tenant: &Tenant,
        held: Versioned<ReviewRecord>,
        granted: &mut bool,
    ) -> Result<Step, DriveError> {
        match &held.value.state {
            State::Queued { not_before } => {
                let (not_before, urgency) = (*not_before, Urgency::from(held.value.closed_by));
                if let Some(verdict) = self.ending(tenant, &held.value, crate::now()).await? {
                    return self.decide(tenant, held, verdict).await;
                }
                // Whoever adds the tenant's work back starts the dispatcher anew, which looks at everything open.
                if tenant.suspended {
                    return Ok(Step::Rest(Rest::Behind(None)));
                }
                if let Some(former) = Former::of(&self.ledger, &held.value).await? {
                    return Ok(Step::Rest(Rest::Behind(former.waits.then_some(former.review))));
                }
                if !std::mem::take(granted) {
                    let expires_at = expires_at(tenant, &held.value);
                    return Ok(Step::Rest(Rest::Waiting { not_before, urgency, expires_at }));
                }
                let span = span(tracing::info_span!("launch", review.id = %held.value.review), &held.value);
                self.launch(tenant, held).instrument(span).await
            }
            // Whoever authorised it may still be at it: looking now would only revoke what it launches.
            State::Launching { since, .. } if !self.leadership.is_held() => {
                Ok(Step::Rest(Rest::Active { since: *since }))
            }
            State::Launching { .. } => self.find(tenant, held).await,
            State::Running { .. } => self.watch(tenant, held).await,
            State::Settled { announced_at: None, .. } => {
                let span = span(tracing::info_span!("complete", review.id = %held.value.review), &held.value);
                self.announce(tenant, held).instrument(span).await
            }
            State::Settled { announced_at: Some(_), .. } if held.value.is_superseded() => {
                self.lay_aside(&held.value).await
            }
            State::Settled { announced_at: Some(_), .. } => self.finish(&held.value).await,
        }
    }

    /// A marker without a record: the process that sealed the pack died in between.
    async fn revive(&self, tenant: &Tenant, review: &ReviewId) -> Result<bool, DriveError> {
        let Some(open) = self.ledger.open_review_of(&tenant.id, review).await? else { return Ok(false) };
        let Some(seal) = self.ledger.seal(&tenant.id, &open.pack, open.revision).await? else { return Ok(false) };
        let record = ReviewRecord::open(&seal, crate::now(), None, fresh_nonce());
        self.ledger.open_review(&seal, &record).await?;
        Ok(true)
    }

    /// The review that waits for this one, if one does.
    async fn successor(&self, record: &ReviewRecord) -> Result<Option<ReviewId>, DriveError> {
        let mut revision = record.revision.next();
        while let Some(seal) = self.ledger.seal(&record.tenant, &record.pack, revision).await? {
            if seal.review != record.review && !seal.members.is_empty() {
                return Ok(Some(seal.review));
            }
            revision = revision.next();
        }
        Ok(None)
    }

    async fn launch(&self, tenant: &Tenant, held: Versioned<ReviewRecord>) -> Result<Step, DriveError> {
        if let Some(completion) = self.outcomes.read(tenant, &held.value).await? {
            return self.settle(tenant, held, completion).await;
        }
        let now = crate::now();
        self.launcher.prepare(tenant, &held.value).await?;
        let waited = now.since(held.value.opened_at);
        let job = job_of(tenant, &held.value);
        let (next, attempt) = held.value.authorise(job, now).map_err(LedgerError::from)?;
        let Some(held) = self.ledger.swap(held.generation, next).await? else { return Ok(Step::Overtaken) };
        tracing::info!(review.id = %held.value.review, attempt = attempt.get(), queue.wait_ms = waited.as_millis(), "launching");
        match self.launcher.launch(tenant, &held.value, attempt).await {
            Launched::Running(execution) => {
                let next = held.value.started(execution, crate::now()).map_err(LedgerError::from)?;
                Ok(self.ledger.swap(held.generation, next).await?.into())
            }
            Launched::PutOff(cause) => self.put_off(tenant, held, cause).await,
            Launched::Denied(cause) if !is_last_attempt(tenant, &held.value) => {
                tracing::warn!(review.id = %held.value.review, cause, "launch denied, will retry");
                self.requeue(tenant, held, AttemptEnd::Denied(cause), Evidence::default()).await
            }
            Launched::Denied(cause) | Launched::Refused(cause) => self.decide(tenant, held, refused(cause)).await,
            Launched::InDoubt => Ok(Step::Rest(Rest::Active { since: now })),
        }
    }

    /// Launching and not by us: find the execution, or make sure that none of this attempt ever acts.
    async fn find(&self, tenant: &Tenant, held: Versioned<ReviewRecord>) -> Result<Step, DriveError> {
        let State::Launching { attempt, .. } = held.value.state else { return Ok(Step::Overtaken) };
        match self.launcher.find(tenant, &held.value, attempt).await? {
            Look::Found(execution) => {
                let next = held.value.started(execution, crate::now()).map_err(LedgerError::from)?;
                Ok(self.ledger.swap(held.generation, next).await?.into())
            }
            Look::Revoked => {
                let cause = "the launch was lost before it became an execution".to_owned();
                self.put_off(tenant, held, cause).await
            }
        }
    }

    async fn watch(&self, tenant: &Tenant, held: Versioned<ReviewRecord>) -> Result<Step, DriveError> {
        let State::Running { attempt, execution, since } = &held.value.state else { return Ok(Step::Overtaken) };
        let (attempt, execution, since) = (*attempt, execution.clone(), *since);
        if let Some(completion) = self.outcomes.read(tenant, &held.value).await? {
            if is_over_its_head(&completion.verdict) {
                // It works on for nobody.
                self.launcher.cancel(&execution).await?;
            }
            return self.settle(tenant, held, completion).await;
        }
        if let Some(verdict) = self.ending(tenant, &held.value, crate::now()).await? {
            self.outcomes.decide(tenant, &held.value, verdict, None, crate::now()).await?;
            return Ok(Step::Overtaken);
        }
        let Some(ended) = self.launcher.ended(&execution).await? else {
            return Ok(Step::Rest(Rest::Active { since }));
        };
        // The cloud may have started the attempt twice: it is given up only once no execution of it is left to act.
        if let Look::Found(claimant) = self.launcher.revoke(tenant, &held.value, attempt).await?
            && claimant != execution
        {
            let next = held.value.follow(claimant, crate::now()).map_err(LedgerError::from)?;
            return Ok(self.ledger.swap(held.generation, next).await?.into());
        }
        // Who held the claim may have decided before it ended.
        if let Some(completion) = self.outcomes.read(tenant, &held.value).await? {
            return self.settle(tenant, held, completion).await;
        }
        self.lost(tenant, held, &execution, ended).await
    }

    /// What the attempt in hand left behind. It adorns a letter, and must not hold it back.
    async fn evidence(&self, tenant: &Tenant, record: &ReviewRecord) -> Evidence {
        self.outcomes.evidence(tenant, record).await.unwrap_or_else(|error| {
            tracing::warn!(review.id = %record.review, error = crate::chain(&error), "goes on without evidence");
            Evidence::default()
        })
    }

    /// Back into the queue without counting, unless that has gone on for too long.
    async fn put_off(&self, tenant: &Tenant, held: Versioned<ReviewRecord>, cause: String) -> Result<Step, DriveError> {
        if held.value.is_put_off_for_good() {
            let message = format!("the launch was put off {} times, at last because: {cause}", held.value.put_off);
            return self.decide(tenant, held, refused(message)).await;
        }
        self.requeue(tenant, held, AttemptEnd::PutOff(cause), Evidence::default()).await
    }

    async fn requeue(
        &self,
        tenant: &Tenant,
        held: Versioned<ReviewRecord>,
        end: AttemptEnd,
        left: Evidence,
    ) -> Result<Step, DriveError> {
        let next = held.value.requeue(end, crate::now()).map_err(LedgerError::from)?.noting(left);
        let Some(queued) = self.ledger.swap(held.generation, next).await? else { return Ok(Step::Overtaken) };
        // Somebody may have cancelled what was launched, and told it nobody who looks at what waits.
        match self.outcomes.read(tenant, &queued.value).await? {
            Some(completion) => self.settle(tenant, queued, completion).await,
            None => Ok(Some(queued).into()),
        }
    }

    async fn settle(
        &self,
        tenant: &Tenant,
        held: Versioned<ReviewRecord>,
        completion: Completion,
    ) -> Result<Step, DriveError> {
        let next = match worth_more(tenant, &held.value, &completion) {
            Some(why) => {
                tracing::warn!(review.id = %held.value.review, why, "out of memory or time");
                let left = self.evidence(tenant, &held.value).await;
                held.value.enlarge(why, crate::now()).map(|next| next.noting(left))
            }
            None => held.value.settle(completion),
        };
        let next = next.map_err(LedgerError::from)?;
        Ok(self.ledger.swap(held.generation, next).await?.into())
    }

    /// The dispatcher decides; if somebody else has decided before, theirs holds.
    async fn decide(
        &self,
        tenant: &Tenant,
        held: Versioned<ReviewRecord>,
        verdict: Verdict,
    ) -> Result<Step, DriveError> {
        let completion = self.outcomes.decide(tenant, &held.value, verdict, None, crate::now()).await?;
        self.settle(tenant, held, completion).await
    }

    async fn announce(&self, tenant: &Tenant, held: Versioned<ReviewRecord>) -> Result<Step, DriveError> {
        let State::Settled { completion, .. } = &held.value.state else { return Ok(Step::Overtaken) };
        if dead_letters::is_owed(&completion.verdict) {
            let evidence = self.evidence(tenant, &held.value).await;
            if let Some(letter) = dead_letters::of_completion(completion, &held.value, evidence, crate::now()) {
                let asked_by = match self.asked_by(&held.value).await {
                    // It adorns the letter, and must not hold it back.
                    Err(error) if error.is_permanent() => None,
                    found => found?,
                };
                self.ledger.file(&DeadLetter { replay_of: letter.replay_of.or(asked_by), ..letter }).await?;
            }
        }
        if matches!(completion.verdict, Verdict::InputsChanged { .. }) && tenant.policy != PackPolicy::Each {
            // A deletion sends no event that opens a pack, and what is left of this one is reviewed by nobody else.
            self.opener.open(tenant, &completion.pack, held.value.traceparent.clone(), crate::now()).await?;
        }
        let traceparent = carrel_telemetry::inject().or_else(|| held.value.traceparent.clone());
        self.ledger.log_completion(completion).await?;
        self.announcer.announce(completion, traceparent.as_deref()).await?;
        tracing::info!(
            tenant.id = %completion.tenant, review.id = %completion.review, epoch = completion.epoch.get(),
            state = completion.verdict.state(), event.id = %completion.event, "completion announced"
        );
        self.limbo.resolve_review(&held.value, crate::now()).await;
        let next = held.value.announced(crate::now()).map_err(LedgerError::from)?;
        Ok(self.ledger.swap(held.generation, next).await?.into())
    }

    /// The letter of a pack whose replay asked for this review. A key is anybody's word: only a letter of the tenant's own
    /// counts, and of this pack.
    async fn asked_by(&self, record: &ReviewRecord) -> Result<Option<DeadLetterId>, LedgerError> {
        if record.closed_by != ClosedBy::Request {
            return Ok(None);
        }
        let seal = self.ledger.seal(&record.tenant, &record.pack, record.revision).await?;
        let Some(id) = seal.and_then(|seal| dead_letters::replayed_under(&seal.idempotency_key?)) else {
            return Ok(None);
        };
        let letter = self.ledger.dead_letter(Some(&record.tenant), &id).await?.map(|held| held.value);
        let is_of_it =
            |letter: &DeadLetter| matches!(&letter.source, DeadLetterSource::Pack { pack, .. } if *pack == record.pack);
        Ok(letter.filter(is_of_it).map(|letter| letter.id))
    }

    /// A superseded review is over, unless the pack holds just its files again: then its next epoch begins. Whoever
    /// seals such a revision writes the marker once more, so that only a marker older than the look is taken away.
    async fn lay_aside(&self, record: &ReviewRecord) -> Result<Step, DriveError> {
        let marker = self.ledger.open_review_generation(&record.tenant, &record.review).await?;
        let last = self.ledger.last_filled_seal(&record.tenant, &record.pack).await?;
        if last.is_some_and(|seal| seal.review == record.review) {
            self.ledger.replay_review(&record.tenant, &record.review, record.epoch, crate::now()).await?;
            return Ok(Step::Overtaken);
        }
        if let Some(generation) = marker {
            self.ledger.finish_review_of(&record.tenant, &record.review, generation).await?;
        }
        Ok(Step::Rest(Rest::Finished(self.successor(record).await?)))
    }

    async fn finish(&self, record: &ReviewRecord) -> Result<Step, DriveError> {
        self.ledger.finish_review(&record.tenant, &record.review).await?;
        Ok(Step::Rest(Rest::Finished(self.successor(record).await?)))
    }
}

fn refused(message: String) -> Verdict {
    Verdict::Failed { class: FailureClass::CloudRefused, message, log_tail: None }
}

/// True if the attempt in hand is the last one that the tenant's limits allow.
fn is_last_attempt(tenant: &Tenant, record: &ReviewRecord) -> bool {
    record.spent_attempts() + 1 >= tenant.limits.max_attempts as usize
}

/// The span as a part of the trace in which the review was opened.
fn span(span: tracing::Span, record: &ReviewRecord) -> tracing::Span {
    if let Some(parent) = &record.traceparent {
        carrel_telemetry::set_parent(&span, parent);
    }
    span
}
