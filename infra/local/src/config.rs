//! The loopback cloud's configuration: one JSON document, applied at every start, additive.
//!
//! It names Google's nouns only: buckets, topics, subscriptions, jobs, images, roles and bindings. What a job runs is an
//! image, and what an image is on this machine is a command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use carrel_egress::Policy;
use carrel_sandbox::Entry;

use crate::faults::FaultPlan;
use crate::iam::Principal;
pub use crate::run::Clamd;

/// Everything the cloud is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudConfig {
    /// Address of all services; port 0 is any free one.
    pub listen: SocketAddr,
    /// Where everything durable lies.
    pub data_dir: PathBuf,
    /// The project that owns it all.
    pub project: String,
    /// Where the jobs are said to run.
    pub location: String,
    /// The e-mail addresses of the service accounts that exist; jobs and metadata servers may name no other.
    #[serde(default)]
    pub service_accounts: Vec<String>,
    /// Buckets to have.
    #[serde(default)]
    pub buckets: Vec<Bucket>,
    /// Topics to have, by short name.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Subscriptions to have.
    #[serde(default)]
    pub subscriptions: Vec<Subscription>,
    /// Jobs to have.
    #[serde(default)]
    pub jobs: Vec<Job>,
    /// What an image is on this machine.
    #[serde(default)]
    pub images: BTreeMap<String, Image>,
    /// Smaller ones show early what a program does when it has used up Google's.
    #[serde(default)]
    pub quotas: Quotas,
    /// What divides a task from this machine and from other tasks.
    #[serde(default)]
    pub isolation: Isolation,
    /// The command that serves a bucket as files, such as gcsfuse: `{bucket}` and `{endpoint}` stand for the bucket and
    /// this cloud, and `/dev/fd/3` is the channel of a filesystem that is mounted already.
    #[serde(default)]
    pub volume_server: Vec<String>,
    /// Loopback addresses of this machine that tasks reach beside this cloud, such as a collector's.
    #[serde(default)]
    pub reach: Vec<SocketAddr>,
    /// A clamd, by the path of its socket or `host:port`, that a task in a room finds at 127.0.0.1:3310: it may ask for
    /// the version and have streams looked at, nothing else.
    #[serde(default)]
    pub clamd: Option<Clamd>,
    /// Custom roles: name and permissions.
    #[serde(default)]
    pub roles: BTreeMap<String, Vec<String>>,
    /// Who may do what.
    #[serde(default)]
    pub bindings: Vec<Binding>,
    /// Metadata servers for programs that are no tasks.
    #[serde(default)]
    pub metadata_servers: Vec<MetadataServer>,
    /// Who callers without a token are. No file can say it: whoever starts the cloud says it aloud.
    #[serde(skip)]
    pub anonymous: Option<Principal>,
    /// Misbehaviour on demand.
    #[serde(default)]
    pub faults: FaultPlan,
    /// Written once everything listens.
    #[serde(default)]
    pub ready_file: Option<PathBuf>,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Where its events go.
    #[serde(default)]
    pub notifications: Vec<Notification>,
}

/// Where the events of a bucket go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notification {
    /// `projects/P/topics/T`.
    pub topic: String,
    /// `OBJECT_FINALIZE`, …; none means all.
    #[serde(default)]
    pub event_types: Vec<String>,
    /// What a message carries.
    #[serde(default)]
    pub payload_format: PayloadFormat,
}

/// What a notification carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PayloadFormat {
    /// The object's resource.
    #[default]
    #[serde(rename = "JSON_API_V1")]
    JsonApiV1,
    /// Nothing but attributes.
    #[serde(rename = "NONE")]
    None,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// Its short name.
    pub name: String,
    /// The short name of its topic.
    pub topic: String,
    /// Seconds a message may be held, 10 to 600.
    #[serde(default = "ten")]
    pub ack_deadline_seconds: u32,
    /// Where messages go that nobody can handle.
    #[serde(default)]
    pub dead_letter: Option<DeadLetter>,
}

/// A dead-letter policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// The short name of the topic.
    pub topic: String,
    /// Deliveries before that, 5 to 100.
    pub max_delivery_attempts: u32,
}

/// A Cloud Run Job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its short name.
    pub name: String,
    /// The e-mail address its tasks run as.
    pub service_account: String,
    /// A name in `images`.
    pub image: String,
    /// Its arguments where a launch gives none.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Seconds an attempt may take.
    #[serde(default = "ten_minutes")]
    pub timeout_seconds: u64,
    /// Bytes of memory of a task, its files in /tmp included.
    #[serde(default = "two_gibibytes")]
    pub memory_bytes: u64,
    /// A bucket that a task sees as files.
    #[serde(default)]
    pub volume: Option<Volume>,
    /// Hosts that a task reaches over HTTPS, by the proxy at 127.0.0.1:3128 of its room.
    #[serde(default)]
    pub egress: Vec<String>,
    /// Tasks of an execution where a launch says nothing.
    #[serde(default = "one")]
    pub task_count: usize,
    /// Tasks of an execution that run at once; 0 is all.
    #[serde(default)]
    pub parallelism: usize,
    /// Attempts at a task beyond the first.
    #[serde(default)]
    pub max_retries: u32,
}

/// What a project is given; whoever asks for more is answered 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Jobs of Cloud Run.
    pub jobs: usize,
    /// Executions that run at once.
    pub running_executions: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        // Cloud Run's own for a new project.
        Self { jobs: 1_000, running_executions: 1_000 }
    }
}

/// A bucket as a read-only directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The bucket, read with the identity of the job.
    pub bucket: String,
    /// Where a task finds it.
    pub mount_path: PathBuf,
}

/// What divides a task from this machine and from other tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A room of Linux namespaces. Where they cannot be had, a task fails to start and says why.
    #[default]
    Namespaces,
    /// Nothing: for programs that are trusted as this cloud is.
    None,
}

/// What runs for an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Program and first arguments.
    pub argv: Vec<String>,
    /// Files and directories of this machine that it holds beside the program and the system's own.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// Environment that the image brings.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A role given to members on one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// `projects/P`, `projects/_/buckets/B`, `projects/P/topics/T`, …
    pub resource: String,
    /// `roles/storage.objectViewer`, or a custom role.
    pub role: String,
    /// `serviceAccount:a@b.c`, …
    pub members: Vec<String>,
}

/// A metadata server for a program that is no task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataServer {
    /// Whose tokens it gives.
    pub service_account: String,
    /// Its address; absent is any free loopback port.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cloud's configuration is wrong:\n  {}", .0.join("\n  "))]
pub struct ConfigError(Vec<String>);

impl CloudConfig {
    /// An empty cloud on a free loopback port.
    pub fn new(data_dir: impl Into<PathBuf>, project: &str) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: data_dir.into(),
            project: project.to_owned(),
            location: "us-central1".to_owned(),
            service_accounts: Vec::new(),
            buckets: Vec::new(),
            topics: Vec::new(),
            subscriptions: Vec::new(),
            jobs: Vec::new(),
            images: BTreeMap::new(),
            quotas: Quotas::default(),
            isolation: Isolation::default(),
            volume_server: Vec::new(),
            reach: Vec::new(),
            clamd: None,
            roles: BTreeMap::new(),
            bindings: Vec::new(),
            metadata_servers: Vec::new(),
            anonymous: None,
            faults: FaultPlan::default(),
            ready_file: None,
        }
    }

    /// Every mistake at once.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut wrong = Vec::new();
        let mut unless = |right: bool, mistake: String| {
            if !right {
                wrong.push(mistake);
            }
        };
        let data = nearest(&self.data_dir);
        let files = self.images.values().flat_map(|image| image.files.clone());
        let shown = Entry::system().into_iter().filter_map(|entry| match entry {
            Entry::Show { from, .. } => Some(from),
            _ => None,
        });
        for shown in shown.chain(files).filter(|_| self.isolation != Isolation::None) {
            let (at, dir) = (shown.display(), self.data_dir.display());
            // Everybody's objects and the secret of all tokens lie there, and a room's user may read them.
            unless(
                // What is not there yet shows nothing.
                !shown.canonicalize().is_ok_and(|shown| data.starts_with(shown)),
                format!("data_dir {dir} lies in {at}, which every task is shown; choose a directory elsewhere"),
            );
        }
        unless(
            self.anonymous.is_none() || self.listen.ip().is_loopback(),
            format!("listen {}: callers without a token are let in, and must be of this machine", self.listen),
        );
        let named = |subscription: &str| format!("subscription {subscription}");
        for Subscription { name, topic, ack_deadline_seconds, dead_letter } in &self.subscriptions {
            let who = named(name);
            unless(self.topics.contains(topic), format!("{who}: no topic {topic}; add it to `topics`"));
            let deadline = *ack_deadline_seconds;
            unless((10..=600).contains(&deadline), format!("{who}: ack_deadline_seconds {deadline} is not 10 to 600"));
            if let Some(DeadLetter { topic, max_delivery_attempts: attempts }) = dead_letter {
                unless(self.topics.contains(topic), format!("{who}: no dead-letter topic {topic}; add it to `topics`"));
                let legal = (5..=100).contains(attempts);
                unless(legal, format!("{who}: max_delivery_attempts {attempts} is not 5 to 100"));
            }
        }
        for Job { name, service_account, image, timeout_seconds, volume, egress, .. } in &self.jobs {
            if let Err(refused) = Policy::parse(egress) {
                unless(false, format!("job {name}: {refused}"));
            }
            let known = self.service_accounts.contains(service_account);
            unless(known, format!("job {name}: no service account {service_account}; add it to `service_accounts`"));
            unless(self.images.contains_key(image), format!("job {name}: no image {image}; add it to `images`"));
            let legal = (1..=604_800).contains(timeout_seconds);
            unless(legal, format!("job {name}: timeout_seconds {timeout_seconds} is not 1 to 604800"));
            if let Some(Volume { bucket, .. }) = volume {
                let divided = self.isolation == Isolation::Namespaces;
                unless(divided, format!("job {name}: a volume needs `isolation` namespaces; leave it out or divide"));
                unless(
                    !self.volume_server.is_empty(),
                    format!("job {name}: nobody serves its volume; set `volume_server`"),
                );
                let known = self.buckets.iter().any(|known| known.name == *bucket);
                unless(known, format!("job {name}: no bucket {bucket}; add it to `buckets`"));
            }
        }
        for (name, image) in &self.images {
            unless(!image.argv.is_empty(), format!("image {name}: `argv` is empty; name a program"));
        }
        for Bucket { name, notifications } in &self.buckets {
            for Notification { topic, .. } in notifications {
                let known = self.topics.iter().any(|short| *topic == self.topic(short));
                unless(known, format!("bucket {name}: no topic {topic}; add its short name to `topics`"));
            }
        }
        for MetadataServer { service_account, .. } in &self.metadata_servers {
            let known = self.service_accounts.contains(service_account);
            unless(
                known,
                format!("metadata server: no service account {service_account}; add it to `service_accounts`"),
            );
        }
        for address in self.reach.iter().filter(|address| !address.ip().is_loopback()) {
            unless(false, format!("reach: {address} is no loopback address; tasks reach others through a proxy"));
        }
        wrong.extend(self.faults.mistakes());
        if wrong.is_empty() { Ok(()) } else { Err(ConfigError(wrong)) }
    }

    /// The full name of a topic of this project.
    pub fn topic(&self, short: &str) -> String {
        format!("projects/{}/topics/{short}", self.project)
    }

    /// The full name of a subscription of this project.
    pub fn subscription(&self, short: &str) -> String {
        format!("projects/{}/subscriptions/{short}", self.project)
    }
}

/// The path without links, as far as it exists yet.
fn nearest(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.ancestors().find_map(|path| path.canonicalize().ok()).unwrap_or_else(|| path.clone())
}

const fn ten() -> u32 {
    10
}

const fn one() -> usize {
    1
}

const fn two_gibibytes() -> u64 {
    2 << 30
}

const fn ten_minutes() -> u64 {
    600
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told_at_once_with_the_thing_and_the_cure() {
        let text = r#"{
            "listen": "127.0.0.1:0", "data_dir": "/tmp/x", "project": "p", "location": "l",
            "subscriptions": [{"name": "s", "topic": "t", "ack_deadline_seconds": 5}],
            "jobs": [{"name": "j", "service_account": "a@b.c", "image": "i"}],
            "buckets": [{"name": "b", "notifications": [{"topic": "projects/p/topics/t"}]}]
        }"#;
        let config: CloudConfig = serde_json::from_str(text).expect("it parses");
        let told = config.check().expect_err("it is wrong").to_string();
        for mistake in [
            "subscription s: no topic t; add it to `topics`",
            "subscription s: ack_deadline_seconds 5 is not 10 to 600",
            "job j: no service account a@b.c; add it to `service_accounts`",
            "job j: no image i; add it to `images`",
            "bucket b: no topic projects/p/topics/t; add its short name to `topics`",
        ] {
            assert!(told.contains(mistake), "{told}");
        }
        assert_eq!(CloudConfig::new("/tmp/x", "p").check(), Ok(()));
    }

    #[test]
    fn what_belongs_to_all_is_not_kept_where_every_task_may_look() {
        let refused = |dir: &str, image: Option<&str>| {
            let mut config = CloudConfig::new(dir, "p");
            let files = image.map(PathBuf::from).into_iter().collect();
            config
                .images
                .insert("i".to_owned(), Image { argv: vec!["/bin/true".to_owned()], files, env: BTreeMap::new() });
            config.check().err().map(|error| error.to_string())
        };
        let told = refused("/usr/local/not-there-yet/cloud", None).expect("refused");
        assert!(told.contains("/usr/local/not-there-yet/cloud lies in /usr,"), "{told}");
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("fleet/cloud").display().to_string();
        assert_eq!(refused(&data, Some("/usr/share")), None);
        assert!(refused(&data, dir.path().to_str()).expect("refused").contains("which every task is shown"));
        std::os::unix::fs::symlink("/usr", dir.path().join("elsewhere")).expect("linked");
        assert!(refused(&dir.path().join("elsewhere/x").display().to_string(), None).is_some());
    }

    #[test]
    fn the_configuration_that_compose_mounts_is_right() {
        let text = include_str!("../../images/compose/cloud.json");
        let config: CloudConfig = serde_json::from_str(text).expect("it parses");
        assert_eq!(config.check(), Ok(()));
    }
}
