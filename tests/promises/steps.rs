//! Every call of a worker: refused, throttled, lost, done twice, and the worker killed before and after it. Whichever
//! it is, the pack ends as it would have without, on a cloud that repeats and reorders messages.

use std::collections::BTreeSet;

use carrel_schemas::outcome::Verdict;
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use crate::effects::unruly;
use crate::files::sales;
use crate::line::{Armed, Fault, Line, every_call};
use crate::world::{Prepared, World, processes_with, tenant};

const WANTED: [&str; 3] = ["appendix.xlsx", "deck.html", "findings.json"];

/// Returns once the pack has ended as every pack must: delivered whole, by one outcome, under one completion id.
pub(crate) async fn ends_as_ever(world: &World, tenant: &str, pack: &str, what: &str) {
    let got = world.completion(tenant, pack).await.completion;
    let Verdict::Delivered { files, .. } = &got.verdict else { panic!("{what}: {:?}", got.verdict) };
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, WANTED, "{what}");
    let bucket = format!("{tenant}-outputs");
    for file in files {
        let body = world.objects.get(&bucket, file.object.as_str(), file.size).await.expect("answered");
        let bytes = body.unwrap_or_else(|| panic!("{what}: {} is missing", file.object)).bytes;
        assert_eq!(bytes.len() as u64, file.size, "{what}: {}", file.object);
    }
    assert_eq!(world.names(&bucket, &format!("outcomes/{}", got.review)).await.len(), 1, "{what}");
    let ids: BTreeSet<_> = world
        .received()
        .into_iter()
        .map(|got| got.completion)
        .filter(|other| other.tenant == got.tenant && other.pack == got.pack)
        .map(|other| other.event)
        .collect();
    assert_eq!(ids.len(), 1, "{what}");
}

/// The worker that runs for a tenant now: the process whose environment names it.
fn worker_of(tenant: &str) -> Pid {
    let found = processes_with(&format!("CARREL_TENANT={tenant}"));
    assert_eq!(found.len(), 1, "one worker runs for {tenant}");
    found[0].0
}

/// Gives the workers of a tenant another way to the cloud.
fn reroute(prepared: &Prepared, tenant: &str, address: &str) {
    prepared.reconfigure(|config| {
        let jobs = config["jobs"].as_array_mut().expect("jobs");
        let job = jobs.iter_mut().find(|job| job["env"]["CARREL_TENANT"] == tenant).expect("the tenant's job");
        for service in ["CARREL_STORAGE_ENDPOINT", "CARREL_PUBSUB_ENDPOINT"] {
            job["env"][service] = json!(address);
        }
        // From its room a task reaches the cloud and what it is let reach.
        config["reach"].as_array_mut().expect("a list").push(json!(address.trim_start_matches("http://")));
    });
}

/// Fails every call of a worker in turn, one review each; returns how many there were.
async fn fail_every_call(world: &World, tenant: &str, line: &Line, fault: Fault) -> usize {
    let mut at = 0;
    loop {
        let (pack, what) = (format!("pack-{at}"), format!("{fault:?} at call {at}"));
        line.arm(at, fault);
        world.upload(tenant, &pack, vec![("sales.csv", sales())]).await;
        tokio::select! {
            () = line.holds() => {}
            () = ends_as_ever(world, tenant, &pack, &what) => {}
        }
        match line.disarm() {
            Armed::Unused => return at,
            Armed::Failed => {}
            Armed::Holding => {
                kill_process_group(worker_of(tenant), Signal::KILL).expect("the worker runs");
                ends_as_ever(world, tenant, &pack, &what).await;
            }
        }
        at += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_call_of_a_worker_fails_the_pack_ends_the_same() {
    let name = |fault: Fault| format!("{fault:?}").to_lowercase();
    let tenants = Fault::ALL.map(|fault| tenant(&name(fault), json!({}))).to_vec();
    let prepared = Prepared::new(tenants, |setup| setup.faults = unruly());
    let mut lines = Vec::new();
    for fault in Fault::ALL {
        let line = Line::open(every_call).await;
        line.lead_to(&prepared.fleet.address().cloud);
        reroute(&prepared, &name(fault), &line.address());
        lines.push((fault, line));
    }
    let world = prepared.start().await;
    let runs = lines.iter().map(|(fault, line)| {
        let world = &world;
        async move { (*fault, fail_every_call(world, &name(*fault), line, *fault).await) }
    });
    for (fault, calls) in join_all(runs).await {
        // Seal, outcome, claim, members, listing, three deliveries, outcome, announcement.
        assert!(calls >= 10, "{fault:?}: a worker made only {calls} calls");
    }
    world.settled().await;
}
