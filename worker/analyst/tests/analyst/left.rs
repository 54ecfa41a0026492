//! One run of the agent under its contract: files in, findings, deck and appendix out.

use std::path::Path;

use carrel_schemas::agent::{AgentEvent, AgentEventKind, AgentInput, AgentRequest, FileFormat};
use carrel_schemas::findings::{Finding, Findings};
use carrel_schemas::ids::{FileId, PackId, ReviewId};
use carrel_schemas::timestamp::Timestamp;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// What the agent left.
pub(crate) struct Left {
    pub(crate) code: i32,
    pub(crate) findings: Findings,
    pub(crate) deck: String,
    pub(crate) appendix: Vec<u8>,
}

fn format(name: &str) -> FileFormat {
    match name.rsplit_once('.').expect("an ending").1 {
        "csv" => FileFormat::Csv,
        "xlsx" => FileFormat::Xlsx,
        "pdf" => FileFormat::Pdf,
        other => panic!("{other} is reviewed by nobody"),
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs the agent on `files` as a pack of that name: its exit code, its events, and the directory it wrote into.
fn start(pack: &str, files: &[(&str, &[u8])]) -> (i32, Vec<AgentEvent>, TempDir) {
    let dir = TempDir::new().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    for name in ["input", "scratch", "output"] {
        std::fs::create_dir(at(name)).expect("a directory");
    }
    let mut inputs = Vec::new();
    for (place, (name, bytes)) in files.iter().enumerate() {
        let (file_id, format) = (FileId::nth(place), format(name));
        let path = format!("{file_id}.{}", format.extension());
        std::fs::write(at("input").join(&path), bytes).expect("written");
        let (name, size, sha256) = ((*name).to_owned(), bytes.len() as u64, hex(bytes));
        inputs.push(AgentInput { file_id, path, name, format, size, sha256, flags: Vec::new() });
    }
    let request = AgentRequest {
        schema: AgentRequest::SCHEMA,
        review: ReviewId::parse("rv_00000000000000000000000000000001").expect("an id"),
        pack: PackId::parse(pack).expect("an id"),
        input_dir: text(&at("input")),
        scratch_dir: text(&at("scratch")),
        output_dir: text(&at("output")),
        inputs,
        refused: Vec::new(),
        timeout_seconds: 60,
    };
    std::fs::write(at("request.json"), serde_json::to_vec(&request).expect("JSON")).expect("written");
    let now = || Timestamp::from_unix_seconds(0).expect("in range");
    let mut events = Vec::new();
    let code = carrel_analyst::run(&at("request.json"), now, &mut events).expect("it ends well");
    let events = String::from_utf8(events).expect("UTF-8");
    let events: Vec<AgentEvent> = events.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    assert!(events.iter().map(|event| event.seq).eq(1..=events.len() as u64), "{events:#?}");
    (code, events, dir)
}

/// Runs the agent on what it cannot use: its exit code, and what it says for the log.
pub(crate) fn unusable(files: &[(&str, &[u8])]) -> (i32, Vec<String>) {
    let (code, events, dir) = start("unusable", files);
    assert_eq!(std::fs::read_dir(dir.path().join("output")).expect("a directory").count(), 0, "nothing is delivered");
    let logged = events.into_iter().filter(|event| event.kind == AgentEventKind::Log);
    (code, logged.filter_map(|event| event.msg).collect())
}

/// Runs the agent on `files` as a pack of that name.
pub(crate) fn run(pack: &str, files: &[(&str, &[u8])]) -> Left {
    let (code, events, dir) = start(pack, files);
    assert_eq!(events.len(), 6, "{events:#?}");
    let read = |name: &str| std::fs::read(dir.path().join("output").join(name)).expect(name);
    let findings: Findings = serde_json::from_slice(&read("findings.json")).expect("findings");
    findings.validate().expect("every number has its evidence");
    let deck = String::from_utf8(read("deck.html")).expect("UTF-8");
    Left { code, findings, deck, appendix: read("appendix.xlsx") }
}

/// A finding in one line.
pub(crate) fn said(finding: &Finding) -> String {
    format!("{}: {} {}", finding.rule_id, finding.title, finding.statement)
}
