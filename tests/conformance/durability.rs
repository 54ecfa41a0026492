//! What was acknowledged is there after a SIGKILL in the middle of everything, and what the disk has lost is named.
//!
//! The cloud that is killed is a process of its own: this binary again, in which nothing but [`a_cloud`] runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use carrel_cloud::install_crypto;
use carrel_local::{Cloud, CloudConfig};
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_pubsub::model::Subscription;
use google_cloud_pubsub::subscriber::handler::Handler;
use google_cloud_run_v2::model::condition::State;
use google_cloud_storage::client::Storage;
use serde_json::{Value, json};

use crate::calls::{Caller, eventually, has_ended, message, status};
use crate::http::Http;
use crate::run::{script, state};
use crate::world::{JOB, World, config};

const BUCKET: &str = "projects/_/buckets/bucket-a";
const EVENTS: &str = "projects/demo/topics/events";
const INBOX: &str = "projects/demo/subscriptions/inbox";
/// Delivers exactly once.
const ONCE: &str = "projects/demo/subscriptions/once";
/// Tells this binary, run as a cloud, where its configuration lies.
const CONFIG: &str = "CONFORMANCE_CLOUD_CONFIG";
/// More than what lies in the database: content of this size is a file.
const LARGE: usize = 100_000;
/// What is kept of an upload in parts is a multiple of this.
const QUANTUM: usize = 256 * 1024;
/// The size of what is sent in parts.
const IN_PARTS: usize = 3 * QUANTUM + 10;

/// Killed when a test ends before it does that itself.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
        }
    }
}

/// A cloud of this configuration in a process of its own.
async fn spawn(dir: &Path, config: &CloudConfig) -> (Killed, Caller, Http) {
    let file = dir.join("config.json");
    std::fs::write(&file, serde_json::to_vec(config).expect("it is plain JSON")).expect("it is written");
    let program = std::env::current_exe().expect("it has a path");
    let child = Command::new(program)
        .args(["--exact", "durability::a_cloud", "--ignored"])
        .env(CONFIG, &file)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let child = Killed(child);
    let ready = eventually("the cloud", async || {
        let bytes = std::fs::read(config.ready_file.as_ref().expect("it is configured")).ok()?;
        Some(serde_json::from_slice::<Value>(&bytes).expect("it is written at once"))
    })
    .await;
    let text = |key: &str| ready[key].as_str().expect("it says so").to_owned();
    let (endpoint, token) = (text("endpoint"), text("owner_token"));
    (child, Caller::new(&endpoint, &token), Http::at(&endpoint, &token))
}

/// What another test kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs as the cloud of another test"]
async fn a_cloud() {
    let Ok(file) = std::env::var(CONFIG) else { return };
    let bytes = std::fs::read(file).expect("it is there");
    let config = serde_json::from_slice(&bytes).expect("it is right");
    let _cloud = carrel_local::Cloud::start(config).await.expect("it serves");
    std::future::pending::<()>().await;
}

/// What the cloud has said it holds.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Body by message id.
    messages: BTreeMap<String, String>,
    /// Ids of messages whose acknowledgement it has confirmed.
    confirmed: BTreeSet<String>,
    /// Generation and size by object.
    objects: BTreeMap<String, (i64, usize)>,
    executions: Vec<String>,
    /// Object and how much of it is vouched for, by the path of an upload that was not ended.
    uploads: BTreeMap<String, (String, usize)>,
}

impl Acknowledged {
    fn is_enough(&self) -> bool {
        let large = self.objects.values().filter(|(_, size)| *size == LARGE).count();
        let halves = self.uploads.values().filter(|(_, vouched)| *vouched > 0).count();
        let (messages, objects, executions) = (self.messages.len(), self.objects.len(), self.executions.len());
        messages >= 40 && objects >= 40 && large >= 10 && executions >= 2 && halves >= 2
    }
}

type Book = Arc<Mutex<Acknowledged>>;

fn book(book: &Book) -> std::sync::MutexGuard<'_, Acknowledged> {
    book.lock().expect("nobody panics with it in hand")
}

fn content(name: &str, size: usize) -> Bytes {
    name.bytes().cycle().take(size).collect()
}

/// Publishes until nobody answers.
async fn publish(caller: Caller, writer: usize, acknowledged: Book) {
    let publisher = caller.publisher(EVENTS).await;
    for number in 0.. {
        let body = format!("{writer}-{number}");
        let Ok(id) = publisher.publish(message(body.clone())).await else { return };
        book(&acknowledged).messages.insert(id, body);
    }
}

/// Acknowledges exactly once, until it is aborted: the client goes on asking.
async fn acknowledge(caller: Caller, acknowledged: Book) {
    let mut inbox = caller.inbox(ONCE).await;
    let mut acks = tokio::task::JoinSet::new();
    while let Some(Ok((message, handler))) = inbox.0.next().await {
        let Handler::ExactlyOnce(handler) = handler else { panic!("the stream says what its subscription promises") };
        let acknowledged = acknowledged.clone();
        acks.spawn(async move {
            if handler.confirmed_ack().await.is_ok() {
                book(&acknowledged).confirmed.insert(message.message_id);
            }
        });
    }
}

/// Uploads until nobody answers, small and large in turn.
async fn upload(caller: Caller, writer: usize, acknowledged: Book) {
    let storage = caller.storage().await;
    for number in 0.. {
        let (name, size) = (format!("{writer}/{number}"), if number % 2 == 0 { 100 } else { LARGE });
        let write = storage.write_object(BUCKET, &name, content(&name, size)).set_if_generation_match(0);
        let Ok(object) = write.send_unbuffered().await else { return };
        book(&acknowledged).objects.insert(name, (object.generation, size));
    }
}

/// Sends objects in parts, and the last part of none.
async fn send_in_parts(http: Http, acknowledged: Book) {
    for number in 0..6 {
        let name = format!("parts-{number}");
        let start = http.request("POST", &format!("/upload/storage/v1/b/bucket-a/o?uploadType=resumable&name={name}"));
        let Ok(begun) = start.send().await else { return };
        let location = begun.headers()["location"].to_str().expect("it is text");
        let session = location[location.find("/upload/").expect("it is a path")..].to_owned();
        book(&acknowledged).uploads.insert(session.clone(), (name.clone(), 0));
        let content = content(&name, IN_PARTS);
        for from in (0..3).map(|part| part * QUANTUM) {
            let range = format!("bytes {from}-{}/*", from + QUANTUM - 1);
            let part = http.request("PUT", &session).header("content-range", range);
            let Ok(answer) = part.body(content.slice(from..from + QUANTUM)).send().await else { return };
            assert_eq!(answer.status(), 308);
            book(&acknowledged).uploads.insert(session.clone(), (name.clone(), from + QUANTUM));
        }
    }
}

/// Goes on with an upload where the cloud says it stands, which is no less than what it vouched for.
async fn send_the_rest(http: &Http, session: &str, name: &str, vouched: usize) {
    let status = http.request("PUT", session).header("content-range", "bytes */*").send().await.expect("it answers");
    assert_eq!(status.status(), 308);
    let range = status.headers().get("range").map(|range| range.to_str().expect("it is text").to_owned());
    let last = range.as_deref().and_then(|range| range.strip_prefix("bytes=0-"));
    let stands = last.map_or(0, |last| last.parse::<usize>().expect("it is a number") + 1);
    assert!(stands >= vouched, "{name} stands at {stands}, and {vouched} were vouched for");
    let range = format!("bytes {stands}-{}/{IN_PARTS}", IN_PARTS - 1);
    let rest = http.request("PUT", session).header("content-range", range);
    let done = rest.body(content(name, IN_PARTS).slice(stands..)).send().await.expect("it answers");
    assert_eq!(done.status(), 200);
}

/// Launches a few tasks that go on until they are ended.
async fn launch(caller: Caller, acknowledged: Book) {
    for _ in 0..4 {
        let Ok(execution) = caller.launch(JOB, script("echo $$; exec /bin/sleep 600")).await else { return };
        book(&acknowledged).executions.push(execution.name);
    }
}

async fn read(storage: &Storage, name: &str, generation: i64) -> Vec<u8> {
    let read = storage.read_object(BUCKET, name).set_generation(generation);
    let mut response = read.send().await.unwrap_or_else(|error| panic!("{name}#{generation} is there: {error}"));
    let mut whole = Vec::new();
    while let Some(chunk) = response.next().await.transpose().expect("it is whole") {
        whole.extend_from_slice(&chunk);
    }
    whole
}

fn blobs(config: &CloudConfig) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(config.data_dir.join("blobs")).expect("it is there");
    entries.map(|entry| entry.expect("it is listed").path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_under_load() {
    install_crypto();
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path());
    let (mut child, caller, http) = spawn(dir.path(), &config).await;
    let acknowledged = Book::default();
    let mut load = tokio::task::JoinSet::new();
    for writer in 0..4 {
        load.spawn(publish(caller.clone(), writer, acknowledged.clone()));
        load.spawn(upload(caller.clone(), writer, acknowledged.clone()));
    }
    load.spawn(launch(caller, acknowledged.clone()));
    load.spawn(send_in_parts(http, acknowledged.clone()));
    eventually("the load", async || book(&acknowledged).is_enough().then_some(())).await;
    child.kill();
    while let Some(ended) = load.join_next().await {
        ended.expect("it ends with the cloud");
    }
    let Acknowledged { mut messages, objects, executions, uploads, .. } = std::mem::take(&mut *book(&acknowledged));

    let cloud = Cloud::start(config.clone()).await.expect("it starts on what is there");
    let owner = Caller::new(cloud.endpoint(), cloud.owner_token());
    let storage = owner.storage().await;
    for (name, (generation, size)) in &objects {
        assert!(read(&storage, name, *generation).await == content(name, *size), "{name} differs");
    }
    let http = Http::at(cloud.endpoint(), cloud.owner_token());
    for (session, (name, vouched)) in &uploads {
        send_the_rest(&http, session, name, *vouched).await;
    }
    // An object may be there although nobody was told; then it is whole too, and announced.
    let mut listed = BTreeSet::new();
    let mut large = 0;
    let mut items = owner.control().await.list_objects().set_parent(BUCKET).by_item();
    while let Some(object) = items.next().await {
        let object = object.expect("lists");
        let size = usize::try_from(object.size).expect("it is small");
        assert!(read(&storage, &object.name, object.generation).await == content(&object.name, size));
        large += usize::from(size >= LARGE);
        listed.insert((object.name, object.generation.to_string()));
    }
    assert!(objects.iter().all(|(name, (generation, _))| listed.contains(&(name.clone(), generation.to_string()))));
    assert_eq!(blobs(&config).len(), large, "no file is left over and none is missing");
    let mut inbox = owner.inbox(INBOX).await;
    while !listed.is_empty() || !messages.is_empty() {
        let (message, handler) = inbox.next().await;
        handler.ack();
        if let Some(object) = message.attributes.get("objectId") {
            let announced = (object.clone(), message.attributes["objectGeneration"].clone());
            assert!(listed.remove(&announced), "{announced:?} is there and was announced once");
        } else if let Some(body) = messages.remove(&message.message_id) {
            assert_eq!(message.data, body);
        }
    }
    for name in executions {
        let execution = owner.completed(&name).await;
        assert_eq!((state(&execution), execution.failed_count), (State::ConditionFailed, 1));
        let short = name.rsplit('/').next().expect("a name has segments");
        let log = std::fs::read_to_string(config.data_dir.join(format!("logs/{short}.log"))).unwrap_or_default();
        // A task that was killed before it said its number is not there either.
        eventually("the end of a task", async || log.lines().all(has_ended).then_some(())).await;
    }
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_exactly_once_does_not_come_back_after_a_kill() {
    install_crypto();
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path());
    let (mut child, caller, _) = spawn(dir.path(), &config).await;
    let wanted = Subscription::new().set_name(ONCE).set_topic(EVENTS).set_enable_exactly_once_delivery(true);
    caller.subscriptions().await.create_subscription().with_request(wanted).send().await.expect("is new");
    let acknowledged = Book::default();
    let mut load = tokio::task::JoinSet::new();
    for writer in 0..4 {
        load.spawn(publish(caller.clone(), writer, acknowledged.clone()));
    }
    let reader = tokio::spawn(acknowledge(caller, acknowledged.clone()));
    eventually("the load", async || (book(&acknowledged).confirmed.len() >= 100).then_some(())).await;
    child.kill();
    reader.abort();
    while let Some(ended) = load.join_next().await {
        ended.expect("it ends with the cloud");
    }
    if let Err(ended) = reader.await {
        assert!(ended.is_cancelled(), "{ended}");
    }
    let confirmed = std::mem::take(&mut book(&acknowledged).confirmed);

    let cloud = Cloud::start(config).await.expect("it starts on what is there");
    let owner = Caller::new(cloud.endpoint(), cloud.owner_token());
    let last = owner.publisher(EVENTS).await.publish(message("last")).await.expect("is published");
    let http = Http::at(cloud.endpoint(), cloud.owner_token());
    let mut came = BTreeSet::new();
    loop {
        let pull = json!({ "maxMessages": 1_000, "returnImmediately": true });
        let answer = http.ok("POST", &format!("/v1/{ONCE}:pull"), Some(pull)).await;
        let Some(received) = answer["receivedMessages"].as_array() else { break };
        let id = |received: &Value| received["message"]["messageId"].as_str().expect("it has an id").to_owned();
        came.extend(received.iter().map(id));
    }
    assert!(came.is_disjoint(&confirmed), "{:?} were confirmed", came.intersection(&confirmed).collect::<Vec<_>>());
    assert!(came.contains(&last), "what nobody has acknowledged comes");
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_the_disk_has_lost_is_named_and_costs_nothing_else() {
    let mut world = World::start().await;
    let storage = world.as_owner().storage().await;
    let write = async |name: &str, size: usize| {
        storage.write_object(BUCKET, name, content(name, size)).send_unbuffered().await.expect("is stored")
    };
    let torn = write("torn", LARGE).await;
    let [file] = blobs(world.config()).try_into().expect("it is one file");
    let sound = write("sound", LARGE).await;
    let file = std::fs::OpenOptions::new().write(true).open(file).expect("it is there");
    file.set_len(70_000).expect("it is cut");
    let name = format!("bucket-a/torn#{} has 70000 of its {LARGE} bytes on disk", torn.generation);
    for _ in 0..2 {
        let owner = world.as_owner();
        let storage = owner.storage().await;
        let error = storage.read_object(BUCKET, "torn").send().await.expect_err("it is not whole");
        assert_eq!(error.http_status_code(), Some(500));
        assert!(format!("{error:?}").contains(&name), "{error:?}");
        let there = owner.control().await.get_object().set_bucket(BUCKET).set_object("torn").send().await;
        assert_eq!(there.expect("it is still known").size, torn.size);
        assert!(read(&storage, "sound", sound.generation).await == content("sound", LARGE));
        world.restart().await;
    }
    for file in blobs(world.config()) {
        std::fs::remove_file(file).expect("it is there");
    }
    let storage = world.as_owner().storage().await;
    let error = storage.read_object(BUCKET, "sound").send().await.expect_err("it is gone");
    let name = format!("bucket-a/sound#{} has 0 of its {LARGE} bytes on disk", sound.generation);
    assert!(format!("{error:?}").contains(&name), "{error:?}");
    assert_ne!(status(&error), 404, "it is lost, not deleted");
    world.stop().await;
}
