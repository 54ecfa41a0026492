//! Jobs as they are made, changed and deleted over the wire, and kept.
//!
//! A configured job is applied at every start, over whatever was made of it meanwhile. One that was made over the wire
//! stays until it is deleted, with every execution of it. What an image is on this machine is configuration, so a job may
//! only name one: commands, ports, probes, secrets and labels are refused by name.

use std::collections::BTreeMap;

use carrel_egress::Policy;
use serde::{Deserialize, Serialize};

use super::Inner;
use super::refusal::Refusal;
use super::request::{EnvVar, MAX_TASKS, timeout_ms};
use crate::config::{Isolation, Job, Volume};

/// Attempts at a task beyond the first, unless told: as Cloud Run has it.
const RETRIES: u32 = 3;
/// At most.
const MAX_RETRIES: u32 = 10;
/// Memory of a task, unless told: as Cloud Run has it.
const MEMORY: u64 = 512 << 20;
/// Seconds of an attempt, unless told: as Cloud Run has it.
const TIMEOUT_SECONDS: u64 = 600;

/// A job and its life so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    /// As it is now.
    pub(super) job: Job,
    /// Microseconds since 1970.
    pub(super) created_us: i64,
    /// When it was changed last.
    pub(super) updated_us: i64,
    /// Its place among all states of the job, from 1.
    pub(super) generation: u64,
}

impl JobRecord {
    /// A job that nobody has changed yet.
    pub(super) fn new(job: Job, created_us: i64) -> Self {
        Self { job, created_us, updated_us: created_us, generation: 1 }
    }

    /// What tells its states apart.
    pub(super) fn etag(&self) -> String {
        format!("\"{}-{}\"", self.created_us, self.generation)
    }
}

/// What only the service may say; clients send it back, and it means nothing.
type Told = serde::de::IgnoredAny;

/// google.cloud.run.v2.Job, as far as it is served.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Body {
    name: Option<Told>,
    uid: Option<Told>,
    generation: Option<Told>,
    create_time: Option<Told>,
    update_time: Option<Told>,
    creator: Option<Told>,
    last_modifier: Option<Told>,
    client: Option<Told>,
    client_version: Option<Told>,
    launch_stage: Option<Told>,
    observed_generation: Option<Told>,
    terminal_condition: Option<Told>,
    conditions: Option<Told>,
    execution_count: Option<Told>,
    latest_created_execution: Option<Told>,
    reconciling: Option<Told>,
    /// The job's, or empty.
    pub(super) etag: String,
    template: ExecutionTemplate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ExecutionTemplate {
    parallelism: usize,
    task_count: Option<usize>,
    template: TaskTemplate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct TaskTemplate {
    containers: Vec<Container>,
    volumes: Vec<GcsVolume>,
    max_retries: Option<u32>,
    timeout: Option<String>,
    service_account: String,
    #[serde(rename = "executionEnvironment")]
    _execution_environment: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Container {
    #[serde(rename = "name")]
    _name: String,
    image: String,
    args: Vec<String>,
    env: Vec<EnvVar>,
    resources: Resources,
    volume_mounts: Vec<Mount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Resources {
    limits: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    name: String,
    mount_path: std::path::PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GcsVolume {
    name: String,
    gcs: Gcs,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Gcs {
    bucket: String,
    #[serde(default)]
    read_only: bool,
}

impl Body {
    /// The job of this name.
    pub(super) fn job(self, name: &str) -> Result<Job, Refusal> {
        let ExecutionTemplate { parallelism, task_count, template } = self.template;
        let mut containers = template.containers.into_iter();
        let (Some(container), None) = (containers.next(), containers.next()) else {
            return Err(invalid("containers", "a job here has one container"));
        };
        let task_count = task_count.filter(|count| *count > 0).unwrap_or(1);
        if task_count > MAX_TASKS {
            return Err(invalid("taskCount", &format!("{task_count} is not 1 to {MAX_TASKS}")));
        }
        let max_retries = template.max_retries.unwrap_or(RETRIES);
        if max_retries > MAX_RETRIES {
            return Err(invalid("maxRetries", &format!("{max_retries} is not 0 to {MAX_RETRIES}")));
        }
        let timeout = template.timeout.as_deref().map(timeout_ms).transpose()?;
        let mut env = BTreeMap::new();
        for variable in container.env {
            let (name, value) = variable.checked("template.template.containers[0]")?;
            env.insert(name, value);
        }
        Ok(Job {
            name: name.to_owned(),
            service_account: template.service_account,
            image: container.image,
            args: container.args,
            env,
            timeout_seconds: timeout.map_or(TIMEOUT_SECONDS, |ms| ms.div_ceil(1000)),
            memory_bytes: container.resources.limits.get("memory").map_or(Ok(MEMORY), |text| memory(text))?,
            volume: volume(template.volumes, container.volume_mounts)?,
            egress: Vec::new(),
            task_count,
            parallelism,
            max_retries,
        })
    }
}

fn invalid(field: &str, why: &str) -> Refusal {
    Refusal::Invalid(format!("job.template.{field}: {why}"))
}

fn volume(volumes: Vec<GcsVolume>, mounts: Vec<Mount>) -> Result<Option<Volume>, Refusal> {
    let mut both = volumes.into_iter().zip(mounts);
    match (both.next(), both.next()) {
        (None, _) => Ok(None),
        (Some((GcsVolume { name, gcs }, mount)), None) if name == mount.name && gcs.read_only => {
            Ok(Some(Volume { bucket: gcs.bucket, mount_path: mount.mount_path }))
        }
        _ => Err(invalid("volumes", "a job here has one volume at most, a bucket, read-only, mounted once")),
    }
}

/// `512Mi`, `2Gi`, `1G`, or bytes.
fn memory(text: &str) -> Result<u64, Refusal> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => 0,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| invalid("resources", &format!("memory {text:?} is no size, as 512Mi and 2Gi are")))
}

impl Inner {
    /// Whether this machine can run it.
    pub(super) fn check(&self, job: &Job) -> Result<(), Refusal> {
        let invalid = |why: String| Err(Refusal::Invalid(why));
        if !super::is_job_name(&job.name) {
            return invalid(super::OpenError::Name(job.name.clone()).to_string());
        }
        if self.images.get(&job.image).is_none_or(|image| image.argv.is_empty()) {
            return invalid(format!("image {:?} is not configured; give it an argv under `images`", job.image));
        }
        if !self.service_accounts.contains(&job.service_account) {
            let account = &job.service_account;
            return invalid(format!("service account {account:?} does not exist; add it to `service_accounts`"));
        }
        if let Err(error) = Policy::parse(&job.egress) {
            return invalid(error.to_string());
        }
        if job.volume.is_some() && (self.isolation != Isolation::Namespaces || self.volume_server.is_empty()) {
            return invalid("a volume needs `isolation` namespaces and a `volume_server`".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::request::body;

    fn read(text: &str) -> Result<Job, Refusal> {
        body::<Body>(text.as_bytes()).and_then(|body| body.job("j"))
    }

    #[test]
    fn a_job_is_read_as_clients_write_it_and_what_is_left_out_is_googles() {
        let text = r#"{"name":"x","etag":"e","launchStage":"GA","template":{"taskCount":3,"parallelism":2,"template":{
            "serviceAccount":"a@b.c","timeout":"90s","maxRetries":0,
            "volumes":[{"name":"v","gcs":{"bucket":"b","readOnly":true}}],
            "containers":[{"image":"i","args":["x"],"env":[{"name":"A","value":"1"}],
                "resources":{"limits":{"cpu":"1","memory":"1Gi"}},"volumeMounts":[{"name":"v","mountPath":"/mnt"}]}]}}}"#;
        let job = read(text).expect("reads");
        assert_eq!((job.task_count, job.parallelism, job.max_retries, job.timeout_seconds), (3, 2, 0, 90));
        assert_eq!((job.memory_bytes, job.env["A"].as_str(), job.args), (1 << 30, "1", vec!["x".to_owned()]));
        assert_eq!(job.volume, Some(Volume { bucket: "b".into(), mount_path: "/mnt".into() }));
        let bare = read(r#"{"template":{"template":{"containers":[{"image":"i"}]}}}"#).expect("reads");
        assert_eq!((bare.task_count, bare.parallelism, bare.max_retries, bare.timeout_seconds), (1, 0, 3, 600));
        assert_eq!((bare.memory_bytes, bare.volume), (512 << 20, None));
    }

    #[test]
    fn what_a_job_here_cannot_be_is_refused_by_name() {
        for (text, named) in [
            (r#"{"template":{"template":{}}}"#, "containers"),
            (r#"{"labels":{},"template":{}}"#, "labels"),
            (r#"{"template":{"template":{"containers":[{"image":"i","command":["/bin/sh"]}]}}}"#, "command"),
            (r#"{"template":{"taskCount":101,"template":{"containers":[{"image":"i"}]}}}"#, "taskCount"),
            (r#"{"template":{"template":{"maxRetries":11,"containers":[{"image":"i"}]}}}"#, "maxRetries"),
            (r#"{"template":{"template":{"timeout":"9","containers":[{"image":"i"}]}}}"#, "timeout"),
            (
                r#"{"template":{"template":{"containers":[{"image":"i","resources":{"limits":{"memory":"1X"}}}]}}}"#,
                "memory",
            ),
        ] {
            let told = read(text).expect_err(text).to_string();
            assert!(told.contains(named), "{told}");
        }
    }
}
