//! One upload on its whole way, and asking for a review instead of uploading.

use std::io::Write as _;

use carrel_schemas::completion::{ATTRIBUTE_PACK, ATTRIBUTE_STATE, ATTRIBUTE_TENANT};
use carrel_schemas::findings::Findings;
use carrel_schemas::ids::EventId;
use carrel_schemas::outcome::{DecidedBy, InputMode, Verdict};
use carrel_schemas::review_request::REVIEW_REQUESTED;
use serde_json::{Value, json};

use crate::files::sales;
use crate::gate::Gate;
use crate::world::{Prepared, World, eventually, tenant};

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_csv_becomes_a_delivered_review_and_one_completion_event() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let got = world.completion("acme", "q3").await;

    let Verdict::Delivered { files, .. } = &got.completion.verdict else { panic!("{:?}", got.completion.verdict) };
    assert_eq!(got.completion.event, EventId::of(&got.completion.review, got.completion.epoch));
    assert_eq!(got.context.id, got.completion.event.to_string());
    assert_eq!(got.attributes[ATTRIBUTE_TENANT], "acme");
    assert_eq!(got.attributes[ATTRIBUTE_STATE], "delivered");
    assert_eq!(got.attributes[ATTRIBUTE_PACK], "q3");
    for wanted in ["findings.json", "deck.html", "appendix.xlsx"] {
        let file = files.iter().find(|file| file.name == wanted).unwrap_or_else(|| panic!("{wanted}: {files:?}"));
        let body = world.objects.get("acme-outputs", file.object.as_str(), file.size).await.expect("answered");
        let bytes = body.expect("delivered").bytes;
        assert_eq!((bytes.len() as u64, crc32c(&bytes)), (file.size, file.crc32c), "{wanted}");
        if wanted == "findings.json" {
            let findings: Findings = serde_json::from_slice(&bytes).expect("findings");
            findings.validate().expect("every number has its evidence");
        }
    }

    let outcome = world.outcome(&got.completion).await;
    assert!(matches!(outcome.decided_by, DecidedBy::Worker { .. }), "{:?}", outcome.decided_by);
    let room = outcome.room.expect("recorded");
    assert_eq!((room.tier.as_str(), room.cloud_run_sandbox), ("namespaces", false));
    let expected = if world.fleet.shows_files() { InputMode::Hybrid } else { InputMode::Hydrate };
    assert_eq!(room.input, expected);
    let review = got.completion.review.to_string();
    let shown = world.api("acme").get(&format!("/v1/tenants/acme/reviews/{review}")).await.expect("answered");
    assert_eq!(shown["status"], "delivered");
    world.settled().await;
    assert_eq!(world.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_program_the_configuration_names_serves_the_volumes() {
    let prepared = Prepared::new(vec![tenant("acme", json!({}))], |_| {});
    if !prepared.fleet.shows_files() {
        let why = "SKIPPED: /dev/fuse cannot be opened; install fuse3 and chmod 666 /dev/fuse";
        return writeln!(std::io::stderr(), "{why}").expect("stderr");
    }
    let said = prepared.fleet.dir().join("served");
    let write_down = format!("echo \"$@\" >> '{}'; exec \"$@\"", said.display());
    prepared.reconfigure(|cloud| {
        let own = cloud["volume_server"].as_array().expect("a command line").clone();
        let another = ["/bin/sh", "-c", &write_down, "sh"].map(Value::from);
        cloud["volume_server"] = another.into_iter().chain(own).collect();
    });
    let world = prepared.start().await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    assert_eq!(world.outcome(&got.completion).await.room.expect("recorded").input, InputMode::Hybrid);
    let said = std::fs::read_to_string(said).expect("it was started");
    let cloud = &world.fleet.address().cloud;
    for words in ["--bucket acme-uploads ", &format!("--storage-endpoint {cloud} "), "/dev/fd/3"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_refused_unopened_says_what_it_would_have_been_opened_in() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    world.upload("acme", "q3", vec![("notes.txt", b"by hand".to_vec())]).await;
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "refused");
    let name = carrel_schemas::layout::outcome(&got.completion.review, got.completion.epoch);
    let body = world.objects.get("acme-outputs", name.as_str(), 1 << 20).await.expect("answered").expect("decided");
    let room = serde_json::from_slice::<Value>(&body.bytes).expect("JSON")["room"].take();
    assert_eq!(room["tier"], "namespaces", "{room}");
    assert!(room["memory_guarantee"].is_boolean() && room["cloud_run_sandbox"].is_null(), "{room}");
    world.settled().await;
}

fn crc32c(bytes: &[u8]) -> u32 {
    // Bit by bit, so that no library of the product checks itself.
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_pack_closes_by_itself_and_every_object_may_be_a_pack() {
    let tenants = vec![
        tenant("quiet", json!({ "policy": { "close": "quiet", "quiet_seconds": 1 } })),
        tenant("each", json!({ "policy": { "close": "each" } })),
    ];
    let world = World::start(tenants, |_| {}).await;
    world.put("quiet", "q3/a.csv", sales()).await;
    world.put("quiet", "q3/b.csv", sales()).await;
    world.put("each", "drop/a.csv", sales()).await;
    world.put("each", "drop/b.csv", sales()).await;
    let got = world.completion("quiet", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    assert_eq!(world.outcome(&got.completion).await.inputs.len(), 2);
    for name in ["drop/a.csv", "drop/b.csv"] {
        let got = world.completion("each", name).await;
        assert_eq!(got.completion.verdict.state(), "delivered", "{name}");
        assert_eq!(world.outcome(&got.completion).await.inputs.len(), 1, "{name}");
    }
    world.settled().await;
    assert_eq!(world.received().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_twice_with_one_key_is_asking_once() {
    let world = World::start(vec![tenant("acme", json!({})), tenant("bolt", json!({}))], |_| {}).await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let first = world.completion("acme", "q3").await.completion.review;

    let base = world.fleet.address().api.clone();
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let ask = |who: &str, tenant: &str, key: &str, body: Value| {
        let call = http.post(format!("{base}/v1/tenants/{tenant}/reviews"));
        let call = call.bearer_auth(world.fleet.tokens()[who].clone()).header("idempotency-key", key);
        async move {
            let answer = call.json(&body).send().await.expect("the API answers");
            (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
        }
    };
    let (status, one) = ask("acme", "acme", "k1", json!({ "pack": "q3" })).await;
    let (_, two) = ask("acme", "acme", "k1", json!({ "pack": "q3" })).await;
    assert_eq!(status, 202);
    assert_eq!(one["review"], two["review"]);
    assert_ne!(one["review"], first.as_str(), "a request is a review of its own");
    eventually("the requested review's completion", async || {
        world.received().into_iter().find(|got| one["review"] == got.completion.review.as_str())
    })
    .await;

    let (status, said) = ask("acme", "acme", "k1", json!({ "pack": "other" })).await;
    assert_eq!(status, 409, "a key stands for one pack: {said}");
    assert_eq!(ask("acme", "acme", "k2", json!({ "pack": "nothing" })).await.0, 404);
    assert_eq!(ask("acme", "acme", "k2", json!({ "pack": 7 })).await.0, 400);
    // Another tenant's pack, and another tenant that does not exist, are the same to a stranger.
    let (foreign, nobody) = (
        ask("bolt", "acme", "k3", json!({ "pack": "q3" })).await,
        ask("bolt", "nobody", "k3", json!({ "pack": "q3" })).await,
    );
    assert_eq!(foreign, nobody);
    assert_eq!(foreign.0, 404);
    let plain = http.get(format!("{base}/v1/tenants/acme/reviews")).send().await.expect("answered");
    assert_eq!(plain.status().as_u16(), 401);
    for path in ["healthz", "readyz"] {
        assert!(http.get(format!("{base}/{path}")).send().await.expect("answered").status().is_success(), "{path}");
    }
    world.settled().await;
    assert_eq!(world.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_requests_a_review_by_message_and_its_trace_leads_by_the_worker_to_the_completion() {
    let patient = json!({ "policy": { "close": "quiet", "quiet_seconds": 3600 } });
    // The agent is no part of the trace; the worker, which waits for it, is.
    let mut gate = None;
    let world = World::start(vec![tenant("acme", patient)], |setup| {
        gate = Some(Gate::install(setup));
    })
    .await;
    world.put("acme", "q3/sales.csv", sales()).await;
    let request = json!({ "tenant": "acme", "pack": "q3", "idempotency_key": "order-1" }).to_string();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let attributes = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "//platform"),
        ("ce-type", REVIEW_REQUESTED),
        ("googclient_traceparent", &parent),
    ];
    world.publish("review-requests", request.clone(), &attributes).await;
    world.publish("review-requests", request, &attributes).await;
    let (told, carried) = traces(&world, gate.expect("installed")).await;
    assert_eq!((told.as_str(), carried.as_str()), (trace, trace));
    world.settled().await;
    assert_eq!(world.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_an_upload_by_the_worker_to_the_completion() {
    let mut gate = None;
    let world = World::start(vec![tenant("acme", json!({}))], |setup| {
        gate = Some(Gate::install(setup));
    })
    .await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let (told, carried) = traces(&world, gate.expect("installed")).await;
    assert_eq!(told, carried);
    assert!(told.len() == 32 && told != "0".repeat(32), "{told}");
    world.settled().await;
}

/// The trace that the worker of acme's pack `q3` was told, and the one that its completion carries.
async fn traces(world: &World, gate: Gate) -> (String, String) {
    let worker = gate.is_reached_by(1).await[0].as_raw_nonzero();
    let environment = std::fs::read_to_string(format!("/proc/{worker}/environ")).expect("the worker's environment");
    let _open = gate.open();
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    let told = environment.split('\0').find_map(|held| held.strip_prefix("CARREL_TRACEPARENT=")).expect("a parent");
    let trace = |parent: &str| parent.split('-').nth(1).expect("a traceparent").to_owned();
    (trace(told), trace(&got.attributes["googclient_traceparent"]))
}
