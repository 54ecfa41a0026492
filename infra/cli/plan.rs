//! From a tenant registry to a loopback cloud that holds exactly what production would grant. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use carrel_local::CloudConfig;
use carrel_local::config::Isolation;
use carrel_schemas::ids::JobName;
use carrel_schemas::registry::{Limits, RegistryFile, Tenant};
use carrel_schemas::scan::Antivirus;
use carrel_worker::scan::Clamd;
use serde_json::{Value, json};

use crate::fleet::TRUSTED;

/// The project of everything on this machine.
pub const PROJECT: &str = "carrel-local";
/// Where its jobs run.
pub const LOCATION: &str = "us-central1";
/// The dispatcher's own bucket.
pub const CONTROL_BUCKET: &str = "carrel-control";
/// Where a task finds its uploads bucket.
const VOLUME: &str = "/mnt/uploads";
/// Where the cloud has a door before clamd in each task's room.
const SCANNER: &str = "127.0.0.1:3310";
pub(crate) const DISPATCHER: &str = "dispatcher@carrel-local.iam.gserviceaccount.com";

const TOPICS: [&str; 6] =
    ["uploads", "uploads-dead", "review-requests", "review-requests-dead", "outcomes", "completions"];

/// A tenant of this machine, everything named after its id.
pub fn tenant(id: &str) -> Value {
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

/// Refuses a tenant whose files must pass a virus scanner where there is none.
pub(crate) fn check_scanner(registry: &RegistryFile, clamd: Option<&Clamd>) -> anyhow::Result<()> {
    let required = registry.tenants.iter().filter(|tenant| tenant.scan.antivirus == Antivirus::Required);
    let named: Vec<_> = required.map(|tenant| tenant.id.as_str()).collect();
    if clamd.is_some() || named.is_empty() {
        return Ok(());
    }
    anyhow::bail!("the files of {} must pass a virus scanner, and there is none; name it by --clamd", named.join(", "))
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

/// What this machine adds to a registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    /// Where the cloud answers, `address:port`.
    pub(crate) listen: &'a str,
    /// Where it keeps its data.
    pub(crate) dir: &'a Path,
    /// This binary, which is every image.
    pub(crate) program: &'a str,
    /// `PATH` of the tasks.
    pub(crate) path: &'a str,
    /// The agent's command line.
    pub(crate) agent: &'a [String],
    /// Where its virus scanner listens, if it has one.
    pub(crate) clamd: Option<&'a Clamd>,
    /// The file of certificate authorities that tasks are told of.
    pub(crate) authorities: Option<&'a Path>,
    /// What divides the tasks from this machine.
    pub(crate) isolation: Isolation,
    /// Tasks see their uploads bucket as files; otherwise they fetch what they read.
    pub(crate) volume: bool,
    /// Where traces go.
    pub(crate) otlp: Option<&'a str>,
}

/// The cloud of these tenants on this machine.
pub(crate) fn cloud(registry: &RegistryFile, site: Site<'_>) -> serde_json::Result<CloudConfig> {
    let Site { listen, dir, program, path, authorities, .. } = site;
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
        jobs.push(job(tenant, &tenant.job, &tenant.limits, site));
        let mut executed = vec![tenant.job.clone()];
        if let Some(larger) = tenant.retry_limits {
            executed.push(tenant.job_for(true));
            jobs.push(job(tenant, &tenant.job_for(true), &larger.over(tenant.limits), site));
        }
        let worker = &tenant.service_account;
        bindings.extend([
            bind(bucket(&tenant.uploads_bucket), "roles/storage.objectViewer", worker),
            bind(bucket(&tenant.outputs_bucket), "roles/carrelOutputsWriter", worker),
            bind(topic("outcomes"), "roles/pubsub.publisher", worker),
            bind(bucket(&tenant.uploads_bucket), "roles/carrelLister", DISPATCHER),
            bind(bucket(&tenant.outputs_bucket), "roles/carrelDecider", DISPATCHER),
            bind(bucket(&tenant.outputs_bucket), "roles/carrelCollector", DISPATCHER),
        ]);
        bindings.extend(executed.iter().flat_map(|job| {
            ["roles/run.jobsExecutorWithOverrides", "roles/run.viewer"].map(|role| bind(job.as_str(), role, DISPATCHER))
        }));
    }
    // What its tasks must find beside the system's own: what the agent's command line names, and authorities.
    let agent = site.agent.iter().map(Path::new).filter(|word| word.is_absolute());
    let files: Vec<&Path> = agent.chain(authorities).collect();
    let reach: Vec<SocketAddr> = collector(site.otlp).into_iter().collect();
    let mut env = json!({ "PATH": path });
    let mut volume_server = Vec::new();
    if let Some(file) = authorities {
        env[TRUSTED] = json!(file);
        // Its server lies outside of every room, and begins with an empty environment.
        volume_server.extend(["/usr/bin/env".to_owned(), format!("{TRUSTED}={}", file.display())]);
    }
    let serve = ["internal", "volume", "--bucket", "{bucket}", "--storage-endpoint", "{endpoint}", "/dev/fd/3"];
    volume_server.extend([program].into_iter().chain(serve).map(str::to_owned));
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
        "images": { "carrel/worker": { "argv": [program, "internal", "worker"], "env": env, "files": files } },
        "isolation": site.isolation,
        "reach": reach,
        "clamd": site.clamd.map(ToString::to_string),
        "volume_server": volume_server,
        "roles": {
            "roles/carrelLister": ["storage.objects.list"],
            "roles/carrelDecider": ["storage.objects.create", "storage.objects.get", "storage.objects.list"],
            "roles/carrelCollector": ["storage.objects.delete"],
            "roles/carrelOutputsWriter": [
                "storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list",
            ],
        },
        "bindings": bindings,
        "metadata_servers": [{ "service_account": DISPATCHER }],
        "ready_file": dir.join("cloud.ready"),
    }))
}

fn job(tenant: &Tenant, name: &JobName, limits: &Limits, site: Site<'_>) -> Value {
    let endpoint = format!("http://{}", site.listen);
    let json_text = |value: Value| value.to_string();
    let mut env = BTreeMap::from([
        ("CARREL_TENANT", tenant.id.to_string()),
        ("CARREL_UPLOADS_BUCKET", tenant.uploads_bucket.to_string()),
        ("CARREL_OUTPUTS_BUCKET", tenant.outputs_bucket.to_string()),
        ("CARREL_OUTCOMES_TOPIC", format!("projects/{PROJECT}/topics/outcomes")),
        ("CARREL_LIMITS", json_text(json!(limits))),
        ("CARREL_EGRESS", json_text(json!(tenant.egress))),
        ("CARREL_SCAN", json_text(json!(tenant.scan))),
        ("CARREL_AGENT", json_text(json!(site.agent))),
        ("CARREL_ISOLATION", inner(site.isolation).to_owned()),
        ("CARREL_INPUT", if site.volume { VOLUME } else { "hydrate" }.to_owned()),
        ("CARREL_JOB", name.to_string()),
        ("CARREL_STORAGE_ENDPOINT", endpoint.clone()),
        ("CARREL_PUBSUB_ENDPOINT", endpoint),
    ]);
    if site.isolation == Isolation::Namespaces && !tenant.egress.is_empty() {
        env.insert("CARREL_EGRESS_VIA", "127.0.0.1:3128".to_owned());
    }
    if let Some(endpoint) = site.otlp {
        env.insert("CARREL_OTLP_ENDPOINT", endpoint.to_owned());
    }
    if let Some(clamd) = site.clamd {
        let door = || SCANNER.to_owned();
        let address = if site.isolation == Isolation::Namespaces { door() } else { clamd.to_string() };
        env.insert("CARREL_CLAMD", address);
    }
    json!({
        "name": name.as_str().rsplit('/').next(),
        "service_account": tenant.service_account,
        "image": "carrel/worker",
        "env": env,
        "timeout_seconds": limits.timeout_seconds,
        "memory_bytes": memory(limits),
        "egress": tenant.egress,
        "volume": site.volume.then(|| json!({ "bucket": tenant.uploads_bucket, "mount_path": VOLUME })),
    })
}

/// A collector on this machine, which a task reaches from its room; one elsewhere it does not.
fn collector(endpoint: Option<&str>) -> Option<SocketAddr> {
    let (_, authority) = endpoint?.split_once("://")?;
    let address: SocketAddr = authority.trim_end_matches('/').replace("localhost", "127.0.0.1").parse().ok()?;
    address.ip().is_loopback().then_some(address)
}

/// The room of the agent inside the task's. Where nothing divides tasks, nothing pretends to divide agents.
fn inner(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Namespaces => "namespaces",
        Isolation::None => "process",
    }
}

/// What a task needs: its agent's memory, as much again for the agent's scratch, the files of the pack and of the
/// review, which all lie in memory, and the worker itself. At most what Cloud Run gives.
fn memory(limits: &Limits) -> u64 {
    const WORKER: u64 = 512 << 20;
    const CLOUD_RUN: u64 = 32 << 30;
    let files = u64::from(limits.max_files).saturating_mul(limits.max_file_bytes);
    let agent = limits.agent_memory_bytes.saturating_mul(2);
    let review = limits.max_output_bytes.saturating_mul(2);
    WORKER.saturating_add(agent).saturating_add(files).saturating_add(review).min(CLOUD_RUN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn planned(ids: &[&str]) -> CloudConfig {
        planned_of(ids.iter().map(|id| tenant(id)).collect(), None)
    }

    fn planned_of(tenants: Vec<Value>, clamd: Option<&Clamd>) -> CloudConfig {
        let registry = serde_json::from_value(json!({ "schema": 1, "tenants": tenants })).expect("a registry");
        let agent = ["/bin/agent".to_owned()];
        let site = Site {
            listen: "127.0.0.1:1",
            dir: Path::new("/tmp/x"),
            program: "/bin/carrel",
            path: "/bin",
            agent: &agent,
            clamd,
            authorities: None,
            isolation: Isolation::Namespaces,
            volume: true,
            otlp: None,
        };
        cloud(&registry, site).expect("a configuration")
    }

    /// Every role that `email` holds, with the resource it holds it on.
    fn grants(config: &CloudConfig, email: &str) -> Vec<(String, String)> {
        let held = config.bindings.iter().filter(|binding| binding.members.contains(&member(email)));
        held.map(|binding| (binding.resource.clone(), binding.role.clone())).collect()
    }

    #[test]
    fn the_planned_cloud_is_sound() {
        planned(&["acme", "bolt"]).check().expect("no mistakes");
    }

    #[test]
    fn a_tenant_with_a_second_try_has_a_second_job_of_the_same_identity_with_more() {
        let mut acme = tenant("acme");
        acme["retry_limits"] = json!({ "timeout_seconds": 3600, "agent_memory_bytes": 4_u64 << 30 });
        let config = planned_of(vec![acme], None);
        config.check().expect("no mistakes");
        let [own, larger] = &config.jobs[..] else { panic!("{:?}", config.jobs) };
        assert_eq!((own.name.as_str(), larger.name.as_str()), ("review-acme", "review-acme-large"));
        assert_eq!((&own.service_account, larger.timeout_seconds), (&larger.service_account, 3600));
        assert!(larger.memory_bytes > own.memory_bytes && larger.env["CARREL_JOB"].ends_with("-large"));
        let may = grants(&config, DISPATCHER).into_iter().filter(|(resource, _)| resource.ends_with("-large"));
        assert_eq!(may.count(), 2, "to run it and to look at it");
    }

    #[test]
    fn a_task_finds_the_door_before_clamd_and_not_its_socket() {
        for at in ["/run/clamav/clamd.ctl", "127.0.0.1:4000", "clamd.example:3310"] {
            let config = planned_of(vec![tenant("acme")], Some(&at.parse().expect("an address")));
            assert_eq!(config.clamd, Some(at.parse().expect("an address")));
            assert_eq!(config.jobs[0].env["CARREL_CLAMD"], SCANNER);
            assert!(config.reach.is_empty(), "{:?}", config.reach);
            assert!(config.images.values().all(|image| image.files == [Path::new("/bin/agent")]));
            config.check().expect("no mistakes");
        }
    }

    #[test]
    fn a_worker_is_granted_its_own_tenants_buckets_and_nothing_else_of_tenants() {
        let config = planned(&["acme", "bolt"]);
        let held = grants(&config, "worker-acme@carrel-local.iam.gserviceaccount.com");
        assert_eq!(held.len(), 3, "{held:?}");
        for (resource, _) in held {
            let own = resource.contains("acme-") || resource.ends_with("/topics/outcomes");
            assert!(own, "{resource}");
        }
    }

    #[test]
    fn the_dispatcher_is_granted_no_upload_s_bytes() {
        let config = planned(&["acme"]);
        for (resource, role) in grants(&config, DISPATCHER).iter().filter(|(resource, _)| resource.contains("uploads"))
        {
            let listing = role == "roles/carrelLister" || role == "roles/pubsub.subscriber";
            assert!(listing, "{role} on {resource}");
        }
        assert_eq!(config.roles["roles/carrelLister"], ["storage.objects.list"]);
    }

    /// Everything that anybody may do in a fleet of two tenants: who, what, where. What is not here is denied.
    const GRANTS: &[(&str, &[&str], &[&str])] = &[
        ("worker-acme", &["storage.objects.get", "storage.objects.list"], &["projects/_/buckets/acme-uploads"]),
        ("worker-bolt", &["storage.objects.get", "storage.objects.list"], &["projects/_/buckets/bolt-uploads"]),
        (
            "worker-acme",
            &["storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list"],
            &["projects/_/buckets/acme-outputs"],
        ),
        (
            "worker-bolt",
            &["storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list"],
            &["projects/_/buckets/bolt-outputs"],
        ),
        ("worker-acme", &["pubsub.topics.publish"], &["projects/carrel-local/topics/outcomes"]),
        ("worker-bolt", &["pubsub.topics.publish"], &["projects/carrel-local/topics/outcomes"]),
        (
            "dispatcher",
            &["storage.objects.list"],
            &["projects/_/buckets/acme-uploads", "projects/_/buckets/bolt-uploads"],
        ),
        (
            "dispatcher",
            &["storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list"],
            &["projects/_/buckets/acme-outputs", "projects/_/buckets/bolt-outputs"],
        ),
        (
            "dispatcher",
            &[
                "storage.objects.create",
                "storage.objects.delete",
                "storage.objects.get",
                "storage.objects.list",
                "storage.objects.update",
            ],
            &["projects/_/buckets/carrel-control"],
        ),
        ("dispatcher", &["pubsub.topics.publish"], &["projects/carrel-local/topics/completions"]),
        (
            "dispatcher",
            &["pubsub.snapshots.seek", "pubsub.subscriptions.consume", "pubsub.topics.attachSubscription"],
            &[
                "projects/carrel-local/subscriptions/outcomes-dispatcher",
                "projects/carrel-local/subscriptions/review-requests-dead-dispatcher",
                "projects/carrel-local/subscriptions/review-requests-dispatcher",
                "projects/carrel-local/subscriptions/uploads-dead-dispatcher",
                "projects/carrel-local/subscriptions/uploads-dispatcher",
            ],
        ),
        (
            "dispatcher",
            &[
                "run.executions.cancel",
                "run.executions.get",
                "run.executions.list",
                "run.jobs.get",
                "run.jobs.list",
                "run.jobs.run",
                "run.jobs.runWithOverrides",
                "run.operations.get",
                "run.tasks.get",
                "run.tasks.list",
            ],
            &[
                "projects/carrel-local/locations/us-central1/jobs/review-acme",
                "projects/carrel-local/locations/us-central1/jobs/review-bolt",
            ],
        ),
    ];

    #[test]
    fn everybody_may_do_to_everything_what_the_list_says_and_nothing_else() {
        use carrel_local::iam::{Iam, Principal, predefined_roles};

        let config = planned(&["acme", "bolt"]);
        let dir = tempfile::tempdir().expect("a directory");
        let iam = Iam::open(dir.path(), &config.roles, &config.bindings).expect("a policy");
        let iam = iam.serving(&config.project, config.anonymous.clone());
        let permissions: BTreeSet<&str> = predefined_roles().into_values().flatten().copied().collect();
        let mut resources: BTreeSet<String> =
            GRANTS.iter().flat_map(|(.., on)| *on).map(|on| (*on).to_owned()).collect();
        resources.extend(config.buckets.iter().map(|known| bucket(&known.name)));
        resources.extend(config.topics.iter().map(|short| config.topic(short)));
        resources.extend(config.subscriptions.iter().map(|known| config.subscription(&known.name)));
        resources.insert(format!("projects/{PROJECT}"));
        let (mut wrong, mut allowed) = (Vec::new(), 0);
        for account in &config.service_accounts {
            let (short, _) = account.split_once('@').expect("an address");
            for resource in &resources {
                for permission in &permissions {
                    let listed = GRANTS.iter().any(|(who, what, on)| {
                        *who == short && what.contains(permission) && on.contains(&resource.as_str())
                    });
                    let may = iam.check(&Principal::service_account(account), permission, resource).is_ok();
                    allowed += usize::from(may);
                    if may != listed {
                        wrong.push(format!("{short} {permission} on {resource}: {may}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(allowed > 40, "only {allowed} grants were looked at");
        assert_eq!(config.anonymous, None, "a fleet knows nobody without a token");
    }

    #[test]
    fn a_job_elsewhere_is_refused_by_name() {
        let mut elsewhere = tenant("acme");
        elsewhere["job"] = json!("projects/other/locations/us-central1/jobs/review-acme");
        let registry = serde_json::from_value(json!({ "schema": 1, "tenants": [elsewhere] })).expect("a registry");
        let error = check(&registry).expect_err("not here").to_string();
        assert!(error.contains("tenant acme") && error.contains("projects/other"), "{error}");
    }
    #[test]
    fn a_tenant_that_requires_a_virus_scanner_is_not_run_without_one() {
        let mut strict = tenant("acme");
        strict["scan"] = json!({ "antivirus": "required" });
        let registry = serde_json::from_value(json!({ "schema": 1, "tenants": [strict] })).expect("a registry");
        let error = check_scanner(&registry, None).expect_err("none").to_string();
        assert!(error.contains("acme") && error.contains("--clamd"), "{error}");
        let clamd = "clamd:3310".parse().expect("an address");
        check_scanner(&registry, Some(&clamd)).expect("there is one");
    }
}
