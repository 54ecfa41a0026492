//! Jobs of Cloud Run over the wire, by Google's own Rust client: made, changed, tried again, held to quotas, deleted.

use carrel_local::config::Quotas;
use google_cloud_run_v2::client::Jobs;
use google_cloud_run_v2::model::condition::State;
use google_cloud_run_v2::model::run_job_request::Overrides;
use google_cloud_run_v2::model::{Container, ExecutionTemplate, Job, TaskTemplate};

use crate::calls::{Error, eventually, has_ended, status};
use crate::run::{HERE, result, script, state};
use crate::world::{ALICE, BOB, JOB, World, bind};

/// A job that runs a script as an account.
fn job(account: &str, text: &str) -> TaskTemplate {
    let container = Container::new().set_image("shell").set_args([text]);
    TaskTemplate::new().set_containers([container]).set_service_account(account).set_max_retries(0)
}

fn of(template: TaskTemplate) -> Job {
    Job::new().set_template(ExecutionTemplate::new().set_template(template))
}

async fn make(jobs: &Jobs, id: &str, job: Job) -> Result<Job, Error> {
    let operation = jobs.create_job().set_parent(HERE).set_job_id(id).set_job(job).send().await?;
    assert!(operation.done);
    let found = jobs.get_operation().set_name(&operation.name).send().await.expect("it is known");
    assert_eq!(found.response(), operation.response());
    Ok(operation.response().expect("it is done").to_msg().expect("it is a job"))
}

async fn refused(jobs: &Jobs, id: &str, job: Job) -> u16 {
    status(&make(jobs, id, job).await.expect_err("is refused"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_made_changed_kept_and_deleted_with_all_it_ran() {
    let mut world = World::with(|config| {
        config.bindings.push(bind("projects/demo", "roles/run.developer", BOB));
        let accounts = |account: &str| format!("projects/demo/serviceAccounts/{account}");
        config.bindings.push(bind(&accounts(BOB), "roles/iam.serviceAccountUser", BOB));
    })
    .await;
    let jobs = world.caller(BOB).await.jobs().await;
    let made = make(&jobs, "made", of(job(BOB, "echo one"))).await.expect("it is made");
    assert_eq!((made.name.as_str(), made.generation), (format!("{HERE}/jobs/made").as_str(), 1));
    assert_eq!(refused(&jobs, "made", of(job(BOB, "echo two"))).await, 409);
    // A job would be a way to any identity.
    assert_eq!(refused(&jobs, "as-alice", of(job(ALICE, "echo two"))).await, 403);
    let as_owner = world.as_owner().jobs().await;
    assert_eq!(refused(&as_owner, "as-nobody", of(job("none@demo.iam.gserviceaccount.com", "exit"))).await, 400);
    let no_image =
        of(TaskTemplate::new().set_containers([Container::new().set_image("none")]).set_service_account(BOB));
    assert_eq!(refused(&as_owner, "no-image", no_image).await, 400);
    assert_eq!(refused(&as_owner, "No-Name", of(job(BOB, "exit"))).await, 400);
    let nobodys = world.caller(ALICE).await.jobs().await;
    assert_eq!(refused(&nobodys, "of-alice", of(job(ALICE, "exit"))).await, 403);

    let owner = world.as_owner();
    let first = owner.launch(&made.name, Overrides::new()).await.expect("it launches");
    assert_eq!(state(&owner.completed(&first.name).await), State::ConditionSucceeded);
    assert_eq!(world.log(&first.name), "one\n");
    let stale = of(job(BOB, "echo never")).set_name(&made.name).set_etag("\"stale\"");
    assert_eq!(status(&jobs.update_job().set_job(stale).send().await.expect_err("is stale")), 409);
    let next = of(job(BOB, "echo two; echo $$; exec /bin/sleep 600")).set_name(&made.name).set_etag(&made.etag);
    let changed = jobs.update_job().set_job(next).send().await.expect("it is changed");
    assert!(changed.done);

    world.restart().await;
    let (owner, jobs) = (world.as_owner(), world.caller(BOB).await.jobs().await);
    let kept = jobs.get_job().set_name(&made.name).send().await.expect("it is kept");
    assert_eq!((kept.generation, kept.execution_count), (2, 1));
    let running = owner.launch(&made.name, Overrides::new()).await.expect("it launches");
    let pid =
        eventually("the task's number", async || world.log(&running.name).lines().nth(1).map(str::to_owned)).await;
    let deleted = jobs.delete_job().set_name(&made.name).send().await.expect("it is deleted");
    assert!(deleted.done);
    assert_eq!(status(&jobs.get_job().set_name(&made.name).send().await.expect_err("it is gone")), 404);
    eventually("the end of what ran", async || has_ended(&pid).then_some(())).await;
    let again = make(&jobs, "made", of(job(BOB, "exit 0"))).await.expect("its name is free");
    assert_eq!(again.execution_count, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_is_tried_again_as_often_as_its_job_says_and_so_many_run_at_once() {
    let world = World::start().await;
    let owner = world.as_owner();
    let jobs = owner.jobs().await;
    // An attempt that meets another's directory fails with it.
    let shared = world.config().data_dir.join("one-at-a-time");
    let text = format!(
        "mkdir {0} && echo $CLOUD_RUN_TASK_INDEX/$CLOUD_RUN_TASK_ATTEMPT && rmdir {0} && test $CLOUD_RUN_TASK_ATTEMPT = 1",
        shared.display()
    );
    let template = ExecutionTemplate::new().set_task_count(3).set_parallelism(1);
    let template = template.set_template(job(ALICE, &text).set_max_retries(1));
    let made = make(&jobs, "again", Job::new().set_template(template)).await.expect("it is made");
    let launched = owner.launch(&made.name, Overrides::new()).await.expect("it launches");
    let execution = owner.completed(&launched.name).await;
    let log = world.log(&launched.name);
    assert_eq!(state(&execution), State::ConditionSucceeded, "{log}");
    assert_eq!((execution.succeeded_count, execution.retried_count, execution.parallelism), (3, 3, 1));
    assert_eq!(log, "0/0\n0/1\n1/0\n1/1\n2/0\n2/1\n");

    let hopeless = job(ALICE, "exit $((3 + CLOUD_RUN_TASK_ATTEMPT))").set_max_retries(2);
    let made = make(&jobs, "hopeless", of(hopeless)).await.expect("it is made");
    let launched = owner.launch(&made.name, Overrides::new()).await.expect("it launches");
    let execution = owner.completed(&launched.name).await;
    assert_eq!((state(&execution), execution.failed_count, execution.retried_count), (State::ConditionFailed, 1, 2));
    assert_eq!(result(&owner, &launched.name).await.exit_code, 5);

    // Each attempt has the whole time: the first takes all of it, and the second is not yet too late.
    let slow = job(ALICE, "test $CLOUD_RUN_TASK_ATTEMPT = 1 || exec /bin/sleep 600").set_max_retries(1);
    let slow = slow.set_timeout(google_cloud_wkt::Duration::clamp(3, 0));
    let made = make(&jobs, "slow", of(slow)).await.expect("it is made");
    let launched = owner.launch(&made.name, Overrides::new()).await.expect("it launches");
    let execution = owner.completed(&launched.name).await;
    let counts = (execution.succeeded_count, execution.failed_count, execution.retried_count);
    assert_eq!((state(&execution), counts), (State::ConditionSucceeded, (1, 0, 1)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_more_than_the_quotas_give_is_answered_429() {
    let world = World::with(|config| config.quotas = Quotas { jobs: 2, running_executions: 1 }).await;
    let owner = world.as_owner();
    let jobs = owner.jobs().await;
    make(&jobs, "second", of(job(ALICE, "exit 0"))).await.expect("it is made");
    assert_eq!(refused(&jobs, "third", of(job(ALICE, "exit 0"))).await, 429);
    let first = owner.launch(JOB, script("exec /bin/sleep 600")).await.expect("it launches");
    assert_eq!(status(&owner.launch(JOB, script("exit 0")).await.expect_err("it is one too many")), 429);
    // An execution that is deleted is ended, and its place is free.
    let executions = owner.executions().await;
    executions.delete_execution().set_name(&first.name).send().await.expect("it is deleted");
    assert_eq!(status(&executions.get_execution().set_name(&first.name).send().await.expect_err("it is gone")), 404);
    eventually("a free place", async || owner.launch(JOB, script("exit 0")).await.ok()).await;
    world.stop().await;
}
