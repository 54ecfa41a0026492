//! One run under the agent contract: read the request, review, write three files, say how far it is.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use carrel_schemas::agent::{AgentEvent, AgentEventKind, AgentRequest, exit_code};
use carrel_schemas::timestamp::Timestamp;

use crate::{appendix, deck, load, review::review};

/// Runs with the arguments after the program's name and exits as the contract says.
pub fn main(arguments: &[String], now: impl Fn() -> Timestamp) -> ExitCode {
    let [request] = arguments else {
        eprintln!("analyst: expected one argument, the request file: analyst REQUEST.json");
        return ExitCode::from(64);
    };
    match run(Path::new(request), now, &mut std::io::stdout().lock()) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("analyst: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reviews what the request names and writes into its output directory; gives the exit code. Events, one JSON object a
/// line, go to `events`.
pub fn run(request: &Path, now: impl Fn() -> Timestamp, events: &mut impl Write) -> anyhow::Result<i32> {
    let bytes = std::fs::read(request).with_context(|| format!("read request {}", request.display()))?;
    let request: AgentRequest = serde_json::from_slice(&bytes).context("parse request")?;
    if request.schema != AgentRequest::SCHEMA {
        bail!("request has schema {}, expected {}", request.schema, AgentRequest::SCHEMA);
    }
    let mut seq = 0;
    let mut report = |kind, stage: &str, pct: f64, msg: &str| -> anyhow::Result<()> {
        seq += 1;
        let event =
            AgentEvent { seq, time: now(), kind, stage: Some(stage.into()), pct: Some(pct), msg: Some(msg.into()) };
        writeln!(events, "{}", serde_json::to_string(&event)?).context("write event")
    };
    report(AgentEventKind::Progress, "ingest", 0.0, "reading files")?;
    let pack = load::load(&request);
    if pack.files.is_empty() {
        for (name, why) in &pack.refused {
            eprintln!("analyst: {name}: {why}");
            report(AgentEventKind::Log, "ingest", 100.0, &format!("{name}: {why}"))?;
        }
        return Ok(exit_code::UNUSABLE_INPUT);
    }
    report(AgentEventKind::Progress, "profile", 40.0, "checking tables")?;
    let review = review(&pack);
    review.findings.validate().context("findings do not hold")?;
    report(AgentEventKind::Progress, "deck", 80.0, "writing deck")?;
    let output = Path::new(&request.output_dir);
    let files = [
        ("findings.json", serde_json::to_vec_pretty(&review.findings)?),
        ("deck.html", deck::html(&pack, &review).into_bytes()),
        ("appendix.xlsx", appendix::workbook(&pack, &review).context("make appendix")?),
    ];
    for (name, bytes) in files {
        std::fs::write(output.join(name), bytes).with_context(|| format!("write {name}"))?;
        report(AgentEventKind::Artifact, "deck", 100.0, name)?;
    }
    Ok(if pack.refused.is_empty() { exit_code::COMPLETE } else { exit_code::PARTIAL })
}
