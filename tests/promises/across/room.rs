//! A task that was taken over: `taken_over.py` runs as the job of both tenants, each in its room, and what the attacker
//! gets of every attack is held against exactly what it must get.

use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use carrel::plan;
use carrel_schemas::outcome::{FailureClass, Verdict};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::wire::Call;
use super::{ATTACKER, VICTIM, owner, token, two};
use crate::files::sales;
use crate::world::{Prepared, World, descends_from, eventually, parent, processes_with, program};

const PYTHON: &str = "/usr/bin/python3";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promises/across/taken_over.py")
}

fn can_be_run() -> bool {
    let there = Path::new(PYTHON).exists();
    if !there {
        writeln!(std::io::stderr(), "SKIPPED: {PYTHON} is missing; install python3").expect("stderr");
    }
    there
}

/// Starts a tenant's job as it is, told its goals.
async fn run(world: &World, tenant: &str, goals: &Value) {
    let job = format!("projects/{}/locations/{}/jobs/review-{tenant}", plan::PROJECT, plan::LOCATION);
    let env = json!([{ "name": "GOALS", "value": goals.to_string() }]);
    let overrides = json!({ "overrides": { "containerOverrides": [{ "env": env }] } });
    let answer = owner(world).call(Call::post(format!("/v2/{job}:run"), overrides.to_string())).await;
    assert_eq!(answer.code, 200, "{answer:?}");
}

/// What a task has kept in its tenant's outputs bucket.
async fn kept(world: &World, tenant: &str, name: &str) -> Value {
    let bucket = format!("{tenant}-outputs");
    let body = eventually(&format!("{name} of {tenant}'s task"), async || {
        world.objects.get(&bucket, name, 1 << 20).await.expect("answered")
    })
    .await;
    serde_json::from_slice(&body.bytes).expect("JSON")
}

fn port(address: &str) -> u16 {
    address.rsplit_once(':').expect("a port").1.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_taken_over_reaches_nothing_outside_its_room_but_its_own() {
    if !can_be_run() {
        return;
    }
    let prepared = Prepared::new(two(json!({})), |_| {});
    let script = script();
    prepared.reconfigure(|config| {
        let image = &mut config["images"]["carrel/worker"];
        image["argv"] = json!([PYTHON, script]);
        image["files"] = json!([script]);
    });
    let world = prepared.start().await;
    world.put(ATTACKER, "q3/mine.csv", sales()).await;
    world.put(VICTIM, "q3/secret.csv", sales()).await;
    run(&world, VICTIM, &json!({})).await;
    let shown = kept(&world, VICTIM, "shown").await;
    assert_eq!(shown["file"], "secret", "{shown}");
    let mut victims = processes_with(&format!("CARREL_TENANT={VICTIM}"));
    victims.retain(|(pid, _)| descends_from(*pid, world.dir()));
    assert_eq!(victims.len(), 1, "one task of the victim runs");

    // What is there, as this process sees it: the machine's own sockets, and the fleet's files with the victim's among them.
    let name = format!("carrel-across-{}", world.dir().display());
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let _socket = UnixListener::bind_addr(&address).expect("it is free");
    UnixStream::connect_addr(&address).expect("it is reached from outside");
    let fleet = world.fleet.address();
    let paths = [
        ("the fleet's directory", "."),
        ("the tokens", "tokens.json"),
        ("the registry", "tenants.yaml"),
        ("the owner's token", "cloud.ready"),
        ("the secret of all tokens", "cloud/token-secret"),
        ("everybody's objects", "cloud/cloud.redb"),
        ("logs of others", "cloud/logs"),
        ("homes of others", "cloud/homes"),
    ]
    .map(|(what, path)| (what, world.dir().join(path)));
    for (what, path) in &paths {
        assert!(path.exists(), "{what} lie at {}", path.display());
    }
    let leaked = json!({
        "bolt": token(&world, "worker-bolt"), "dispatcher": token(&world, "dispatcher"), "owner": fleet.owner_token,
    });
    let goals = json!({
        "project": plan::PROJECT, "leaked": leaked, "socket": name, "pid": victims[0].0.as_raw_nonzero().get(),
        "paths": paths.iter().map(|(what, path)| ((*what).to_owned(), json!(path))).collect::<Value>(),
        "volume": world.fleet.shows_files(),
    });
    run(&world, ATTACKER, &goals).await;
    let mut report = kept(&world, ATTACKER, "report").await;

    let mut expected = json!({
        "own token": 200, "the victim's token": 404, "nobody's token": 404,
        "a token without the header": 403, "a token through a proxy": 403,
        "own bucket": 200, "the victim's bucket": 403, "nobody's bucket": 403,
        "the bucket of bolt with its leaked token": 403,
        "the bucket of dispatcher with its leaked token": 403,
        "the bucket of owner with its leaked token": 403, "a batch": 404,
        // Neither the dispatcher's API nor anybody's metadata, which listen on this machine.
        "ports that answer": [80, port(&fleet.cloud)],
        "own volume": ["mine.csv"],
        "a socket of the machine": "ECONNREFUSED", "the victim's socket": "ECONNREFUSED",
        "the victim's port": "ECONNREFUSED", "the victim's file": "ENOENT",
        "processes of others": [], "the first process": "EACCES", "the first process's root": "EACCES",
        "signal the victim": "ESRCH", "the victim's environment": "ENOENT", "the namespaces of the victim": "ENOENT",
        "the victim in its environment": [], "mount": "EPERM", "processes from a room in its room": "[1]",
        "descriptors": true, "namespaces": "64", "own temporary files": [],
    });
    for (what, _) in &paths {
        expected[what] = json!("ENOENT");
    }
    // Where this checkout lies below /tmp, the way to the script does.
    report["own temporary files"]
        .as_array_mut()
        .expect("a list")
        .retain(|entry| !script.starts_with(entry.as_str().expect("a path")));
    let (report, expected) = (report.as_object().expect("an object"), expected.as_object().expect("an object"));
    let wrong: Vec<_> = expected.iter().filter(|(what, came)| report.get(*what) != Some(came)).collect();
    let got: Vec<_> = wrong.iter().map(|(what, came)| (what, came, report.get(*what))).collect();
    assert!(got.is_empty(), "{got:#?}");
    assert_eq!(report.len(), expected.len(), "{:?}", report.keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_a_program_below_tmp_shows_none_of_its_neighbours() {
    if !can_be_run() {
        return;
    }
    // As somebody tries the product: everything below one temporary directory, the fleet's own beside the program.
    let home = TempDir::with_prefix("carrel-way-").expect("a temporary directory");
    let app = home.path().join("app");
    std::fs::create_dir(&app).expect("made");
    let (carrel, looker) = (app.join("carrel"), app.join("look.py"));
    std::fs::copy(program(), &carrel).expect("copied");
    std::fs::copy(script(), &looker).expect("copied");
    for neighbour in [app.join("customers.csv"), home.path().join("key.pem")] {
        std::fs::write(neighbour, "secret").expect("written");
    }
    let prepared = Prepared::new(two(json!({})), |setup| {
        setup.program = carrel.clone();
        setup.dir = app.join(".carrel");
        setup.agent = vec![PYTHON.to_owned(), looker.display().to_string()];
    });
    prepared.reconfigure(|config| {
        let worker = &config["images"]["carrel/worker"];
        config["images"]["look"] = json!({ "argv": [PYTHON, looker], "files": [looker, carrel], "env": worker["env"] });
        let jobs = config["jobs"].as_array_mut().expect("jobs");
        let job = jobs.iter_mut().find(|job| job["env"]["CARREL_TENANT"] == VICTIM).expect("the tenant's job");
        job["image"] = json!("look");
    });
    let world = prepared.start().await;
    assert!(world.dir().starts_with(home.path().canonicalize().expect("there")), "the fleet lives beside its program");
    // A task sees the way to what its image holds, and nothing beside it.
    run(&world, VICTIM, &json!({ "look": home.path() })).await;
    assert_eq!(kept(&world, VICTIM, "report").await, json!([app, carrel, looker]));
    // An agent, in its room within the room of a worker that is this very copy, the way to itself.
    world.upload(ATTACKER, "q3", vec![("sales.csv", sales())]).await;
    let got = world.completion(ATTACKER, "q3").await.completion;
    let Verdict::Failed { class: FailureClass::AgentFailed, log_tail: Some(said), .. } = &got.verdict else {
        panic!("{got:?}")
    };
    let saw: Value = serde_json::from_str(said.trim()).expect("what it saw");
    assert_eq!(saw, json!([app, looker]));
    // Without what gives birth to rooms the cloud can run nothing more, and says so and ends rather than fail every task.
    let log = world.dir().join("logs/cloud.log");
    kill_process(launcher_of_the_cloud(world.dir()), Signal::KILL).expect("it runs");
    eventually("the last words of the cloud", async || {
        let said = std::fs::read_to_string(&log).expect("its log");
        said.contains("error: loopback cloud: the launcher of rooms ended").then_some(())
    })
    .await;
}

fn launcher_of_the_cloud(dir: &Path) -> Pid {
    let all = std::fs::read_dir("/proc").expect("/proc");
    let pids = all.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?));
    let about = |pid: Pid, what: &str| {
        std::fs::read_to_string(format!("/proc/{}/{what}", pid.as_raw_nonzero())).unwrap_or_default()
    };
    let mut launchers = pids.filter(|pid| about(*pid, "comm").trim() == "carrel-launcher");
    let of_cloud = |pid: &Pid| parent(*pid).is_some_and(|of| about(of, "cmdline").contains("\0internal\0cloud\0"));
    launchers.find(|pid| of_cloud(pid) && descends_from(*pid, dir)).expect("the cloud has one")
}
