//! Whoever asks what became of an upload is told in plain words, at every station of its way.

use carrel::plan::CONTROL_BUCKET;
use carrel_local::faults::FaultPlan;
use serde_json::json;

use crate::files::sales;
use crate::gate::Gate;
use crate::world::{World, eventually, tenant};

async fn told(world: &World, who: &str, what: &str) -> anyhow::Result<String> {
    let path = if who == "operator" { "/v1/explain".to_owned() } else { format!("/v1/tenants/{who}/explain") };
    let answer = world.api(who).get(&format!("{path}?what={what}")).await?;
    let told: Vec<String> = serde_json::from_value(answer["told"].clone()).expect("sentences");
    Ok(told.join("\n"))
}

async fn says(world: &World, what: &str, words: &[&str]) -> String {
    let mut last = String::new();
    eventually(&format!("{words:?} of {what}"), async || {
        last = told(world, "operator", what).await.expect("answered");
        words.iter().all(|word| last.contains(word)).then(|| last.clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_explained_from_its_first_event_to_its_completion() {
    let (mut gate, each) = (None, tenant("cord", json!({ "policy": { "close": "each" } })));
    let limits = json!({ "limits": { "max_concurrent": 1 } });
    let world = World::start(vec![tenant("acme", limits), tenant("bolt", json!({})), each], |setup| {
        gate = Some(Gate::install(setup));
    })
    .await;
    let gate = gate.expect("installed");
    let file = "gs://acme-uploads/q3/sales.csv";
    says(&world, file, &["is not there now"]).await;
    world.put("acme", "q3/sales.csv", sales()).await;
    says(&world, file, &["a file of pack \"q3\"", "wait for its revision 1", "closes when _COMPLETE"]).await;
    world.put("acme", "q3/_COMPLETE", Vec::new()).await;
    // Whichever its revision: the marker's event may come only once the pack is sealed.
    says(&world, file, &["with 1 file(s), because _COMPLETE had arrived", " runs since "]).await;
    world.upload("acme", "q4", vec![("sales.csv", sales())]).await;
    says(&world, "gs://acme-uploads/q4/sales.csv", &["It waits for a slot"]).await;
    world.put("acme", "q3/more.csv", sales()).await;
    says(&world, "gs://acme-uploads/q3/more.csv", &["wait for its revision "]).await;
    world.put("acme", "q3/_COMPLETE", Vec::new()).await;
    says(&world, "gs://acme-uploads/q3/more.csv", &["It waits until review rv_", "earlier revision"]).await;
    world.put("acme", "q3/", Vec::new()).await;
    says(&world, "gs://acme-uploads/q3/", &["no file of any pack by its name"]).await;

    let _open = gate.open();
    let got = world.completion("acme", "q4").await.completion;
    let delivered = says(&world, "gs://acme-uploads/q4/sales.csv", &["ended as delivered", got.event.as_str()]).await;
    assert_eq!(told(&world, "acme", "gs://acme-uploads/q4/sales.csv").await.expect("its own"), delivered);
    says(&world, got.review.as_str(), &["sealed as revision 1", "ended as delivered"]).await;

    world.upload("acme", "bad", vec![("empty.csv", Vec::new())]).await;
    says(
        &world,
        "gs://acme-uploads/bad/empty.csv",
        &["ended as refused", "Dead letter dl_", "carrel dead-letters replay"],
    )
    .await;
    world.upload("acme", "none", vec![]).await;
    says(&world, "gs://acme-uploads/none/_COMPLETE", &["says that pack \"none\"", "with 0 file(s)", "Dead letter dl_"])
        .await;

    for (bucket, words) in
        [("cord-uploads", "is not there now"), ("nobodys-uploads", "the uploads bucket of no tenant")]
    {
        let event = [("bucketId", bucket), ("objectId", "a.csv"), ("objectGeneration", "1"), ("payloadFormat", "NONE")];
        world.publish("uploads", "", &[&event[..], &[("eventType", "OBJECT_FINALIZE")]].concat()).await;
        says(&world, &format!("gs://{bucket}/a.csv"), &[words, "Dead letter dl_"]).await;
    }

    for (what, refused) in [
        ("gs://bolt-uploads/q3/sales.csv", "no such upload or review"),
        ("gs://nobodys-uploads/q3/sales.csv", "no such upload or review"),
        ("nonsense", "gs://BUCKET/NAME"),
    ] {
        let error = told(&world, "acme", what).await.expect_err(what).to_string();
        assert!(error.contains(refused), "{what}: {error}");
    }
    let strangers = told(&world, "bolt", got.review.as_str()).await.expect_err("not bolt's").to_string();
    assert!(strangers.contains("no such upload or review"), "{strangers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_event_was_lost_or_came_too_fast_is_told_from_one_that_is_sealed() {
    let slow = json!({ "limits": { "max_events_per_minute": 1 }, "suspended": true });
    let world = World::start(vec![tenant("acme", slow)], |setup| {
        // What the cloud does not tell is told below; and nobody walks meanwhile.
        setup.faults = FaultPlan { drop_notification: 1.0, ..FaultPlan::default() };
        setup.dispatcher.push(("CARREL_RECONCILE_MS".to_owned(), "600000".to_owned()));
    })
    .await;
    eventually("the first sweep", async || {
        (!world.names(CONTROL_BUCKET, "tenants/acme/sweep.json").await.is_empty()).then_some(())
    })
    .await;
    let sealed = "gs://acme-uploads/q3/sales.csv";
    world.put("acme", "q3/sales.csv", sales()).await;
    says(&world, sealed, &["The ledger holds nothing of this pack", "The sweep of the bucket finds it"]).await;
    world.api("acme").post("/v1/tenants/acme/reviews", "q3", &json!({ "pack": "q3" })).await.expect("taken");
    says(&world, sealed, &["sealed as revision 1", "somebody asked for a review"]).await;
    world.put("acme", "q3/sales.csv", sales()).await;
    let replaced = says(&world, sealed, &["No seal of the pack holds this version"]).await;
    assert!(!replaced.contains("revision 1"), "{replaced}");

    world.put("acme", "late/sales.csv", sales()).await;
    for (pack, words) in [("spent", "wait for its revision 1"), ("late", "is about to be listed")] {
        let name = format!("{pack}/sales.csv");
        let event = [("bucketId", "acme-uploads"), ("objectId", name.as_str()), ("objectGeneration", "1")];
        let kind = [("payloadFormat", "NONE"), ("eventType", "OBJECT_FINALIZE")];
        world.publish("uploads", "", &[&event[..], &kind[..]].concat()).await;
        says(&world, &format!("gs://acme-uploads/{name}"), &[words]).await;
    }
}
