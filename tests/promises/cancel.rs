//! Reviews that somebody ends, or asks for with a deadline: decided once, whoever is first, and nothing works on for nobody.

use carrel_schemas::dead_letter::DeadLetterClass;
use carrel_schemas::outcome::{FailureClass, Verdict};
use serde_json::{Value, json};

use crate::files::sales;
use crate::gate::Gate;
use crate::world::{World, eventually, tenant};

async fn review_of(world: &World, pack: &str) -> String {
    eventually("the review", async || {
        let reviews = world.operator().reviews("acme").await.expect("answered");
        reviews.into_iter().find(|review| review.pack == pack).map(|review| review.id)
    })
    .await
}

async fn cancel(world: &World, who: &str, review: &str) -> anyhow::Result<Value> {
    let path = format!("/v1/tenants/acme/reviews/{review}/cancel");
    world.api(who).post(&path, "cancel", &json!({ "reason": "sent by mistake" })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_is_cancelled_while_it_runs_or_waits_and_never_once_it_is_delivered() {
    let mut gate = None;
    let tenants = vec![tenant("acme", json!({ "limits": { "max_concurrent": 1 } })), tenant("bolt", json!({}))];
    let world = World::start(tenants, |setup| gate = Some(Gate::install(setup))).await;
    let gate = gate.expect("installed");
    world.upload("acme", "runs", vec![("sales.csv", sales())]).await;
    gate.is_reached_by(1).await;
    world.upload("acme", "waits", vec![("sales.csv", sales())]).await;
    let (runs, waits) = (review_of(&world, "runs").await, review_of(&world, "waits").await);

    let strangers = cancel(&world, "bolt", &runs).await.expect_err("not bolt's").to_string();
    assert!(strangers.contains("404") && strangers.contains("no such tenant"), "{strangers}");
    for (pack, review) in [("waits", &waits), ("runs", &runs)] {
        cancel(&world, "acme", review).await.expect("cancelled");
        cancel(&world, "acme", review).await.expect("once more is the same");
        let got = world.completion("acme", pack).await.completion;
        let Verdict::Cancelled { reason } = &got.verdict else { panic!("{:?}", got.verdict) };
        assert_eq!(reason, "sent by mistake");
        assert_eq!(world.names("acme-outputs", &format!("outcomes/{review}")).await.len(), 1);
    }
    eventually("an empty room", async || gate.is_deserted().then_some(())).await;
    world.settled().await;
    let executions = world.fleet.address().connector().jobs().await.expect("a client");
    let job = carrel::plan::tenant("acme")["job"].as_str().expect("a job").to_owned();
    assert_eq!(executions.executions(&job).await.expect("answered").len(), 1, "what waited was never launched");
    assert!(world.dead_letters(Some("acme")).await.is_empty(), "nobody has to look at what was wished");

    let _open = gate.open();
    world.upload("acme", "done", vec![("sales.csv", sales())]).await;
    assert_eq!(world.completion("acme", "done").await.completion.verdict.state(), "delivered");
    let done = review_of(&world, "done").await;
    let late = cancel(&world, "acme", &done).await.expect_err("too late").to_string();
    assert!(late.contains("409") && late.contains("is delivered already"), "{late}");
    let nothing = cancel(&world, "acme", &format!("rv_{}", "0".repeat(32))).await.expect_err("none").to_string();
    assert!(nothing.contains("no such review"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_was_asked_for_with_a_deadline_is_given_up_at_it_and_its_neighbour_is_not() {
    let mut gate = None;
    let world = World::start(vec![tenant("acme", json!({}))], |setup| gate = Some(Gate::install(setup))).await;
    let gate = gate.expect("installed");
    for (pack, wish) in
        [("soon", json!({ "pack": "soon", "deadline_seconds": 1 })), ("late", json!({ "pack": "late" }))]
    {
        world.put("acme", &format!("{pack}/sales.csv"), sales()).await;
        world.api("acme").post("/v1/tenants/acme/reviews", pack, &wish).await.expect("taken");
    }
    let got = world.completion("acme", "soon").await.completion;
    let Verdict::Failed { class: FailureClass::Expired, message, .. } = &got.verdict else {
        panic!("{:?}", got.verdict)
    };
    assert!(message.contains("the deadline of 1 s passed"), "{message}");
    world.dead_letter(Some("acme"), "its letter", |letter| letter.class == DeadLetterClass::Expired).await;

    let _open = gate.open();
    assert_eq!(world.completion("acme", "late").await.completion.verdict.state(), "delivered");
    world.settled().await;
}
