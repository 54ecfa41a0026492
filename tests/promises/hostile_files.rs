//! Files that would do something to whoever opens them: refused or flagged by the tenant's policy, and never obeyed.

use std::io::Cursor;
use std::net::TcpListener;

use carrel_schemas::agent::FileFormat;
use carrel_schemas::dead_letter::DeadLetterClass;
use carrel_schemas::outcome::{InputVerdict, Outcome, RefusalCode, Verdict};
use carrel_schemas::scan::FlagCode;
use carrel_worker::scan::{ScanLimits, inspect};
use serde_json::{Value, json};

use crate::files;
use crate::world::{Received, World, tenant};

/// What stands beside a file of this name.
fn flags(outcome: &Outcome, name: &str) -> Vec<FlagCode> {
    let input = outcome.inputs.iter().find(|input| input.name.as_str().ends_with(name)).expect(name);
    input.flags.iter().map(|flag| flag.code).collect()
}

fn refused(outcome: &Outcome, name: &str) -> Option<RefusalCode> {
    let input = outcome.inputs.iter().find(|input| input.name.as_str().ends_with(name)).expect(name);
    match &input.verdict {
        InputVerdict::Accepted => None,
        InputVerdict::Refused { code, .. } => Some(*code),
    }
}

/// What the agent wrote about the pack.
async fn findings(world: &World, got: &Received) -> Value {
    let Verdict::Delivered { files, .. } = &got.completion.verdict else { panic!("{:?}", got.completion.verdict) };
    let file = files.iter().find(|file| file.name == "findings.json").expect("findings");
    let body = world.objects.get("acme-outputs", file.object.as_str(), file.size).await.expect("answered");
    serde_json::from_slice(&body.expect("there").bytes).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_by_its_ratio_before_anything_parses_it() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let bomb = files::bomb(64 << 20);
    assert!(bomb.len() < 128 << 10, "far below the limits of size");
    world.upload("acme", "q3", vec![("bomb.xlsx", bomb)]).await;
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "refused");
    let outcome = world.outcome(&got.completion).await;
    assert_eq!(refused(&outcome, "bomb.xlsx"), Some(RefusalCode::ArchiveBomb));
    assert_eq!(outcome.scanners, ["structure"]);
    assert_eq!(outcome.usage.expect("measured").agent_cpu_ms, 0, "no agent was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_formulas_are_flagged_and_nothing_is_fetched() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let bait = TcpListener::bind("127.0.0.1:0").expect("bound");
    bait.set_nonblocking(true).expect("it does not wait");
    let place = format!("http://{}/", bait.local_addr().expect("bound"));
    let formulas = format!("sku,units\n7,\"=WEBSERVICE(\"\"{place}\"\")\"\n8,=1+1\n9,-5\n");
    let pack =
        vec![("linked.xlsx", files::linked(&place)), ("formulas.csv", formulas.into()), ("dde.xlsx", files::dde())];
    world.upload("acme", "q3", pack).await;
    let got = world.completion("acme", "q3").await;
    let outcome = world.outcome(&got.completion).await;
    assert_eq!(flags(&outcome, "linked.xlsx"), [FlagCode::ExternalLink, FlagCode::FetchingFormula]);
    assert_eq!(flags(&outcome, "formulas.csv"), [FlagCode::FetchingFormula, FlagCode::FormulaCells]);
    assert_eq!(refused(&outcome, "dde.xlsx"), Some(RefusalCode::ActiveContent));
    let said = findings(&world, &got).await["findings"].to_string();
    assert!(said.contains("linked.xlsx holds more than data") && said.contains("2 cells"), "{said}");
    assert!(bait.accept().is_err(), "something was fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pdf_that_runs_is_refused_or_flagged_and_never_obeyed() {
    let flagging = json!({ "scan": { "active": "flag", "outside": "refuse" } });
    let world = World::start(vec![tenant("acme", json!({})), tenant("bolt", flagging)], |_| {}).await;
    let marker = world.dir().join("obeyed");
    let pdf = files::active_pdf(marker.to_str().expect("UTF-8"));
    world.upload("acme", "q3", vec![("active.pdf", pdf.clone()), ("sales.csv", files::sales())]).await;
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered", "the others are reviewed");
    let outcome = world.outcome(&got.completion).await;
    assert_eq!(refused(&outcome, "active.pdf"), Some(RefusalCode::ActiveContent));

    // The other policy, in the same fleet: without what opens by itself the document is reviewed.
    let quiet = String::from_utf8(pdf.clone()).expect("ASCII").replace("/AA", "/A ").into_bytes();
    world.upload("bolt", "q3", vec![("quiet.pdf", quiet), ("active.pdf", pdf)]).await;
    let outcome = world.outcome(&world.completion("bolt", "q3").await.completion).await;
    assert_eq!(flags(&outcome, "quiet.pdf"), [FlagCode::Javascript, FlagCode::Launch]);
    assert_eq!(refused(&outcome, "active.pdf"), Some(RefusalCode::OutsideContent), "it opens by itself");
    assert!(!marker.exists(), "it was obeyed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virus_scanner_that_is_set_and_does_not_answer_lets_nothing_through() {
    let limits = json!({ "limits": { "max_attempts": 2 } });
    let nobody = "/nonexistent/clamd.ctl".parse().expect("a path");
    let world = World::start(vec![tenant("acme", limits)], |setup| setup.clamd = Some(nobody)).await;
    world.upload("acme", "q3", vec![("sales.csv", files::sales())]).await;
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "failed", "{:?}", got.completion.verdict);
    world.dead_letter(Some("acme"), "its letter", |letter| letter.class == DeadLetterClass::Crashed).await;
}

#[test]
fn the_sample_packs_hold_nothing_but_data() {
    let limits = ScanLimits { inflated_bytes: 1 << 30, entries: ScanLimits::ENTRIES };
    for file in carrel_samples::packs().into_iter().flat_map(|pack| pack.files) {
        let format = match file.name.rsplit_once('.') {
            Some((_, "csv")) => FileFormat::Csv,
            Some((_, "xlsx")) => FileFormat::Xlsx,
            Some((_, "pdf")) => FileFormat::Pdf,
            _ => panic!("{} is reviewed by nobody", file.name),
        };
        let seen = inspect(format, &mut Cursor::new(&file.bytes), &limits).expect("memory can be read");
        assert_eq!(seen, Ok(Vec::new()), "{}", file.name);
    }
}
