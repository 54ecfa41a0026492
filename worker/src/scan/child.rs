//! The scanner as a process of its own: it looks at each file it is asked about and answers with a line.
//!
//! ```text
//! Ask (a file of JSON) ─► ready ─► look at each, in order ─► a line of JSON each ─► exit 0
//! ```
//! Owns what the two sides say to each other. What ends it before it is ready is this machine's fault, since no byte of a
//! stranger was touched; after that it is the file's. Refuses policy: what is done about a flag, and whether a file is
//! reviewed, is for whoever asked.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use carrel_schemas::agent::FileFormat;
use carrel_schemas::outcome::RefusalCode;
use carrel_schemas::scan::ScanFlag;
use serde::{Deserialize, Serialize};

use super::{Judged, ScanLimits, inspect};

/// The worker's argument that makes it a scanner; the file that holds the [`Ask`] follows.
pub(crate) const COMMAND: &str = "scan";
/// EX_USAGE of sysexits.h.
const USAGE: u8 = 64;

/// What is to be looked at.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) limits: ScanLimits,
    /// In order: the first answer is about the first file.
    pub(super) files: Vec<AskedFile>,
}

/// A file that a scanner is asked about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AskedFile {
    /// Where it lies, as the scanner calls it.
    pub path: PathBuf,
    /// What its name says it is.
    pub format: FileFormat,
}

/// One line of a scanner.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Said {
    /// It knows what is asked, and opens the first file next.
    Ready,
    /// It has looked at this file of the ask.
    Looked { file: usize, answer: Answer },
}

/// What a look at one file came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Answer {
    /// It may be shown, as far as its structure goes.
    Accepted { flags: Vec<ScanFlag> },
    /// It may not, whatever the policy.
    Refused { code: RefusalCode, message: String },
    /// The machine could not read it.
    Unread { why: String },
}

impl From<io::Result<Judged>> for Answer {
    fn from(looked: io::Result<Judged>) -> Self {
        match looked {
            Ok(Ok(flags)) => Self::Accepted { flags },
            Ok(Err(refusal)) => Self::Refused { code: refusal.code, message: refusal.message },
            Err(error) => Self::Unread { why: error.to_string() },
        }
    }
}

/// Runs the scanner over the ask in this file.
pub(crate) fn main(ask: &str) -> ExitCode {
    let ask = std::fs::read(ask).map_err(|error| error.to_string());
    match ask.and_then(|text| serde_json::from_slice::<Ask>(&text).map_err(|error| error.to_string())) {
        Ok(ask) => answer(&ask, io::stdout().lock()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("read what is to be scanned: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn answer(ask: &Ask, mut out: impl Write) -> io::Result<()> {
    say(&mut out, &Said::Ready)?;
    for (file, AskedFile { path, format }) in ask.files.iter().enumerate() {
        let looked = File::open(path)
            .and_then(|file| inspect(*format, &mut BufReader::with_capacity(64 * 1024, file), &ask.limits));
        say(&mut out, &Said::Looked { file, answer: looked.into() })?;
    }
    Ok(())
}

/// At once: what comes after may be the end of this process.
fn say(out: &mut impl Write, said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}
