//! Many packs while everything that may go wrong does: the fleet's two first promises, counted.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use carrel::fleet::Part;
use carrel::plan;
use carrel_local::faults::FaultPlan;
use carrel_schemas::outcome::Verdict;
use serde_json::json;

use crate::files::sales;
use crate::world::{World, eventually, tenant};

const TENANTS: [&str; 4] = ["acme", "bolt", "corner", "dime"];
/// Packs at least between two kills of the dispatcher.
const KILL_EVERY: usize = 60;
/// Kills while packs are uploaded, and as many while they are reviewed.
const MOST_KILLS: usize = 50;

/// Messages are duplicated, held back, reordered, taken back early and delivered after their acknowledgement; events of
/// uploads are lost for good; requests are refused in bursts, replies lost after the work was done; streams hold still and
/// reads break off; launches are doubled; tasks are killed.
fn faults(seed: u64) -> FaultPlan {
    FaultPlan {
        seed,
        duplicate: 0.2,
        delay: 0.3,
        delay_ms: 200,
        redeliver: 0.2,
        lose_reply: 0.02,
        double_launch: 0.2,
        kill_task: 0.1,
        kill_after_ms: 150,
        drop_notification: 0.02,
        refuse: 0.004,
        refuse_burst: 3,
        stall: 0.01,
        stall_ms: 100,
        truncate: 0.02,
        expire: 0.05,
        expire_ms: 500,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_packs_in_a_storm_have_one_outcome_and_one_completion_id_each() {
    storm(20_260_401, 50).await;
}

/// `CARREL_SOAK_SEED=7 CARREL_SOAK_PACKS=2500 cargo test --test promises -- --ignored --nocapture soak`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is asked to: CARREL_SOAK_PACKS per tenant"]
async fn soak() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let seed = number("CARREL_SOAK_SEED").unwrap_or_else(rand::random);
    let packs = number("CARREL_SOAK_PACKS").unwrap_or(500);
    println!("seed {seed}: {} tenants of {packs} packs each", TENANTS.len());
    let began = std::time::Instant::now();
    let told = storm(seed, usize::try_from(packs).expect("that many")).await;
    println!("{told} in {} s", began.elapsed().as_secs());
}

/// Sends the packs through the storm, killing the dispatcher on the way; returns what was counted.
async fn storm(seed: u64, packs: usize) -> String {
    let generous = json!({ "limits": { "max_attempts": 50, "max_concurrent": 4 } });
    let tenants = TENANTS.iter().map(|id| tenant(id, generous.clone())).collect();
    let mut world = World::start(tenants, |setup| {
        setup.faults = faults(seed);
        setup.dispatcher.push(("CARREL_RECONCILE_MS".to_owned(), "1000".to_owned()));
        setup.dispatcher.push(("CARREL_LOG".to_owned(), "info,carrel_dispatcher::reconcile=debug".to_owned()));
    })
    .await;
    let pack = |at: usize| (TENANTS[at % TENANTS.len()].to_owned(), format!("pack-{:05}", at / TENANTS.len()));
    let wanted: BTreeSet<(String, String)> = (0..packs * TENANTS.len()).map(pack).collect();
    let kill_every = KILL_EVERY.max(wanted.len().div_ceil(MOST_KILLS));
    let mut kills = 0;
    for at in 0..wanted.len() {
        let (tenant, pack) = pack(at);
        world.upload(&tenant, &pack, vec![("sales.csv", sales())]).await;
        if at % kill_every == kill_every / 2 {
            world.kill_dispatcher();
            world.restart_dispatcher().await;
            kills += 1;
        }
    }
    // Whoever counts on a notification alone waits for good; a sweep, which a flood brings about, finds the rest.
    for id in TENANTS {
        let mark = Bytes::from(json!({ "tenant": id }).to_string());
        let name = format!("open/sweeps/{id}.json");
        world.objects.put(plan::CONTROL_BUCKET, &name, mark, "application/json").await.expect("the sweep is marked");
    }
    let arrived = |world: &World| -> BTreeSet<(String, String)> {
        let got = world.received().into_iter().map(|got| got.completion);
        got.map(|completion| (completion.tenant.to_string(), completion.pack.to_string())).collect()
    };
    for goal in (0..wanted.len()).step_by(KILL_EVERY) {
        eventually(&format!("{goal} packs completed"), async || (arrived(&world).len() >= goal).then_some(())).await;
        if goal % kill_every < KILL_EVERY && arrived(&world).len() < wanted.len() {
            world.kill_dispatcher();
            world.restart_dispatcher().await;
            kills += 1;
        }
    }
    eventually("every pack completed", async || (arrived(&world) == wanted).then_some(())).await;
    let walks = after_the_storm(&mut world).await;
    assert!(walks <= 2, "something was stuck until the reconciler's walk {walks}");
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
        assert_eq!(world.names(&format!("{id}-outputs"), "outcomes/").await.len(), packs, "outcomes of {id}");
        let reviews = world.operator().reviews(id).await.expect("answered");
        assert!(reviews.len() == packs && reviews.iter().all(|review| review.status == "delivered"), "{reviews:?}");
    }
    let (total, received) = (wanted.len(), world.received().len());
    assert!(received > total, "no completion came twice: the storm did not blow");
    let jobs = world.fleet.address().connector().jobs().await.expect("a client");
    for id in TENANTS {
        let job = plan::tenant(id)["job"].as_str().expect("a job").to_owned();
        // The cloud keeps the last thousand of a job; their first argument names the review.
        let launched = jobs.executions(&job).await.expect("answered");
        let reviews: BTreeSet<_> = launched.iter().map(|execution| &execution.args[1]).collect();
        assert!(launched.len() > reviews.len(), "no launch of {id} was doubled or repeated: the storm did not blow");
    }
    format!(
        "{total} packs delivered, each by one outcome under one completion id; {received} events received, the dispatcher killed {kills} times, nothing \
         open after the reconciler's walk {walks}"
    )
}

/// Once every pack was told of: loses the whole machine once more, without any fault after that, and returns how many walks of
/// the reconciler were needed before nothing was left open of what the storm had left.
async fn after_the_storm(world: &mut World) -> usize {
    let walked = |world: &World| -> Vec<bool> {
        let log = std::fs::read_to_string(world.dir().join("logs/dispatcher.log")).expect("a log");
        let walks = log.lines().filter(|line| line.contains("carrel_dispatcher::reconcile: walked "));
        walks.map(|line| line.contains("reviews=0 packs=0")).collect()
    };
    world.kill_dispatcher();
    world.fleet.kill(Part::Cloud).expect("it runs");
    world.reconfigure(|config| config["faults"] = json!({}));
    let before = walked(world).len();
    world.restart_all().await;
    eventually("a walk that finds nothing", async || walked(world)[before..].iter().position(|nothing| *nothing)).await
}
