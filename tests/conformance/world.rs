//! A cloud of two buckets, two service accounts, a job, two topics and their subscriptions, in a directory of its own.

use std::collections::BTreeMap;

use carrel_cloud::install_crypto;
use carrel_local::faults::FaultPlan;
use carrel_local::{Cloud, CloudConfig, config};

use crate::calls::Caller;

/// May read and write bucket-a, and publish.
pub(crate) const ALICE: &str = "alice@demo.iam.gserviceaccount.com";
/// May do nothing at all.
pub(crate) const BOB: &str = "bob@demo.iam.gserviceaccount.com";
/// A job that runs `/bin/sh -c ARGS` as Alice.
pub(crate) const JOB: &str = "projects/demo/locations/us-central1/jobs/shell";

/// A running cloud and its directory.
pub(crate) struct World {
    config: CloudConfig,
    cloud: Option<Cloud>,
    _dir: tempfile::TempDir,
}

impl World {
    /// One that behaves.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// One that misbehaves.
    pub(crate) async fn start_faulty(faults: FaultPlan) -> Self {
        Self::with(|config| config.faults = faults).await
    }

    /// One whose changes are made and never answered.
    pub(crate) async fn start_losing_every_reply() -> Self {
        Self::start_faulty(FaultPlan { lose_reply: 1.0, ..FaultPlan::default() }).await
    }

    /// One that is told something more.
    pub(crate) async fn with(edit: impl FnOnce(&mut CloudConfig)) -> Self {
        install_crypto();
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = config(dir.path());
        edit(&mut config);
        let cloud = Cloud::start(config.clone()).await.expect("the cloud starts");
        Self { config, cloud: Some(cloud), _dir: dir }
    }

    /// The cloud itself.
    pub(crate) fn cloud(&self) -> &Cloud {
        self.cloud.as_ref().expect("it runs until it is stopped")
    }

    /// What it was told.
    pub(crate) fn config(&self) -> &CloudConfig {
        &self.config
    }

    /// Where every service listens.
    pub(crate) fn endpoint(&self) -> &str {
        self.cloud().endpoint()
    }

    /// Calls of who may do everything.
    pub(crate) fn as_owner(&self) -> Caller {
        Caller::new(self.endpoint(), self.owner())
    }

    /// Calls of a service account.
    pub(crate) async fn caller(&self, account: &str) -> Caller {
        Caller::new(self.endpoint(), &self.token(account).await)
    }

    /// What a task has written.
    pub(crate) fn log(&self, execution: &str) -> String {
        let short = execution.rsplit('/').next().expect("a name has segments");
        let path = self.config.data_dir.join(format!("logs/{short}.log"));
        std::fs::read_to_string(path).expect("the execution has a log")
    }

    /// The token of who may do everything.
    pub(crate) fn owner(&self) -> &str {
        self.cloud().owner_token()
    }

    /// A token from the metadata server of a service account, as application-default credentials get it.
    pub(crate) async fn token(&self, account: &str) -> String {
        let host = self.cloud().metadata_host(account).expect("it is configured");
        let builder = google_cloud_auth::credentials::mds::Builder::default().with_endpoint(format!("http://{host}"));
        let credentials = builder.build_access_token_credentials().expect("they build");
        credentials.access_token().await.expect("the metadata server answers").token
    }

    /// Stops the cloud and starts it on the same directory.
    pub(crate) async fn restart(&mut self) {
        self.cloud.take().expect("it runs until it is stopped").shutdown().await;
        self.cloud = Some(Cloud::start(self.config.clone()).await.expect("the cloud starts again"));
    }

    /// Stops the cloud.
    pub(crate) async fn stop(self) {
        self.cloud.expect("it runs until it is stopped").shutdown().await;
    }
}

/// A role for a service account.
pub(crate) fn bind(resource: &str, role: &str, account: &str) -> config::Binding {
    config::Binding { resource: resource.into(), role: role.into(), members: vec![format!("serviceAccount:{account}")] }
}

/// What every world is told.
pub(crate) fn config(dir: &std::path::Path) -> CloudConfig {
    let bucket = |name: &str| config::Bucket {
        name: name.into(),
        notifications: vec![config::Notification {
            topic: "projects/demo/topics/events".into(),
            event_types: vec!["OBJECT_FINALIZE".into()],
            payload_format: config::PayloadFormat::JsonApiV1,
        }],
    };
    let subscription = |name: &str, topic: &str, dead_letter: Option<config::DeadLetter>| config::Subscription {
        name: name.into(),
        topic: topic.into(),
        ack_deadline_seconds: 10,
        dead_letter,
    };
    CloudConfig {
        service_accounts: vec![ALICE.into(), BOB.into()],
        buckets: vec![bucket("bucket-a"), bucket("bucket-b")],
        topics: vec!["events".into(), "graves".into()],
        subscriptions: vec![
            subscription("inbox", "events", None),
            subscription(
                "strict",
                "events",
                Some(config::DeadLetter { topic: "graves".into(), max_delivery_attempts: 5 }),
            ),
            subscription("graves", "graves", None),
        ],
        jobs: vec![config::Job {
            name: "shell".into(),
            service_account: ALICE.into(),
            image: "shell".into(),
            args: vec!["exit 0".into()],
            env: BTreeMap::new(),
            timeout_seconds: 60,
            memory_bytes: 1 << 30,
            volume: None,
            egress: Vec::new(),
            task_count: 1,
            parallelism: 0,
            max_retries: 0,
        }],
        images: BTreeMap::from([(
            "shell".into(),
            config::Image { argv: vec!["/bin/sh".into(), "-c".into()], env: BTreeMap::new(), files: Vec::new() },
        )]),
        // A harness with threads cannot start a launcher of rooms; tests/rooms holds tasks in theirs.
        isolation: config::Isolation::None,
        bindings: vec![
            bind("projects/_/buckets/bucket-a", "roles/storage.objectAdmin", ALICE),
            bind("projects/demo/topics/events", "roles/pubsub.publisher", ALICE),
        ],
        metadata_servers: [ALICE, BOB]
            .map(|account| config::MetadataServer { service_account: account.into(), listen: None })
            .to_vec(),
        ready_file: Some(dir.join("ready.json")),
        ..CloudConfig::new(dir.join("data"), "demo")
    }
}
