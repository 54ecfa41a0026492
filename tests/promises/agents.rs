//! Agents that are no part of the product: any program under the contract, and one that a hostile document took over.

use std::io::Write as _;
use std::path::Path;

use carrel_schemas::findings::Findings;
use carrel_schemas::outcome::{DeliveredFile, EgressDecision, FailureClass, Verdict};
use serde_json::json;

use crate::files::sales;
use crate::world::{World, tenant};

const PYTHON: &str = "/usr/bin/python3";

/// The command line of a script beside this file; `None`, said aloud, where there is no Python.
fn script(name: &str) -> Option<Vec<String>> {
    if !Path::new(PYTHON).exists() {
        writeln!(std::io::stderr(), "SKIPPED: {PYTHON} is missing; install python3").expect("stderr");
        return None;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promises/agents").join(name);
    Some(vec![PYTHON.to_owned(), path.display().to_string()])
}

async fn findings(world: &World, files: &[DeliveredFile]) -> Findings {
    let file = files.iter().find(|file| file.name == "findings.json").expect("delivered");
    let body = world.objects.get("acme-outputs", file.object.as_str(), file.size).await.expect("answered");
    serde_json::from_slice(&body.expect("there").bytes).expect("findings")
}

#[tokio::test(flavor = "multi_thread")]
async fn any_program_under_the_contract_reviews_a_pack() {
    let Some(agent) = script("totals.py") else { return };
    let world = World::start(vec![tenant("acme", json!({}))], |setup| setup.agent = agent).await;
    world.upload("acme", "q3", vec![("sales.csv", "sku,units\n001,3\n002,4\n".into())]).await;
    let got = world.completion("acme", "q3").await;
    let Verdict::Delivered { files, .. } = &got.completion.verdict else { panic!("{:?}", got.completion.verdict) };
    let findings = findings(&world, files).await;
    let titles: Vec<&str> = findings.findings.iter().map(|finding| finding.title.as_str()).collect();
    assert!(titles.contains(&"units of sales.csv adds up to 7"), "{titles:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_taken_over_reaches_nothing_and_its_tenant_is_told_why_nothing_came() {
    let Some(agent) = script("hostile.py") else { return };
    let tenants = vec![tenant("acme", json!({})), tenant("bolt", json!({}))];
    let world = World::start(tenants, |setup| setup.agent = agent).await;
    world.put("bolt", "secret/plan.csv", sales()).await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let got = world.completion("acme", "q3").await;
    let Verdict::Failed { class, message, log_tail } = &got.completion.verdict else {
        panic!("{:?}", got.completion.verdict)
    };
    assert_eq!(*class, FailureClass::AgentFailed, "{message}: {log_tail:?}");
    for refused in [r#""findings.json": it is a symbolic link"#, r#""deck.html": it is a symbolic link"#] {
        assert!(message.contains(refused), "{message}: {log_tail:?}");
    }
    // The words are its own, the room's proof is that it found nothing else to say.
    let said = log_tail.as_deref().expect("it said something");
    assert!(said.contains("reached nothing"), "{said}");
    let letter = world.dead_letter(Some("acme"), "its letter", |letter| letter.reason.contains("findings.json")).await;
    assert_eq!(letter.tenant.expect("a tenant").as_str(), "acme");
    // What it printed is data: one completion, and nothing of it, nor of anybody else, was delivered.
    assert_eq!(world.received().len(), 1);
    assert!(world.names("acme-outputs", "reviews/").await.is_empty());
    assert!(world.names("bolt-outputs", "").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reaches_the_hosts_that_its_tenant_lists_and_every_other_is_denied_and_told() {
    let Some(agent) = script("caller.py") else { return };
    let listed = json!({ "egress": ["listed.example.com"] });
    let world = World::start(vec![tenant("acme", listed)], |setup| setup.agent = agent).await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let got = world.completion("acme", "q3").await;
    let Verdict::Delivered { files, .. } = &got.completion.verdict else { panic!("{:?}", got.completion.verdict) };
    let answers: serde_json::Value = serde_json::from_str(&findings(&world, files).await.summary).expect("answers");
    // Where this machine resolves no such name, the outer proxy says so; it is no host of anybody's.
    assert!([200, 502, 504].map(|code| json!(code)).contains(&answers["listed.example.com"]), "{answers}");
    for denied in ["other.example.com", "again", "169.254.169.254", "2852039166", "plain"] {
        assert_eq!(answers[denied], 403, "{denied}: {answers}");
    }
    assert_eq!(answers["around"], "Network is unreachable", "{answers}");
    let room = world.outcome(&got.completion).await.room.expect("recorded");
    let egress = room.egress.expect("it had a way out");
    let came = |host: &str, verdict: &str| -> u64 {
        let alike = |asked: &&EgressDecision| (asked.host.as_str(), asked.verdict.as_str()) == (host, verdict);
        egress.decisions.iter().filter(alike).map(|asked| asked.count).sum()
    };
    assert_eq!(came("other.example.com", "denied"), 2, "it was asked twice: {egress:?}");
    assert_eq!(came("listed.example.com", "allowed") + came("listed.example.com", "failed"), 1, "{egress:?}");
    world.settled().await;
}
