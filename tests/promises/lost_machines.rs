//! Processes that die as lost machines do, at a known place on the way.
//!
//! The agent is a gate, so that what is killed is killed in the middle of a review and not by luck.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use carrel::fleet::Part;
use carrel::plan;
use carrel_schemas::outcome::{FailureClass, Verdict};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

use crate::files::sales;
use crate::gate::Gate;
use crate::world::{Prepared, World, eventually, processes_with, program, tenant};

async fn gated(changes: serde_json::Value) -> (World, Gate) {
    let mut gate = None;
    let world = World::start(vec![tenant("acme", changes)], |setup| {
        gate = Some(Gate::install(setup));
    })
    .await;
    (world, gate.expect("installed"))
}

fn attempt_of(verdict: &carrel_schemas::outcome::DecidedBy) -> u32 {
    match verdict {
        carrel_schemas::outcome::DecidedBy::Worker { attempt, .. } => attempt.get(),
        carrel_schemas::outcome::DecidedBy::Dispatcher => panic!("a worker decides a delivery"),
    }
}

/// The processes that serve volumes of this fleet's cloud.
fn volumes(world: &World) -> Vec<u32> {
    let cloud = &world.fleet.address().cloud;
    let processes = std::fs::read_dir("/proc").expect("/proc").map(|entry| entry.expect("an entry").path());
    let serves = |process: &Path| {
        let line = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        words.windows(2).any(|pair| pair == ["internal", "volume"]) && words.contains(&cloud.as_str())
    };
    let found: Vec<u32> = processes
        .filter(|process| serves(process))
        .filter_map(|process| process.file_name()?.to_str()?.parse().ok())
        .collect();
    assert_eq!(found.is_empty(), !world.fleet.shows_files(), "{found:?}");
    found
}

/// Whose task is gone is gone, too: whatever is served now is another's.
async fn all_end(world: &World, served: &[u32]) {
    let cloud = world.fleet.address().cloud.clone();
    eventually("the end of whoever served the volumes", async || {
        let lives = |number: &u32| {
            let line = std::fs::read_to_string(format!("/proc/{number}/cmdline")).unwrap_or_default();
            line.contains(&cloud)
        };
        (!served.iter().any(lives)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_replaced_and_the_pack_is_delivered_once() {
    let (world, gate) = gated(json!({})).await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let worker = gate.is_reached_by(1).await[0];
    let served = volumes(&world);
    kill_process_group(worker, Signal::KILL).expect("the worker runs");
    gate.is_reached_by(2).await;
    all_end(&world, &served).await;
    let _open = gate.open();
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    assert_eq!(attempt_of(&world.outcome(&got.completion).await.decided_by), 2);
    world.settled().await;
    assert_eq!(world.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_always_dies_ends_as_crashed_in_the_dead_letters() {
    let (world, gate) = gated(json!({ "limits": { "max_attempts": 2 } })).await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    for attempt in 1..=2 {
        let workers = gate.is_reached_by(attempt).await;
        for worker in workers {
            match kill_process_group(worker, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => panic!("kill the worker: {error}"),
            }
        }
    }
    let got = world.completion("acme", "q3").await;
    let crashed = matches!(got.completion.verdict, Verdict::Failed { class: FailureClass::Crashed, .. });
    assert!(crashed, "{:?}", got.completion.verdict);
    let letter =
        world.dead_letter(Some("acme"), "its letter", |letter| letter.reason.contains("without an outcome")).await;
    assert_eq!(letter.tenant.expect("a tenant").as_str(), "acme");
    let of_each = [letter.attempts[0].evidence.clone(), letter.evidence];
    for evidence in of_each.map(|evidence| evidence.expect("what each attempt left behind")) {
        assert!(evidence.exit.is_some() && evidence.stage.is_some(), "{evidence:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_before_and_during_a_review_loses_nothing() {
    let (mut world, gate) = gated(json!({})).await;
    world.kill_dispatcher();
    world.upload("acme", "before", vec![("sales.csv", sales())]).await;
    world.restart_dispatcher().await;
    gate.is_reached_by(1).await;
    world.kill_dispatcher();
    world.upload("acme", "during", vec![("sales.csv", sales())]).await;
    let _open = gate.open();
    world.restart_dispatcher().await;
    for pack in ["before", "during"] {
        let got = world.completion("acme", pack).await;
        assert_eq!(got.completion.verdict.state(), "delivered", "{pack}");
    }
    world.settled().await;
    let mut events: Vec<_> = world.received().into_iter().map(|got| got.completion.event).collect();
    events.sort();
    events.dedup();
    assert_eq!(events.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_machine_lost_in_the_middle_of_a_review_goes_on_where_it_stood() {
    let (mut world, gate) = gated(json!({})).await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let worker = gate.is_reached_by(1).await[0];
    let served = volumes(&world);
    world.fleet.kill(Part::Cloud).expect("it runs");
    all_end(&world, &served).await;
    world.kill_dispatcher();
    world.restart_all().await;
    // The lost cloud's task must not act beside its successor's: the new cloud has ended it.
    eventually("the end of the former worker", async || {
        matches!(kill_process(worker, Signal::CONT), Err(rustix::io::Errno::SRCH)).then_some(())
    })
    .await;
    let _open = gate.open();
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    world.settled().await;
    assert_eq!(world.names("acme-outputs", "outcomes/").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_doubled_launch_the_one_that_acts_is_waited_for() {
    const PACKS: usize = 6;
    let mut gate = None;
    let one_try = json!({ "limits": { "max_attempts": 1, "max_concurrent": PACKS } });
    let world = World::start(vec![tenant("acme", one_try)], |setup| {
        setup.faults.double_launch = 1.0;
        gate = Some(Gate::install(setup));
    })
    .await;
    let gate = gate.expect("installed");
    for at in 0..PACKS {
        world.upload("acme", &format!("pack-{at}"), vec![("sales.csv", sales())]).await;
    }
    gate.is_reached_by(PACKS).await;
    let jobs = world.fleet.address().connector().jobs().await.expect("a client");
    let job = plan::tenant("acme")["job"].as_str().expect("a job").to_owned();
    assert_eq!(jobs.executions(&job).await.expect("answered").len(), 2 * PACKS, "every launch was doubled");
    // The twins have stood down by now or soon; each record comes to name the execution that holds the claim.
    let read = async |bucket: &str, name: &str| -> Value {
        let body = world.objects.get(bucket, name, 1 << 20).await.expect("answered").expect("there");
        serde_json::from_slice(&body.bytes).expect("JSON")
    };
    eventually("every record to follow the claim", async || {
        for name in world.names(plan::CONTROL_BUCKET, "tenants/acme/reviews/").await {
            let record = read(plan::CONTROL_BUCKET, &name).await;
            let review = record["review"].as_str().expect("an id");
            let claim = read("acme-outputs", &format!("claims/{review}/1-1.json")).await;
            if record["state"]["execution"] != claim["holder"]["execution"] {
                return None;
            }
        }
        Some(())
    })
    .await;
    let _open = gate.open();
    for at in 0..PACKS {
        let got = world.completion("acme", &format!("pack-{at}")).await;
        assert_eq!(got.completion.verdict.state(), "delivered", "pack-{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_gives_away_no_slot_that_is_taken() {
    const PACKS: usize = 4;
    let one = json!({ "limits": { "max_concurrent": 1 } });
    let mut gate = None;
    let mut world = World::start(vec![tenant("acme", one), tenant("bolt", json!({}))], |setup| {
        gate = Some(Gate::install(setup));
    })
    .await;
    let gate = gate.expect("installed");
    for at in 0..PACKS {
        world.upload("acme", &format!("pack-{at}"), vec![("sales.csv", sales())]).await;
    }
    gate.is_reached_by(1).await;
    world.kill_dispatcher();
    world.upload("bolt", "q3", vec![("sales.csv", sales())]).await;
    world.restart_dispatcher().await;
    // The new leader launches again: by now it has seen who runs.
    gate.is_reached_by(2).await;
    assert_eq!(world.names("acme-outputs", "claims/").await.len(), 1, "one review of acme at once");
    let _open = gate.open();
    for at in 0..PACKS {
        assert_eq!(world.completion("acme", &format!("pack-{at}")).await.completion.verdict.state(), "delivered");
    }
    world.settled().await;
}

/// Starts a second dispatcher beside a fleet's first, whose process it names too.
async fn second_dispatcher(world: &World) -> (Pid, Child) {
    let ready = |name: &str| world.dir().canonicalize().expect("it exists").join(name).display().to_string();
    let (first, second) = (ready("dispatcher.ready"), ready("second.ready"));
    let mut dispatchers = processes_with(&format!("CARREL_READY_FILE={first}"));
    let (first, mut environment) = dispatchers.pop().expect("it runs");
    environment.insert("CARREL_REPLICA".to_owned(), "second".to_owned());
    environment.insert("CARREL_READY_FILE".to_owned(), second.clone());
    let mut command = Command::new(program());
    command.args(["internal", "dispatcher"]).env_clear().envs(environment).stderr(Stdio::null());
    let another = command.spawn().expect("it starts");
    eventually("a second dispatcher", async || Path::new(&second).exists().then_some(())).await;
    (first, another)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_comes_back_whichever_dispatcher_saw_its_review_to_the_end() {
    // Each outcome is heard of by either; only one of them gives slots away, and there is one slot.
    let world = World::start(vec![tenant("acme", json!({ "limits": { "max_concurrent": 1 } }))], |_| {}).await;
    let (_first, mut another) = second_dispatcher(&world).await;
    for at in 0..8 {
        world.upload("acme", &format!("pack-{at}"), vec![("sales.csv", sales())]).await;
    }
    for at in 0..8 {
        assert_eq!(world.completion("acme", &format!("pack-{at}")).await.completion.verdict.state(), "delivered");
    }
    world.settled().await;
    another.kill().and_then(|()| another.wait()).expect("it runs until now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_is_asked_to_end_drains_and_another_leads_on() {
    let (mut world, gate) = gated(json!({})).await;
    let (first, mut another) = second_dispatcher(&world).await;

    world.upload("acme", "before", vec![("sales.csv", sales())]).await;
    gate.is_reached_by(1).await;
    kill_process(first, Signal::TERM).expect("it runs");
    let ended = eventually("its end", async || world.fleet.check().err()).await.to_string();
    assert!(ended.contains("exit status: 0"), "{ended}");
    world.upload("acme", "after", vec![("sales.csv", sales())]).await;
    gate.is_reached_by(2).await;
    let _open = gate.open();
    for pack in ["before", "after"] {
        assert_eq!(world.completion("acme", pack).await.completion.verdict.state(), "delivered", "{pack}");
    }
    world.settled().await;
    assert_eq!(world.received().len(), 2);
    another.kill().and_then(|()| another.wait()).expect("it runs until now");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_notification_was_lost_is_found_by_the_sweep() {
    let mut prepared = Prepared::new(vec![tenant("acme", json!({}))], |_| {});
    prepared.fleet.start_cloud().await.expect("the cloud starts");
    let address = prepared.fleet.address().clone();
    // A subscription that is made anew holds nothing that was published before.
    let url = format!("{}/v1/projects/{}/subscriptions/uploads-dispatcher", address.cloud, plan::PROJECT);
    let http = reqwest::Client::builder().no_proxy();
    let objects = address.connector().objects().await.expect("a storage client");
    let http = http.build().expect("a client");
    for name in ["q3/sales.csv", "q3/_COMPLETE"] {
        objects.put("acme-uploads", name, sales().into(), "text/csv").await.expect("uploaded");
    }
    let lost = http.delete(&url).bearer_auth(&address.owner_token).send().await.expect("answered");
    assert!(lost.status().is_success(), "{lost:?}");
    let topic = format!("projects/{}/topics/uploads", plan::PROJECT);
    let made = http.put(&url).bearer_auth(&address.owner_token).json(&json!({ "topic": topic })).send();
    assert!(made.await.expect("answered").status().is_success());

    let world = prepared.start_dispatcher().await;
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_loses_a_file_during_its_review_is_reviewed_without_it() {
    // A deletion sends no event; whoever finds it opens the pack again.
    let (world, gate) = gated(json!({ "policy": { "close": "quiet", "quiet_seconds": 1 } })).await;
    world.put("acme", "q3/kept.csv", sales()).await;
    world.put("acme", "q3/lost.csv", sales()).await;
    gate.is_reached_by(1).await;
    world.objects.delete("acme-uploads", "q3/lost.csv", None).await.expect("deleted");
    let _open = gate.open();
    let got = eventually("the review of what is left", async || {
        world.received().into_iter().find(|got| got.completion.verdict.state() == "delivered")
    })
    .await;
    let inputs = world.outcome(&got.completion).await.inputs;
    assert_eq!(inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>(), ["q3/kept.csv"]);
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaced_or_deleted_during_its_review_is_never_delivered_as_sealed() {
    let (world, gate) = gated(json!({})).await;
    world.upload("acme", "replaced", vec![("sales.csv", sales())]).await;
    world.upload("acme", "deleted", vec![("sales.csv", sales()), ("other.csv", sales())]).await;
    gate.is_reached_by(2).await;
    world.put("acme", "replaced/sales.csv", sales()).await;
    world.objects.delete("acme-uploads", "deleted/other.csv", None).await.expect("deleted");
    let _open = gate.open();
    for (pack, name) in [("replaced", "replaced/sales.csv"), ("deleted", "deleted/other.csv")] {
        let got = world.completion("acme", pack).await;
        let Verdict::InputsChanged { changed } = &got.completion.verdict else {
            panic!("{:?}", got.completion.verdict)
        };
        assert_eq!(changed.iter().map(|name| name.as_str()).collect::<Vec<_>>(), [name]);
    }
    // What lies there now is reviewed once the customer says that it is complete.
    world.put("acme", "replaced/_COMPLETE", Vec::new()).await;
    eventually("the review of what replaced it", async || {
        world
            .received()
            .into_iter()
            .find(|got| got.completion.pack.as_str() == "replaced" && got.completion.verdict.state() == "delivered")
    })
    .await;
}
