//! Replays dead letters: what would become of one ([`Replayer::foresee`]), one step further with one
//! ([`Replayer::advance`]), and campaigns of many ([`open`], [`campaigns`], paced and stopped by [`plan`]).
//!
//! A replay is an ordinary arrow of the ledger: a review begins its next epoch, a message passes intake once more, a
//! pack that came to nothing is asked for under the letter's own key. Every step may be taken twice; whoever was killed
//! takes the same step again and finds it done.
//!
//! A replayed review or pack has passed once it is delivered, a message once intake has taken it: what it opens may hold
//! other uploads too, closes when its policy says, and has a letter of its own if it fails. So a canary that is a message
//! says that such messages are taken, and nothing of the reviews that come of them.

pub mod campaigns;
pub mod open;
pub mod plan;

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine as _;
use carrel_cloud::{CallError, Objects};
use carrel_schemas::campaign::{CampaignState, Foresight, ItemState};
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterSource, DeadLetterState};
use carrel_schemas::ids::{BucketName, CampaignId, DeadLetterId, PackId, ReviewId, Revision, TenantId};
use carrel_schemas::layout::UploadKind;
use carrel_schemas::outcome::Verdict;
use carrel_schemas::registry::{Registry, Tenant};
use carrel_schemas::review_request::ReviewRequested;
use carrel_schemas::seal::{Member, Seal};

use crate::dead_letters;
use crate::desk::{Bell, Wake};
use crate::intake::{Carries, Intake, NoteError, given_up};
use crate::ledger::{Ledger, LedgerError, Replayed, ReviewRecord, State};
use crate::pack::policy::Contents;
use crate::pack::seal::{Requested, SealError, Sealer};
use crate::validate::{self, Upload};

/// Bytes of a reason that a campaign keeps.
const MAX_WHY: usize = 400;
/// Before the reason of a letter whose replay failed and that stays open.
const FAILED: &str = "its replay failed: ";

/// Replays single letters.
#[derive(Debug)]
pub struct Replayer {
    /// The ledger.
    pub ledger: Ledger,
    /// The uploads buckets.
    pub objects: Objects,
    /// The tenants.
    pub registry: Arc<Registry>,
    /// What messages pass.
    pub intake: Arc<Intake>,
    /// Seals what is asked for, and lists packs.
    pub sealer: Sealer,
    /// Where it rings.
    pub bell: Bell,
    /// Reviews that the fleet runs at once.
    pub capacity: usize,
    /// Launches of the whole fleet.
    pub launches_per_minute: NonZeroU32,
}

/// Why a letter could not be looked at or moved; it is tried again later.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A pack could not be listed or sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A message could not be dealt with.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// An uploads bucket did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl ReplayError {
    /// Whether the same step would meet it again, until somebody mends what it names.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Ledger(error) => error.is_permanent(),
            Self::Seal(error) => error.is_permanent(),
            Self::Note(error) => error.is_permanent(),
            Self::Call(_) => false,
        }
    }
}

/// What would become of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its fate.
    pub foresight: Foresight,
    /// Why, where that needs words.
    pub why: Option<String>,
    /// Milliseconds that its review ran when it last did.
    pub ran_ms: Option<u64>,
    /// Whether there is nothing to replay any more, now or later.
    pub is_over: bool,
}

impl Seen {
    fn that(foresight: Foresight, why: impl Into<String>) -> Self {
        Self { foresight, why: Some(short(&why.into())), ran_ms: None, is_over: false }
    }

    fn over(why: impl Into<String>) -> Self {
        Self { is_over: true, ..Self::that(Foresight::AlreadyDone, why) }
    }

    const WOULD_RUN: Self = Self { foresight: Foresight::WouldRun, why: None, ran_ms: None, is_over: false };
}

/// How a replay ended.
enum End {
    /// In what it was for; the text says how.
    Passed(String),
    /// There is nothing to replay any more; the text says why.
    Over(String),
    /// Not so; where the failure stands in a letter of its own, that one.
    Failed { reason: String, fingerprint: String, letter: Option<DeadLetterId> },
}

impl End {
    fn failed(reason: String) -> Self {
        Self::Failed { fingerprint: dead_letters::fingerprint(&reason), reason: short(&reason), letter: None }
    }
}

impl Replayer {
    /// What would become of a letter if it were replayed now.
    pub async fn foresee(&self, letter: &DeadLetter) -> Result<Seen, ReplayError> {
        if letter.state != DeadLetterState::Open {
            let why = letter.resolution.clone();
            return Ok(Seen { foresight: Foresight::NotOpen, why, ran_ms: None, is_over: false });
        }
        if letter.class == DeadLetterClass::Stuck {
            let why = "it is tried on by itself, and the letter is resolved once that helps";
            return Ok(Seen::that(Foresight::AlreadyDone, why));
        }
        let tenant = match &letter.tenant {
            Some(id) => match self.registry.tenant(id) {
                Some(tenant) if tenant.suspended => return Ok(suspended(tenant)),
                Some(tenant) if tenant.deleting => {
                    return Ok(Seen::that(Foresight::UnknownTenant, format!("tenant {id} is being deleted")));
                }
                Some(tenant) => Some(tenant),
                None => return Ok(Seen::that(Foresight::UnknownTenant, format!("no tenant {id} in the registry"))),
            },
            None => None,
        };
        match (&letter.source, tenant) {
            (DeadLetterSource::Message { subscription, attributes, data, .. }, _) => {
                self.foresee_message(carried(subscription), attributes, &decoded(data)).await
            }
            (DeadLetterSource::Review { review, epoch, .. }, Some(tenant)) => {
                let Some(record) = self.ledger.review(&tenant.id, review).await? else {
                    return Ok(Seen::that(Foresight::StillInvalid, format!("the ledger holds no review {review}")));
                };
                let why = format!("epoch {} is {}", record.value.epoch, record.value.state.word());
                if record.value.epoch != *epoch {
                    return Ok(Seen::over(why));
                }
                if !record.value.may_be_replayed() {
                    // Its letter is filed before its end is announced, and may be replayed once that is done.
                    return Ok(Seen::that(Foresight::AlreadyDone, why));
                }
                if let Some(why) = self.replaced(&record.value).await? {
                    return Ok(Seen::over(why));
                }
                let seen = self.foresee_inputs(tenant, &record.value).await?;
                Ok(Seen { ran_ms: Some(record.value.ran_ms).filter(|ms| *ms > 0), ..seen })
            }
            (DeadLetterSource::Pack { pack, revision, .. }, Some(tenant)) => {
                if let Some(why) = self.closed_again(tenant, pack, *revision).await? {
                    return Ok(Seen::over(why));
                }
                if let Some(why) = self.closes_again(tenant, pack, *revision).await? {
                    // It may close with no file in it, as before, and is no other letter then.
                    return Ok(Seen::that(Foresight::AlreadyDone, why));
                }
                Ok(asked_for(&self.sealer.list(tenant, pack).await?))
            }
            (DeadLetterSource::Review { .. } | DeadLetterSource::Pack { .. }, None) => {
                Ok(Seen::that(Foresight::StillInvalid, "it names no tenant"))
            }
        }
    }

    /// Why a review is not made once more: the pack has a later revision, which holds what counts now.
    async fn replaced(&self, record: &ReviewRecord) -> Result<Option<String>, LedgerError> {
        let last = self.ledger.last_seal(&record.tenant, &record.pack).await?;
        let later = last
            .filter(|seal| seal.revision > record.revision && seal.review != record.review && !seal.members.is_empty());
        Ok(later
            .map(|seal| format!("revision {} of the pack is in its place, as review {}", seal.revision, seal.review)))
    }

    /// Why a pack is not asked for: it has closed again with files in it.
    async fn closed_again(
        &self,
        tenant: &Tenant,
        pack: &PackId,
        revision: Revision,
    ) -> Result<Option<String>, LedgerError> {
        let last = self.ledger.last_seal(&tenant.id, pack).await?;
        let last = last.filter(|seal| seal.revision > revision && !seal.members.is_empty());
        Ok(last
            .map(|seal| format!("the pack has closed again, with {} file(s), as {}", seal.members.len(), seal.review)))
    }

    /// Why a pack is not asked for: it is about to close again.
    async fn closes_again(
        &self,
        tenant: &Tenant,
        pack: &PackId,
        revision: Revision,
    ) -> Result<Option<String>, LedgerError> {
        let open = self.ledger.find_open_pack(&tenant.id, pack).await?;
        let open = open.filter(|open| open.revision > revision);
        Ok(open.map(|open| format!("uploads to it wait for its revision {}, which closes by itself", open.revision)))
    }

    async fn foresee_message(
        &self,
        carries: Carries,
        attributes: &BTreeMap<String, String>,
        data: &[u8],
    ) -> Result<Seen, ReplayError> {
        match carries {
            Carries::Uploads => match validate::upload(&self.registry, attributes, data) {
                validate::Verdict::Accepted(upload) if upload.tenant.suspended => Ok(suspended(&upload.tenant)),
                validate::Verdict::Accepted(upload) => self.foresee_upload(&upload).await,
                validate::Verdict::Refused(refusal) => Ok(Seen::that(Foresight::StillInvalid, refusal.reason)),
                validate::Verdict::Discard(why) => Ok(self.forgotten(attributes, why)),
            },
            Carries::ReviewRequests => match validate::request(&self.registry, attributes, data) {
                validate::Verdict::Accepted((tenant, _)) if tenant.suspended => Ok(suspended(&tenant)),
                validate::Verdict::Accepted((tenant, request)) => self.foresee_request(&tenant, &request).await,
                validate::Verdict::Refused(refusal) => Ok(Seen::that(Foresight::StillInvalid, refusal.reason)),
                validate::Verdict::Discard(why) => Ok(self.forgotten(attributes, why)),
            },
            Carries::Outcomes => Ok(Seen::WOULD_RUN),
        }
    }

    /// A message that intake would forget.
    fn forgotten(&self, attributes: &BTreeMap<String, String>, why: &str) -> Seen {
        let bucket = attributes.get("bucketId").and_then(|name| BucketName::parse(name.as_str()).ok());
        let tenant = bucket.and_then(|bucket| self.registry.by_uploads_bucket(&bucket));
        let why = format!("nothing would come of it: {why}");
        if tenant.is_some_and(|tenant| tenant.deleting) {
            Seen::that(Foresight::UnknownTenant, why)
        } else {
            Seen::over(why)
        }
    }

    async fn foresee_request(&self, tenant: &Tenant, request: &ReviewRequested) -> Result<Seen, ReplayError> {
        let Some(seal) = self.ledger.request(&tenant.id, &request.idempotency_key).await? else {
            return Ok(asked_for(&self.sealer.list(tenant, &request.pack).await?));
        };
        if seal.pack != request.pack {
            let why = format!("its idempotency key stands for pack {:?}", seal.pack.as_str());
            return Ok(Seen::that(Foresight::StillInvalid, why));
        }
        // Whoever remembered it may have died before it was a review.
        Ok(match self.ledger.review(&tenant.id, &seal.review).await? {
            Some(_) => Seen::over(format!("its idempotency key stands for {}", seal.review)),
            None => Seen::WOULD_RUN,
        })
    }

    async fn foresee_upload(&self, upload: &Upload) -> Result<Seen, ReplayError> {
        let (tenant, object) = (&upload.tenant.id, &upload.object);
        if let Some(seal) = self.ledger.last_seal(tenant, &upload.pack).await?
            && holds(&seal, upload)
            && self.ledger.review(tenant, &seal.review).await?.is_some()
        {
            return Ok(Seen::over(format!("{object} is sealed, in {}", seal.review)));
        }
        let found = self.objects.find(object.bucket.as_str(), object.name.as_str()).await?;
        Ok(match found {
            Some(_) => Seen::WOULD_RUN,
            None => Seen::that(Foresight::InputsGone, format!("{object} is not there any more")),
        })
    }

    async fn foresee_inputs(&self, tenant: &Tenant, record: &ReviewRecord) -> Result<Seen, ReplayError> {
        let Some(seal) = self.ledger.seal(&record.tenant, &record.pack, record.revision).await? else {
            let why = format!("the ledger holds no seal of {}", record.review);
            return Ok(Seen::that(Foresight::StillInvalid, why));
        };
        let contents = self.sealer.list(tenant, &record.pack).await?;
        let there: HashSet<_> = contents.members.iter().map(|member| (&member.name, member.generation)).collect();
        let mut gone = seal.members.iter().filter(|member| !there.contains(&(&member.name, member.generation)));
        let Some(first) = gone.next() else { return Ok(Seen::WOULD_RUN) };
        let why =
            format!("{} of its files were replaced or deleted, {:?} among them", gone.count() + 1, first.name.as_str());
        Ok(Seen::that(Foresight::InputsGone, why))
    }

    /// Takes the replay of one letter a step further; `None` while it is under way. A campaign that was killed in the
    /// middle of a step takes it again.
    pub async fn advance(
        &self,
        campaign: &CampaignId,
        state: CampaignState,
        tenant: Option<&TenantId>,
        id: &DeadLetterId,
    ) -> Result<Option<ItemState>, ReplayError> {
        match self.take_further(campaign, state, tenant, id).await {
            // The letter, or the record it tells of, cannot be read: the campaign ends all the same.
            Err(error) if error.is_permanent() => {
                let reason = short(&crate::chain(&error));
                let fingerprint = dead_letters::fingerprint(&reason);
                Ok(Some(ItemState::Failed { at: crate::now(), reason, fingerprint }))
            }
            taken => taken,
        }
    }

    async fn take_further(
        &self,
        campaign: &CampaignId,
        state: CampaignState,
        tenant: Option<&TenantId>,
        id: &DeadLetterId,
    ) -> Result<Option<ItemState>, ReplayError> {
        let Some(held) = self.ledger.dead_letter(tenant, id).await? else {
            return Ok(Some(ItemState::Skipped { reason: "the letter is gone".to_owned() }));
        };
        let letter = held.value;
        if letter.campaign.as_ref() != Some(campaign) {
            // Marked by one that died before it took the letter, and stopped since.
            match state {
                CampaignState::Running => {}
                CampaignState::Paused | CampaignState::Halted => return Ok(None),
                CampaignState::Cancelled | CampaignState::Finished => {
                    return Ok(Some(ItemState::Skipped { reason: "the campaign was cancelled".to_owned() }));
                }
            }
            let Seen { foresight, why, is_over, .. } = match self.foresee(&letter).await {
                // Whoever takes the message meets it again, and ends as its letter did.
                Err(error) if error.is_permanent() && is_message(&letter) => Seen::WOULD_RUN,
                seen => seen?,
            };
            if foresight != Foresight::WouldRun {
                let reason = why.unwrap_or_else(|| "another campaign has it, or it was dealt with".to_owned());
                let reason = short(&reason);
                if is_over {
                    // Left open, every later campaign would take it again.
                    let resolution = Some(reason.clone());
                    let next = DeadLetter { state: DeadLetterState::Resolved, resolution, ..letter };
                    if !self.ledger.move_letter(held.generation, &next).await? {
                        return Ok(None);
                    }
                }
                return Ok(Some(ItemState::Skipped { reason }));
            }
            let state = DeadLetterState::Replaying;
            let taken = DeadLetter { state, campaign: Some(campaign.clone()), ..letter };
            self.ledger.move_letter(held.generation, &taken).await?;
            // Looked at again with the letter in hand, or in another's.
            return Ok(None);
        }
        // Moved on before the campaign could note it, or by an operator since.
        match letter.state {
            DeadLetterState::Discarded => {
                return Ok(Some(ItemState::Skipped { reason: "an operator put it aside".to_owned() }));
            }
            DeadLetterState::Open => {
                let reason = letter.resolution.unwrap_or_default();
                let fingerprint = dead_letters::fingerprint(reason.strip_prefix(FAILED).unwrap_or(&reason));
                return Ok(Some(ItemState::Failed { at: crate::now(), reason, fingerprint }));
            }
            DeadLetterState::Resolved if is_message(&letter) => return Ok(Some(ItemState::Passed)),
            // A review that was dealt with tells again how it ended.
            DeadLetterState::Resolved | DeadLetterState::Replaying => {}
        }
        let end = match self.step(&letter).await {
            Ok(Some(end)) => end,
            Ok(None) => return Ok(None),
            Err(error) if error.is_permanent() => End::failed(crate::chain(&error)),
            Err(error) => return Err(error),
        };
        let (state, resolution, item) = match end {
            End::Passed(how) => (DeadLetterState::Resolved, how, ItemState::Passed),
            End::Over(why) => (DeadLetterState::Resolved, why.clone(), ItemState::Skipped { reason: why }),
            End::Failed { reason, fingerprint, letter } => {
                let (state, resolution) = match letter {
                    Some(other) => (DeadLetterState::Resolved, format!("its replay failed, see {other}")),
                    None => (DeadLetterState::Open, format!("{FAILED}{reason}")),
                };
                (state, resolution, ItemState::Failed { at: crate::now(), reason, fingerprint })
            }
        };
        if letter.state == DeadLetterState::Replaying {
            let next = DeadLetter { state, resolution: Some(resolution), ..letter };
            self.ledger.move_letter(held.generation, &next).await?;
        }
        Ok(Some(item))
    }

    async fn step(&self, letter: &DeadLetter) -> Result<Option<End>, ReplayError> {
        match (&letter.source, letter.tenant.as_ref().and_then(|id| self.registry.tenant(id))) {
            (DeadLetterSource::Message { subscription, attributes, data, .. }, _) => {
                match self.intake.admit(carried(subscription), attributes, &decoded(data)).await {
                    Ok(None) => Ok(Some(End::Passed("the message was taken".to_owned()))),
                    Ok(Some(refusal)) => Ok(Some(End::failed(refusal.reason))),
                    Err(error) if error.is_permanent() => Ok(Some(End::failed(given_up(&error)))),
                    Err(error) => Err(error.into()),
                }
            }
            (DeadLetterSource::Review { review, epoch, .. }, Some(tenant)) => {
                // Looked at again with the letter in hand: a revision may have closed since.
                let record = self.ledger.review(&tenant.id, review).await?.map(|record| record.value);
                if let Some(record) = record.filter(|record| record.epoch == *epoch)
                    && let Some(why) = self.replaced(&record).await?
                {
                    return Ok(Some(End::Over(why)));
                }
                match self.ledger.replay_review(&tenant.id, review, *epoch, crate::now()).await? {
                    Replayed::Begun(record) => self.watch(&record).await,
                    Replayed::NotEnded => Ok(None),
                    Replayed::Gone => Ok(Some(End::failed(format!("the ledger holds no review {review}")))),
                }
            }
            (DeadLetterSource::Pack { pack, revision, .. }, Some(tenant)) => {
                self.ask(tenant, pack, *revision, &letter.id).await
            }
            (DeadLetterSource::Review { .. } | DeadLetterSource::Pack { .. }, None) => {
                Ok(Some(End::failed("its tenant is not in the registry any more".to_owned())))
            }
        }
    }

    /// Asks for a review of what the pack holds now; the letter is the key, so it is asked for once.
    async fn ask(
        &self,
        tenant: &Tenant,
        pack: &PackId,
        revision: Revision,
        letter: &DeadLetterId,
    ) -> Result<Option<End>, ReplayError> {
        let key = dead_letters::replay_key(letter);
        if self.ledger.request(&tenant.id, &key).await?.is_none() {
            if let Some(why) = self.closed_again(tenant, pack, revision).await? {
                return Ok(Some(End::Over(why)));
            }
            // It may close as it did, which files no other letter: this one stays until that is known.
            if self.closes_again(tenant, pack, revision).await?.is_some() {
                return Ok(None);
            }
        }
        let traceparent = carrel_telemetry::inject();
        let review: ReviewId =
            match self.sealer.seal_request(tenant, pack, &key, None, traceparent, crate::now()).await? {
                Requested::Review(review) => review,
                Requested::NoFile => {
                    return Ok(Some(End::failed(format!("pack {:?} still holds no file", pack.as_str()))));
                }
                Requested::Excess => {
                    return Ok(Some(End::failed(format!("pack {:?} holds too many files", pack.as_str()))));
                }
                Requested::KeyTaken(other) => {
                    return Ok(Some(End::failed(format!("key {key} stands for pack {:?}", other.as_str()))));
                }
            };
        match self.ledger.review(&tenant.id, &review).await? {
            Some(record) => self.watch(&record.value).await,
            None => Ok(None),
        }
    }

    /// How a replayed review stands; one that is not at its end is rung for.
    async fn watch(&self, record: &ReviewRecord) -> Result<Option<End>, ReplayError> {
        let State::Settled { completion, announced_at: Some(_) } = &record.state else {
            self.bell.ring(Wake::Review(record.tenant.clone(), record.review.clone())).await;
            return Ok(None);
        };
        let (review, epoch, state) = (&record.review, record.epoch, completion.verdict.state());
        match completion.verdict {
            Verdict::Delivered { .. } => return Ok(Some(End::Passed(format!("{state} as {review} in epoch {epoch}")))),
            // Somebody wished it so: there is no other letter, and nothing to look at.
            Verdict::Cancelled { .. } | Verdict::Superseded { .. } => {
                return Ok(Some(End::Over(format!("{review} was {state} in epoch {epoch}"))));
            }
            Verdict::Refused { .. } | Verdict::InputsChanged { .. } | Verdict::Failed { .. } => {}
        }
        let id = dead_letters::of_epoch(&record.review, record.epoch);
        Ok(Some(match self.ledger.dead_letter(Some(&record.tenant), &id).await? {
            Some(held) => {
                let DeadLetter { reason, fingerprint, id, .. } = held.value;
                End::Failed { reason: short(&reason), fingerprint, letter: Some(id) }
            }
            None => End::failed(format!("review {review} is {state}")),
        }))
    }
}

fn is_message(letter: &DeadLetter) -> bool {
    matches!(letter.source, DeadLetterSource::Message { .. })
}

/// What would become of asking for a review of this.
fn asked_for(contents: &Contents) -> Seen {
    match (contents.excess, contents.is_empty()) {
        (true, _) => Seen::that(Foresight::StillInvalid, "the pack holds too many files"),
        (_, true) => Seen::that(Foresight::InputsGone, "the pack holds no file"),
        _ => Seen::WOULD_RUN,
    }
}

/// True if the seal is of that very version.
fn holds(seal: &Seal, upload: &Upload) -> bool {
    let object = &upload.object;
    let is_it = |member: &Member| member.name == object.name && member.generation == object.generation;
    match upload.kind {
        UploadKind::Marker => seal.marker == Some(object.generation),
        UploadKind::File | UploadKind::Manifest | UploadKind::Ignored => {
            seal.members.iter().chain(&seal.manifest).any(is_it)
        }
    }
}

/// What the messages of a subscription are, by its own name, whatever the project is called.
fn carried(subscription: &str) -> Carries {
    let name = subscription.rsplit('/').next().unwrap_or(subscription);
    if name.starts_with("review-requests") { Carries::ReviewRequests } else { Carries::Uploads }
}

/// A stranger's text, cut so that a chunk of letters stays far below what an object of the ledger may have.
fn short(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.truncate(text.floor_char_boundary(MAX_WHY));
    text
}

/// The bytes of a letter's message; what is not Base64 is no message that anything takes.
fn decoded(data: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(data).unwrap_or_default()
}

fn suspended(tenant: &Tenant) -> Seen {
    Seen::that(Foresight::TenantSuspended, format!("tenant {} is suspended", tenant.id))
}
