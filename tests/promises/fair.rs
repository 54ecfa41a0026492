//! A tenant that floods delays only itself, and the fleet stays below the cloud's quota.

use carrel::fleet::Setup;
use carrel::plan::CONTROL_BUCKET;
use serde_json::json;

use crate::files::sales;
use crate::line::{Armed, Fault, fleet_by_line, launches, openings, sweep_marks};
use crate::world::{World, eventually, tenant};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_floods_delays_only_itself() {
    const FLOOD: usize = 12;
    let one_slot = |setup: &mut Setup| setup.dispatcher.push(("CARREL_CAPACITY".to_owned(), "1".to_owned()));
    let greedy = json!({ "limits": { "max_concurrent": 100 } });
    let world = World::start(vec![tenant("flood", greedy), tenant("small", json!({}))], one_slot).await;
    for at in 0..FLOOD {
        world.upload("flood", &format!("pack-{at}"), vec![("sales.csv", sales())]).await;
    }
    let api = world.api("flood");
    eventually("every pack of the flood in the queue", async || {
        let page = api.get("/v1/tenants/flood/reviews").await.expect("the API answers");
        (page["reviews"].as_array().expect("a page").len() == FLOOD).then_some(())
    })
    .await;
    world.upload("small", "q3", vec![("sales.csv", sales())]).await;
    world.completion("small", "q3").await;
    let before = world.received().iter().filter(|got| got.completion.tenant.as_str() == "flood").count();
    assert!(before <= FLOOD / 2, "{before} of {FLOOD} packs of the flood went first");
    world.settled().await;
    assert_eq!(world.received().len(), FLOOD + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_above_a_tenants_rate_are_all_reviewed_and_cost_the_ledger_a_mark() {
    const FILES: usize = 40;
    // One event in ten seconds: all but one or two are left to the sweep.
    let flood = json!({
        "policy": { "close": "quiet", "quiet_seconds": 1 },
        "limits": { "max_events_per_minute": 6 },
    });
    let (world, marks) =
        fleet_by_line(sweep_marks, vec![tenant("flood", flood), tenant("calm", json!({}))], |_| {}).await;
    for at in 0..FILES {
        world.put("flood", &format!("pack-{}/{at}.csv", at % 4), sales()).await;
    }
    world.upload("calm", "q3", vec![("sales.csv", sales())]).await;
    assert_eq!(world.completion("calm", "q3").await.completion.verdict.state(), "delivered");
    world.settled().await;
    // A pack that was quiet for a second while its files were still coming in is closed again.
    let mut inputs = 0;
    for pack in 0..4 {
        let pack = format!("pack-{pack}");
        let all = eventually("every file of a pack in one review", async || {
            for got in world.received().into_iter().filter(|got| got.completion.pack.as_str() == pack) {
                let outcome = world.outcome(&got.completion).await;
                if outcome.verdict.state() == "delivered" && outcome.inputs.len() == FILES / 4 {
                    return Some(outcome.inputs.len());
                }
            }
            None
        });
        inputs += all.await;
    }
    assert_eq!(inputs, FILES);
    let marks = marks.seen();
    assert!((1..=8).contains(&marks), "{marks} marks for {FILES} uploads");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_above_a_tenants_rate_is_a_pack_of_its_own_still() {
    let flood = json!({
        "policy": { "close": "each" },
        "limits": { "max_events_per_minute": 1, "max_concurrent": 4 },
    });
    let (world, marks) = fleet_by_line(sweep_marks, vec![tenant("flood", flood)], |_| {}).await;
    for at in 0..6 {
        world.put("flood", &format!("drop/{at}.csv"), sales()).await;
    }
    for at in 0..6 {
        let got = world.completion("flood", &format!("drop/{at}.csv")).await;
        assert_eq!(got.completion.verdict.state(), "delivered");
    }
    world.settled().await;
    assert_eq!(world.received().len(), 6);
    assert!(marks.seen() >= 1, "nothing was left to the sweep");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_upload_whose_sweep_fails_is_swept_anew_and_reviewed() {
    let flood = json!({
        "policy": { "close": "quiet", "quiet_seconds": 1 },
        "limits": { "max_events_per_minute": 1 },
    });
    let (world, line) = fleet_by_line(openings, vec![tenant("flood", flood)], |_| {}).await;
    world.put("flood", "first/a.csv", sales()).await;
    world.completion("flood", "first").await;
    world.settled().await;
    // The minute's one event is spent, so only a sweep opens the next pack, and it is refused that once.
    line.arm(0, Fault::Forbidden);
    world.put("flood", "second/b.csv", sales()).await;
    assert_eq!(world.completion("flood", "second").await.completion.verdict.state(), "delivered");
    assert_eq!(line.disarm(), Armed::Failed);
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_whose_page_the_bucket_refuses_begins_anew() {
    let flood = json!({
        "policy": { "close": "quiet", "quiet_seconds": 1 },
        "limits": { "max_events_per_minute": 1 },
    });
    let world = World::start(vec![tenant("flood", flood)], |_| {}).await;
    world.put("flood", "first/a.csv", sales()).await;
    world.completion("flood", "first").await;
    world.settled().await;
    let cursor = "tenants/flood/sweep.json";
    eventually("a cycle that has ended", async || {
        (!world.names(CONTROL_BUCKET, cursor).await.is_empty()).then_some(())
    })
    .await;
    let midway = json!({ "page_token": "not a token of this bucket", "cycle_ended": null }).to_string();
    world.objects.put(CONTROL_BUCKET, cursor, midway.into(), "application/json").await.expect("written");
    world.put("flood", "second/b.csv", sales()).await;
    assert_eq!(world.completion("flood", "second").await.completion.verdict.state(), "delivered");
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_markers_delays_only_itself_and_hides_no_pack() {
    const MARKERS: usize = 40;
    let flood = json!({ "limits": { "max_events_per_minute": 6 } });
    let (world, opened) =
        fleet_by_line(openings, vec![tenant("flood", flood), tenant("calm", json!({}))], |_| {}).await;
    for at in 0..MARKERS {
        world.put("flood", &format!("empty-{at}/_COMPLETE"), Vec::new()).await;
    }
    world.upload("flood", "q3", vec![("sales.csv", sales())]).await;
    world.upload("calm", "q3", vec![("sales.csv", sales())]).await;
    for who in ["calm", "flood"] {
        assert_eq!(world.completion(who, "q3").await.completion.verdict.state(), "delivered");
    }
    world.settled().await;
    let opened = opened.seen();
    assert!(opened <= 10, "{opened} packs were opened for {MARKERS} markers without a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn launches_keep_their_pace_and_everything_else_goes_on_meanwhile() {
    // One launch in a minute: what is seen here takes seconds.
    let slow = |setup: &mut Setup| setup.dispatcher.push(("CARREL_LAUNCHES_PER_MINUTE".to_owned(), "1".to_owned()));
    let acme = tenant("acme", json!({ "limits": { "max_concurrent": 8 } }));
    let (world, line) = fleet_by_line(launches, vec![acme], slow).await;
    world.upload("acme", "first", vec![("sales.csv", sales())]).await;
    world.completion("acme", "first").await;
    for pack in ["second", "third"] {
        world.upload("acme", pack, vec![("sales.csv", sales())]).await;
    }
    let api = world.api("acme");
    let queued = eventually("both other packs queued", async || {
        let page = api.get("/v1/tenants/acme/reviews").await.expect("the API answers");
        let reviews = page["reviews"].as_array().expect("a page").clone();
        let queued: Vec<String> = reviews
            .iter()
            .filter(|review| review["status"] == "queued")
            .map(|review| review["pack"].as_str().expect("a pack").to_owned())
            .collect();
        (queued.len() == 2).then_some(queued)
    })
    .await;
    assert!(queued.contains(&"second".to_owned()) && queued.contains(&"third".to_owned()), "{queued:?}");
    assert_eq!(line.seen(), 1, "launches within the first minute");
}
