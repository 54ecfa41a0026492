//! Whoever asks a scanner: opens its room, hears its answers, and says which file it is about when it dies.
//!
//! One scanner looks at all files in turn. The file that ends it is refused, and another goes on with the next. What it
//! says is a stranger's, since any file may have taken it over: lines are capped, an answer out of shape refuses its
//! file, texts are cut. What a taken-over scanner can lie about is what the scan would have said of the files after it in
//! the same pack; nothing of another tenant is near, and the agent's own room does not rely on it.

use anyhow::Context as _;
use carrel_sandbox::{Ended, Hearing, LimitHit, Room, Tier};
use carrel_schemas::outcome::RefusalCode;
use carrel_schemas::scan::ScanFlag;

use super::child::{Answer, Ask, AskedFile, Line};
use super::{Judged, MAX_MESSAGE, Refusal, ScanLimits, refuse};

/// A flag each, with its message, many times over.
const MAX_LINE: usize = 64 << 10;
/// Flags of one file; there are fewer kinds.
const MAX_FLAGS: usize = 64;
/// Bytes of a refusal's message.
const MAX_REFUSAL: usize = 400;
const MAX_STDERR: usize = 2 << 10;
const HEARING: Hearing = Hearing { output_bytes: 16 << 20, line_bytes: MAX_LINE, stderr_tail_bytes: MAX_STDERR };

/// Every file judged, in order, and whether the kernel held the memory limit throughout.
#[derive(Debug)]
pub(super) struct Looks {
    pub(super) judged: Vec<Judged>,
    pub(super) memory_guarantee: bool,
}

/// Has every file looked at, in rooms of this tier; `plan` is given the text of what is asked.
pub(super) async fn look(
    tier: Tier,
    limits: ScanLimits,
    files: &[AskedFile],
    plan: impl Fn(&[u8]) -> anyhow::Result<Room>,
) -> anyhow::Result<Looks> {
    let mut judged: Vec<Judged> = Vec::with_capacity(files.len());
    let mut memory_guarantee = true;
    while judged.len() < files.len() {
        let ask = Ask { limits, files: files[judged.len()..].to_vec() };
        let mut heard = Heard { wanted: ask.files.len(), answers: Vec::new(), is_garbled: false };
        let room = plan(&serde_json::to_vec(&ask)?)?;
        let (finished, ()) = carrel_sandbox::run(tier, &room, HEARING, |_| (), |line| heard.hear(line))
            .await
            .context("scan in a room")?;
        memory_guarantee &= finished.ended.memory_guarantee;
        judged.extend(heard.judged(&finished.ended));
    }
    Ok(Looks { judged, memory_guarantee })
}

/// What one scanner has said so far.
struct Heard {
    wanted: usize,
    answers: Vec<Answer>,
    /// A line was no answer: nothing after it can be told to be about a certain file.
    is_garbled: bool,
}

impl Heard {
    fn hear(&mut self, line: &[u8]) {
        if self.is_garbled || self.answers.len() == self.wanted {
            return;
        }
        match serde_json::from_slice::<Line>(line) {
            // A line too long to be heard is missed here, too.
            Ok(line) if line.file == self.answers.len() => self.answers.push(line.answer),
            Ok(_) | Err(_) => self.is_garbled = true,
        }
    }
}

impl Heard {
    /// The files that were answered for and, unless those are all, the one that the scanner ended at. One that only found
    /// the time of a room spent by the files before it is asked about again, in a room of its own.
    fn judged(self, ended: &Ended) -> Vec<Judged> {
        let (is_done, is_first) = (self.answers.len() == self.wanted, self.answers.is_empty());
        let mut judged: Vec<Judged> = self.answers.into_iter().map(read).collect();
        let may_be_innocent = !is_first && matches!(ended.limit, Some(LimitHit::Wall | LimitHit::Cpu));
        if !is_done && !may_be_innocent {
            let said = ended.stderr_tail.len();
            tracing::warn!(exit = ?ended.exit, limit = ?ended.limit, stderr_bytes = said, "the scanner ended at a file, which is refused");
            judged.push(ended_by(ended));
        }
        judged
    }
}

/// An answer as far as it may be believed.
fn read(answer: Answer) -> Judged {
    match answer {
        Answer::Accepted { flags } => {
            let cut = |flag: ScanFlag| ScanFlag { message: plain(&flag.message, MAX_MESSAGE), ..flag };
            Ok(flags.into_iter().take(MAX_FLAGS).map(cut).collect())
        }
        Answer::Refused { code, message } => refuse(code, plain(&message, MAX_REFUSAL)),
        // Whether this machine can read it is seen by whoever hashes it.
        Answer::Unread { why } => {
            let why = plain(&why, MAX_MESSAGE);
            refuse(RefusalCode::Broken, format!("could not be read to its end ({why}); upload it again"))
        }
    }
}

/// The refusal of the file that a scanner ended at.
fn ended_by(ended: &Ended) -> Judged {
    let what = match ended.limit {
        Some(LimitHit::Wall | LimitHit::Cpu) => "takes longer to look at than a review has",
        Some(LimitHit::Memory) => "takes more memory to look at than a review has",
        Some(LimitHit::Processes | LimitHit::FileSize | LimitHit::Output) | None => "cannot be looked at safely",
    };
    refuse(RefusalCode::Broken, format!("{what}; open it, save it again and upload that"))
}

/// Text of a stranger: no control characters, at most `max` bytes.
fn plain(text: &str, max: usize) -> String {
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.truncate(clean.floor_char_boundary(max));
    clean
}

/// For fuzzing: a scanner that says these bytes.
pub(crate) fn heard(bytes: &[u8]) {
    let mut heard = Heard { wanted: 3, answers: Vec::new(), is_garbled: false };
    bytes.split(|byte| *byte == b'\n').for_each(|line| heard.hear(line));
    assert!(heard.answers.len() <= 3);
    for answer in heard.answers {
        match read(answer) {
            Ok(flags) => assert!(flags.len() <= MAX_FLAGS && flags.iter().all(|f| f.message.len() <= MAX_MESSAGE)),
            Err(Refusal { message, .. }) => assert!(message.len() <= MAX_REFUSAL),
        }
    }
}

#[cfg(test)]
mod tests;
