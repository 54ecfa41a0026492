//! Records that another version of the dispatcher wrote.

use carrel::plan::CONTROL_BUCKET;
use carrel_schemas::ids::{Epoch, EventId, ReviewId};
use serde_json::{Value, json};

use crate::world::{Prepared, eventually, tenant};

fn review(number: u8) -> ReviewId {
    ReviewId::parse(format!("rv_{number:032x}")).expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_an_earlier_dispatcher_is_carried_on_and_one_of_a_later_is_refused_by_name_and_left_alone() {
    let mut prepared = Prepared::new(vec![tenant("acme", json!({}))], |_| {});
    prepared.fleet.start_cloud().await.expect("the cloud starts");
    let objects = prepared.fleet.address().connector().objects().await.expect("a client");
    let (old, later) = (review(1), review(2));
    let name = |review: &ReviewId| format!("tenants/acme/reviews/{review}.json");
    // As the first dispatcher wrote it, and died before it told anybody; what it did not know yet is not there.
    let record = json!({
        "schema": 1, "review": old, "tenant": "acme", "pack": "q3", "revision": 1, "closed_by": "marker", "files": 1,
        "opened_at": "2026-02-01T10:00:00Z", "epoch": 1, "attempts": 0, "ended": [],
        "state": { "kind": "settled", "announced_at": null, "completion": {
            "schema": 1, "event": EventId::of(&old, Epoch::FIRST), "tenant": "acme", "review": old, "epoch": 1,
            "pack": "q3", "revision": 1, "outputs_bucket": "acme-outputs", "decided_at": "2026-02-01T10:01:00Z",
            "verdict": { "state": "cancelled", "reason": "sent by mistake" }, "invented": [3],
        } },
        "writer": "0".repeat(32), "invented_meanwhile": { "kept": [1, 2] },
    });
    let foreign = json!({ "schema": 7, "review": { "of": "another shape" } });
    for (review, record) in [(&old, &record), (&later, &foreign)] {
        let marker = json!({ "tenant": "acme", "review": review, "pack": "q3", "revision": 1 });
        let written = [(name(review), record), (format!("open/reviews/acme/{review}.json"), &marker)];
        for (name, body) in written {
            let wrote = objects.put(CONTROL_BUCKET, &name, body.to_string().into(), "application/json").await;
            wrote.expect("written");
        }
    }
    let read = async |review: &ReviewId| -> Value {
        let body = objects.get(CONTROL_BUCKET, &name(review), 1 << 20).await.expect("answered").expect("there");
        serde_json::from_slice(&body.bytes).expect("JSON")
    };
    let world = prepared.start_dispatcher().await;
    let told = world.completion("acme", "q3").await.completion;
    assert_eq!((&told.review, &told.unknown["invented"]), (&old, &json!([3])), "it is told whole");
    let open = eventually("the later one alone open", async || {
        Some(world.names(CONTROL_BUCKET, "open/").await).filter(|open| open.len() == 1)
    })
    .await;
    assert_eq!(open, [format!("open/reviews/acme/{later}.json")]);
    let rewritten = read(&old).await;
    assert!(rewritten["state"]["announced_at"].is_string(), "{rewritten}");
    assert_eq!(rewritten["invented_meanwhile"], json!({ "kept": [1, 2] }));
    assert_eq!(rewritten["state"]["completion"]["invented"], json!([3]));

    assert_eq!(read(&later).await, foreign);
    let told = format!("ledger object {} has schema 7, and this program reads up to 1", name(&later));
    eventually("its name in the log", async || {
        let log = std::fs::read_to_string(world.dir().join("logs/dispatcher.log")).expect("a log");
        log.contains(&told).then_some(())
    })
    .await;
    let listed = world.operator().reviews("acme").await.expect("its neighbours are not hidden");
    assert_eq!(listed.iter().map(|review| review.id.as_str()).collect::<Vec<_>>(), [old.as_str()]);
}
