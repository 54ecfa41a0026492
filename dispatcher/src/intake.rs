//! Pulls messages and makes each a durable fact, then acknowledges it. The one call site that acknowledges is here.
//!
//! ```text
//! message ─► judge (validate) ─► note (open pack, seal, dead letter) ─► ack
//!                                        └─ it could not be noted ─► nack: it comes again
//! ```
//! Uploads above a tenant's rate are left to a sweep ([`Floods`]). What Pub/Sub itself has given up on comes by the dead-letter subscriptions and passes the same way once more; if
//! it cannot be noted even then, it is filed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use carrel_cloud::{Delivery, Subscription};
use carrel_schemas::cloud_event::EventContext;
use carrel_schemas::completion::{OUTCOME_WRITTEN, OutcomeWritten};
use carrel_schemas::dead_letter::{DeadLetterClass, DeadLetterSource};
use carrel_schemas::ids::TenantId;
use carrel_schemas::layout::UploadKind;
use carrel_schemas::registry::{PackPolicy, Registry, Tenant};
use carrel_schemas::review_request::ReviewRequested;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::dead_letters;
use crate::desk::{Bell, Wake};
use crate::flood::Floods;
use crate::ledger::{Ledger, LedgerError};
use crate::pack::open::Opener;
use crate::pack::seal::{Requested, SealError, Sealer};
use crate::validate::{self, Refusal, Upload, Verdict};

/// Between two attempts to open a stream, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Pauses between attempts to open a stream, until one brings a message.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_delay(LONGEST_PAUSE)
    .without_max_times()
    .with_jitter();

/// What a subscription carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Cloud Storage notifications.
    Uploads,
    /// Requests of the platform.
    ReviewRequests,
    /// Wake-ups of workers.
    Outcomes,
}

/// A message that could not be noted is held this long, so that a ledger out of reach does not use up its deliveries.
const HELD: Duration = Duration::from_secs(1);

/// One subscription of the dispatcher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// What its messages are.
    pub carries: Carries,
    /// It takes what Pub/Sub gave up delivering to another.
    pub is_dead_letter: bool,
}

/// Turns messages into facts.
#[derive(Debug)]
pub struct Intake {
    /// The ledger.
    pub ledger: Ledger,
    /// The tenants.
    pub registry: Arc<Registry>,
    /// Which uploads are too many to be opened one by one.
    pub floods: Floods,
    /// Opens packs.
    pub opener: Arc<Opener>,
    /// Seals packs of one, and requests.
    pub sealer: Sealer,
    /// Where it rings.
    pub bell: Bell,
}

/// A message that could not be made a fact yet.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl NoteError {
    /// Whether the same message would meet it again.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Ledger(error) => error.is_permanent(),
            Self::Seal(error) => error.is_permanent(),
        }
    }
}

impl Intake {
    /// Pulls one subscription until `stop`, then lets the messages in hand end.
    pub async fn run(self: Arc<Self>, subscription: Subscription, source: Source, stop: CancellationToken) {
        let mut messages = subscription.open();
        let mut pauses = PAUSES.build();
        let mut hands = JoinSet::new();
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = hands.join_next() => {
                    log_lost(done);
                    continue;
                }
                next = messages.next() => next,
            };
            match next {
                Some(Ok(delivery)) => {
                    pauses = PAUSES.build();
                    let intake = self.clone();
                    let name = subscription.name().to_owned();
                    let span = tracing::info_span!("message", message.id = %delivery.message_id, subscription = %name);
                    if let Some(parent) = delivery.attributes.get(carrel_telemetry::ATTRIBUTE) {
                        carrel_telemetry::set_parent(&span, parent);
                    }
                    hands.spawn(async move { intake.handle(&name, source, delivery).await }.instrument(span));
                }
                Some(Err(error)) => {
                    tracing::warn!(error = crate::chain(&error), "pull failed, opening another stream");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)) => {}
                    }
                    messages = subscription.open();
                }
                None => messages = subscription.open(),
            }
        }
        while let Some(done) = hands.join_next().await {
            log_lost(done);
        }
    }

    async fn handle(&self, subscription: &str, source: Source, delivery: Delivery) {
        let noted = match self.note(source, &delivery).await {
            Ok(None) => Ok(()),
            Ok(Some(refusal)) => self.file(subscription, &delivery, refusal).await,
            // Whatever the cause: given back, it would be lost once Pub/Sub keeps it no longer.
            Err(error) if source.is_dead_letter => {
                let tenant = self.owner(source.carries, &delivery);
                let refusal = Refusal { class: DeadLetterClass::Undeliverable, tenant, reason: given_up(&error) };
                self.file(subscription, &delivery, refusal).await
            }
            Err(error) => Err(error),
        };
        match noted {
            Ok(()) => delivery.receipt.ack(),
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "message is given back");
                tokio::time::sleep(HELD).await;
                delivery.receipt.nack();
            }
        }
    }

    /// Whose a message is, if that can be told.
    fn owner(&self, carries: Carries, delivery: &Delivery) -> Option<TenantId> {
        let (attributes, data) = (&delivery.attributes, &delivery.data);
        match carries {
            Carries::Uploads => match validate::upload(&self.registry, attributes, data) {
                Verdict::Accepted(upload) => Some(upload.tenant.id),
                Verdict::Refused(refusal) => refusal.tenant,
                Verdict::Discard(_) => None,
            },
            Carries::ReviewRequests => match validate::request(&self.registry, attributes, data) {
                Verdict::Accepted((tenant, _)) => Some(tenant.id),
                Verdict::Refused(refusal) => refusal.tenant,
                Verdict::Discard(_) => None,
            },
            Carries::Outcomes => None,
        }
    }

    /// Admits a message, unless it is one upload of too many. What has been given up once is seldom, and admitted.
    async fn note(&self, source: Source, delivery: &Delivery) -> Result<Option<Refusal>, NoteError> {
        if source.carries == Carries::Uploads
            && !source.is_dead_letter
            && let Verdict::Accepted(upload) = validate::upload(&self.registry, &delivery.attributes, &delivery.data)
            && self.floods.is_left_to_sweep(&upload, crate::now()).await?
        {
            return Ok(None);
        }
        self.admit(source.carries, &delivery.attributes, &delivery.data).await
    }

    /// Makes a message a fact; the refusal of one that cannot be is returned, to be filed.
    pub async fn admit(
        &self,
        carries: Carries,
        attributes: &BTreeMap<String, String>,
        data: &[u8],
    ) -> Result<Option<Refusal>, NoteError> {
        match carries {
            Carries::Uploads => match validate::upload(&self.registry, attributes, data) {
                Verdict::Accepted(upload) => self.upload(upload).await,
                Verdict::Refused(refusal) => Ok(Some(refusal)),
                Verdict::Discard(why) => {
                    tracing::debug!(why, "discarded");
                    Ok(None)
                }
            },
            Carries::ReviewRequests => match validate::request(&self.registry, attributes, data) {
                Verdict::Accepted((tenant, request)) => self.request(tenant, request).await,
                Verdict::Refused(refusal) => Ok(Some(refusal)),
                Verdict::Discard(why) => {
                    tracing::debug!(why, "discarded");
                    Ok(None)
                }
            },
            Carries::Outcomes => {
                self.outcome(attributes, data).await;
                Ok(None)
            }
        }
    }

    async fn upload(&self, upload: Upload) -> Result<Option<Refusal>, NoteError> {
        if upload.tenant.policy == PackPolicy::Each {
            return self.single(upload).await;
        }
        let traceparent = carrel_telemetry::inject();
        let open = self.opener.open(&upload.tenant, &upload.pack, traceparent, crate::now()).await?;
        if matches!(upload.kind, UploadKind::Marker | UploadKind::Manifest) {
            self.bell.ring(Wake::Pack(open)).await;
        }
        Ok(None)
    }

    async fn single(&self, upload: Upload) -> Result<Option<Refusal>, NoteError> {
        let traceparent = carrel_telemetry::inject();
        let sealed = self.sealer.seal_single(&upload.tenant, &upload.pack, traceparent, crate::now()).await?;
        match sealed {
            Some(review) => {
                self.bell.ring(Wake::Review(upload.tenant.id, review)).await;
                Ok(None)
            }
            // A late copy of the event of an object that was reviewed and then deleted.
            None if self.sealer.is_sealed(&upload.tenant, &upload.pack, &upload.object).await? => Ok(None),
            None => Ok(Some(Refusal {
                class: DeadLetterClass::InputsGone,
                tenant: Some(upload.tenant.id),
                reason: format!("{} was deleted before it could be sealed; upload it again", upload.object),
            })),
        }
    }

    async fn request(&self, tenant: Tenant, request: ReviewRequested) -> Result<Option<Refusal>, NoteError> {
        let (key, deadline) = (&request.idempotency_key, request.deadline_seconds);
        let traceparent = carrel_telemetry::inject();
        let (class, why) =
            match self.sealer.seal_request(&tenant, &request.pack, key, deadline, traceparent, crate::now()).await? {
                Requested::Review(review) => {
                    self.bell.ring(Wake::Review(tenant.id, review)).await;
                    return Ok(None);
                }
                Requested::NoFile => (DeadLetterClass::EmptyPack, "it holds no file; upload it first".to_owned()),
                Requested::Excess => {
                    (DeadLetterClass::Refused, "it holds too many files; upload it as smaller packs".to_owned())
                }
                Requested::KeyTaken(other) => {
                    let why = format!("idempotency key {key} stands for pack {:?}; send another", other.as_str());
                    (DeadLetterClass::Malformed, why)
                }
            };
        let reason = format!("review request: tenant {}, pack {:?}: {why}", tenant.id, request.pack.as_str());
        Ok(Some(Refusal { class, tenant: Some(tenant.id), reason }))
    }

    /// A wake-up and nothing more: it is not believed, and one that makes no sense is forgotten, since the reconciler
    /// finds every outcome that nobody announced.
    async fn outcome(&self, attributes: &BTreeMap<String, String>, data: &[u8]) {
        if let Err(error) = EventContext::parse(attributes, OUTCOME_WRITTEN) {
            tracing::warn!(%error, "wake-up ignored");
            return;
        }
        match serde_json::from_slice::<OutcomeWritten>(data) {
            Ok(hint) => match self.registry.by_outputs_bucket(&hint.outputs_bucket) {
                Some(tenant) => self.bell.ring(Wake::Hint(tenant.id.clone(), hint.review)).await,
                None => tracing::warn!(bucket.name = %hint.outputs_bucket, "wake-up of nobody's bucket ignored"),
            },
            Err(error) => tracing::warn!(%error, "wake-up ignored"),
        }
    }

    async fn file(&self, subscription: &str, delivery: &Delivery, refusal: Refusal) -> Result<(), NoteError> {
        let source = DeadLetterSource::Message {
            subscription: subscription.to_owned(),
            message_id: delivery.message_id.clone(),
            attributes: delivery.attributes.clone(),
            data: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &delivery.data),
        };
        let letter = dead_letters::letter(refusal.tenant, refusal.class, refusal.reason, source, crate::now());
        if self.ledger.file(&letter).await? || self.ledger.reopen(&letter).await? {
            tracing::warn!(dead_letter.id = %letter.id, class = ?letter.class, reason = letter.reason, "dead letter filed");
        }
        Ok(())
    }
}

/// Why a message is given up: in the words of its letter, and of a replay that meets the same again.
pub fn given_up(error: &NoteError) -> String {
    format!("a message could not be dealt with, and will not be delivered again: {}", crate::chain(error))
}

fn log_lost(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done {
        // Its receipt was dropped with it, so Pub/Sub delivers the message again.
        tracing::error!(%error, "a message handler was lost");
    }
}
