//! The delivery and the decision: files under a prefix of this attempt alone, then one outcome, created if absent.
//!
//! Whoever creates the outcome has decided the epoch. After a lost reply the outcome is read back: our nonce means the
//! decision is ours, another's is deferred to. Refuses an outcome beyond its size: reports are shortened, never facts.

use std::time::SystemTime;

use anyhow::{Context as _, bail};
use carrel_cloud::Created;
use carrel_schemas::ids::{Generation, ObjectName};
use carrel_schemas::layout;
use carrel_schemas::outcome::{DecidedBy, DeliveredFile, Outcome, Verdict};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::case::{Case, Decision, Looked, Stop};
use crate::check::Confirmed;
use crate::outbox::Parcel;

/// Uploads at once.
const PARALLEL: usize = 4;

/// Uploads the files of a review.
pub(crate) async fn deliver(Confirmed(reviewed): Confirmed) -> Result<Decision, Stop> {
    let case = &reviewed.case;
    case.progress.stage("deliver");
    let uploads = reviewed.parcels.iter().map(|parcel| upload(case, parcel));
    let files = futures::stream::iter(uploads).buffered(PARALLEL).try_collect().await?;
    let inputs = reviewed.looked.iter().map(Looked::report).collect();
    let verdict = Verdict::Delivered { files, top_findings: reviewed.top_findings };
    Ok(Decision { case: reviewed.case, verdict, inputs, room: Some(reviewed.room), usage: reviewed.usage })
}

async fn upload(case: &Case, parcel: &Parcel) -> anyhow::Result<DeliveredFile> {
    let config = &case.config;
    let bucket = config.outputs.as_str();
    let object = layout::delivered(&config.review, config.epoch, config.attempt, &parcel.name)?;
    let content_type = content_type(&parcel.name);
    let generation = match case.objects.create_from_file(bucket, object.as_str(), &parcel.path, content_type).await? {
        Created::New(generation) => generation,
        // Nobody but the holder of this attempt's claim writes here, so this is our own success, or a forgery.
        Created::Exists => existing(case, &object, parcel).await?,
    };
    Ok(DeliveredFile {
        name: parcel.name.clone(),
        object,
        generation: Generation::new(generation),
        size: parcel.size,
        crc32c: parcel.crc32c,
        sha256: parcel.sha256.clone(),
        content_type: content_type.to_owned(),
    })
}

async fn existing(case: &Case, object: &ObjectName, parcel: &Parcel) -> anyhow::Result<i64> {
    let bucket = case.config.outputs.as_str();
    let listed = case.objects.list(bucket, object.as_str()).await?;
    let found = listed.into_iter().find(|meta| meta.name == object.as_str());
    let found = found.with_context(|| format!("gs://{bucket}/{object} existed and is gone"))?;
    if (found.size, found.crc32c) != (parcel.size, Some(parcel.crc32c)) {
        bail!("gs://{bucket}/{object} holds other bytes than this attempt delivers");
    }
    Ok(found.generation)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).as_deref() {
        Some("html") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("csv") => "text/csv; charset=utf-8",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        Some("pdf") => "application/pdf",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        Some("xlsx") => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        Some("pptx") => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        _ => "application/octet-stream",
    }
}

/// Who decided the epoch in the end.
#[derive(Debug)]
pub(crate) enum Decided {
    /// We did.
    Ours(&'static str),
    /// Somebody was first; this is what they decided.
    Others(&'static str),
}

/// Creates the outcome.
pub(crate) async fn decide(decision: Decision) -> anyhow::Result<Decided> {
    let Decision { case, verdict, inputs, room, mut usage } = decision;
    case.progress.stage("decide");
    let state = verdict.state();
    usage.wall_ms = u64::try_from(case.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let config = &case.config;
    let outcome = Outcome {
        schema: Outcome::SCHEMA,
        review: config.review.clone(),
        tenant: config.tenant.clone(),
        pack: case.seal.pack.clone(),
        revision: case.seal.revision,
        epoch: config.epoch,
        decided_by: DecidedBy::Worker { execution: config.execution.clone(), attempt: config.attempt },
        nonce: case.nonce.clone(),
        decided_at: SystemTime::now().into(),
        verdict,
        inputs,
        room,
        usage: Some(usage),
    };
    let body = fit(outcome)?;
    let (bucket, name) = (config.outputs.as_str(), layout::outcome(&config.review, config.epoch));
    if case.objects.create(bucket, name.as_str(), body.into(), "application/json").await? == Created::Exists {
        let found = case.objects.get(bucket, name.as_str(), Outcome::MAX_BYTES).await?;
        let found = found.with_context(|| format!("gs://{bucket}/{name} existed and is gone"))?;
        let found: Outcome =
            serde_json::from_slice(&found.bytes).with_context(|| format!("parse gs://{bucket}/{name}"))?;
        if found.nonce != case.nonce {
            return Ok(Decided::Others(found.verdict.state()));
        }
    }
    Ok(Decided::Ours(state))
}

/// The outcome as JSON, its input reports cut from the end until it fits.
fn fit(mut outcome: Outcome) -> anyhow::Result<Vec<u8>> {
    loop {
        let body = serde_json::to_vec(&outcome)?;
        if body.len() as u64 <= Outcome::MAX_BYTES {
            return Ok(body);
        }
        match (&mut outcome.verdict, outcome.inputs.len()) {
            (_, count @ 1..) => {
                tracing::warn!(inputs = count, "the outcome is too large; the last input reports are left out");
                outcome.inputs.truncate(count / 2);
            }
            (Verdict::InputsChanged { changed }, 0) if changed.len() > 1 => changed.truncate(changed.len() / 2),
            _ => bail!("the outcome has {} bytes, {} are allowed", body.len(), Outcome::MAX_BYTES),
        }
    }
}
