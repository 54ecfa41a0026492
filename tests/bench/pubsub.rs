//! Pub/Sub on one machine beside Google's emulator, in one run and by the same client; prints one table.
//!
//! `cargo bench --profile dev --bench pubsub`. Both run as processes of their own; the official Rust client publishes messages of 1 KiB
//! and takes them from one stream. What the loopback cloud answers is on disk, what the emulator answers is not. Where the
//! emulator is not installed its column says so. Refuses to judge: goals are printed, never asserted.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use carrel_local::CloudConfig;
use google_cloud_auth::credentials::Credentials;
use google_cloud_pubsub::client::{Publisher, Subscriber, SubscriptionAdmin, TopicAdmin};
use google_cloud_pubsub::model::Message;

#[path = "../conformance/bearer.rs"]
mod bearer;

const EMULATOR: &str = "/usr/lib/google-cloud-sdk/platform/pubsub-emulator/bin/cloud-pubsub-emulator";
const TOPIC: &str = "projects/demo/topics/bench";
const SUBSCRIPTION: &str = "projects/demo/subscriptions/bench";
const MESSAGES: usize = 50_000;
const BACKLOG: usize = 1_000_000;

/// A process group that ends with the value.
struct Served {
    child: Child,
    endpoint: String,
    token: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.child);
        if rustix::process::kill_process_group(group, rustix::process::Signal::KILL).is_ok() {
            drop(self.child.wait());
        }
    }
}

impl Served {
    fn start(mut command: Command) -> Child {
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    }

    /// The loopback cloud on a directory, and how long it took to be ready.
    async fn cloud(dir: &Path) -> Self {
        let ready = dir.join("ready.json");
        let config = CloudConfig { ready_file: Some(ready.clone()), ..CloudConfig::new(dir.join("data"), "demo") };
        let file = dir.join("config.json");
        std::fs::write(&file, serde_json::to_vec(&config).expect("plain JSON")).expect("it is written");
        drop(std::fs::remove_file(&ready));
        let mut command = Command::new(env!("CARGO_BIN_EXE_carrel"));
        command.args(["cloud", "--config"]).arg(&file);
        let child = Self::start(command);
        let said = until(async || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&ready).ok()?).ok()).await;
        let text = |key: &str| said[key].as_str().expect("it says so").to_owned();
        Self { child, endpoint: text("endpoint"), token: text("owner_token") }
    }

    async fn emulator() -> Option<Self> {
        if !Path::new(EMULATOR).exists() {
            eprintln!("SKIPPED: Google's Pub/Sub emulator is not installed at {EMULATOR}");
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let mut command = Command::new(EMULATOR);
        command.args(["--host=127.0.0.1", &format!("--port={port}")]);
        let endpoint = format!("http://127.0.0.1:{port}");
        let served = Self { child: Self::start(command), endpoint, token: "nobody".to_owned() };
        let list = format!("{}/v1/projects/demo/topics", served.endpoint);
        until(async || reqwest::get(&list).await.is_ok().then_some(())).await;
        Some(served)
    }

    fn credentials(&self) -> Credentials {
        bearer::Bearer::credentials(&self.token)
    }

    async fn create(&self) {
        let topics = TopicAdmin::builder().with_endpoint(&self.endpoint).with_credentials(self.credentials());
        let topics = topics.build().await.expect("the client builds");
        topics.create_topic().set_name(TOPIC).send().await.expect("is new");
        let admin = SubscriptionAdmin::builder().with_endpoint(&self.endpoint).with_credentials(self.credentials());
        let admin = admin.build().await.expect("the client builds");
        let create = admin.create_subscription().set_name(SUBSCRIPTION).set_topic(TOPIC);
        create.set_ack_deadline_seconds(600).send().await.expect("is new");
    }

    /// Publishes and gives the rate.
    async fn publish(&self, count: usize, size: usize, batch: u32) -> f64 {
        let builder = Publisher::builder(TOPIC).with_endpoint(&self.endpoint).with_credentials(self.credentials());
        let publisher = builder.set_message_count_threshold(batch).build().await.expect("the client builds");
        let body = bytes::Bytes::from(vec![b'x'; size]);
        let began = Instant::now();
        // As many at once as a client may keep in memory.
        for from in (0..count).step_by(20_000) {
            let some =
                (from..count.min(from + 20_000)).map(|_| publisher.publish(Message::new().set_data(body.clone())));
            futures::future::try_join_all(some).await.expect("is published");
        }
        count as f64 / began.elapsed().as_secs_f64()
    }

    /// Takes and acknowledges, and gives the rate.
    async fn consume(&self, count: usize) -> f64 {
        let builder = Subscriber::builder().with_endpoint(&self.endpoint).with_credentials(self.credentials());
        let subscriber = builder.build().await.expect("the client builds");
        let mut stream = subscriber.subscribe(SUBSCRIPTION).set_max_outstanding_messages(10_000).build();
        let began = Instant::now();
        for _ in 0..count {
            let (_, handler) = stream.next().await.expect("the stream is open").expect("a message");
            handler.ack();
        }
        let rate = count as f64 / began.elapsed().as_secs_f64();
        stream.shutdown_token().shutdown().await;
        rate
    }

    /// Resident memory of the group, MiB.
    fn memory(&self) -> f64 {
        let group = self.child.id().to_string();
        let stats = std::fs::read_dir("/proc").expect("proc").filter_map(|entry| {
            let folder = entry.ok()?.path();
            let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
            let of_group = stat.rsplit_once(") ")?.1.split(' ').nth(2)? == group;
            let status = std::fs::read_to_string(folder.join("status")).ok().filter(|_| of_group)?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse::<f64>().ok()
        });
        stats.sum::<f64>() / 1024.0
    }
}

/// Looks again and again until there is something to see.
async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Publish rate, consume rate, memory.
async fn measure(served: &Served) -> [f64; 3] {
    served.create().await;
    let publish = served.publish(MESSAGES, 1_024, 100).await;
    let consume = served.consume(MESSAGES).await;
    [publish, consume, served.memory()]
}

async fn backlog() -> [String; 2] {
    let dir = tempfile::tempdir().expect("a directory");
    let served = Served::cloud(dir.path()).await;
    served.create().await;
    served.publish(BACKLOG, 100, 1_000).await;
    drop(served);
    let began = Instant::now();
    let served = Served::cloud(dir.path()).await;
    served.consume(1).await;
    let ready = began.elapsed();
    [format!("{:.2} s", ready.as_secs_f64()), format!("{:.0} MiB", served.memory())]
}

fn main() {
    // `cargo test --benches` asks whether it starts, not how fast it is.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    carrel_cloud::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir().expect("a directory");
        let cloud = Served::cloud(dir.path()).await;
        let ours = measure(&cloud).await;
        drop(cloud);
        let theirs = match Served::emulator().await {
            Some(emulator) => Some(measure(&emulator).await),
            None => None,
        };
        println!("{:24}{:>14}{:>14}{:>10}  goal", format!("{MESSAGES} messages"), "here", "emulator", "ratio");
        let rows = [("published/s", "at least 1"), ("consumed/s", "at least 20"), ("memory, MiB", "at most 0.2")];
        for (index, (what, goal)) in rows.into_iter().enumerate() {
            let ours = ours[index];
            let (shown, ratio) = theirs.map_or(("absent".to_owned(), String::new()), |theirs| {
                (format!("{:.0}", theirs[index]), format!("{:.2}", ours / theirs[index]))
            });
            println!("{what:24}{ours:>14.0}{shown:>14}{ratio:>10}  {goal}");
        }
        let [ready, memory] = backlog().await;
        println!("a backlog of {BACKLOG}: a first message {ready} after the start (goal 2 s), then {memory}");
    });
}
