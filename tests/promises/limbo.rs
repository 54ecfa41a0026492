//! What cannot be moved on: filed once, tried on, and resolved by itself once what stood in its way is mended.

use std::time::{Duration, SystemTime};

use carrel::fleet::Part;
use carrel::plan::CONTROL_BUCKET;
use carrel_schemas::dead_letter::{DeadLetterClass, DeadLetterState};
use carrel_schemas::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::files::sales;
use crate::world::{Prepared, World, eventually, tenant};

#[tokio::test(flavor = "multi_thread")]
async fn what_lastingly_cannot_be_moved_on_is_filed_and_resolved_once_it_has_ended() {
    let prepared = Prepared::new(vec![tenant("acme", json!({})), tenant("bolt", json!({}))], |setup| {
        setup.dispatcher.push(("CARREL_STUCK_AFTER".to_owned(), "1s".to_owned()));
    });
    let config = prepared.fleet.dir().join("cloud.json");
    let whole = std::fs::read(&config).expect("written");
    // The dispatcher may not read what acme's workers decide, nor list what bolt uploads.
    prepared.reconfigure(|config| {
        config["bindings"].as_array_mut().expect("a list").retain(|binding: &Value| {
            let of = |bucket: &str, role: &str| {
                binding["resource"] == format!("projects/_/buckets/{bucket}") && binding["role"] == role
            };
            !of("acme-outputs", "roles/carrelDecider") && !of("bolt-uploads", "roles/carrelLister")
        });
    });
    let mut world = prepared.start().await;
    for who in ["acme", "bolt"] {
        world.upload(who, "q3", vec![("sales.csv", sales())]).await;
    }
    for (who, what) in [("acme", "could not be moved on since"), ("bolt", "\"q3\" could not be closed since")] {
        let letter = world.dead_letter(Some(who), what, |letter| letter.class == DeadLetterClass::Stuck).await;
        assert!(letter.reason.contains(what) && letter.state == DeadLetterState::Open, "{letter:?}");
    }
    let wish = json!({ "all": true, "dry_run": true });
    let forecast = world.operator().post("/v1/campaigns", "dry", &wish).await.expect("answered");
    assert_eq!(forecast["counts"], json!({ "already_done": 2 }), "a replay would not help: {forecast}");

    mend(&mut world, &whole).await;
    for who in ["acme", "bolt"] {
        assert_eq!(world.completion(who, "q3").await.completion.verdict.state(), "delivered");
        let resolved = |letter: &carrel_schemas::dead_letter::DeadLetter| letter.state == DeadLetterState::Resolved;
        let letter = world.dead_letter(Some(who), "the letter, resolved", resolved).await;
        assert!(letter.resolution.is_some_and(|how| how.contains("after all")));
        assert_eq!(world.dead_letters(Some(who)).await.len(), 1, "it was filed once");
    }
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_long_past_its_maximum_age_is_filed_whenever_its_dispatcher_was_started() {
    const LONG: Duration = Duration::from_secs(6);
    let policy = json!({ "policy": { "close": "marker", "max_age_seconds": 1 } });
    let prepared = Prepared::new(vec![tenant("acme", policy)], |setup| {
        setup.dispatcher.push(("CARREL_STUCK_AFTER".to_owned(), format!("{}s", LONG.as_secs())));
    });
    // The dispatcher may not list what acme uploads.
    prepared.reconfigure(|config| {
        config["bindings"].as_array_mut().expect("a list").retain(|binding: &Value| {
            binding["resource"] != "projects/_/buckets/acme-uploads" || binding["role"] != "roles/carrelLister"
        });
    });
    let mut world = prepared.start().await;
    world.put("acme", "q3/sales.csv", sales()).await;
    let open = eventually("an open pack", async || world.names(CONTROL_BUCKET, "open/packs/").await.pop()).await;
    let body = world.objects.get(CONTROL_BUCKET, &open, 1 << 20).await.expect("answered").expect("it is open");
    let body: Value = serde_json::from_slice(&body.bytes).expect("JSON");
    world.kill_dispatcher();
    let opened_at = body["opened_at"].as_str().expect("an instant");
    let closes_at = Timestamp::parse(opened_at).expect("an instant").plus(Duration::from_secs(1));
    eventually("its age", async || (Timestamp::from(SystemTime::now()).since(closes_at) > LONG).then_some(())).await;
    world.restart_dispatcher().await;
    let letter = world.dead_letter(Some("acme"), "its letter", |_| true).await;
    assert_eq!(letter.class, DeadLetterClass::Stuck);
    // Since then, and not since this dispatcher has seen it fail.
    assert!(letter.reason.contains(&format!("could not be closed since {closes_at}: ")), "{}", letter.reason);
}

/// Starts the fleet again with this cloud.
async fn mend(world: &mut World, config: &[u8]) {
    world.kill_dispatcher();
    world.fleet.kill(Part::Cloud).expect("it runs");
    std::fs::write(world.dir().join("cloud.json"), config).expect("written");
    world.restart_all().await;
    eventually("open packs and reviews", async || {
        (!world.names(CONTROL_BUCKET, "open/").await.is_empty()).then_some(())
    })
    .await;
}
