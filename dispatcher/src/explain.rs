//! Why an upload did or did not become a review, in plain words, from the first event to the completion.
//!
//! ```text
//! gs://bucket/name or rv_… ─► Facts (read from bucket and ledger) ─► sentences (pure)
//! ```
//! Owns the words. Refuses to change anything: looking never disturbs.

use std::sync::Arc;
use std::time::Duration;

use carrel_cloud::{CallError, Objects};
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterState};
use carrel_schemas::ids::{BucketName, Generation, ObjectName, PackId, ReviewId, TenantId};
use carrel_schemas::layout::{self, MANIFEST, MARKER, UploadKind};
use carrel_schemas::outcome::Verdict;
use carrel_schemas::registry::{PackPolicy, Registry, Tenant};
use carrel_schemas::seal::{ClosedBy, Seal};

use crate::dead_letters;
use crate::ledger::{Ledger, LedgerError, OpenPack, ReviewRecord, State};

/// Seals of one pack that are looked through for an object, the newest first.
const SEALS: usize = 20;

/// Explains uploads and reviews.
#[derive(Debug)]
pub struct Explainer {
    /// The ledger.
    pub ledger: Ledger,
    /// The uploads buckets.
    pub objects: Objects,
    /// The tenants.
    pub registry: Arc<Registry>,
}

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// An uploaded object, whatever its generation.
    Upload(BucketName, ObjectName),
    /// A review.
    Review(ReviewId),
}

impl Question {
    /// `gs://BUCKET/NAME` or a review's id; the error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("gs://") else {
            return ReviewId::parse(text)
                .map(Self::Review)
                .map_err(|error| format!("{error}, and no gs://BUCKET/NAME"));
        };
        let (bucket, name) = path.split_once('/').ok_or("expected gs://BUCKET/NAME")?;
        let bucket = BucketName::parse(bucket).map_err(|error| error.to_string())?;
        Ok(Self::Upload(bucket, ObjectName::parse(name).map_err(|error| error.to_string())?))
    }
}

/// Why a question has no answer yet.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The uploads bucket did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// The upload that was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    name: ObjectName,
    kind: UploadKind,
    /// The version that lies there now.
    live: Option<Generation>,
}

/// Everything that is known.
#[derive(Debug)]
struct Facts<'a> {
    tenant: &'a Tenant,
    upload: Option<Asked>,
    pack: PackId,
    open: Option<OpenPack>,
    seal: Option<Seal>,
    record: Option<ReviewRecord>,
    /// The review of an earlier revision that is not decided.
    before_it: Option<ReviewId>,
    letter: Option<DeadLetter>,
}

impl Explainer {
    /// Answers in sentences; `None` if nobody whom `may_see` lets through has such a thing.
    pub async fn explain(
        &self,
        question: Question,
        may_see: impl Fn(&TenantId) -> bool,
    ) -> Result<Option<Vec<String>>, ExplainError> {
        match question {
            Question::Upload(bucket, name) => {
                let tenant = self.registry.by_uploads_bucket(&bucket).filter(|tenant| may_see(&tenant.id));
                let Some(tenant) = tenant else { return Ok(None) };
                Ok(Some(told(&self.of_upload(tenant, name).await?)))
            }
            Question::Review(review) => {
                for tenant in self.registry.tenants().filter(|tenant| may_see(&tenant.id)) {
                    if let Some(record) = self.ledger.review(&tenant.id, &review).await? {
                        let record = record.value;
                        let seal = self.ledger.seal(&tenant.id, &record.pack, record.revision).await?;
                        let open = self.ledger.find_open_pack(&tenant.id, &record.pack).await?;
                        let pack = record.pack.clone();
                        return Ok(Some(told(&self.with(tenant, None, pack, open, seal, Some(record)).await?)));
                    }
                }
                Ok(None)
            }
        }
    }

    async fn of_upload<'a>(&self, tenant: &'a Tenant, name: ObjectName) -> Result<Facts<'a>, ExplainError> {
        let (mut pack, kind) = layout::classify(&name);
        if tenant.policy == PackPolicy::Each && kind == UploadKind::File {
            pack = PackId::parse(name.as_str()).expect("an object name is a pack id");
        }
        let found = self.objects.find(tenant.uploads_bucket.as_str(), name.as_str()).await?;
        let live = found.map(|object| Generation::new(object.generation));
        let open = self.ledger.find_open_pack(&tenant.id, &pack).await?;
        let last = self.ledger.last_seal(&tenant.id, &pack).await?;
        let mut seal = last.clone();
        for _ in 0..SEALS {
            let Some(held) = &seal else { break };
            let is_in = |member: &carrel_schemas::seal::Member| {
                member.name == name && live.is_none_or(|generation| member.generation == generation)
            };
            if kind != UploadKind::File || held.members.iter().any(is_in) {
                break;
            }
            seal = match held.revision.previous() {
                Some(former) => self.ledger.seal(&tenant.id, &pack, former).await?,
                None => None,
            };
        }
        let record = match &seal {
            Some(seal) => self.ledger.review(&tenant.id, &seal.review).await?.map(|record| record.value),
            None => None,
        };
        self.with(tenant, Some(Asked { name, kind, live }), pack, open, seal, record).await
    }

    async fn with<'a>(
        &self,
        tenant: &'a Tenant,
        upload: Option<Asked>,
        pack: PackId,
        open: Option<OpenPack>,
        seal: Option<Seal>,
        record: Option<ReviewRecord>,
    ) -> Result<Facts<'a>, ExplainError> {
        let before_it = match (&record, &seal) {
            (Some(ReviewRecord { state: State::Queued { .. }, .. }), Some(seal)) => self.undecided_before(seal).await?,
            _ => None,
        };
        let mut ids = Vec::new();
        match (&record, &seal) {
            (Some(record), _) => {
                let ended = dead_letters::of_epoch(&record.review, record.epoch);
                let stuck = dead_letters::of_stuck(&ended);
                ids.extend([ended, stuck]);
            }
            (None, Some(seal)) => ids.push(dead_letters::of_pack(&seal.bucket, &pack, seal.revision)),
            (None, None) => {}
        }
        let stuck =
            |open: &OpenPack| dead_letters::of_stuck(&dead_letters::of_pack(&open.bucket, &pack, open.revision));
        ids.extend(open.as_ref().map(stuck));
        let mut letter = None;
        for id in ids {
            letter = self.ledger.dead_letter(Some(&tenant.id), &id).await?.map(|letter| letter.value);
            if letter.is_some() {
                break;
            }
        }
        Ok(Facts { tenant, upload, pack, open, seal, record, before_it, letter })
    }

    async fn undecided_before(&self, seal: &Seal) -> Result<Option<ReviewId>, LedgerError> {
        let Some(former) = seal.revision.previous() else { return Ok(None) };
        let Some(former) = self.ledger.seal(&seal.tenant, &seal.pack, former).await? else { return Ok(None) };
        let record = self.ledger.review(&seal.tenant, &former.review).await?;
        let is_open = record.is_some_and(|record| !matches!(record.value.state, State::Settled { .. }));
        Ok(Some(former.review).filter(|review| is_open && *review != seal.review))
    }
}

/// The facts as sentences, in the order in which things happen.
fn told(facts: &Facts<'_>) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(upload) = &facts.upload {
        said.extend(about_upload(facts, upload));
        if upload.kind == UploadKind::Ignored {
            return said;
        }
    }
    if let Some(seal) = &facts.seal {
        said.push(about_seal(seal));
    }
    if let Some(open) = &facts.open {
        said.push(format!(
            "Since {}, uploads to pack {:?} wait for its revision {}. {}",
            open.opened_at,
            facts.pack.as_str(),
            open.revision,
            closes(facts.tenant.policy, open)
        ));
    } else if facts.seal.is_none() {
        said.push(
            "The ledger holds nothing of this pack: no event of it was heard of yet. The sweep of the bucket finds it."
                .to_owned(),
        );
    }
    if let Some(record) = &facts.record {
        said.extend(about_review(facts, record));
    }
    if let Some(letter) = &facts.letter {
        let state = match letter.state {
            DeadLetterState::Open if letter.class == DeadLetterClass::Stuck => "it is tried on".to_owned(),
            DeadLetterState::Open => format!("replay it once that is mended: carrel dead-letters replay {}", letter.id),
            DeadLetterState::Replaying => "a campaign replays it now".to_owned(),
            DeadLetterState::Resolved | DeadLetterState::Discarded => {
                letter.resolution.clone().unwrap_or_else(|| "it was dealt with".to_owned())
            }
        };
        said.push(format!("Dead letter {} was filed at {}: {}; {state}.", letter.id, letter.filed_at, letter.reason));
    }
    said
}

fn about_upload(facts: &Facts<'_>, upload: &Asked) -> Vec<String> {
    let place = format!("gs://{}/{}", facts.tenant.uploads_bucket, upload.name);
    let tenant = &facts.tenant.id;
    let Some(live) = upload.live else {
        return vec![format!("{place} is not there now: it was deleted, or never finished uploading.")];
    };
    let pack = facts.pack.as_str();
    vec![match upload.kind {
        UploadKind::File => {
            format!("{place} is there as generation {live}, a file of pack {pack:?} of tenant {tenant}.")
        }
        UploadKind::Marker | UploadKind::Manifest => {
            format!("{place} is there as generation {live} and says that pack {pack:?} of tenant {tenant} is complete.")
        }
        UploadKind::Ignored => {
            format!(
                "{place} is there and is no file of any pack by its name: a folder, a part of an upload, or reserved."
            )
        }
    }]
}

fn about_seal(seal: &Seal) -> String {
    let why = match seal.closed_by {
        ClosedBy::Marker => format!("{MARKER} had arrived"),
        ClosedBy::Manifest => format!("{MANIFEST} had arrived"),
        ClosedBy::Quiet => "nothing had arrived for the tenant's quiet period".to_owned(),
        ClosedBy::MaxAge => "it had reached its maximum age".to_owned(),
        ClosedBy::Each => "each object of the tenant is a pack".to_owned(),
        ClosedBy::Request => "somebody asked for a review".to_owned(),
    };
    let (at, pack, revision, files) = (seal.sealed_at, seal.pack.as_str(), seal.revision, seal.members.len());
    format!("At {at} pack {pack:?} was sealed as revision {revision} with {files} file(s), because {why}.")
}

fn closes(policy: PackPolicy, open: &OpenPack) -> String {
    let end = |seconds: u64| open.opened_at.plus(Duration::from_secs(seconds));
    match policy {
        PackPolicy::Marker { max_age_seconds } => {
            format!("It closes when {MARKER} or {MANIFEST} arrives, and at {} at the latest.", end(max_age_seconds))
        }
        PackPolicy::Quiet { quiet_seconds, max_age_seconds } => format!(
            "It closes when nothing has arrived for {quiet_seconds} s, when {MARKER} or {MANIFEST} arrives, and at {} at the latest.",
            end(max_age_seconds)
        ),
        PackPolicy::Each => "It closes at once.".to_owned(),
    }
}

fn about_review(facts: &Facts<'_>, record: &ReviewRecord) -> Vec<String> {
    let mut said = vec![format!(
        "Review {} was opened at {}; this is its epoch {}.",
        record.review, record.opened_at, record.epoch
    )];
    said.extend(
        record
            .ended
            .iter()
            .map(|ended| format!("Attempt {} came to nothing by {}: {}.", ended.attempt, ended.at, ended.cause)),
    );
    said.push(match &record.state {
        State::Queued { .. } if facts.tenant.suspended => {
            "It waits: the tenant is suspended in the registry.".to_owned()
        }
        State::Queued { not_before } => match &facts.before_it {
            Some(former) => format!("It waits until review {former}, of an earlier revision of the pack, is decided."),
            None => format!("It waits for a slot of the fleet and of the tenant, not before {not_before}."),
        },
        State::Launching { attempt, since, .. } => format!("Attempt {attempt} is being launched since {since}."),
        State::Running { attempt, execution, since } => {
            format!("Attempt {attempt} runs since {since} as {execution}.")
        }
        State::Settled { completion, announced_at } => {
            let why = match &completion.verdict {
                Verdict::Delivered { files, .. } => format!(" with {} file(s)", files.len()),
                Verdict::Refused { reason } | Verdict::Cancelled { reason } => format!(": {reason}"),
                Verdict::Failed { message, .. } => format!(": {message}"),
                Verdict::InputsChanged { changed } => {
                    format!(": {} sealed file(s) were replaced or deleted", changed.len())
                }
                Verdict::Superseded { by } => format!(" by {by}"),
            };
            let told = match announced_at {
                Some(at) => format!("its completion event {} was published at {at}", completion.event),
                None => format!("its completion event {} is about to be published", completion.event),
            };
            format!("At {} it ended as {}{why}; {told}.", completion.decided_at, completion.verdict.state())
        }
    });
    said
}
