//! Another's job and executions, and one's own job, for whoever holds a worker's token: all are the dispatcher's.

use carrel::plan;
use serde_json::{Value, json};

use super::wire::{Call, Hand};
use super::{ATTACKER, Allowed, Attack, Stage, Thing, VICTIM, owner, two, worker};
use crate::files::sales;
use crate::gate::Gate;
use crate::world::World;

const ATTACKS: &[Attack] = &[
    Attack("look at", |t| Call::get(format!("/v2/{}", t.of)), 403, Allowed::Owner(200)),
    Attack("run", |t| Call::post(format!("/v2/{}:run", t.of), "{}"), 403, Allowed::Owner(200)),
    Attack("run as another", |t| Call::post(format!("/v2/{}:run", t.of), another()), 403, Allowed::Owner(200)),
    Attack("list executions of", |t| Call::get(format!("/v2/{}/executions", t.of)), 403, Allowed::Owner(200)),
    Attack("look at execution", |t| Call::get(format!("/v2/{}", t.item)), 403, Allowed::Owner(200)),
    Attack("list tasks of", |t| Call::get(format!("/v2/{}/tasks", t.item)), 403, Allowed::Owner(200)),
    Attack(
        "look at a task of",
        |t| Call::get(format!("/v2/{}/tasks/{}-task0", t.item, short(t))),
        403,
        Allowed::Owner(200),
    ),
    Attack("find jobs beside", |_| Call::get(format!("/v2/{}/jobs", place())), 403, Allowed::Owner(200)),
    Attack("cancel", |t| Call::post(format!("/v2/{}:cancel", t.item), "{}"), 403, Allowed::Owner(200)),
    // The owner may, and changes nothing: the name of the job is taken, the etag stale, or no container is named.
    Attack("make a job with the victim's identity", |_| made(VICTIM, ATTACKER), 403, Allowed::Owner(409)),
    Attack("make a job that shows the victim's bucket", |_| made(ATTACKER, VICTIM), 403, Allowed::Owner(409)),
    Attack("give the victim's identity to", |t| changed(t, VICTIM, ATTACKER), 403, Allowed::Owner(409)),
    Attack("show the victim's bucket in", |t| changed(t, ATTACKER, VICTIM), 403, Allowed::Owner(409)),
    Attack("change", |t| Call::patch(format!("/v2/{}", t.of), "{}"), 403, Allowed::Owner(400)),
    Attack("delete", |t| Call::delete(format!("/v2/{}?etag=stale", t.of)), 403, Allowed::Owner(409)),
    Attack("delete execution", |t| Call::delete(format!("/v2/{}?etag=stale", t.item)), 403, Allowed::Owner(409)),
    Attack("say who may", |t| Call::post(format!("/v2/{}:setIamPolicy", t.of), "{}"), 404, Allowed::Owner(404)),
];

const OPERATIONS: &[Attack] =
    &[Attack("look at operation", |t| Call::get(format!("/v2/{}", t.item)), 403, Allowed::Owner(200))];

/// A job as one tenant, with the uploads of one.
fn body(account: &str, bucket: &str) -> String {
    let container = json!({
        "image": "carrel/worker",
        "volumeMounts": [{ "name": "uploads", "mountPath": "/mnt/uploads" }],
    });
    let volume = json!({ "name": "uploads", "gcs": { "bucket": format!("{bucket}-uploads"), "readOnly": true } });
    let account = format!("worker-{account}@{}.iam.gserviceaccount.com", plan::PROJECT);
    let template = json!({ "containers": [container], "volumes": [volume], "serviceAccount": account });
    json!({ "etag": "stale", "template": { "template": template } }).to_string()
}

/// A new job, under the name of one that the owner sees is there.
fn made(account: &str, bucket: &str) -> Call {
    Call::post(format!("/v2/{}/jobs?jobId=review-{ATTACKER}", place()), body(account, bucket))
}

fn changed(of: &Thing, account: &str, bucket: &str) -> Call {
    Call::patch(format!("/v2/{}", of.of), body(account, bucket))
}

fn place() -> String {
    format!("projects/{}/locations/{}", plan::PROJECT, plan::LOCATION)
}

/// A launch with the victim's name on it.
fn another() -> String {
    let env = json!([{ "name": "CARREL_TENANT", "value": VICTIM }]);
    json!({ "overrides": { "containerOverrides": [{ "env": env }] } }).to_string()
}

fn short(execution: &Thing) -> &str {
    execution.item.rsplit('/').next().expect("a name has segments")
}

fn job(tenant: &str) -> String {
    format!("{}/jobs/review-{tenant}", place())
}

/// The newest execution of a tenant's job, as its owner sees it.
pub(super) async fn execution(owner: &Hand, tenant: &str) -> Value {
    let listed = owner.call(Call::get(format!("/v2/{}/executions", job(tenant)))).await;
    let listed: Value = serde_json::from_str(&listed.text).expect("a page");
    listed["executions"][0].clone()
}

fn text(of: &Value, field: &str) -> String {
    of[field].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_looks_at_changes_and_cancels_no_job_not_even_its_own() {
    let mut gate = None;
    let world = World::start(two(json!({})), |setup| gate = Some(Gate::install(setup))).await;
    let gate = gate.expect("installed");
    for tenant in [ATTACKER, VICTIM] {
        world.upload(tenant, "q3", vec![("sales.csv", sales())]).await;
    }
    gate.is_reached_by(2).await;
    let (owner, attacker) = (owner(&world), worker(&world, ATTACKER));
    let (own, theirs) = (execution(&owner, ATTACKER).await, execution(&owner, VICTIM).await);
    let name = text(&theirs, "name");
    let named = |tenant: &str, short: &str| Thing::new(job(tenant), format!("{}/executions/{short}", job(tenant)));
    let victims = Thing::new(job(VICTIM), &name);
    let stage = Stage {
        attacker: &attacker,
        owner: &owner,
        own: Thing::new(job(ATTACKER), text(&own, "name")),
        theirs: vec![victims.clone(), named(ATTACKER, short(&victims))],
        nobodys: named("nobody", "review-nobody-22222222"),
    };
    stage.play(ATTACKS).await;
    let operation = |uid: &str| Thing::new(place(), format!("{}/operations/{uid}", place()));
    let stage = Stage {
        own: operation(&text(&own, "uid")),
        theirs: vec![operation(&text(&theirs, "uid"))],
        nobodys: operation("00000000-0000-4000-8000-000000000000"),
        ..stage
    };
    stage.play(OPERATIONS).await;

    let now = execution(&owner, VICTIM).await;
    assert_eq!((text(&now, "name"), now["completionTime"].is_null()), (name, true), "it runs on, and it alone: {now}");
    let _open = gate.open();
    assert_eq!(world.completion(VICTIM, "q3").await.completion.verdict.state(), "delivered");
}
