//! From a tenant registry to a loopback cloud that holds exactly what production would grant. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use carrel_local::CloudConfig;
use carrel_schemas::registry::{RegistryFile, Tenant};
use serde_json::{Value, json};

pub(crate) const PROJECT: &str = "carrel-local";
pub(crate) const LOCATION: &str = "us-central1";
pub(crate) const CONTROL_BUCKET: &str = "carrel-control";
pub(crate) const DISPATCHER: &str = "dispatcher@carrel-local.iam.gserviceaccount.com";

const TOPICS: [&str; 6] =
    ["uploads", "uploads-dead", "review-requests", "review-requests-dead", "outcomes", "completions"];

/// A tenant of this machine, everything named after its id.
pub(crate) fn tenant(id: &str) -> Value {
    json!({
        "id": id,
        "uploads_bucket": format!("{id}-uploads"),
        "outputs_bucket": format!("{id}-outputs"),
        "service_account": format!("worker-{id}@{PROJECT}.iam.gserviceaccount.com"),
        "job": format!("projects/{PROJECT}/locations/{LOCATION}/jobs/review-{id}"),
    })
}

/// Refuses a registry that this machine cannot run: its jobs lie in the loopback cloud's own project and location.
pub(crate) fn check(registry: &RegistryFile) -> anyhow::Result<()> {
    let here = format!("projects/{PROJECT}/locations/{LOCATION}/jobs/");
    let elsewhere = registry.tenants.iter().filter(|tenant| !tenant.job.as_str().starts_with(&here));
    let named: Vec<_> = elsewhere.map(|tenant| format!("  - tenant {}: job {}", tenant.id, tenant.job)).collect();
    if named.is_empty() {
        return Ok(());
    }
    anyhow::bail!("on this machine every job's name begins with {here}; correct the registry:\n{}", named.join("\n"))
}

fn member(email: &str) -> String {
    format!("serviceAccount:{email}")
}

fn bucket(name: &impl std::fmt::Display) -> String {
    format!("projects/_/buckets/{name}")
}

fn bind(resource: impl Into<String>, role: &str, email: &str) -> Value {
    json!({ "resource": resource.into(), "role": role, "members": [member(email)] })
}

/// The cloud of these tenants, at `listen`, kept in `dir`; `program` is this binary.
pub(crate) fn cloud(
    registry: &RegistryFile,
    listen: &str,
    dir: &Path,
    program: &str,
    path: &str,
) -> serde_json::Result<CloudConfig> {
    let endpoint = format!("http://{listen}");
    let topic = |name: &str| format!("projects/{PROJECT}/topics/{name}");
    let mut buckets = vec![json!({ "name": CONTROL_BUCKET })];
    let mut jobs = Vec::new();
    let mut bindings = vec![
        bind(bucket(&CONTROL_BUCKET), "roles/storage.objectUser", DISPATCHER),
        bind(topic("completions"), "roles/pubsub.publisher", DISPATCHER),
    ];
    let dead = |name: &str| json!({ "topic": name, "max_delivery_attempts": 5 });
    let mut subscriptions = Vec::new();
    for name in TOPICS.into_iter().filter(|name| *name != "completions") {
        let policy = match name {
            "uploads" => dead("uploads-dead"),
            "review-requests" => dead("review-requests-dead"),
            _ => Value::Null,
        };
        let short = format!("{name}-dispatcher");
        bindings.push(bind(format!("projects/{PROJECT}/subscriptions/{short}"), "roles/pubsub.subscriber", DISPATCHER));
        subscriptions.push(json!({ "name": short, "topic": name, "ack_deadline_seconds": 60, "dead_letter": policy }));
    }
    subscriptions.push(json!({ "name": "completions-cli", "topic": "completions", "ack_deadline_seconds": 60 }));
    let mut accounts = vec![DISPATCHER.to_owned()];
    for tenant in &registry.tenants {
        accounts.push(tenant.service_account.clone());
        buckets.push(json!({
            "name": tenant.uploads_bucket,
            "notifications": [{
                "topic": topic("uploads"), "event_types": ["OBJECT_FINALIZE"], "payload_format": "JSON_API_V1",
            }],
        }));
        buckets.push(json!({ "name": tenant.outputs_bucket }));
        jobs.push(job(tenant, &endpoint, program));
        let worker = &tenant.service_account;
        bindings.extend([
            bind(bucket(&tenant.uploads_bucket), "roles/storage.objectViewer", worker),
            bind(bucket(&tenant.outputs_bucket), "roles/carrelOutputsWriter", worker),
            bind(topic("outcomes"), "roles/pubsub.publisher", worker),
            bind(bucket(&tenant.uploads_bucket), "roles/carrelLister", DISPATCHER),
            bind(bucket(&tenant.outputs_bucket), "roles/carrelDecider", DISPATCHER),
            bind(tenant.job.as_str(), "roles/run.jobsExecutorWithOverrides", DISPATCHER),
            bind(tenant.job.as_str(), "roles/run.viewer", DISPATCHER),
        ]);
    }
    serde_json::from_value(json!({
        "listen": listen,
        "data_dir": dir.join("cloud"),
        "project": PROJECT,
        "location": LOCATION,
        "service_accounts": accounts,
        "buckets": buckets,
        "topics": TOPICS,
        "subscriptions": subscriptions,
        "jobs": jobs,
        "images": { "carrel/worker": { "argv": [program, "internal", "worker"], "env": { "PATH": path } } },
        "roles": {
            "roles/carrelLister": ["storage.objects.list"],
            "roles/carrelDecider": ["storage.objects.create", "storage.objects.get", "storage.objects.list"],
            "roles/carrelOutputsWriter": [
                "storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list",
            ],
        },
        "bindings": bindings,
        "metadata_servers": [{ "service_account": DISPATCHER }],
        "ready_file": dir.join("cloud.ready"),
    }))
}

fn job(tenant: &Tenant, endpoint: &str, program: &str) -> Value {
    let json_text = |value: Value| value.to_string();
    let env = BTreeMap::from([
        ("CARREL_TENANT", tenant.id.to_string()),
        ("CARREL_UPLOADS_BUCKET", tenant.uploads_bucket.to_string()),
        ("CARREL_OUTPUTS_BUCKET", tenant.outputs_bucket.to_string()),
        ("CARREL_OUTCOMES_TOPIC", format!("projects/{PROJECT}/topics/outcomes")),
        ("CARREL_LIMITS", json_text(json!(tenant.limits))),
        ("CARREL_AGENT", json_text(json!([program, "internal", "analyst"]))),
        ("CARREL_JOB", tenant.job.to_string()),
        ("CARREL_STORAGE_ENDPOINT", endpoint.to_owned()),
        ("CARREL_PUBSUB_ENDPOINT", endpoint.to_owned()),
    ]);
    json!({
        "name": tenant.job.as_str().rsplit('/').next(),
        "service_account": tenant.service_account,
        "image": "carrel/worker",
        "env": env,
        "timeout_seconds": tenant.limits.timeout_seconds,
    })
}
