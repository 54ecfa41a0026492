//! Cloud Run as Google's own Rust client sees it: real sockets, real processes.
//!
//! Tests wait on what the API says, never on time alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_run_v2::client::{Executions, Jobs, Tasks};
use google_cloud_run_v2::model::condition::State;
use google_cloud_run_v2::model::run_job_request::Overrides;
use google_cloud_run_v2::model::run_job_request::overrides::ContainerOverride;
use google_cloud_run_v2::model::{EnvVar, Execution};
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, HeaderValue};
use tokio::task::JoinHandle;

use super::{Parts, Run};
use crate::config::{Binding, Image, Job};
use crate::faults::{FaultPlan, Faults};
use crate::iam::{Iam, Principal};
use crate::metadata::Metadata;
use crate::store::Store;

const JOB: &str = "projects/demo/locations/here/jobs/work";
const LAUNCHER: &str = "launcher@demo.iam";

#[derive(Debug, Clone)]
struct Bearer(String);

impl google_cloud_auth::credentials::CredentialsProvider for Bearer {
    async fn headers(
        &self,
        _: Extensions,
    ) -> Result<google_cloud_auth::credentials::CacheableResource<HeaderMap>, google_cloud_auth::errors::CredentialsError>
    {
        let value = HeaderValue::from_str(&format!("Bearer {}", self.0)).expect("a token is ASCII");
        Ok(google_cloud_auth::credentials::CacheableResource::New {
            entity_tag: google_cloud_auth::credentials::EntityTag::new(),
            data: HeaderMap::from_iter([(AUTHORIZATION, value)]),
        })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

struct World {
    run: Run,
    iam: Iam,
    endpoint: String,
    serving: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn open(dir: &Path, store: Store, faults: FaultPlan) -> (Run, Iam) {
    let binding = Binding {
        resource: JOB.into(),
        role: "roles/launcher".into(),
        members: vec![format!("serviceAccount:{LAUNCHER}")],
    };
    let permissions = ["run.jobs.run", "run.executions.get", "run.executions.list"].map(str::to_owned).to_vec();
    let roles = BTreeMap::from([("roles/launcher".to_owned(), permissions)]);
    let iam = Iam::open(dir, &roles, &[binding]).expect("the policy opens");
    let job = Job {
        name: "work".into(),
        service_account: "worker@demo.iam".into(),
        image: "shell".into(),
        args: vec!["exit 0".into()],
        env: BTreeMap::from([("A".into(), "job".into()), ("B".into(), "job".into())]),
        timeout_seconds: 60,
    };
    let shell = Image {
        argv: ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("PATH".into(), "/bin:/usr/bin".into()), ("A".into(), "image".into())]),
    };
    let parts = Parts {
        store,
        iam: iam.clone(),
        faults: Faults::new(faults),
        metadata: Metadata::new(iam.clone(), "demo"),
        data_dir: dir.to_owned(),
        project: "demo".into(),
        location: "here".into(),
        images: BTreeMap::from([("shell".into(), shell)]),
        jobs: vec![job],
    };
    (Run::open(parts).await.expect("cloud run opens"), iam)
}

impl World {
    async fn start(dir: &Path, faults: FaultPlan) -> Self {
        static RING: Once = Once::new();
        RING.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let (run, iam) = open(dir, Store::open(&dir.join("db")).expect("the store opens"), faults).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let router = run.router();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { run, iam, endpoint, serving }
    }

    fn credentials(&self, who: &Principal) -> google_cloud_auth::credentials::Credentials {
        Bearer(self.iam.mint(who, Duration::from_secs(600))).into()
    }

    async fn jobs(&self, who: &Principal) -> Jobs {
        let builder = Jobs::builder().with_endpoint(&self.endpoint).with_credentials(self.credentials(who));
        builder.with_retry_policy(NeverRetry).build().await.expect("the client builds")
    }

    async fn executions(&self, who: &Principal) -> Executions {
        let builder = Executions::builder().with_endpoint(&self.endpoint).with_credentials(self.credentials(who));
        builder.with_retry_policy(NeverRetry).build().await.expect("the client builds")
    }

    async fn launch(&self, script: &str, overrides: Overrides) -> Result<Execution, google_cloud_run_v2::Error> {
        let container =
            ContainerOverride::new().set_args([script]).set_env([EnvVar::new().set_name("A").set_value("override")]);
        let overrides = overrides.set_container_overrides([container]);
        let jobs = self.jobs(&Principal::owner()).await;
        let operation = jobs.run_job().set_name(JOB).set_overrides(overrides).send().await?;
        assert!(!operation.done);
        Ok(operation.metadata.expect("the operation names the execution").to_msg().expect("it is an execution"))
    }

    async fn get(&self, name: &str) -> Execution {
        let executions = self.executions(&Principal::owner()).await;
        executions.get_execution().set_name(name).send().await.expect("it exists")
    }

    /// The execution once `done` holds of it.
    async fn until(&self, name: &str, done: impl Fn(&Execution) -> bool) -> Execution {
        let looking = async {
            loop {
                let execution = self.get(name).await;
                if done(&execution) {
                    return execution;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), looking).await.expect("it comes to that in time")
    }

    async fn completed(&self, name: &str) -> Execution {
        self.until(name, |execution| execution.completion_time.is_some()).await
    }

    async fn list(&self) -> Vec<Execution> {
        let executions = self.executions(&Principal::owner()).await;
        let mut items = executions.list_executions().set_parent(JOB).set_page_size(1).by_item();
        let mut all = Vec::new();
        while let Some(item) = items.next().await {
            all.push(item.expect("the listing goes on"));
        }
        all
    }
}

fn state(execution: &Execution) -> State {
    let completed = execution.conditions.iter().find(|condition| condition.r#type == "Completed");
    completed.expect("it has the condition").state.clone()
}

fn short(execution: &Execution) -> &str {
    execution.name.rsplit('/').next().expect("a name has segments")
}

fn seconds(count: i64) -> Overrides {
    Overrides::new().set_timeout(google_cloud_wkt::Duration::clamp(count, 0))
}

#[tokio::test]
async fn a_task_sees_its_overrides_its_identity_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::start(dir.path(), FaultPlan::default()).await;
    let script = "env; test -d \"$TMPDIR\" && test -n \"$GCE_METADATA_HOST\" && echo fine >&2";
    let launched = world.launch(script, Overrides::new().set_task_count(1)).await.expect("it launches");
    let execution = world.completed(&launched.name).await;
    assert_eq!(state(&execution), State::ConditionSucceeded);
    assert_eq!((execution.succeeded_count, execution.running_count, execution.task_count), (1, 0, 1));
    assert_eq!(execution.job, "work");
    let container = &execution.template.as_ref().expect("it has a template").containers[0];
    assert_eq!((container.image.as_str(), &container.args[..]), ("shell", &[script.to_owned()][..]));
    let log = std::fs::read_to_string(dir.path().join(format!("logs/{}.log", short(&execution)))).expect("it wrote");
    let lines: Vec<&str> = log.lines().collect();
    let expected = format!("CLOUD_RUN_EXECUTION={}", short(&execution));
    for line in ["A=override", "B=job", "CLOUD_RUN_JOB=work", "CLOUD_RUN_TASK_INDEX=0", "fine", expected.as_str()] {
        assert!(lines.contains(&line), "{line} in {log}");
    }
    assert!(!log.contains("CARGO"), "{log}");
    let mut homes = std::fs::read_dir(dir.path().join("homes")).expect("it is there");
    let gone = async {
        while homes.next().is_some() {
            homes = std::fs::read_dir(dir.path().join("homes")).expect("it is there");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("homes are removed");
    let builder =
        Tasks::builder().with_endpoint(&world.endpoint).with_credentials(world.credentials(&Principal::owner()));
    let tasks = builder.build().await.expect("the client builds");
    let tasks = tasks.list_tasks().set_parent(&execution.name).send().await.expect("lists").tasks;
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].last_attempt_result.as_ref().map(|result| result.exit_code), Some(0));
}

#[tokio::test]
async fn a_task_that_takes_too_long_or_fails_fails_its_execution() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::start(dir.path(), FaultPlan::default()).await;
    let slow = world.launch("sleep 60 & wait", seconds(1)).await.expect("it launches");
    let bad = world.launch("exit 3", seconds(60)).await.expect("it launches");
    for launched in [slow, bad] {
        let execution = world.completed(&launched.name).await;
        assert_eq!(state(&execution), State::ConditionFailed);
        assert_eq!((execution.failed_count, execution.cancelled_count), (1, 0));
    }
}

#[tokio::test]
async fn a_cancelled_execution_is_ended_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::start(dir.path(), FaultPlan::default()).await;
    let launched = world.launch("sleep 60 & wait", Overrides::new()).await.expect("it launches");
    world.until(&launched.name, |execution| execution.running_count == 1).await;
    let executions = world.executions(&Principal::owner()).await;
    executions.cancel_execution().set_name(&launched.name).send().await.expect("it is cancelled");
    let execution = world.completed(&launched.name).await;
    assert_eq!((state(&execution), execution.cancelled_count), (State::ConditionFailed, 1));
    let again = executions.cancel_execution().set_name(&launched.name).send().await.expect_err("it is over");
    assert_eq!(again.http_status_code(), Some(400));
}

#[tokio::test]
async fn a_launch_whose_answer_is_lost_is_found_by_its_arguments_newest_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = FaultPlan { lose_reply: 1.0, double_launch: 1.0, ..FaultPlan::default() };
    let world = World::start(dir.path(), faults).await;
    for script in ["exit 0", "exit 1"] {
        let lost = world.launch(script, Overrides::new()).await.expect_err("the answer is lost");
        assert_eq!(lost.http_status_code(), Some(503));
    }
    let args = |execution: &Execution| execution.template.clone().expect("a template").containers[0].args.join(" ");
    let found: Vec<String> = world.list().await.iter().map(args).collect();
    assert_eq!(found, ["exit 1", "exit 1", "exit 0", "exit 0"]);
}

#[tokio::test]
async fn nobody_launches_without_being_allowed_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::start(dir.path(), FaultPlan::default()).await;
    let nobody = world.jobs(&Principal::service_account("nobody@demo.iam")).await;
    let refused = nobody.run_job().set_name(JOB).send().await.expect_err("is refused");
    assert_eq!(refused.http_status_code(), Some(403));
    let launcher = world.jobs(&Principal::service_account(LAUNCHER)).await;
    let with = launcher.run_job().set_name(JOB).set_overrides(Overrides::new().set_task_count(1)).send().await;
    assert_eq!(with.expect_err("overrides need more").http_status_code(), Some(403));
    launcher.run_job().set_name(JOB).send().await.expect("without overrides it may");
    let stranger = world.executions(&Principal::service_account("nobody@demo.iam")).await;
    let refused = stranger.list_executions().set_parent(JOB).send().await.expect_err("is refused");
    assert_eq!(refused.http_status_code(), Some(403));
    let missing = world.jobs(&Principal::owner()).await.get_job().set_name(format!("{JOB}-2")).send().await;
    assert_eq!(missing.expect_err("there is none").http_status_code(), Some(404));
    let bare = reqwest::get(format!("{}/v2/{JOB}", world.endpoint)).await.expect("it answers");
    assert_eq!(bare.status(), 401);
    assert_eq!(world.list().await.len(), 1);
}

#[tokio::test]
async fn a_killed_task_fails_and_a_shutdown_leaves_none_running() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = FaultPlan { kill_task: 1.0, kill_after_ms: 20, ..FaultPlan::default() };
    let world = World::start(dir.path(), faults).await;
    let launched = world.launch("sleep 60", Overrides::new()).await.expect("it launches");
    assert_eq!(state(&world.completed(&launched.name).await), State::ConditionFailed);
    drop(world);
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::start(dir.path(), FaultPlan::default()).await;
    let launched = world.launch("sleep 60", Overrides::new()).await.expect("it launches");
    world.until(&launched.name, |execution| execution.running_count == 1).await;
    world.run.shutdown().await;
    assert_eq!(state(&world.get(&launched.name).await), State::ConditionFailed);
    let late = world.launch("exit 0", Overrides::new()).await.expect_err("it is closing");
    assert_eq!(late.http_status_code(), Some(503));
}

#[tokio::test]
async fn what_a_killed_cloud_left_running_is_killed_and_marked_failed() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::start(dir.path(), FaultPlan::default()).await;
    let launched = world.launch("sleep 60 & echo $! $$; wait", Overrides::new()).await.expect("it launches");
    world.until(&launched.name, |execution| execution.running_count == 1).await;
    // The next cloud finds the tables as a killed one leaves them: the first knows nothing of it.
    let (next, iam) = open(dir.path(), world.run.0.store.clone(), FaultPlan::default()).await;
    let execution = world.get(&launched.name).await;
    assert_eq!((state(&execution), execution.failed_count), (State::ConditionFailed, 1));
    drop((next, iam));
    // The first cloud sees its task end, so the group is gone.
    tokio::time::timeout(Duration::from_secs(5), async {
        while !world.run.0.running().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the group was killed");
}
