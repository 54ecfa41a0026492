//! Many packs while everything that may go wrong does: the fleet's two first promises, counted.

use std::collections::{BTreeMap, BTreeSet};

use carrel_local::faults::FaultPlan;
use carrel_schemas::outcome::Verdict;
use serde_json::json;

use crate::files::sales;
use crate::world::{World, eventually, tenant};

const TENANTS: [&str; 4] = ["acme", "bolt", "corner", "dime"];
const PACKS: usize = 50;

/// Messages are duplicated, held back, reordered and delivered after their acknowledgement; replies are lost after the
/// work was done; launches are doubled; tasks are killed.
fn faults() -> FaultPlan {
    FaultPlan {
        seed: 20_260_401,
        duplicate: 0.2,
        delay: 0.3,
        delay_ms: 200,
        redeliver: 0.2,
        lose_reply: 0.02,
        double_launch: 0.2,
        kill_task: 0.1,
        kill_after_ms: 150,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_packs_in_a_storm_have_one_outcome_and_one_completion_id_each() {
    let generous = json!({ "limits": { "max_attempts": 50, "max_concurrent": 4 } });
    let tenants = TENANTS.iter().map(|id| tenant(id, generous.clone())).collect();
    let mut world = World::start(tenants, |setup| setup.faults = faults()).await;
    let wanted: BTreeSet<(String, String)> =
        TENANTS.iter().flat_map(|id| (0..PACKS).map(|n| ((*id).to_owned(), format!("pack-{n:03}")))).collect();
    for (at, (tenant, pack)) in wanted.iter().enumerate() {
        world.upload(tenant, pack, vec![("sales.csv", sales())]).await;
        if at % 60 == 30 {
            world.kill_dispatcher();
            world.restart_dispatcher().await;
        }
    }
    let arrived = |world: &World| -> BTreeSet<(String, String)> {
        let got = world.received().into_iter().map(|got| got.completion);
        got.map(|completion| (completion.tenant.to_string(), completion.pack.to_string())).collect()
    };
    for share in [4, 2] {
        eventually(&format!("one pack in {share} completed"), async || {
            (arrived(&world).len() * share >= wanted.len()).then_some(())
        })
        .await;
        world.kill_dispatcher();
        world.restart_dispatcher().await;
    }
    eventually("every pack completed", async || (arrived(&world) == wanted).then_some(())).await;
    world.settled().await;

    let mut events: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for got in world.received() {
        let Verdict::Delivered { files, .. } = &got.completion.verdict else {
            panic!("{}/{}: {:?}", got.completion.tenant, got.completion.pack, got.completion.verdict)
        };
        assert!(!files.is_empty());
        let key = (got.completion.tenant.to_string(), got.completion.pack.to_string());
        events.entry(key).or_default().insert(got.completion.event);
    }
    assert!(events.values().all(|ids| ids.len() == 1), "a pack with two completion ids: {events:?}");
    for id in TENANTS {
        assert_eq!(world.names(&format!("{id}-outputs"), "outcomes/").await.len(), PACKS, "outcomes of {id}");
        let reviews = world.operator().reviews(id).await.expect("answered");
        assert!(reviews.len() == PACKS && reviews.iter().all(|review| review.status == "delivered"), "{reviews:?}");
    }
}
