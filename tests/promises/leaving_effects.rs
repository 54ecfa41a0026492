//! Every effect of a tenant's leaving: refused, throttled, lost, done twice, and the dispatcher killed before and after
//! it. Whichever it is, what waited is cancelled once, the ledger holds nothing more of the tenant, and its tombstone
//! stands.
//!
//! No worker runs: whoever leaves was suspended.

use std::collections::BTreeSet;

use carrel::plan::CONTROL_BUCKET;
use carrel_schemas::outcome::Verdict;
use futures::future::join_all;
use serde_json::json;

use crate::effects::{ONCE, Round};
use crate::files::sales;
use crate::leaving::rewrite;
use crate::line::{Armed, every_lasting_effect, fleet_by_line};
use crate::world::{World, eventually, tenant};

/// Fleets that share out the effects.
const FLEETS: usize = 3;
/// Tenants of a fleet, of each of whose leaving one effect fails; a few more than there are effects.
const LEAVERS: usize = 7;

/// Gives each tenant a letter, a review that waits, and a pack that is open.
async fn settle_in(world: &World, tenants: &[String]) {
    let holds_one = async |prefix: String| {
        eventually(&format!("one object at {prefix}"), async || {
            (world.names(CONTROL_BUCKET, &prefix).await.len() == 1).then_some(())
        })
        .await;
    };
    for id in tenants {
        world.upload(id, "empty", vec![]).await;
        world.upload(id, "waits", vec![("sales.csv", sales())]).await;
    }
    for id in tenants {
        for part in ["dead-letters", "reviews"] {
            holds_one(format!("tenants/{id}/{part}/")).await;
        }
        eventually("its packs closed", async || {
            world.names(CONTROL_BUCKET, &format!("open/packs/{id}/")).await.is_empty().then_some(())
        })
        .await;
        world.put(id, "open/sales.csv", sales()).await;
        holds_one(format!("open/packs/{id}/")).await;
    }
}

/// Returns once a tenant has left as one must. May be called again.
async fn ends_as_left(world: &World, id: &str, what: &str) {
    let got = world.completion(id, "waits").await.completion;
    let Verdict::Cancelled { reason } = &got.verdict else { panic!("{what}: {:?}", got.verdict) };
    assert_eq!(*reason, format!("tenant {id} is being deleted"), "{what}");
    let tombstone = format!("tombstones/{id}.json");
    eventually(&format!("{what}: {tombstone}"), async || {
        world.names(CONTROL_BUCKET, &tombstone).await.contains(&tombstone).then_some(())
    })
    .await;
    let prefixes = ["tenants/", "open/packs/", "open/reviews/"].map(|of| format!("{of}{id}/"));
    for prefix in prefixes.into_iter().chain([format!("open/sweeps/{id}.json")]) {
        let left = world.names(CONTROL_BUCKET, &prefix).await;
        assert!(left.is_empty(), "{what}: {left:?}");
    }
    assert_eq!(world.names(&format!("{id}-outputs"), "outcomes/").await.len(), 1, "{what}: it was decided once");
    let told = world.received().into_iter().map(|got| got.completion).filter(|told| told.tenant == got.tenant);
    assert_eq!(told.map(|told| told.event).collect::<BTreeSet<_>>().len(), 1, "{what}: it was told under one id");
}

/// Fails a share of the effects, one tenant each; returns how many there were.
async fn fail_a_share(round: Round, first: usize) -> usize {
    let effects = || (first..).step_by(FLEETS).take(LEAVERS);
    let ids: Vec<String> = effects().map(|at| format!("leaver-{at}")).collect();
    let tenants = ids.iter().map(|id| tenant(id, json!({ "suspended": true }))).collect();
    let (mut world, line) = fleet_by_line(every_lasting_effect, tenants, |setup| {
        // The collector, which takes a turn in five of these, finds a tenant under way at first.
        setup.dispatcher.push(("CARREL_RECONCILE_MS".to_owned(), "100".to_owned()));
    })
    .await;
    settle_in(&world, &ids).await;
    for (failed, (at, id)) in effects().zip(&ids).enumerate() {
        let fault = round[at % round.len()];
        let what = format!("{fault:?} at effect {at}");
        world.kill_dispatcher();
        rewrite(&world, |tenants| {
            // Whoever has left is out of the registry, or would be buried again at each start.
            tenants.retain(|tenant| tenant["deleting"] != json!(true));
            let leaver = tenants.iter_mut().find(|tenant| tenant["id"] == json!(id)).expect("it is known");
            leaver["deleting"] = json!(true);
        });
        line.arm(at, fault);
        world.restart_dispatcher().await;
        tokio::select! {
            () = line.holds() => {}
            () = ends_as_left(&world, id, &what) => {}
        }
        match line.disarm() {
            Armed::Unused => return failed,
            Armed::Failed => {}
            Armed::Holding => {
                world.kill_dispatcher();
                world.restart_dispatcher().await;
                ends_as_left(&world, id, &what).await;
            }
        }
    }
    panic!("{round:?}: a tenant leaves by more than {} effects", FLEETS * LEAVERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_of_its_leaving_fails_a_tenant_is_cancelled_once_and_erased() {
    let runs = ONCE.map(|round| async move {
        (round, join_all((0..FLEETS).map(|first| fail_a_share(round, first))).await.into_iter().sum::<usize>())
    });
    for (round, failed) in join_all(runs).await {
        // The outcome, settle, the log, publish, announced, finish, close pack; two seals, record, letter, the log; the
        // mark, the tombstone.
        assert!(failed >= 14, "{round:?}: a tenant leaves by only {failed} effects");
    }
}
