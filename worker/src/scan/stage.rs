//! The stage around the scanners: every fetched file is looked at, hashed, and accepted or refused.
//!
//! Scanning is blocking work on bytes of strangers, so each file has a blocking task; a scanner that panics refuses
//! its file. Refuses the whole pack only when no file is left.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use anyhow::Context as _;
use carrel_schemas::agent::{AgentInput, FileFormat};
use carrel_schemas::outcome::{RefusalCode, Verdict};
use sha2::{Digest as _, Sha256};

use super::{Refusal, ScanLimits, inspect};
use crate::case::{Case, Looked, Stop};
use crate::check::{Fetched, Hydrated, Place};

/// One file the agent will see.
pub(crate) type Accepted = AgentInput;

/// At least one file may be shown to the agent, and every other has its refusal.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) case: Case,
    pub(crate) looked: Vec<Looked>,
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) place: Place,
}

pub(crate) async fn scan(hydrated: Hydrated) -> Result<Scanned, Stop> {
    let Hydrated { case, mut looked, fetched, manifest, place } = hydrated;
    case.progress.stage("scan");
    let limits = ScanLimits { inflated_bytes: case.config.limits.max_inflated_bytes, entries: ScanLimits::ENTRIES };
    let mut accepted = Vec::new();
    for file in fetched {
        let look = &mut looked[file.index];
        let name = case.short_name(&look.name).to_owned();
        let named = |refusal: Refusal| Refusal::new(refusal.code, format!("{name:?} {}", refusal.message));
        let judged = judge(&file, limits).await?.map_err(named).and_then(|sha256| {
            let mismatch = manifest.as_ref().and_then(|m| m.check_sha256(&name, look.name.as_str(), &sha256));
            mismatch.map_or(Ok(sha256), Err)
        });
        match judged {
            Ok(sha256) => accepted.push(AgentInput {
                file_id: look.file_id.clone(),
                path: format!("{}.{}", look.file_id, file.format.extension()),
                name,
                format: file.format,
                size: file.size,
                sha256,
            }),
            Err(refusal) => {
                std::fs::remove_file(&file.path).with_context(|| format!("remove {}", file.path.display()))?;
                look.refusal = Some(refusal);
            }
        }
    }
    for look in &looked {
        if let Some(refusal) = &look.refusal {
            tracing::warn!(file.id = %look.file_id, object.name = %look.name, code = ?refusal.code, "file refused");
        }
    }
    if accepted.is_empty() {
        let reason = reason(&looked);
        return Err(case.decide(Verdict::Refused { reason }, &looked));
    }
    Ok(Scanned { case, looked, accepted, place })
}

/// The first few refusals in words; all of them stand beside the files.
fn reason(looked: &[Looked]) -> String {
    let mut reason = match looked.len() {
        0 => "the pack holds no files; upload PDF, CSV or XLSX files and close it again".to_owned(),
        1 => "the only file was refused".to_owned(),
        all => format!("all {all} files were refused"),
    };
    for (at, refusal) in looked.iter().filter_map(|look| look.refusal.as_ref()).take(3).enumerate() {
        reason.push_str(if at == 0 { ": " } else { "; " });
        reason.push_str(&refusal.message);
    }
    reason
}

/// The file's SHA-256 if it may be shown.
async fn judge(file: &Fetched, limits: ScanLimits) -> anyhow::Result<Result<String, Refusal>> {
    let (path, format) = (file.path.clone(), file.format);
    match tokio::task::spawn_blocking(move || look_at(&path, format, limits)).await {
        Ok(looked) => looked.with_context(|| format!("scan {}", file.path.display())),
        Err(error) if error.is_panic() => {
            let message = "cannot be looked at safely; open it, save it again and upload that";
            Ok(Err(Refusal::new(RefusalCode::Broken, message)))
        }
        Err(error) => Err(error).context("scan was cancelled"),
    }
}

fn look_at(path: &Path, format: FileFormat, limits: ScanLimits) -> std::io::Result<Result<String, Refusal>> {
    let mut file = BufReader::with_capacity(64 * 1024, File::open(path)?);
    if let Err(refusal) = inspect(format, &mut file, &limits)? {
        return Ok(Err(refusal));
    }
    sha256(path).map(Ok)
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}
