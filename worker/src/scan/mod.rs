//! What the bytes are, against what their name says. The gate before anything parses them.
//!
//! Owns the structural refusals: wrong type, nothing in it, encryption, macros, bombs; and the flags: what runs, reaches
//! out or carries another file. What is done about a flag is the tenant's policy. Each scanner is a plain function over
//! a reader with limits, so that it can be fuzzed, and runs in a child in a room of its own (`child`, asked by `scanner`).
//! Refuses to interpret: what passes here is only worth showing to a parser.

pub(crate) mod child;
pub(crate) mod clamd;
mod formula;
mod found;
mod pdf;
pub mod scanner;
mod stage;
mod text;
mod tokens;
mod workbook;
mod xml;

use std::io::{self, Read, Seek, SeekFrom};

use carrel_schemas::agent::FileFormat;
use carrel_schemas::outcome::RefusalCode;
use carrel_schemas::scan::ScanFlag;
use serde::{Deserialize, Serialize};

pub use self::child::AskedFile;
pub use self::clamd::Clamd;
pub use crate::case::Refusal;
pub(crate) use stage::{Accepted, Scanned, scan};

/// How far a file may unfold.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ScanLimits {
    /// Bytes that all entries of one container may inflate to, counted while inflating.
    pub inflated_bytes: u64,
    /// Entries of one container.
    pub entries: usize,
}

impl ScanLimits {
    /// Entries of the largest workbooks seen in the wild are in the hundreds.
    pub const ENTRIES: usize = 10_000;
    /// Times its size that a file may inflate to: sheets shrink to a tenth, blank ones to a hundredth, bombs to a
    /// thousandth, which is the most that deflate can do.
    pub const RATIO: u64 = 200;
    /// What any file may inflate to, however small.
    pub const ANY: u64 = 16 << 20;
}

/// Bytes of a flag's message.
pub(crate) const MAX_MESSAGE: usize = 200;

/// What a file holds besides data, or why it is refused whatever the policy.
pub type Judged = Result<Vec<ScanFlag>, Refusal>;

/// The outer error is a file that could not be read.
pub type Inspection = io::Result<Judged>;

/// What the first bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Pdf,
    Zip,
    /// Microsoft's compound file: an encrypted workbook or one of before 2007.
    Compound,
    Html,
    /// A picture, another archive, a program.
    Binary(&'static str),
    Other,
}

const MAGIC: [(&[u8], Look); 12] = [
    (b"PK\x03\x04", Look::Zip),
    (b"PK\x05\x06", Look::Zip),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Look::Compound),
    (b"\x1f\x8b", Look::Binary("a gzip archive")),
    (b"7z\xbc\xaf\x27\x1c", Look::Binary("a 7z archive")),
    (b"Rar!", Look::Binary("a RAR archive")),
    (b"\x89PNG", Look::Binary("a PNG picture")),
    (b"\xff\xd8\xff", Look::Binary("a JPEG picture")),
    (b"GIF8", Look::Binary("a GIF picture")),
    (b"\x7fELF", Look::Binary("a program")),
    (b"MZ\x90\x00", Look::Binary("a program")),
    (b"PAR1", Look::Binary("a Parquet file")),
];

fn look(head: &[u8]) -> Look {
    if let Some((_, look)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return *look;
    }
    // Readers accept a header within the first kilobyte, so junk before it does not make it another type.
    if head.windows(5).take(1024).any(|at| at == b"%PDF-") {
        return Look::Pdf;
    }
    let text = head.trim_ascii_start();
    let html = [&b"<!doctype html"[..], b"<html"];
    if html.iter().any(|tag| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag))) {
        return Look::Html;
    }
    Look::Other
}

impl Look {
    fn words(self) -> &'static str {
        match self {
            Self::Pdf => "a PDF",
            Self::Zip => "a ZIP container, as an XLSX is",
            Self::Compound => "an Office file of before 2007 or an encrypted one",
            Self::Html => "a web page",
            Self::Binary(what) => what,
            Self::Other => "text or something unknown",
        }
    }
}

/// Looks at one file whose name says `format`. Reads it to the end; memory stays below a megabyte or so.
pub fn inspect(format: FileFormat, file: &mut (impl Read + Seek), limits: &ScanLimits) -> Inspection {
    let mut head = Vec::with_capacity(2048);
    file.by_ref().take(2048).read_to_end(&mut head)?;
    if head.is_empty() {
        return Ok(refuse(RefusalCode::Empty, "has no bytes; upload it again"));
    }
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let most = size.saturating_mul(ScanLimits::RATIO).max(ScanLimits::ANY);
    let limits = &ScanLimits { inflated_bytes: limits.inflated_bytes.min(most), ..*limits };
    match (format, look(&head)) {
        (FileFormat::Xlsx, Look::Zip) => workbook::inspect(file, limits),
        (FileFormat::Xlsx, Look::Compound) => workbook::inspect_compound(file),
        (FileFormat::Pdf, Look::Pdf) => pdf::inspect(file, limits),
        (FileFormat::Csv, Look::Other) => text::inspect(file),
        (format, look) => {
            let said = format.extension().to_ascii_uppercase();
            let message = format!("is named as {said} and is {}; upload it under its own type", look.words());
            Ok(refuse(RefusalCode::TypeMismatch, message))
        }
    }
}

/// The message has no subject; the stage puts the file's name before it.
fn refuse(code: RefusalCode, message: impl Into<String>) -> Judged {
    Err(Refusal::new(code, message))
}

/// Text of a stranger, fit for a page or a terminal: printable ASCII, at most `max` characters.
fn plain(text: &str, max: usize) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(max).collect()
}

/// Reads to the end and shows each window; neighbouring windows overlap by `overlap` bytes. False from `see` stops.
fn windows(file: &mut impl Read, overlap: usize, mut see: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut held = 0;
    loop {
        let count = match file.read(&mut buffer[held..]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let filled = held + count;
        if count == 0 || !see(&buffer[..filled]) {
            return Ok(());
        }
        held = overlap.min(filled);
        buffer.copy_within(filled - held..filled, 0);
    }
}

#[cfg(test)]
mod tests;
