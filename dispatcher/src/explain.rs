//! Why an upload did or did not become a review, in plain words, from the first event to the completion.
//!
//! ```text
//! gs://bucket/name or rv_… ─► Facts (read from bucket and ledger) ─► sentences (pure)
//! ```
//! Owns the words. Refuses to change anything: looking never disturbs.

use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use carrel_cloud::{CallError, Objects};
use carrel_schemas::campaign::LetterFilter;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterSource, DeadLetterState};
use carrel_schemas::ids::{BucketName, Generation, ObjectName, PackId, ReviewId};
use carrel_schemas::layout::{self, MANIFEST, MARKER, UploadKind};
use carrel_schemas::outcome::Verdict;
use carrel_schemas::registry::{PackPolicy, Registry, Tenant};
use carrel_schemas::seal::{ClosedBy, Member, Seal};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::dead_letters::{self, Index};
use crate::drive::Former;
use crate::ledger::{Ledger, LedgerError, OpenPack, ReviewRecord, State};

/// Seals of one pack that are looked through for an object, the newest first.
const SEALS: usize = 20;
/// Tenants looked at at once for a review that may be anybody's.
const LOOKS: usize = 32;

/// Explains uploads and reviews.
#[derive(Debug)]
pub struct Explainer {
    /// The ledger.
    pub ledger: Ledger,
    /// The uploads buckets.
    pub objects: Objects,
    /// The tenants.
    pub registry: Arc<Registry>,
    /// Finds the letters of messages.
    pub index: Arc<Index>,
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
    /// Its pack was sealed before, with it or without.
    has_seals: bool,
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
    /// What it comes after, if that is not decided.
    former: Option<Former>,
    /// The tenant's bucket is about to be listed, because its uploads came too fast.
    is_swept: bool,
    letter: Option<DeadLetter>,
}

impl Explainer {
    /// Answers in sentences, to one tenant or to an operator; `None` if the tenant, or nobody, has such a thing.
    pub async fn explain(
        &self,
        question: Question,
        asker: Option<&Tenant>,
    ) -> Result<Option<Vec<String>>, ExplainError> {
        match question {
            Question::Upload(bucket, name) => match (self.registry.by_uploads_bucket(&bucket), asker) {
                (Some(tenant), asker) if asker.is_none_or(|asker| asker.id == tenant.id) => {
                    Ok(Some(told(&self.of_upload(tenant, name).await?)))
                }
                (Some(_), _) | (None, Some(_)) => Ok(None),
                (None, None) => self.of_nobody(&bucket, &name).await.map(Some),
            },
            Question::Review(review) => {
                let ids: Vec<_> = match asker {
                    Some(asker) => vec![asker.id.clone()],
                    None => self.registry.tenants().map(|tenant| tenant.id.clone()).collect(),
                };
                let looks = stream::iter(ids).map(async |id| self.ledger.review(&id, &review).await);
                let looks = looks.buffer_unordered(LOOKS).try_filter_map(|found| ready(Ok(found)));
                let Some(record) = pin!(looks).try_next().await?.map(|held| held.value) else { return Ok(None) };
                let Some(tenant) = self.registry.tenant(&record.tenant) else { return Ok(None) };
                let seal = self.ledger.seal(&tenant.id, &record.pack, record.revision).await?;
                let open = self.ledger.find_open_pack(&tenant.id, &record.pack).await?;
                let pack = record.pack.clone();
                Ok(Some(told(&self.with(tenant, None, pack, open, seal, Some(record)).await?)))
            }
        }
    }

    async fn of_nobody(&self, bucket: &BucketName, name: &ObjectName) -> Result<Vec<String>, ExplainError> {
        let mut said = vec![format!(
            "gs://{bucket} is the uploads bucket of no tenant in the registry: nothing in it is looked at. Name it as a \
             tenant's uploads bucket, then replay what was refused."
        )];
        let letter = self.of_message(LetterFilter::NOBODY, bucket, name).await?;
        said.extend(letter.map(|letter| about_letter(&letter)));
        Ok(said)
    }

    /// The newest letter of a message that told of this object.
    async fn of_message(
        &self,
        owner: &str,
        bucket: &BucketName,
        name: &ObjectName,
    ) -> Result<Option<DeadLetter>, LedgerError> {
        let filter = LetterFilter { tenant: Some(owner.to_owned()), ..LetterFilter::default() };
        let letters = self.index.find(&filter).await?;
        let tells = |letter: &&Arc<DeadLetter>| match &letter.source {
            DeadLetterSource::Message { attributes, .. } => {
                let is = |key: &str, value: &str| attributes.get(key).is_some_and(|held| held == value);
                is("bucketId", bucket.as_str()) && is("objectId", name.as_str())
            }
            DeadLetterSource::Review { .. } | DeadLetterSource::Pack { .. } => false,
        };
        Ok(letters.iter().find(tells).map(|letter| DeadLetter::clone(letter)))
    }

    async fn of_upload<'a>(&self, tenant: &'a Tenant, name: ObjectName) -> Result<Facts<'a>, ExplainError> {
        let (mut pack, kind) = layout::classify(&name);
        if tenant.policy == PackPolicy::Each && kind == UploadKind::File {
            pack = PackId::parse(name.as_str()).expect("an object name is a pack id");
        }
        let found = self.objects.find(tenant.uploads_bucket.as_str(), name.as_str()).await?;
        let live = found.map(|object| Generation::new(object.generation));
        let open = self.ledger.find_open_pack(&tenant.id, &pack).await?;
        let is_it = |member: &Member| member.name == name && live.is_none_or(|live| member.generation == live);
        let tells = |seal: &Seal| kind != UploadKind::File || seal.members.iter().any(is_it);
        let mut seal = self.ledger.last_seal(&tenant.id, &pack).await?;
        let has_seals = seal.is_some();
        // One of too many files names none of them, this one or another.
        let over_full = seal.as_ref().filter(|seal| seal.excess).cloned();
        for _ in 1..SEALS {
            let Some(other) = seal.as_ref().filter(|&seal| !tells(seal)) else { break };
            seal = match other.revision.previous() {
                Some(former) => self.ledger.seal(&tenant.id, &pack, former).await?,
                None => None,
            };
        }
        let seal = seal.filter(tells).or(over_full);
        let record = match &seal {
            Some(seal) => self.ledger.review(&tenant.id, &seal.review).await?.map(|record| record.value),
            None => None,
        };
        self.with(tenant, Some(Asked { name, kind, live, has_seals }), pack, open, seal, record).await
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
        let former = match &record {
            Some(record) if matches!(record.state, State::Queued { .. }) => Former::of(&self.ledger, record).await?,
            _ => None,
        };
        let is_swept = self.ledger.is_marked_for_sweep(&tenant.id).await?;
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
        if let (None, None, Some(upload)) = (&letter, &record, &upload) {
            letter = self.of_message(tenant.id.as_str(), &tenant.uploads_bucket, &upload.name).await?;
        }
        Ok(Facts { tenant, upload, pack, open, seal, record, former, is_swept, letter })
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
    } else if facts.seal.is_none() && facts.letter.is_none() {
        said.push(about_nothing(facts));
    }
    if let Some(record) = &facts.record {
        said.extend(about_review(facts, record));
    }
    said.extend(facts.letter.as_ref().map(about_letter));
    said
}

fn about_nothing(facts: &Facts<'_>) -> String {
    let tenant = &facts.tenant.id;
    let has_seals = facts.upload.as_ref().is_some_and(|upload| upload.has_seals);
    match facts.upload.as_ref().is_some_and(|upload| upload.live.is_some()) {
        false if has_seals => format!("None of the last {SEALS} seals of its pack holds it."),
        false => "The ledger holds nothing of its pack.".to_owned(),
        true if facts.tenant.deleting => {
            format!("Tenant {tenant} is being deleted: nothing it uploads is reviewed any more.")
        }
        true if facts.is_swept => format!(
            "The bucket of tenant {tenant} is about to be listed, which finds this one: its uploads came faster than its \
             max_events_per_minute, or a pack could not be looked at."
        ),
        true => {
            let nothing = if has_seals {
                "No seal of the pack holds this version"
            } else {
                "The ledger holds nothing of this pack"
            };
            format!(
                "{nothing}: no event of it was heard of yet, or more came than the tenant's max_events_per_minute. The \
                 sweep of the bucket finds it."
            )
        }
    }
}

fn about_letter(letter: &DeadLetter) -> String {
    let state = match letter.state {
        DeadLetterState::Open if letter.class == DeadLetterClass::Stuck => "it is tried on".to_owned(),
        DeadLetterState::Open => format!("replay it once that is mended: carrel dead-letters replay {}", letter.id),
        DeadLetterState::Replaying => "a campaign replays it now".to_owned(),
        DeadLetterState::Resolved | DeadLetterState::Discarded => {
            letter.resolution.clone().unwrap_or_else(|| "it was dealt with".to_owned())
        }
    };
    format!("Dead letter {} was filed at {}: {}; {state}.", letter.id, letter.filed_at, letter.reason)
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
    if seal.excess {
        let most = Seal::MAX_MEMBERS;
        return format!(
            "At {at} pack {pack:?} was closed as revision {revision}, because {why}, and refused: it held more files than \
             a review can name, about {most}."
        );
    }
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
        State::Queued { not_before } => match &facts.former {
            Some(former) => {
                format!("It waits until review {}, of an earlier revision of the pack, is decided.", former.review)
            }
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

#[cfg(test)]
mod tests {
    use carrel_schemas::ids::Revision;
    use carrel_schemas::timestamp::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::pack::policy::Contents;
    use crate::pack::seal::draft;

    #[test]
    fn a_pack_of_too_many_files_is_told_as_refused_and_not_as_sealed_or_unheard_of() {
        let tenant: Tenant = serde_json::from_value(json!({
            "id": "acme", "uploads_bucket": "acme-uploads", "outputs_bucket": "acme-outputs",
            "service_account": "acme@p.iam.gserviceaccount.com", "job": "projects/p/locations/l/jobs/review-acme",
        }))
        .expect("a tenant");
        let (pack, now) = (PackId::parse("q3").expect("id"), Timestamp::from_unix_seconds(0).expect("in range"));
        let contents = Contents { excess: true, ..Contents::default() };
        let seal = draft(&tenant, &pack, Revision::FIRST, contents, ClosedBy::Marker, None, now);
        let upload = Asked {
            name: ObjectName::parse("q3/a.csv").expect("name"),
            kind: UploadKind::File,
            live: Some(Generation::new(7)),
            has_seals: true,
        };
        let facts = Facts {
            tenant: &tenant,
            upload: Some(upload),
            pack,
            open: None,
            seal: Some(seal),
            record: None,
            former: None,
            is_swept: false,
            letter: None,
        };
        let said = told(&facts).join("\n");
        assert!(said.contains("refused: it held more files than a review can name, about 5000"), "{said}");
        assert!(!said.contains("with 0 file(s)") && !said.contains("no event of it"), "{said}");
    }
}
