//! One fleet in a temporary directory, and the two ends a customer sees: uploads in, completion events out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use carrel::client::Api;
use carrel::fleet::{Fleet, Part, Setup};
use carrel::plan;
use carrel_cloud::Objects;
use carrel_schemas::cloud_event::EventContext;
use carrel_schemas::completion::{COMPLETED, Completion};
use carrel_schemas::dead_letter::DeadLetter;
use carrel_schemas::outcome::Outcome;
use rustix::process::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Nothing that works takes this long; what does not work ends here.
pub(crate) const AT_LAST: Duration = Duration::from_secs(90);
/// How soon a test looks again, and how seldom at most: each look at the cloud or the API costs all fleets time.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(150));

/// One completion event as a consumer got it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    #[allow(dead_code, reason = "the bench reads it")]
    pub(crate) at: SystemTime,
    pub(crate) completion: Completion,
    pub(crate) context: EventContext,
    pub(crate) attributes: BTreeMap<String, String>,
}

type Inbox = Arc<Mutex<Vec<Received>>>;

/// A fleet under test.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) objects: Objects,
    inbox: Inbox,
    consumer: JoinHandle<()>,
    /// Removed with the world, unless the test fails: then it is kept and named.
    dir: Option<TempDir>,
}

/// A fleet whose files are written and whose processes do not run yet.
pub(crate) struct Prepared {
    pub(crate) fleet: Fleet,
    dir: TempDir,
}

impl Prepared {
    /// A fleet of these tenants; `change` may change its setup.
    pub(crate) fn new(tenants: Vec<Value>, change: impl FnOnce(&mut Setup)) -> Self {
        let dir = TempDir::with_prefix("carrel-promise-").expect("a temporary directory");
        let registry = dir.path().join("given.json");
        std::fs::write(&registry, json!({ "schema": 1, "tenants": tenants }).to_string()).expect("a registry");
        let mut setup = Setup::here(dir.path()).expect("a setup");
        setup.program = program();
        setup.registry = Some(registry);
        // The reconciler is what mends; it may look often where the world is small.
        setup.dispatcher.push(("CARREL_RECONCILE_MS".to_owned(), "250".to_owned()));
        change(&mut setup);
        Self { fleet: Fleet::prepare(setup).expect("a sound setup"), dir }
    }

    /// Changes what its cloud will be told.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(&mut Value)) {
        reconfigure(&self.fleet, change);
    }

    /// Starts it.
    pub(crate) async fn start(mut self) -> World {
        self.fleet.start_cloud().await.expect("the cloud starts");
        self.start_dispatcher().await
    }

    /// Starts the dispatcher on a cloud that runs.
    pub(crate) async fn start_dispatcher(mut self) -> World {
        self.fleet.start_dispatcher().await.expect("the dispatcher starts");
        let (objects, inbox, consumer) = connect(&self.fleet).await;
        World { fleet: self.fleet, objects, inbox, consumer, dir: Some(self.dir) }
    }
}

/// A tenant of the registry, named after its id, with `changes` laid over it.
pub(crate) fn tenant(id: &str, changes: Value) -> Value {
    let mut tenant = plan::tenant(id);
    for (field, value) in changes.as_object().expect("changes are an object") {
        tenant[field] = value.clone();
    }
    tenant
}

/// The `carrel` binary under test.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_carrel"))
}

impl World {
    /// Starts a fleet of these tenants; `change` may change its setup.
    pub(crate) async fn start(tenants: Vec<Value>, change: impl FnOnce(&mut Setup)) -> Self {
        Prepared::new(tenants, change).start().await
    }

    /// Starts the dispatcher again after it was killed.
    pub(crate) async fn restart_dispatcher(&mut self) {
        self.fleet.start_dispatcher().await.expect("it starts again");
    }

    /// Kills the dispatcher as a lost machine would.
    pub(crate) fn kill_dispatcher(&mut self) {
        self.fleet.kill(Part::Dispatcher).expect("it runs");
    }

    /// Starts a part again after it was killed; a new cloud is connected to anew.
    pub(crate) async fn restart_all(&mut self) {
        self.fleet.start().await.expect("the fleet starts again");
        self.consumer.abort();
        let (objects, _, consumer) = connect_into(&self.fleet, self.inbox.clone()).await;
        (self.objects, self.consumer) = (objects, consumer);
    }

    /// Changes what the cloud will be told when it is started again.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(&mut Value)) {
        reconfigure(&self.fleet, change);
    }

    /// Where the fleet keeps everything.
    pub(crate) fn dir(&self) -> &Path {
        self.fleet.dir()
    }

    /// The API as an operator.
    pub(crate) fn operator(&self) -> Api {
        self.api("operator")
    }

    /// The API as whoever holds this one's token.
    pub(crate) fn api(&self, who: &str) -> Api {
        Api::new(&self.fleet.address().api, &self.fleet.tokens()[who]).expect("a client")
    }

    /// Writes one object of a pack.
    pub(crate) async fn put(&self, tenant: &str, name: &str, bytes: impl Into<Bytes>) -> i64 {
        let bucket = format!("{tenant}-uploads");
        let wrote = self.objects.put(&bucket, name, bytes.into(), "application/octet-stream").await;
        wrote.unwrap_or_else(|error| panic!("upload {name}: {error:?}"))
    }

    /// Uploads a whole pack, marker last.
    pub(crate) async fn upload(&self, tenant: &str, pack: &str, files: Vec<(&str, Vec<u8>)>) {
        for (name, bytes) in files {
            self.put(tenant, &format!("{pack}/{name}"), bytes).await;
        }
        self.put(tenant, &format!("{pack}/_COMPLETE"), Bytes::new()).await;
    }

    /// Every completion event that has arrived.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.inbox.lock().expect("no test panics while it holds the inbox").clone()
    }

    /// The first completion of a pack.
    pub(crate) async fn completion(&self, tenant: &str, pack: &str) -> Received {
        let what = format!("a completion of {tenant}/{pack}");
        eventually(&what, async || {
            let here =
                |got: &Received| got.completion.tenant.as_str() == tenant && got.completion.pack.as_str() == pack;
            self.received().into_iter().find(here)
        })
        .await
    }

    /// The outcome a completion was made of.
    pub(crate) async fn outcome(&self, completion: &Completion) -> Outcome {
        let name = carrel_schemas::layout::outcome(&completion.review, completion.epoch);
        let body = self.objects.get(completion.outputs_bucket.as_str(), name.as_str(), Outcome::MAX_BYTES).await;
        let body = body.expect("the bucket answers").expect("there is an outcome");
        serde_json::from_slice(&body.bytes).expect("it is one")
    }

    /// The first dead letter of a tenant, or of nobody, that `wanted` accepts.
    pub(crate) async fn dead_letter(
        &self,
        tenant: Option<&str>,
        what: &str,
        wanted: impl Fn(&DeadLetter) -> bool,
    ) -> DeadLetter {
        eventually(what, async || self.dead_letters(tenant).await.into_iter().find(&wanted)).await
    }

    /// Every dead letter of a tenant, or of nobody.
    pub(crate) async fn dead_letters(&self, tenant: Option<&str>) -> Vec<DeadLetter> {
        let path = format!("/v1/dead-letters?tenant={}", tenant.unwrap_or("_unknown"));
        let mut page = self.operator().get(&path).await.expect("the API answers");
        serde_json::from_value(page["dead_letters"].take()).expect("letters")
    }

    /// Publishes to a topic as the cloud's owner.
    pub(crate) async fn publish(&self, topic: &str, data: impl Into<Bytes>, attributes: &[(&str, &str)]) {
        let name = format!("projects/{}/topics/{topic}", plan::PROJECT);
        let topic = self.fleet.address().connector().topic(&name).await.expect("a publisher");
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        topic.publish(data.into(), attributes).await.expect("published");
    }

    /// The names in a bucket below a prefix.
    pub(crate) async fn names(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let listed = self.objects.list(bucket, prefix).await.expect("the bucket answers");
        listed.into_iter().map(|object| object.name).collect()
    }

    /// Returns once the ledger holds nothing unfinished.
    pub(crate) async fn settled(&self) {
        eventually("an empty list of open packs and reviews", async || {
            let open = self.names(plan::CONTROL_BUCKET, "open/").await;
            open.is_empty().then_some(())
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.consumer.abort();
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("the fleet's directory is kept: {}", dir.keep().display());
        }
    }
}

fn reconfigure(fleet: &Fleet, change: impl FnOnce(&mut Value)) {
    let path = fleet.dir().join("cloud.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).expect("written")).expect("JSON");
    change(&mut config);
    std::fs::write(&path, config.to_string()).expect("rewritten");
}

async fn connect(fleet: &Fleet) -> (Objects, Inbox, JoinHandle<()>) {
    connect_into(fleet, Inbox::default()).await
}

/// Consumes completions into `inbox` as an integrator would: read, keep, acknowledge.
async fn connect_into(fleet: &Fleet, inbox: Inbox) -> (Objects, Inbox, JoinHandle<()>) {
    let connector = fleet.address().connector();
    let name = format!("projects/{}/subscriptions/completions-cli", plan::PROJECT);
    let subscription = connector.subscription(&name, 100).await.expect("a subscriber");
    let objects = connector.objects().await.expect("a storage client");
    let kept = inbox.clone();
    let consumer = tokio::spawn(async move {
        let mut messages = subscription.open();
        while let Some(message) = messages.next().await {
            let Ok(delivery) = message else { continue };
            let received = Received {
                at: SystemTime::now(),
                completion: serde_json::from_slice(&delivery.data).expect("a completion"),
                context: EventContext::parse(&delivery.attributes, COMPLETED).expect("a CloudEvent"),
                attributes: delivery.attributes.clone(),
            };
            kept.lock().expect("no test panics while it holds the inbox").push(received);
            delivery.receipt.ack();
        }
    });
    (objects, inbox, consumer)
}

/// The parent of a process, unless it is gone.
pub(crate) fn parent(pid: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    Pid::from_raw(status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?)
}

/// True if a process was started, at however many removes, by one whose command line names a path in this directory.
pub(crate) fn descends_from(process: Pid, dir: &Path) -> bool {
    let dir = dir.display().to_string();
    std::iter::successors(parent(process), |pid| parent(*pid)).any(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
        line.is_ok_and(|line| line.split('\0').any(|word| word.starts_with(&dir)))
    })
}

/// Every process whose environment holds `NAME=value`, with its whole environment; what such a process forked, which
/// carries the same, left out.
pub(crate) fn processes_with(variable: &str) -> Vec<(Pid, BTreeMap<String, String>)> {
    let processes = std::fs::read_dir("/proc").expect("/proc").map(|entry| entry.expect("an entry").path());
    let found: Vec<(Pid, BTreeMap<String, String>)> = processes
        .filter_map(|process| {
            let number = Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?)?;
            let environment = String::from_utf8(std::fs::read(process.join("environ")).ok()?).ok()?;
            let is_it = environment.split('\0').any(|held| held == variable);
            let held = environment.split('\0').filter_map(|held| held.split_once('='));
            let held = held.map(|(name, value)| (name.to_owned(), value.to_owned()));
            is_it.then(|| (number, held.collect()))
        })
        .collect();
    let holders: Vec<Pid> = found.iter().map(|(pid, _)| *pid).collect();
    found.into_iter().filter(|(pid, _)| parent(*pid).is_none_or(|parent| !holders.contains(&parent))).collect()
}

/// Looks until `look` finds something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        let (mut pause, seldom) = LOOK_AGAIN;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(seldom);
        }
    };
    match tokio::time::timeout(AT_LAST, search).await {
        Ok(found) => found,
        Err(_) => panic!("never saw {what}"),
    }
}
