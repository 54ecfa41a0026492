//! Whoever asks a scanner: opens its room, hears its answers, and says which file it is about when it dies.
//!
//! One scanner looks at all files in turn. The file that ends it is refused, and another goes on with the next. What it
//! says is a stranger's, since any file may have taken it over: lines are capped, each must be about the very next file,
//! an answer out of shape refuses that file, texts are cut. What a taken-over scanner can lie about is what the scan
//! would have said of its file and of those after it in the same pack; nothing of another tenant is near, and neither
//! hashes, the virus scanner nor the agent's own room rely on it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use carrel_sandbox::{Ended, Hearing, LimitHit, Room, Tier};
use carrel_schemas::outcome::RefusalCode;
use carrel_schemas::scan::ScanFlag;

use super::child::{Answer, Ask, AskedFile, Said};
use super::{Judged, MAX_MESSAGE, Refusal, ScanLimits, plain, refuse};

/// A flag of each kind, with its message, many times over.
const MAX_LINE: usize = 64 << 10;
/// Characters of a refusal's message, which holds what a container's reader said.
const MAX_REFUSAL: usize = 400;
const MAX_STDERR: usize = 2 << 10;
/// A file that was not given this long is not said to take too long; a scanner starts within a tenth of it.
const FAIR: Duration = Duration::from_secs(2);
const HEARING: Hearing = Hearing { output_bytes: 16 << 20, line_bytes: MAX_LINE, stderr_tail_bytes: MAX_STDERR };

/// What came of the files.
#[derive(Debug)]
pub struct Looks {
    /// In order; shorter than the files where the time of the review was up before the rest.
    pub judged: Vec<Judged>,
    /// Whether the kernel held the memory limit throughout.
    pub memory_guarantee: bool,
}

/// Has every file looked at, in rooms of this tier; `plan` is given the text of what is asked. An error is this machine's:
/// the files were not at fault.
pub async fn look(
    tier: Tier,
    limits: ScanLimits,
    files: &[AskedFile],
    plan: impl Fn(&[u8]) -> anyhow::Result<Room>,
) -> anyhow::Result<Looks> {
    let mut judged: Vec<Judged> = Vec::with_capacity(files.len());
    let mut memory_guarantee = true;
    while judged.len() < files.len() {
        let ask = Ask { limits, files: files[judged.len()..].to_vec() };
        let room = plan(&serde_json::to_vec(&ask)?)?;
        let mut heard = Heard::of(ask.files.len());
        let (finished, ()) = carrel_sandbox::run(tier, &room, HEARING, |_| (), |line| heard.hear(line))
            .await
            .context("scan in a room")?;
        memory_guarantee &= finished.ended.memory_guarantee;
        if is_time(&finished.ended) && room.limits.wall < FAIR && !heard.is_done() {
            break;
        }
        judged.extend(heard.judged(&finished.ended)?);
    }
    Ok(Looks { judged, memory_guarantee })
}

/// What one scanner has said so far.
struct Heard {
    wanted: usize,
    is_ready: bool,
    answers: Vec<Answer>,
    /// What was wrong with a line: nothing after it is believed.
    garbled: Option<&'static str>,
}

impl Heard {
    fn of(wanted: usize) -> Self {
        Self { wanted, is_ready: false, answers: Vec::new(), garbled: None }
    }

    fn hear(&mut self, line: &[u8]) {
        if self.garbled.is_some() || self.is_done() {
            return;
        }
        let next = self.answers.len();
        self.garbled = match serde_json::from_slice(line) {
            Ok(Said::Ready) if !self.is_ready => {
                self.is_ready = true;
                None
            }
            // A line too long to be heard is missed here, too.
            Ok(Said::Looked { file, answer }) if self.is_ready && file == next => match in_shape(answer) {
                Some(answer) => {
                    self.answers.push(answer);
                    None
                }
                None => Some("it gave a verdict that is not its own to give"),
            },
            Ok(Said::Ready | Said::Looked { .. }) => Some("it spoke out of turn"),
            Err(_) => Some("it printed a line that is no answer"),
        };
    }

    fn is_done(&self) -> bool {
        self.answers.len() == self.wanted
    }

    /// The files that were answered for and, unless those are all, the one that the scanner ended at. One that only found
    /// the time of a room spent by the files before it is asked about again, in a room of its own.
    fn judged(self, ended: &Ended) -> anyhow::Result<Vec<Judged>> {
        let is_done = self.is_done();
        let Self { is_ready, answers, garbled, .. } = self;
        let mut judged: Vec<Judged> = answers.into_iter().map(read).collect();
        if is_done || (garbled.is_none() && is_time(ended) && !judged.is_empty()) {
            return Ok(judged);
        }
        let (exit, limit) = (ended.exit, ended.limit);
        if !is_ready {
            // It has seen nothing of a stranger that these words could quote.
            let said = plain(&String::from_utf8_lossy(&ended.stderr_tail), MAX_STDERR);
            bail!("the scanner ended before it looked at a file: {exit:?}, limit {limit:?}, it said {said:?}");
        }
        let stderr_bytes = ended.stderr_tail.len();
        tracing::warn!(?exit, ?limit, garbled, stderr_bytes, "the scanner ended at a file, which is refused");
        judged.push(if garbled.is_some() { unsafe_to_look_at() } else { ended_by(ended) });
        Ok(judged)
    }
}

fn is_time(ended: &Ended) -> bool {
    matches!(ended.limit, Some(LimitHit::Wall | LimitHit::Cpu))
}

/// An answer that a scanner may give, its texts cut and each flag once.
fn in_shape(answer: Answer) -> Option<Answer> {
    match answer {
        Answer::Accepted { flags } => {
            let mut seen = BTreeSet::new();
            let cut = |flag: ScanFlag| ScanFlag { message: plain(&flag.message, MAX_MESSAGE), ..flag };
            let flags = flags.into_iter().filter(|flag| seen.insert(flag.code)).map(cut).collect();
            Some(Answer::Accepted { flags })
        }
        Answer::Refused { code, message } if is_structural(code) => {
            Some(Answer::Refused { code, message: plain(&message, MAX_REFUSAL) })
        }
        Answer::Refused { .. } => None,
        Answer::Unread { why } => Some(Answer::Unread { why: plain(&why, MAX_MESSAGE) }),
    }
}

/// What the bytes of a file alone can say; the rest is for policy, manifest and the virus scanner.
fn is_structural(code: RefusalCode) -> bool {
    match code {
        RefusalCode::Empty
        | RefusalCode::UnsupportedType
        | RefusalCode::TypeMismatch
        | RefusalCode::Encrypted
        | RefusalCode::Macros
        | RefusalCode::ArchiveBomb
        | RefusalCode::Broken => true,
        RefusalCode::TooLarge
        | RefusalCode::TooMany
        | RefusalCode::ManifestMismatch
        | RefusalCode::ActiveContent
        | RefusalCode::OutsideContent
        | RefusalCode::Malware => false,
    }
}

fn read(answer: Answer) -> Judged {
    match answer {
        Answer::Accepted { flags } => Ok(flags),
        Answer::Refused { code, message } => refuse(code, message),
        // Whether this machine can read it is seen by whoever hashes it.
        Answer::Unread { why } => {
            refuse(RefusalCode::Broken, format!("could not be read to its end ({why}); upload it again"))
        }
    }
}

/// The refusal of the file that a scanner ended at.
fn ended_by(ended: &Ended) -> Judged {
    let what = match ended.limit {
        Some(LimitHit::Wall | LimitHit::Cpu) => "takes longer to look at than a review has",
        Some(LimitHit::Memory) => "takes more memory to look at than a review has",
        Some(LimitHit::Processes | LimitHit::FileSize | LimitHit::Output) | None => return unsafe_to_look_at(),
    };
    refuse(RefusalCode::Broken, format!("{what}; open it, save it again and upload that"))
}

fn unsafe_to_look_at() -> Judged {
    refuse(RefusalCode::Broken, "cannot be looked at safely; open it, save it again and upload that")
}

/// For fuzzing: a scanner that says these bytes of three files.
pub(crate) fn heard(bytes: &[u8]) {
    let mut heard = Heard::of(3);
    bytes.split(|byte| *byte == b'\n').for_each(|line| heard.hear(line));
    assert!(heard.answers.len() <= 3 && (heard.is_ready || heard.answers.is_empty()));
    for answer in heard.answers {
        match read(answer) {
            Ok(flags) => assert!(flags.iter().all(|flag| flag.message.len() <= MAX_MESSAGE)),
            Err(Refusal { code, message }) => assert!(is_structural(code) && message.len() <= MAX_REFUSAL),
        }
    }
}

#[cfg(test)]
mod tests;
