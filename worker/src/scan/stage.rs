//! The stage around the scanners: every fetched file is looked at, hashed, and accepted or refused.
//!
//! Scanning is blocking work on bytes of strangers, so each file has a blocking task; a scanner that panics refuses
//! its file. A virus scanner that is set and does not answer ends the attempt: no file passes it unseen. Refuses the
//! whole pack only when no file is left.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carrel_schemas::agent::{AgentInput, FileFormat};
use carrel_schemas::outcome::{RefusalCode, Verdict};
use carrel_schemas::scan::{ScanFlag, ScanPolicy, Treatment};
use sha2::{Digest as _, Sha256};

use super::clamd::{Answer, Clamd};
use super::{Refusal, ScanLimits, inspect};
use crate::case::{Case, Looked, Stop};
use crate::check::{Fetched, Hydrated, Place};

/// One file the agent will see, and where it lies.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) input: AgentInput,
    pub(crate) path: PathBuf,
}

/// At least one file may be shown to the agent, and every other has its refusal.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) case: Case,
    pub(crate) looked: Vec<Looked>,
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) place: Place,
}

pub(crate) async fn scan(hydrated: Hydrated) -> Result<Scanned, Stop> {
    let Hydrated { mut case, mut looked, fetched, manifest, place } = hydrated;
    case.progress.stage("scan");
    case.scanners = scanners(case.config.clamd.clone()).await?;
    let limits = ScanLimits { inflated_bytes: case.config.limits.max_inflated_bytes, entries: ScanLimits::ENTRIES };
    let rules = Rules { limits, policy: case.config.scan, clamd: case.config.clamd.clone() };
    let mut accepted = Vec::new();
    for file in fetched {
        let look = &mut looked[file.index];
        let name = case.short_name(&look.name).to_owned();
        let named = |refusal: Refusal| Refusal::new(refusal.code, format!("{name:?} {}", refusal.message));
        let judged = judge(&file, rules.clone()).await?.map_err(named).and_then(|seen| {
            let mismatch = manifest.as_ref().and_then(|m| m.check_sha256(&name, look.name.as_str(), &seen.sha256));
            mismatch.map_or(Ok(seen), Err)
        });
        match judged {
            Ok(Seen { sha256, flags }) => {
                look.flags.clone_from(&flags);
                let input = AgentInput {
                    file_id: look.file_id.clone(),
                    path: format!("{}.{}", look.file_id, file.format.extension()),
                    name,
                    format: file.format,
                    size: file.size,
                    sha256,
                    flags,
                };
                accepted.push(Accepted { input, path: file.path });
            }
            Err(refusal) => {
                if file.path.starts_with(place.root()) {
                    std::fs::remove_file(&file.path).with_context(|| format!("remove {}", file.path.display()))?;
                }
                look.refusal = Some(refusal);
            }
        }
    }
    for look in &looked {
        if let Some(refusal) = &look.refusal {
            tracing::warn!(file.id = %look.file_id, object.name = %look.name, code = ?refusal.code, "file refused");
        }
        for flag in &look.flags {
            tracing::warn!(file.id = %look.file_id, object.name = %look.name, code = ?flag.code, "file flagged");
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

/// What a file is held against.
#[derive(Debug, Clone)]
struct Rules {
    limits: ScanLimits,
    policy: ScanPolicy,
    clamd: Option<Clamd>,
}

/// A file that may be shown.
struct Seen {
    sha256: String,
    flags: Vec<ScanFlag>,
}

/// What will look at the files. A virus scanner names itself before any file is shown to it.
async fn scanners(clamd: Option<Clamd>) -> anyhow::Result<Vec<String>> {
    let mut names = vec!["structure".to_owned()];
    if let Some(clamd) = clamd {
        names.push(tokio::task::spawn_blocking(move || clamd.version()).await.context("scan was cancelled")??);
    }
    Ok(names)
}

async fn judge(file: &Fetched, rules: Rules) -> anyhow::Result<Result<Seen, Refusal>> {
    let (path, format) = (file.path.clone(), file.format);
    match tokio::task::spawn_blocking(move || look_at(&path, format, &rules)).await {
        Ok(looked) => looked.with_context(|| format!("scan {}", file.path.display())),
        Err(error) if error.is_panic() => {
            let message = "cannot be looked at safely; open it, save it again and upload that";
            Ok(Err(Refusal::new(RefusalCode::Broken, message)))
        }
        Err(error) => Err(error).context("scan was cancelled"),
    }
}

fn look_at(path: &Path, format: FileFormat, rules: &Rules) -> anyhow::Result<Result<Seen, Refusal>> {
    let mut file = BufReader::with_capacity(64 * 1024, File::open(path)?);
    let flags = match inspect(format, &mut file, &rules.limits)?.and_then(|flags| hold(flags, &rules.policy)) {
        Ok(flags) => flags,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Some(clamd) = &rules.clamd
        && let Some(refusal) = infected(clamd.look(&mut File::open(path)?)?)
    {
        return Ok(Err(refusal));
    }
    Ok(Ok(Seen { sha256: sha256(path)?, flags }))
}

/// Lets the flags through that the policy lets through.
fn hold(flags: Vec<ScanFlag>, policy: &ScanPolicy) -> Result<Vec<ScanFlag>, Refusal> {
    let mut refused = flags.iter().filter(|flag| policy.treatment(flag.code) == Treatment::Refuse);
    let Some(first) = refused.next() else { return Ok(flags) };
    let code = if first.code.is_active() { RefusalCode::ActiveContent } else { RefusalCode::OutsideContent };
    let more: String = refused.map(|flag| format!(", {}", flag.message)).collect();
    Err(Refusal::new(code, format!("{}{more}; save it without, as plain data, and upload that", first.message)))
}

fn infected(answer: Answer) -> Option<Refusal> {
    let (code, message) = match answer {
        Answer::Clean => return None,
        Answer::Found(name) => (
            RefusalCode::Malware,
            format!("is known to the virus scanner as {name}; do not open it, and ask who made it"),
        ),
        Answer::TooLarge => (
            RefusalCode::TooLarge,
            "has more bytes than the virus scanner takes; split it, or ask for a higher limit".to_owned(),
        ),
    };
    Some(Refusal::new(code, message))
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

#[cfg(test)]
mod tests {
    use super::*;
    use carrel_schemas::scan::{Antivirus, FlagCode};

    fn flags(codes: &[FlagCode]) -> Vec<ScanFlag> {
        codes.iter().map(|code| ScanFlag { code: *code, message: format!("holds {code:?}") }).collect()
    }

    #[test]
    fn the_policy_decides_and_a_refusal_names_everything_that_it_is_for() {
        let all = flags(&[FlagCode::Javascript, FlagCode::Launch, FlagCode::EmbeddedFile]);
        let refusal = hold(all.clone(), &ScanPolicy::default()).expect_err("it runs");
        assert_eq!(refusal.code, RefusalCode::ActiveContent);
        let message = &refusal.message;
        assert!(message.contains("Javascript, holds Launch; ") && !message.contains("EmbeddedFile"), "{message}");
        let trusting = ScanPolicy { active: Treatment::Flag, outside: Treatment::Flag, antivirus: Antivirus::IfSet };
        assert_eq!(hold(all.clone(), &trusting), Ok(all.clone()));
        let closed = ScanPolicy { outside: Treatment::Refuse, ..trusting };
        assert_eq!(hold(all, &closed).expect_err("it carries a file").code, RefusalCode::OutsideContent);
    }

    #[test]
    fn a_virus_is_refused_by_its_name_and_a_file_too_large_to_look_at_is_not_taken_for_clean() {
        assert_eq!(infected(Answer::Clean), None);
        let found = infected(Answer::Found("Eicar-Test-Signature".to_owned())).expect("refused");
        assert_eq!(found.code, RefusalCode::Malware);
        assert!(found.message.contains("Eicar-Test-Signature"));
        assert_eq!(infected(Answer::TooLarge).expect("refused").code, RefusalCode::TooLarge);
    }
}
