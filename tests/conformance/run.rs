//! Cloud Run as Google's own Rust clients see it: jobs, overrides, real tasks and the identity of each.

use std::collections::BTreeMap;

use carrel_cloud::install_crypto;
use carrel_local::config;
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_run_v2::model::condition::State;
use google_cloud_run_v2::model::run_job_request::Overrides;
use google_cloud_run_v2::model::run_job_request::overrides::ContainerOverride;
use google_cloud_run_v2::model::{EnvVar, Execution, TaskAttemptResult};
use google_cloud_storage::client::Storage;

use crate::calls::{Caller, eventually, has_ended, status};
use crate::world::{ALICE, BOB, JOB, World, bind};

pub(crate) const HERE: &str = "projects/demo/locations/us-central1";
/// Tells this binary, run as a task, where the cloud is.
const ENDPOINT: &str = "CONFORMANCE_TASK_ENDPOINT";

pub(crate) fn script(text: &str) -> Overrides {
    Overrides::new().set_container_overrides([ContainerOverride::new().set_args([text])])
}

pub(crate) fn state(execution: &Execution) -> State {
    let completed = execution.conditions.iter().find(|condition| condition.r#type == "Completed");
    completed.expect("it has the condition").state.clone()
}

/// How the only task of an execution ended.
pub(crate) async fn result(caller: &Caller, execution: &str) -> TaskAttemptResult {
    let listed = caller.tasks().await.list_tasks().set_parent(execution).send().await.expect("lists").tasks;
    assert_eq!(listed.len(), 1);
    listed[0].last_attempt_result.clone().expect("it has ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_says_what_it_runs() {
    let world = World::start().await;
    let jobs = world.as_owner().jobs().await;
    let job = jobs.get_job().set_name(JOB).send().await.expect("is there");
    let template = job.template.and_then(|template| template.template).expect("it has a template");
    let container = &template.containers[0];
    assert_eq!((container.image.as_str(), &container.args[..]), ("shell", &["exit 0".to_owned()][..]));
    assert_eq!(template.service_account, ALICE);
    assert_eq!(template.timeout, Some(google_cloud_wkt::Duration::clamp(60, 0)));
    let listed = jobs.list_jobs().set_parent(HERE).send().await.expect("lists").jobs;
    assert_eq!(listed.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), [JOB]);
    for name in [format!("{JOB}-2"), JOB.replace("demo", "other"), JOB.replace("us-central1", "elsewhere")] {
        assert_eq!(status(&jobs.get_job().set_name(&name).send().await.expect_err("there is none")), 404, "{name}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_replaces_arguments_adds_variables_and_its_operation_ends_with_it() {
    let world = World::with(|config| {
        config.jobs[0].env = BTreeMap::from([("A", "job"), ("B", "job")].map(|(k, v)| (k.into(), v.into())))
    })
    .await;
    let owner = world.as_owner();
    let jobs = owner.jobs().await;
    let env = [EnvVar::new().set_name("B").set_value("launch"), EnvVar::new().set_name("C").set_value("launch")];
    let container = ContainerOverride::new().set_args(["echo $A $B $C $CLOUD_RUN_TASK_INDEX/$CLOUD_RUN_TASK_COUNT"]);
    let overrides = Overrides::new().set_container_overrides([container.set_env(env)]).set_task_count(2);
    let operation = jobs.run_job().set_name(JOB).set_overrides(overrides).send().await.expect("it launches");
    let launched = operation.metadata.expect("it names its execution").to_msg::<Execution>().expect("it is one");
    let execution = owner.completed(&launched.name).await;
    assert_eq!(state(&execution), State::ConditionSucceeded);
    assert_eq!((execution.task_count, execution.succeeded_count, execution.running_count), (2, 2, 0));
    let mut lines: Vec<String> = world.log(&launched.name).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["job launch launch 0/2", "job launch launch 1/2"]);
    let done = jobs.get_operation().set_name(&operation.name).send().await.expect("is known");
    assert!(done.done && done.response().is_some());
    // What one launch is told, the next does not know.
    let plain = jobs.run_job().set_name(JOB).send().await.expect("it launches").metadata.expect("it names it");
    let plain = plain.to_msg::<Execution>().expect("it is one");
    assert_eq!(state(&owner.completed(&plain.name).await), State::ConditionSucceeded);
    assert_eq!(world.log(&plain.name), "");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_ends_by_its_own_code_its_timeout_or_a_cancellation_and_says_which() {
    let world = World::start().await;
    let owner = world.as_owner();
    let failing = owner.launch(JOB, script("exit 3")).await.expect("it launches");
    let soon = google_cloud_wkt::Duration::clamp(0, 50_000_000);
    let group = script("/bin/sleep 600 & echo $!; wait").set_timeout(soon);
    let slow = owner.launch(JOB, group).await.expect("it launches");
    let unwanted = owner.launch(JOB, script("exec /bin/sleep 600")).await.expect("it launches");
    owner.execution(&unwanted.name, |execution| execution.running_count == 1).await;
    let executions = owner.executions().await;
    let cancel = async || executions.cancel_execution().set_name(&unwanted.name).send().await;
    cancel().await.expect("is cancelled");
    for (launched, counts, exit_code, signal, message) in [
        (&failing, (1, 0), 3, 0, "exited with an error"),
        (&slow, (1, 0), 0, 0, "timeout"),
        (&unwanted, (0, 1), 0, 0, "cancelled"),
    ] {
        let execution = owner.completed(&launched.name).await;
        assert_eq!(state(&execution), State::ConditionFailed, "{message}");
        assert_eq!((execution.failed_count, execution.cancelled_count), counts, "{message}");
        let result = result(&owner, &launched.name).await;
        assert_eq!((result.exit_code, result.term_signal), (exit_code, signal), "{message}");
        let said = result.status.expect("it has a status").message;
        assert!(said.contains(message), "{said}");
    }
    // Who listens is told first.
    let polite = script("trap 'echo bye; exit 0' TERM; echo ready; while :; do /bin/sleep 0.01; done");
    let asked = owner.launch(JOB, polite).await.expect("it launches");
    eventually("a task that listens", async || world.log(&asked.name).contains("ready").then_some(())).await;
    executions.cancel_execution().set_name(&asked.name).send().await.expect("is cancelled");
    assert_eq!(owner.completed(&asked.name).await.cancelled_count, 1);
    assert!(world.log(&asked.name).ends_with("bye\n"));
    // What a task started ends with it. It may have had no time to say its number.
    let log = world.log(&slow.name);
    eventually("the end of a task's child", async || log.lines().all(has_ended).then_some(())).await;
    assert_eq!(status(&cancel().await.expect_err("it is over")), 400);
    let missing = executions.cancel_execution().set_name(format!("{JOB}/executions/none")).send().await;
    assert_eq!(status(&missing.expect_err("there is none")), 404);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_does_not_listen_is_killed_ten_seconds_later_with_all_it_started() {
    let world = World::start().await;
    let owner = world.as_owner();
    let deaf = script("trap '' TERM; /bin/sleep 600 & echo $!; echo $$; while :; do /bin/sleep 0.1; done");
    let launched = owner.launch(JOB, deaf).await.expect("it launches");
    owner.execution(&launched.name, |execution| execution.running_count == 1).await;
    eventually("a task that is deaf", async || (world.log(&launched.name).lines().count() == 2).then_some(())).await;
    let asked = std::time::Instant::now();
    owner.executions().await.cancel_execution().set_name(&launched.name).send().await.expect("is cancelled");
    assert_eq!(owner.completed(&launched.name).await.cancelled_count, 1);
    let took = asked.elapsed().as_secs();
    assert!(took >= 9, "it ended after {took} s");
    let log = world.log(&launched.name);
    eventually("the end of all it started", async || log.lines().all(has_ended).then_some(())).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_sees_its_image_its_job_its_launch_its_identity_and_nothing_else() {
    let world = World::with(|config| {
        config.images.get_mut("shell").expect("it is configured").env = BTreeMap::from([("OF".into(), "image".into())]);
        config.jobs[0].env = BTreeMap::from([("BY".into(), "job".into())]);
    })
    .await;
    let owner = world.as_owner();
    let look = "test -d \"$HOME\" && test -d \"$TMPDIR\" && echo HOUSED; exec /usr/bin/env";
    let launched = owner.launch(JOB, script(look)).await.expect("it launches");
    assert_eq!(state(&owner.completed(&launched.name).await), State::ConditionSucceeded);
    let log = world.log(&launched.name);
    let seen: BTreeMap<&str, &str> = log.lines().map(|line| line.split_once('=').unwrap_or((line, ""))).collect();
    let short = launched.name.rsplit('/').next().expect("a name has segments");
    for (name, value) in [
        ("OF", "image"),
        ("BY", "job"),
        ("CLOUD_RUN_JOB", "shell"),
        ("CLOUD_RUN_EXECUTION", short),
        ("CLOUD_RUN_TASK_INDEX", "0"),
        ("CLOUD_RUN_TASK_ATTEMPT", "0"),
        ("CLOUD_RUN_TASK_COUNT", "1"),
        ("HOUSED", ""),
    ] {
        assert_eq!(seen.get(name), Some(&value), "{name} in {log}");
    }
    // Beside them what the runtime and the shell set, and nothing of this process.
    let mut rest: Vec<&str> = seen.keys().filter(|name| !name.starts_with("CLOUD_RUN_")).copied().collect();
    rest.retain(|name| !["OF", "BY", "HOUSED", "PWD", "SHLVL", "OLDPWD", "_"].contains(name));
    assert_eq!(rest, ["GCE_METADATA_HOST", "HOME", "TMPDIR"]);
    let homes = world.config().data_dir.join("homes");
    eventually("the end of a home", async || {
        std::fs::read_dir(&homes).expect("it is there").next().is_none().then_some(())
    })
    .await;
    world.stop().await;
}

/// A job that runs this binary, in which nothing but [`a_task`] runs.
fn probe(name: &str, account: &str) -> config::Job {
    config::Job {
        name: name.into(),
        service_account: account.into(),
        image: "probe".into(),
        args: Vec::new(),
        env: BTreeMap::new(),
        timeout_seconds: 60,
        memory_bytes: 1 << 30,
        volume: None,
        egress: Vec::new(),
        task_count: 1,
        parallelism: 0,
        max_retries: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_the_identity_of_its_own_job_for_as_long_as_it_runs() {
    let world = World::with(|config| {
        let program = std::env::current_exe().expect("it has a path").display().to_string();
        let argv = [&program, "--exact", "run::a_task", "--ignored", "--nocapture"].map(str::to_owned).to_vec();
        config.images.insert("probe".into(), config::Image { argv, env: BTreeMap::new(), files: Vec::new() });
        config.jobs.extend([probe("of-alice", ALICE), probe("of-bob", BOB)]);
        config.bindings.push(bind("projects/_/buckets/bucket-b", "roles/storage.objectAdmin", BOB));
    })
    .await;
    let owner = world.as_owner();
    for (job, expected) in [("of-alice", "bucket-a 200, bucket-b 403"), ("of-bob", "bucket-a 403, bucket-b 200")] {
        let env = [EnvVar::new().set_name(ENDPOINT).set_value(world.endpoint())];
        let overrides = Overrides::new().set_container_overrides([ContainerOverride::new().set_env(env)]);
        let launched = owner.launch(&format!("{HERE}/jobs/{job}"), overrides).await.expect("it launches");
        let execution = owner.completed(&launched.name).await;
        let log = world.log(&launched.name);
        assert_eq!(state(&execution), State::ConditionSucceeded, "{log}");
        assert!(log.contains(expected), "{job}: {log}");
        let host = log.lines().find_map(|line| line.split("metadata at ").nth(1)).expect("it says where");
        eventually("the metadata server of a task that ended", async || {
            tokio::net::TcpStream::connect(host).await.err()
        })
        .await;
    }
    world.stop().await;
}

/// What the job above runs: it asks for nothing but application-default credentials.
#[tokio::test]
#[ignore = "runs as the task of another test"]
async fn a_task() {
    let Ok(endpoint) = std::env::var(ENDPOINT) else { return };
    install_crypto();
    let credentials = google_cloud_auth::credentials::Builder::default().build().expect("they build");
    let builder = Storage::builder().with_endpoint(endpoint).with_credentials(credentials);
    let client = builder.build().await.expect("the client builds");
    let mut seen = Vec::new();
    for bucket in ["bucket-a", "bucket-b"] {
        let write = client.write_object(format!("projects/_/buckets/{bucket}"), "by-a-task", "1");
        let written = write.with_retry_policy(NeverRetry).send_unbuffered().await;
        seen.push(format!("{bucket} {}", written.map_or_else(|error| status(&error), |_| 200)));
    }
    println!("{}", seen.join(", "));
    println!("metadata at {}", std::env::var("GCE_METADATA_HOST").expect("a task has one"));
}
