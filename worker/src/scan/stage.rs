//! The stage around the scanners: every fetched file is looked at, hashed, and accepted or refused.
//!
//! What parses runs elsewhere ([`super::scanner`]); the policy, the hashes and the virus scanner's socket are here. A virus
//! scanner that is set and does not answer ends the attempt: no file passes it unseen. Refuses the whole pack only when
//! no file is left.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carrel_schemas::agent::AgentInput;
use carrel_schemas::outcome::{FailureClass, RefusalCode, Verdict};
use carrel_schemas::scan::{ScanFlag, ScanPolicy, Treatment};
use sha2::{Digest as _, Sha256};

use super::child::AskedFile;
use super::clamd::{Answer, Clamd};
use super::scanner::{self, Looks};
use super::{Refusal, ScanLimits};
use crate::case::{Case, Looked, Stop};
use crate::check::{Fetched, Hydrated, Place};
use crate::room::{self, Inside};

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
    let (looks, hashes) = tokio::try_join!(look(&case, &place, &fetched), hashes(&fetched))?;
    if !fetched.is_empty() {
        case.room.memory_guarantee = looks.memory_guarantee;
    }
    if looks.judged.len() < fetched.len() {
        let message = "the review's time was up before its files were looked at".to_owned();
        let verdict = Verdict::Failed { class: FailureClass::TimedOut, message, log_tail: None };
        return Err(case.decide(verdict, &looked));
    }
    let mut accepted = Vec::new();
    for ((file, judged), sha256) in fetched.into_iter().zip(looks.judged).zip(hashes) {
        let look = &mut looked[file.index];
        let name = case.short_name(&look.name).to_owned();
        let judged = match judged.and_then(|flags| hold(flags, &case.config.scan)) {
            Ok(flags) => virus(&case, &file).await?.map_or(Ok(flags), Err),
            Err(refusal) => Err(refusal),
        };
        let named = |refusal: Refusal| Refusal::new(refusal.code, format!("{name:?} {}", refusal.message));
        let judged = judged.map_err(named).and_then(|flags| {
            let mismatch = manifest.as_ref().and_then(|m| m.check_sha256(&name, look.name.as_str(), &sha256));
            mismatch.map_or(Ok(flags), Err)
        });
        match judged {
            Ok(flags) => {
                look.flags.clone_from(&flags);
                let input = AgentInput {
                    file_id: look.file_id.clone(),
                    path: file.shown,
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

/// What will look at the files. A virus scanner names itself before any file is shown to it.
async fn scanners(clamd: Option<Clamd>) -> anyhow::Result<Vec<String>> {
    let mut names = vec!["structure".to_owned()];
    if let Some(clamd) = clamd {
        names.push(tokio::task::spawn_blocking(move || clamd.version()).await.context("scan was cancelled")??);
    }
    Ok(names)
}

/// Has a child in a room look at every file.
async fn look(case: &Case, place: &Place, fetched: &[Fetched]) -> anyhow::Result<Looks> {
    let limits = ScanLimits { inflated_bytes: case.config.limits.max_inflated_bytes, entries: ScanLimits::ENTRIES };
    let (tier, inside) = (case.config.isolation, Inside::of(case.config.isolation, place));
    let asked = |file: &Fetched| AskedFile { path: inside.input(file), format: file.format };
    let files: Vec<AskedFile> = fetched.iter().map(asked).collect();
    scanner::look(tier, limits, &files, |ask| room::scanner(case, place, fetched, ask)).await
}

/// The SHA-256 of every file, in order. A scanner is not asked for them: they are evidence.
async fn hashes(fetched: &[Fetched]) -> anyhow::Result<Vec<String>> {
    let paths: Vec<PathBuf> = fetched.iter().map(|file| file.path.clone()).collect();
    let hash = |path: &PathBuf| sha256(path).with_context(|| format!("hash {}", path.display()));
    tokio::task::spawn_blocking(move || paths.iter().map(hash).collect()).await.context("scan was cancelled")?
}

/// What the virus scanner has against a file.
async fn virus(case: &Case, file: &Fetched) -> anyhow::Result<Option<Refusal>> {
    let Some(clamd) = case.config.clamd.clone() else { return Ok(None) };
    let path = file.path.clone();
    let looked = tokio::task::spawn_blocking(move || anyhow::Ok(clamd.look(&mut File::open(path)?)?));
    let answer = looked.await.context("scan was cancelled")?;
    Ok(infected(answer.with_context(|| format!("scan {}", file.path.display()))?))
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
        let unseen = hold(flags(&[FlagCode::UnseenObjects]), &ScanPolicy::default()).expect_err("it may run");
        assert_eq!(unseen.code, RefusalCode::ActiveContent);
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
