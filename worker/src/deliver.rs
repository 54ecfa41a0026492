//! The delivery and the decision: files under a prefix of this attempt alone, then one outcome, created if absent.
//!
//! Whoever creates the outcome has decided the epoch. After a lost reply the outcome is read back: our nonce means the
//! decision is ours, another's is deferred to. Refuses an outcome beyond its size: reports are shortened, never facts.

use std::time::SystemTime;

use anyhow::{Context as _, bail};
use carrel_cloud::Created;
use carrel_schemas::ids::Generation;
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
    Ok(Decision { case: reviewed.case, verdict, inputs, usage: reviewed.usage })
}

async fn upload(case: &Case, parcel: &Parcel) -> anyhow::Result<DeliveredFile> {
    let config = &case.config;
    let bucket = config.outputs.as_str();
    let object = layout::delivered(&config.review, config.epoch, config.attempt, &parcel.name)?;
    let content_type = content_type(&parcel.name);
    let held = match case.objects.create_from_file(bucket, object.as_str(), &parcel.path, content_type).await? {
        Some(written) => written,
        // Nobody but the holder of this attempt's claim writes here, so this is our own success, or a forgery.
        None => {
            let found = case.objects.find(bucket, object.as_str()).await?;
            found.with_context(|| format!("gs://{bucket}/{object} existed and is gone"))?
        }
    };
    if (held.size, held.crc32c) != (parcel.size, Some(parcel.crc32c)) {
        bail!("gs://{bucket}/{object} holds other bytes than this attempt delivers");
    }
    Ok(DeliveredFile {
        name: parcel.name.clone(),
        object,
        generation: Generation::new(held.generation),
        size: parcel.size,
        crc32c: parcel.crc32c,
        sha256: parcel.sha256.clone(),
        content_type: content_type.to_owned(),
    })
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
    let Decision { case, verdict, inputs, mut usage } = decision;
    let stage = Some(case.progress.current());
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
        stage,
        exit: case.exit.clone(),
        inputs,
        inputs_omitted: 0,
        scanners: case.scanners.clone(),
        room: Some(case.room.clone()),
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
                outcome.inputs_omitted += u32::try_from(count - count / 2).unwrap_or(u32::MAX);
            }
            (Verdict::InputsChanged { changed }, 0) if changed.len() > 1 => changed.truncate(changed.len() / 2),
            _ => bail!("the outcome has {} bytes, {} are allowed", body.len(), Outcome::MAX_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{MAX_FILES, MAX_NAME};
    use carrel_schemas::findings::{FindingKind, Level};
    use carrel_schemas::ids::{
        Attempt, Epoch, ExecutionName, FileId, Nonce, ObjectName, PackId, ReviewId, Revision, TenantId,
    };
    use carrel_schemas::outcome::{FindingSummary, InputReport, InputVerdict, RefusalCode};

    fn outcome(verdict: Verdict, inputs: Vec<InputReport>) -> Outcome {
        let execution = format!("projects/p/locations/l/jobs/{0}/executions/{0}", "e".repeat(60));
        Outcome {
            schema: Outcome::SCHEMA,
            review: ReviewId::parse("rv_00000000000000000000000000000001").expect("id"),
            tenant: TenantId::parse("acme").expect("id"),
            pack: PackId::parse("p".repeat(1000)).expect("id"),
            revision: Revision::FIRST,
            epoch: Epoch::FIRST,
            decided_by: DecidedBy::Worker {
                execution: ExecutionName::parse(execution).expect("name"),
                attempt: Attempt::FIRST,
            },
            nonce: Nonce::from_bits(1),
            decided_at: SystemTime::UNIX_EPOCH.into(),
            verdict,
            stage: None,
            inputs,
            inputs_omitted: 0,
            exit: None,
            scanners: Vec::new(),
            room: None,
            usage: None,
        }
    }

    #[test]
    fn the_largest_delivery_has_an_outcome() {
        let file = |at: usize| {
            let name = format!("{at:0>0$}/{at:0>0$}", MAX_NAME);
            let review = ReviewId::parse("rv_00000000000000000000000000000001").expect("id");
            let object = layout::delivered(&review, Epoch::FIRST, Attempt::FIRST, &name).expect("a name");
            let (generation, content_type) = (Generation::new(i64::MAX), content_type("a.pptx").to_owned());
            DeliveredFile {
                name,
                object,
                generation,
                size: u64::MAX,
                crc32c: u32::MAX,
                sha256: "0".repeat(64),
                content_type,
            }
        };
        let finding = |_| FindingSummary {
            id: "\u{10ffff}".repeat(200),
            kind: FindingKind::Opportunity,
            level: Level::Warning,
            title: "\u{10ffff}".repeat(200),
        };
        let files: Vec<_> = (0..MAX_FILES).map(file).collect();
        let verdict = Verdict::Delivered { files, top_findings: (0..10).map(finding).collect() };
        let body = fit(outcome(verdict, Vec::new())).expect("it fits");
        let read: Outcome = serde_json::from_slice(&body).expect("JSON");
        assert!(matches!(read.verdict, Verdict::Delivered { files, .. } if files.len() == MAX_FILES));
    }

    #[test]
    fn reports_that_do_not_fit_are_counted() {
        let report = |at: usize| InputReport {
            file_id: FileId::nth(at),
            name: ObjectName::parse(format!("{at:0>1000}")).expect("name"),
            verdict: InputVerdict::Refused { code: RefusalCode::Empty, message: "m".repeat(1000) },
            flags: Vec::new(),
        };
        let body =
            fit(outcome(Verdict::Refused { reason: "r".into() }, (0..1000).map(report).collect())).expect("it fits");
        let read: Outcome = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(read.inputs.len() + read.inputs_omitted as usize, 1000);
        assert!(!read.inputs.is_empty());
    }
}
