//! Every call of a worker and every effect of the dispatcher: refused, lost, done twice, and the caller killed before
//! and after it. Whichever it is, the pack ends as it would have without.

use std::collections::BTreeSet;

use carrel::fleet::Setup;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterSource};
use carrel_schemas::outcome::{FailureClass, Verdict};
use futures::future::{FutureExt as _, LocalBoxFuture, join, join_all};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::files::sales;
use crate::gate::{agents, worker_above};
use crate::line::{Armed, Counts, Fault, Line, every_call, every_effect, launches, reads_of_outcomes};
use crate::world::{Prepared, World, processes_with, tenant};

const WANTED: [&str; 3] = ["appendix.xlsx", "deck.html", "findings.json"];

/// Returns once the pack has ended as every pack must: delivered whole, by one outcome, under one completion id.
async fn ends_as_ever(world: &World, tenant: &str, pack: &str, what: &str) {
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
    let path = prepared.fleet.dir().join("cloud.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("written")).expect("JSON");
    let jobs = config["jobs"].as_array_mut().expect("jobs");
    let job = jobs.iter_mut().find(|job| job["env"]["CARREL_TENANT"] == tenant).expect("the tenant's job");
    for service in ["CARREL_STORAGE_ENDPOINT", "CARREL_PUBSUB_ENDPOINT"] {
        job["env"][service] = json!(address);
    }
    // From its room a task reaches the cloud and what it is let reach.
    config["reach"].as_array_mut().expect("a list").push(json!(address.trim_start_matches("http://")));
    std::fs::write(&path, config.to_string()).expect("rewritten");
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
    let prepared = Prepared::new(Fault::ALL.map(|fault| tenant(&name(fault), json!({}))).to_vec(), |_| {});
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

/// A fleet whose dispatcher reaches the cloud by a line.
async fn by_line(counts: Counts, change: impl FnOnce(&mut Setup)) -> (World, Line) {
    let line = Line::open(counts).await;
    // A second attempt is allowed, so that the way to it is walked too.
    let prepared = Prepared::new(vec![tenant("acme", json!({ "limits": { "max_attempts": 2 } }))], |setup| {
        for service in ["CARREL_STORAGE_ENDPOINT", "CARREL_PUBSUB_ENDPOINT", "CARREL_RUN_ENDPOINT"] {
            setup.dispatcher.push((service.to_owned(), line.address()));
        }
        change(setup);
    });
    line.lead_to(&prepared.fleet.address().cloud);
    (prepared.start().await, line)
}

/// How a pack is to end: world, tenant, pack, and what was done to it.
type Ends = for<'a> fn(&'a World, &'a str, &'a str, &'a str) -> LocalBoxFuture<'a, ()>;

/// Fails every effect of the dispatcher in turn, one pack each; returns how many there were. Two fleets share them
/// out: most of a pack's time is pauses between attempts.
async fn fail_every_effect(fault: Fault, change: fn(&mut Setup), ends: Ends) -> usize {
    let (even, odd) = join(fail_every_other(fault, 0, change, ends), fail_every_other(fault, 1, change, ends)).await;
    even + odd
}

async fn fail_every_other(fault: Fault, first: usize, change: fn(&mut Setup), ends: Ends) -> usize {
    let (mut world, line) = by_line(every_effect, change).await;
    let mut at = first;
    loop {
        let (pack, what) = (format!("pack-{at}"), format!("{fault:?} at effect {at}"));
        line.arm(at, fault);
        world.upload("acme", &pack, vec![("sales.csv", sales())]).await;
        let ended = async {
            ends(&world, "acme", &pack, &what).await;
            world.settled().await;
        };
        tokio::select! {
            () = line.holds() => {}
            () = ended => {}
        }
        match line.disarm() {
            Armed::Unused => return (at - first) / 2,
            Armed::Failed => {}
            Armed::Holding => {
                world.kill_dispatcher();
                world.restart_dispatcher().await;
                ends(&world, "acme", &pack, &what).await;
                world.settled().await;
            }
        }
        at += 2;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_of_the_dispatcher_fails_the_pack_ends_the_same() {
    let ends: Ends = |world, tenant, pack, what| ends_as_ever(world, tenant, pack, what).boxed_local();
    let runs = Fault::ALL.map(|fault| async move { (fault, fail_every_effect(fault, |_| {}, ends).await) });
    for (fault, effects) in join_all(runs).await {
        // Open pack, seal, open review, record, worker's seal, authorise, run, started, settle, publish, announced,
        // finish, close pack.
        assert!(effects >= 12, "{fault:?}: the dispatcher had only {effects} effects");
    }
}

/// Returns once a pack whose worker always dies has ended as such packs must: failed once, under one id, and filed.
async fn ends_as_crashed(world: &World, tenant: &str, pack: &str, what: &str) {
    let got = world.completion(tenant, pack).await.completion;
    let crashed = matches!(got.verdict, Verdict::Failed { class: FailureClass::Crashed, .. });
    assert!(crashed, "{what}: {:?}", got.verdict);
    assert_eq!(world.names(&format!("{tenant}-outputs"), &format!("outcomes/{}", got.review)).await.len(), 1, "{what}");
    let its = |letter: &DeadLetter| matches!(&letter.source, DeadLetterSource::Review { review, .. } if *review == got.review);
    let letter = world.dead_letter(Some(tenant), what, its).await;
    assert_eq!(letter.class, DeadLetterClass::Crashed, "{what}");
    let of_it = world.received().into_iter().filter(|other| other.completion.review == got.review);
    assert_eq!(of_it.map(|other| other.completion.event).collect::<BTreeSet<_>>().len(), 1, "{what}");
}

/// Kills whichever worker has started its agent, for as long as it is polled.
async fn kill_every_worker(mark: &str) {
    // Ten fleets look through all processes at once; looking more often costs the fleets more than it wins.
    let mut turn = tokio::time::interval(std::time::Duration::from_millis(150));
    loop {
        turn.tick().await;
        for worker in agents(mark).into_iter().filter_map(worker_above) {
            match kill_process_group(worker, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => panic!("kill a worker: {error}"),
            }
        }
    }
}

async fn ends_though_workers_are_killed(world: &World, tenant: &str, pack: &str, what: &str) {
    let mark = world.dir().display().to_string();
    tokio::select! {
        () = ends_as_crashed(world, tenant, pack, what) => {}
        () = kill_every_worker(&mark) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_fails_a_pack_whose_worker_dies_is_failed_once() {
    // Its agent never ends by itself; each worker is killed as soon as it has come that far.
    let deadly = |setup: &mut Setup| {
        let script = format!(": {}\nwhile :; do sleep 60; done", setup.dir.display());
        setup.agent = ["/bin/sh", "-c", &script, "agent"].map(str::to_owned).to_vec();
    };
    let ends: Ends =
        |world, tenant, pack, what| ends_though_workers_are_killed(world, tenant, pack, what).boxed_local();
    let runs = Fault::ALL.map(|fault| async move { (fault, fail_every_effect(fault, deadly, ends).await) });
    for (fault, effects) in join_all(runs).await {
        // As above without delivery, and requeue, authorise, run, started once more, and the outcome and the letter.
        assert!(effects >= 16, "{fault:?}: the dispatcher had only {effects} effects");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_may_not_be_read_for_a_while_is_waited_for() {
    let (world, line) = by_line(reads_of_outcomes, |_| {}).await;
    let mut at = 0;
    loop {
        let (pack, what) = (format!("pack-{at}"), format!("forbidden at read {at}"));
        line.arm(at, Fault::Forbidden);
        world.upload("acme", &pack, vec![("sales.csv", sales())]).await;
        ends_as_ever(&world, "acme", &pack, &what).await;
        if line.disarm() == Armed::Unused {
            break;
        }
        at += 1;
    }
    assert!(at >= 2, "an outcome is looked for before the launch and after the worker's word");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_is_denied_or_put_off_is_made_again_and_one_that_is_refused_is_told() {
    let (world, line) = by_line(launches, |_| {}).await;
    for fault in [Fault::Throttled, Fault::Forbidden] {
        let (pack, what) = (format!("{fault:?}").to_lowercase(), format!("{fault:?}"));
        line.arm(0, fault);
        world.upload("acme", &pack, vec![("sales.csv", sales())]).await;
        ends_as_ever(&world, "acme", &pack, &what).await;
        assert_eq!(line.disarm(), Armed::Failed, "{what}");
    }
    line.arm(0, Fault::Malformed);
    world.upload("acme", "refused", vec![("sales.csv", sales())]).await;
    let got = world.completion("acme", "refused").await.completion;
    let refused = matches!(got.verdict, Verdict::Failed { class: FailureClass::CloudRefused, .. });
    assert!(refused, "{:?}", got.verdict);
    let of_it = |letter: &DeadLetter| letter.class == DeadLetterClass::CloudRefused;
    world.dead_letter(Some("acme"), "its letter", of_it).await;
    world.settled().await;
}
