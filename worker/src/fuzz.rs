//! Every parser of hostile bytes in this crate, as a function over bytes: for fuzzing, and for nothing else.
//!
//! A target returns on any bytes at all, soon and in bounded memory, whatever it makes of them.

use std::io::Cursor;

use carrel_schemas::agent::{AgentInput, FileFormat};
use carrel_schemas::ids::{Attempt, Epoch, FileId, ReviewId};

use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::review::Listener;
use crate::scan::{ScanLimits, inspect};
use crate::{judge, scan};

/// What a target is called, and the target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("scan_csv", |bytes| scan_as(FileFormat::Csv, bytes)),
    ("scan_xlsx", |bytes| scan_as(FileFormat::Xlsx, bytes)),
    ("scan_pdf", |bytes| scan_as(FileFormat::Pdf, bytes)),
    ("scanner", scan::scanner::heard),
    ("clamd_reply", scan::clamd::heard),
    ("manifest", manifest),
    ("agent_event", agent_event),
    ("findings", findings),
];

fn scan_as(format: FileFormat, bytes: &[u8]) {
    let limits = ScanLimits { inflated_bytes: 4 << 20, entries: 100 };
    match inspect(format, &mut Cursor::new(bytes), &limits).expect("memory can be read") {
        Ok(flags) => assert!(flags.iter().all(|flag| flag.message.len() <= scan::MAX_MESSAGE), "{flags:?}"),
        Err(refusal) => assert!(!refusal.message.is_empty()),
    }
}

fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        manifest.missing([("a.csv", "q3/a.csv")].into_iter());
        manifest.check_sha256("a.csv", "q3/a.csv", "ab");
    }
}

fn agent_event(line: &[u8]) {
    let review = ReviewId::parse(format!("rv_{}", "0".repeat(32))).expect("an id");
    let mut listener = Listener::new(Progress::of(review, Epoch::FIRST, Attempt::FIRST));
    listener.hear(line);
    listener.reasons();
}

fn findings(bytes: &[u8]) {
    let shown = AgentInput {
        file_id: FileId::nth(0),
        path: "f001.csv".to_owned(),
        name: "a.csv".to_owned(),
        format: FileFormat::Csv,
        size: 1,
        sha256: "ab".to_owned(),
        flags: Vec::new(),
    };
    if let Ok(top) = judge::check(bytes, &[shown]) {
        assert!(top.len() <= judge::TOP);
    }
}
