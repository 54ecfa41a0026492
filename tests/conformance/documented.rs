//! What Google's documentation of Pub/Sub says, case by case, asked over JSON of whichever cloud answers.
//!
//! Each case gives what it saw as one line, which is held against what is documented. Where Google's emulator is
//! installed, the same cases are asked of it; `differences.md` says where it answers otherwise, and is held to be true.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::calls::within;
use crate::world::World;

const PROJECT: &str = "projects/demo";
/// How long an answer may be without a message that should come: where one is late, this is what a wrong answer costs.
const PATIENCE: Duration = Duration::from_secs(2);
const EMULATOR: &str = "/usr/lib/google-cloud-sdk/platform/pubsub-emulator";
/// The one that the table is of.
const VERSION: &str = "0.8.20";
/// How long the emulator may take to start: a Java machine, beside whatever else runs.
const START: Duration = Duration::from_secs(180);

/// A cloud, and a name that makes the things of one case its own.
struct Asker {
    http: Client,
    base: String,
    token: String,
    case: String,
}

/// What was answered: a status and JSON.
struct Answer(u16, Value);

impl Answer {
    /// 200, or the status and Google's word for it.
    fn word(&self) -> String {
        let word = self.1["error"]["status"].as_str();
        word.map_or_else(|| self.0.to_string(), |word| format!("{} {word}", self.0))
    }
}

/// A message that was pulled.
struct Pulled {
    text: String,
    ack_id: String,
}

fn pulled(answer: &Answer) -> Vec<Pulled> {
    let received = answer.1["receivedMessages"].as_array().cloned().unwrap_or_default();
    let pulled = received.iter().map(|received| {
        let data = STANDARD.decode(received["message"]["data"].as_str().expect("it has data")).expect("base64");
        let ack_id = received["ackId"].as_str().expect("it has an id").to_owned();
        Pulled { text: String::from_utf8(data).expect("text"), ack_id }
    });
    pulled.collect()
}

fn texts(pulled: &[Pulled]) -> String {
    format!("[{}]", pulled.iter().map(|pulled| pulled.text.as_str()).collect::<Vec<_>>().join(" "))
}

impl Asker {
    fn new(base: &str, token: &str) -> Self {
        Self { http: Client::new(), base: base.to_owned(), token: token.to_owned(), case: String::new() }
    }

    fn of(&self, case: &str) -> Self {
        let (http, base, token) = (self.http.clone(), self.base.clone(), self.token.clone());
        Self { http, base, token, case: case.to_owned() }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let mut request = self.http.request(method.clone(), format!("{}/v1/{path}", self.base));
        request = request.bearer_auth(&self.token);
        if method != Method::GET {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("it answers");
        Answer(answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    fn topic(&self) -> String {
        format!("{PROJECT}/topics/{}", self.case)
    }

    fn subscription(&self) -> String {
        format!("{PROJECT}/subscriptions/{}", self.case)
    }

    fn snapshot(&self) -> String {
        format!("{PROJECT}/snapshots/{}", self.case)
    }

    async fn create_topic(&self, settings: Value) -> Answer {
        self.call(Method::PUT, &self.topic(), settings).await
    }

    /// A subscription with these settings to the topic of the case.
    async fn subscribe(&self, mut settings: Value) -> Answer {
        settings["topic"] = json!(self.topic());
        self.call(Method::PUT, &self.subscription(), settings).await
    }

    /// A topic and a subscription to it.
    async fn make(&self, settings: Value) {
        assert_eq!(self.create_topic(json!({})).await.word(), "200");
        assert_eq!(self.subscribe(settings).await.word(), "200", "{}", self.case);
    }

    async fn publish(&self, messages: Value) -> Answer {
        self.call(Method::POST, &format!("{}:publish", self.topic()), json!({ "messages": messages })).await
    }

    async fn verb(&self, verb: &str, body: Value) -> Answer {
        self.call(Method::POST, &format!("{}:{verb}", self.subscription()), body).await
    }

    async fn update(&self, mask: &str, settings: Value) -> Answer {
        let body = json!({ "subscription": settings, "updateMask": mask });
        self.call(Method::PATCH, &self.subscription(), body).await
    }

    /// What is there.
    async fn pull_now(&self, max: usize) -> Vec<Pulled> {
        pulled(&self.verb("pull", json!({ "maxMessages": max, "returnImmediately": true })).await)
    }

    /// `count` messages, in as many pulls as that takes; fewer if no more come for a while.
    async fn pull(&self, count: usize) -> Vec<Pulled> {
        let mut found = Vec::new();
        while found.len() < count {
            let body = json!({ "maxMessages": count - found.len() });
            match tokio::time::timeout(PATIENCE, self.verb("pull", body)).await.map(|answer| pulled(&answer)) {
                Ok(some) if !some.is_empty() => found.extend(some),
                _ => break,
            }
        }
        found
    }

    async fn ack(&self, pulled: &[Pulled]) -> Answer {
        let ids: Vec<&str> = pulled.iter().map(|pulled| pulled.ack_id.as_str()).collect();
        self.verb("acknowledge", json!({ "ackIds": ids })).await
    }

    async fn nack(&self, pulled: &Pulled) -> Answer {
        self.verb("modifyAckDeadline", json!({ "ackIds": [pulled.ack_id], "ackDeadlineSeconds": 0 })).await
    }
}

fn plain(text: &str) -> Value {
    json!({ "data": STANDARD.encode(text) })
}

fn with(text: &str, attributes: Value) -> Value {
    json!({ "data": STANDARD.encode(text), "attributes": attributes })
}

fn keyed(text: &str, key: &str) -> Value {
    json!({ "data": STANDARD.encode(text), "orderingKey": key })
}

/// Every case: its name, what is documented, and where.
const CASES: [(&str, &str, &str); 17] = [
    ("filtered", "[a]", "subscription-message-filter"),
    ("no-filter", "400 INVALID_ARGUMENT, 400 INVALID_ARGUMENT", "subscription-message-filter"),
    ("filter-is-for-good", "400 INVALID_ARGUMENT", "subscription-message-filter"),
    ("in-order", "[1 2] then [x], all again in order, all although acknowledged", "ordering"),
    ("in-no-order", "[1 2] then [3]", "ordering"),
    ("backoff", "waits, 400 INVALID_ARGUMENT, 400 INVALID_ARGUMENT", "handling-failures#exponential_backoff"),
    ("exactly-once", "200, again 400 INVALID_ARGUMENT, unknown 400 INVALID_ARGUMENT", "exactly-once-delivery"),
    ("at-least-once", "200, again 200", "exactly-once-delivery"),
    ("seek-in-time", "back [1 2], forward [], and by default []", "replay-overview#seek_to_a_time"),
    ("seek-to-a-snapshot", "[2 3], elsewhere 400 FAILED_PRECONDITION, once deleted 404 NOT_FOUND", "replay-overview"),
    ("topic-retention", "[early late], shown 600s", "topic-properties#message_retention"),
    ("detached", "200, 400 FAILED_PRECONDITION, true", "detach-subscriptions"),
    ("pages", "2 and 1", "reference/rest/v1/projects.topics.subscriptions/list"),
    ("updated", "20 labelled 600s, topic 400 INVALID_ARGUMENT, nothing 400 INVALID_ARGUMENT", "reference/rest"),
    ("topic-updated", "labelled c, then 600s and labelled c", "reference/rest/v1/projects.topics/patch"),
    ("snapshot-kept", "shown, listed, listed by its topic, labelled b", "reference/rest/v1/projects.snapshots"),
    ("limits", "", "quotas"),
];

async fn seen(asker: &Asker) -> String {
    match asker.case.as_str() {
        "filtered" => filtered(asker).await,
        "no-filter" => no_filter(asker).await,
        "filter-is-for-good" => {
            asker.make(json!({ "filter": "attributes:a" })).await;
            asker.update("filter", json!({ "topic": asker.topic(), "filter": "attributes:b" })).await.word()
        }
        "in-order" => in_order(asker).await,
        "in-no-order" => {
            asker.make(json!({})).await;
            asker.publish(json!([keyed("1", "k"), keyed("2", "k"), keyed("3", "k")])).await;
            format!("{} then {}", texts(&asker.pull(2).await), texts(&asker.pull(1).await))
        }
        "backoff" => backoff(asker).await,
        "exactly-once" => acknowledged_twice(asker, true).await,
        "at-least-once" => acknowledged_twice(asker, false).await,
        "seek-in-time" => seek_in_time(asker).await,
        "seek-to-a-snapshot" => seek_to_a_snapshot(asker).await,
        "topic-retention" => topic_retention(asker).await,
        "detached" => {
            asker.make(json!({})).await;
            asker.publish(json!([plain("lost")])).await;
            let detached = asker.verb("detach", json!({})).await.word();
            let pulled = asker.verb("pull", json!({ "maxMessages": 1 })).await.word();
            let shown = asker.call(Method::GET, &asker.subscription(), json!({})).await;
            format!("{detached}, {pulled}, {}", shown.1["detached"])
        }
        "pages" => pages(asker).await,
        "updated" => updated(asker).await,
        "topic-updated" => topic_updated(asker).await,
        "snapshot-kept" => snapshot_kept(asker).await,
        "limits" => limits(asker).await,
        other => panic!("no case {other}"),
    }
}

async fn filtered(asker: &Asker) -> String {
    let filter = "attributes.kind = \"x\" AND NOT (attributes:b OR hasPrefix(attributes.c, \"no\"))";
    asker.make(json!({ "filter": filter })).await;
    asker
        .publish(json!([
            with("b", json!({ "kind": "x", "b": "" })),
            with("c", json!({ "kind": "x", "c": "north" })),
            with("y", json!({ "kind": "y" })),
            with("a", json!({ "kind": "x", "c": "south" })),
        ]))
        .await;
    let mut found = asker.pull(1).await;
    found.extend(asker.pull_now(9).await);
    found.sort_by(|a, b| a.text.cmp(&b.text));
    texts(&found)
}

async fn no_filter(asker: &Asker) -> String {
    asker.create_topic(json!({})).await;
    let mixed = asker.subscribe(json!({ "filter": "attributes:a AND attributes:b OR attributes:c" })).await;
    let long = asker.subscribe(json!({ "filter": format!("attributes:{}", "a".repeat(246)) })).await;
    format!("{}, {}", mixed.word(), long.word())
}

async fn in_order(asker: &Asker) -> String {
    asker.make(json!({ "enableMessageOrdering": true })).await;
    asker.publish(json!([keyed("1", "k"), keyed("2", "k"), keyed("3", "k")])).await;
    let first = asker.pull(2).await;
    asker.publish(json!([keyed("x", "other")])).await;
    // The key has a batch out: what is left for others is the other key's.
    let other = asker.pull(1).await;
    let seen = format!("{} then {}", texts(&first), texts(&other));
    asker.ack(&other).await;
    asker.nack(&first[0]).await;
    let again = asker.pull(3).await;
    if let [one, _, three] = again.as_slice() {
        asker.ack(std::slice::from_ref(three)).await;
        asker.nack(one).await;
    }
    let last = asker.pull(3).await;
    let whole = |pulled: &[Pulled]| if texts(pulled) == "[1 2 3]" { "all" } else { "not all" };
    format!("{seen}, {} again in order, {} although acknowledged", whole(&again), whole(&last))
}

async fn backoff(asker: &Asker) -> String {
    let policy = |from: &str, to: &str| json!({ "retryPolicy": { "minimumBackoff": from, "maximumBackoff": to } });
    asker.create_topic(json!({})).await;
    let crossed = asker.subscribe(policy("20s", "10s")).await.word();
    let long = asker.subscribe(policy("10s", "601s")).await.word();
    asker.call(Method::DELETE, &asker.subscription(), json!({})).await;
    assert_eq!(asker.subscribe(policy("300s", "600s")).await.word(), "200");
    asker.publish(json!([plain("1")])).await;
    if let Some(pulled) = asker.pull(1).await.first() {
        asker.nack(pulled).await;
    }
    let waits = if asker.pull_now(1).await.is_empty() { "waits" } else { "comes at once" };
    format!("{waits}, {crossed}, {long}")
}

async fn acknowledged_twice(asker: &Asker, exactly_once: bool) -> String {
    asker.make(json!({ "enableExactlyOnceDelivery": exactly_once })).await;
    asker.publish(json!([plain("1")])).await;
    let pulled = asker.pull(1).await;
    let (first, again) = (asker.ack(&pulled).await, asker.ack(&pulled).await);
    let mut seen = format!("{}, again {}", first.word(), again.word());
    if exactly_once {
        let unknown = asker.ack(&[Pulled { text: String::new(), ack_id: "1-1-00000000".to_owned() }]).await;
        seen += &format!(", unknown {}", unknown.word());
    }
    seen
}

async fn seek_in_time(asker: &Asker) -> String {
    asker.make(json!({ "retainAckedMessages": true })).await;
    let seek = async |time: &str| assert_eq!(asker.verb("seek", json!({ "time": time })).await.word(), "200");
    asker.publish(json!([plain("1")])).await;
    asker.ack(&asker.pull(1).await).await;
    asker.publish(json!([plain("2")])).await;
    seek("2020-01-01T00:00:00Z").await;
    let mut back: Vec<String> = asker.pull(2).await.into_iter().map(|pulled| pulled.text).collect();
    back.sort();
    seek("2099-01-01T00:00:00Z").await;
    let forward = texts(&asker.pull_now(5).await);
    // What was not retained is gone for good.
    asker.update("retainAckedMessages", json!({ "topic": asker.topic(), "retainAckedMessages": false })).await;
    seek("2020-01-01T00:00:00Z").await;
    format!("back [{}], forward {forward}, and by default {}", back.join(" "), texts(&asker.pull_now(5).await))
}

async fn seek_to_a_snapshot(asker: &Asker) -> String {
    asker.make(json!({})).await;
    asker.publish(json!([plain("1")])).await;
    asker.ack(&asker.pull(1).await).await;
    asker.publish(json!([plain("2")])).await;
    let snapshot = json!({ "subscription": asker.subscription() });
    let made = asker.call(Method::PUT, &asker.snapshot(), snapshot).await;
    if made.0 != 200 {
        return format!("no snapshot: {}", made.word());
    }
    asker.publish(json!([plain("3")])).await;
    asker.ack(&asker.pull(2).await).await;
    let target = json!({ "snapshot": asker.snapshot() });
    asker.verb("seek", target.clone()).await;
    let mut back: Vec<String> = asker.pull(2).await.into_iter().map(|pulled| pulled.text).collect();
    back.sort();
    let elsewhere = asker.of(&format!("{}-b", asker.case));
    elsewhere.make(json!({})).await;
    let foreign = elsewhere.verb("seek", target.clone()).await.word();
    asker.call(Method::DELETE, &asker.snapshot(), json!({})).await;
    let gone = asker.verb("seek", target).await.word();
    format!("[{}], elsewhere {foreign}, once deleted {gone}", back.join(" "))
}

async fn topic_retention(asker: &Asker) -> String {
    asker.create_topic(json!({ "messageRetentionDuration": "600s" })).await;
    asker.publish(json!([plain("early")])).await;
    let made = asker.subscribe(json!({})).await;
    asker.publish(json!([plain("late")])).await;
    asker.verb("seek", json!({ "time": "2020-01-01T00:00:00Z" })).await;
    let mut found: Vec<String> = asker.pull(2).await.into_iter().map(|pulled| pulled.text).collect();
    found.sort();
    let shown = made.1["topicMessageRetentionDuration"].as_str().unwrap_or("not");
    format!("[{}], shown {shown}", found.join(" "))
}

async fn pages(asker: &Asker) -> String {
    asker.create_topic(json!({})).await;
    for number in 0..3 {
        let name = format!("{}-{number}", asker.subscription());
        asker.call(Method::PUT, &name, json!({ "topic": asker.topic() })).await;
    }
    let list = format!("{}/subscriptions?pageSize=2", asker.topic());
    let first = asker.call(Method::GET, &list, json!({})).await.1;
    let token = first["nextPageToken"].as_str().unwrap_or_default();
    let second = asker.call(Method::GET, &format!("{list}&pageToken={token}"), json!({})).await.1;
    let count = |page: &Value| page["subscriptions"].as_array().map_or(0, Vec::len);
    format!("{} and {}", count(&first), count(&second))
}

async fn updated(asker: &Asker) -> String {
    asker.make(json!({ "ackDeadlineSeconds": 10, "labels": { "a": "b" } })).await;
    let wanted = json!({
        "topic": asker.topic(),
        "ackDeadlineSeconds": 20,
        "messageRetentionDuration": "600s",
        "retainAckedMessages": true,
    });
    // What the mask does not name stays as it is.
    let changed = asker.update("ackDeadlineSeconds,messageRetentionDuration", wanted.clone()).await.1;
    let deadline = &changed["ackDeadlineSeconds"];
    let labelled = if changed["labels"]["a"] == "b" { "labelled" } else { "without labels" };
    let retained = changed["messageRetentionDuration"].as_str().unwrap_or("without retention");
    let moved = asker.update("topic", wanted.clone()).await.word();
    let nothing = asker.update("", wanted).await.word();
    format!("{deadline} {labelled} {retained}, topic {moved}, nothing {nothing}")
}

fn labelled(shown: &Answer) -> String {
    let label = shown.1["labels"]["a"].as_str();
    label.map_or_else(|| "not labelled".to_owned(), |label| format!("labelled {label}"))
}

async fn topic_updated(asker: &Asker) -> String {
    asker.create_topic(json!({ "labels": { "a": "b" } })).await;
    let update = async |mask: &str, settings: Value| {
        let body = json!({ "topic": settings, "updateMask": mask });
        asker.call(Method::PATCH, &asker.topic(), body).await
    };
    let first = labelled(&update("labels", json!({ "labels": { "a": "c" } })).await);
    update("messageRetentionDuration", json!({ "messageRetentionDuration": "600s" })).await;
    let shown = asker.call(Method::GET, &asker.topic(), json!({})).await;
    let retained = shown.1["messageRetentionDuration"].as_str().unwrap_or("without retention");
    format!("{first}, then {retained} and {}", labelled(&shown))
}

async fn snapshot_kept(asker: &Asker) -> String {
    asker.make(json!({})).await;
    asker.call(Method::PUT, &asker.snapshot(), json!({ "subscription": asker.subscription() })).await;
    let shown = asker.call(Method::GET, &asker.snapshot(), json!({})).await.1;
    let is_shown = shown["topic"] == json!(asker.topic()) && shown["expireTime"].is_string();
    let listed = asker.call(Method::GET, &format!("{PROJECT}/snapshots"), json!({})).await.1;
    let is_listed = listed["snapshots"].as_array().is_some_and(|all| all.contains(&shown));
    let of_topic = asker.call(Method::GET, &format!("{}/snapshots", asker.topic()), json!({})).await.1;
    let is_of_topic = of_topic["snapshots"] == json!([asker.snapshot()]);
    let update = json!({ "snapshot": { "labels": { "a": "b" } }, "updateMask": "labels" });
    asker.call(Method::PATCH, &asker.snapshot(), update).await;
    let label = labelled(&asker.call(Method::GET, &asker.snapshot(), json!({})).await);
    let said = |is: bool, what: &str| if is { what.to_owned() } else { format!("not {what}") };
    [said(is_shown, "shown"), said(is_listed, "listed"), said(is_of_topic, "listed by its topic"), label].join(", ")
}

/// What passes although a limit is said to refuse it, or is refused with another word.
async fn limits(asker: &Asker) -> String {
    asker.make(json!({})).await;
    let long = |size: usize| "k".repeat(size);
    let attribute = |key: String, value: String| with("1", json!({ key: value }));
    let many: serde_json::Map<String, Value> = (0..101).map(|number| (format!("k{number}"), json!(""))).collect();
    let ids = vec![long(1_021); 513];
    let mut passed = Vec::new();
    let mut tell = |limit: &str, answer: Answer| match answer.word().as_str() {
        "400 INVALID_ARGUMENT" => {}
        "200" => passed.push(limit.to_owned()),
        word => passed.push(format!("{limit} ({word})")),
    };
    for (limit, messages) in [
        ("no message", json!([])),
        ("1,001 messages", json!(vec![plain("1"); 1_001])),
        ("an empty message", json!([plain("")])),
        ("101 attributes", json!([with("1", Value::Object(many))])),
        ("a key of 257 bytes", json!([attribute(long(257), String::new())])),
        ("a value of 1,025 bytes", json!([attribute("k".to_owned(), long(1_025))])),
        ("an ordering key of 1,025 bytes", json!([keyed("1", &long(1_025))])),
        ("a byte more than 10 MB", json!([plain(&long(10_000_001))])),
    ] {
        tell(limit, asker.publish(messages).await);
    }
    for (limit, verb, body) in [
        ("a pull of none", "pull", json!({ "maxMessages": 0 })),
        ("a deadline of 601 s", "modifyAckDeadline", json!({ "ackIds": ["1-1-00000000"], "ackDeadlineSeconds": 601 })),
        ("513 KiB to acknowledge", "acknowledge", json!({ "ackIds": ids })),
        ("513 KiB to prolong", "modifyAckDeadline", json!({ "ackIds": ids, "ackDeadlineSeconds": 10 })),
        ("a seek to nowhere", "seek", json!({})),
    ] {
        tell(limit, asker.verb(verb, body).await);
    }
    let graves = asker.topic();
    for (limit, mut settings) in [
        ("an ack deadline of 9 s", json!({ "ackDeadlineSeconds": 9 })),
        ("an ack deadline of 601 s", json!({ "ackDeadlineSeconds": 601 })),
        ("4 attempts", json!({ "deadLetterPolicy": { "deadLetterTopic": graves, "maxDeliveryAttempts": 4 } })),
        ("101 attempts", json!({ "deadLetterPolicy": { "deadLetterTopic": graves, "maxDeliveryAttempts": 101 } })),
        ("a retention of 599 s", json!({ "messageRetentionDuration": "599s" })),
        ("a retention of 32 days", json!({ "messageRetentionDuration": "2764800s" })),
    ] {
        settings["topic"] = json!(asker.topic());
        let name = format!("{}-{}", asker.subscription(), limit.replace(' ', "-"));
        tell(limit, asker.call(Method::PUT, &name, settings).await);
    }
    for (limit, name) in [("a name of two letters", "ab"), ("a name of Google's", "google"), ("a name like 7up", "7up")]
    {
        tell(limit, asker.call(Method::PUT, &format!("{PROJECT}/topics/{name}"), json!({})).await);
    }
    passed.join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn pubsub_answers_as_google_documents_it() {
    let world = World::start().await;
    let asker = Asker::new(world.endpoint(), world.owner());
    let mut wrong = Vec::new();
    for (case, documented, source) in CASES {
        let seen = seen(&asker.of(case)).await;
        if seen != documented {
            wrong.push(format!("{case}: saw {seen:?}, documented is {documented:?} ({source})"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    world.stop().await;
}

/// Google's emulator, and whatever it has started.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // Its launcher is a script: the group has the machine that runs in it.
        let group = rustix::process::Pid::from_child(&self.0);
        if rustix::process::kill_process_group(group, rustix::process::Signal::KILL).is_ok() {
            drop(self.0.wait());
        }
    }
}

/// Which emulator is installed, as its archive says.
fn installed() -> Option<String> {
    let files = std::fs::read_dir(format!("{EMULATOR}/lib")).ok()?;
    files.flatten().find_map(|file| {
        let name = file.file_name().into_string().ok()?;
        Some(name.strip_prefix("cloud-pubsub-emulator-")?.strip_suffix("-all.jar")?.to_owned())
    })
}

/// `CARREL_WRITE_DIFFERENCES=1` writes the table anew.
#[tokio::test(flavor = "multi_thread")]
async fn the_emulator_differs_as_the_table_says() {
    use std::os::unix::process::CommandExt as _;
    let installed = installed();
    if installed.as_deref() != Some(VERSION) {
        use std::io::Write as _;
        let other = installed.map(|version| format!(", but {version}")).unwrap_or_default();
        writeln!(
            std::io::stderr(),
            "SKIPPED: Google's Pub/Sub emulator {VERSION} is not installed at {EMULATOR}{other}"
        )
        .expect("stderr");
        return;
    }
    carrel_cloud::install_crypto();
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it has one").port();
    let mut command = Command::new(format!("{EMULATOR}/bin/cloud-pubsub-emulator"));
    command.args(["--host=127.0.0.1", &format!("--port={port}")]).process_group(0);
    let _emulator = Emulator(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    let base = format!("http://127.0.0.1:{port}");
    within(START, "the emulator", async || {
        Client::new().get(format!("{base}/v1/{PROJECT}/topics")).send().await.is_ok().then_some(())
    })
    .await;
    let asker = Asker::new(&base, "nobody");
    let mut table = String::new();
    for (case, documented, source) in CASES {
        let seen = seen(&asker.of(case)).await;
        if seen != documented {
            let blank = |text: &str| if text.is_empty() { "nothing passes".to_owned() } else { text.to_owned() };
            table += &format!("| {case} | {} | {} | {source} |\n", blank(documented), blank(&seen));
        }
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/differences.md");
    let text = std::fs::read_to_string(file).expect("it is kept");
    let (head, kept) = text.split_once("|---|---|---|---|\n").expect("it has a table");
    assert!(head.contains(&format!("emulator {VERSION}.")), "it says which emulator it is of");
    if std::env::var_os("CARREL_WRITE_DIFFERENCES").is_some() {
        std::fs::write(file, format!("{head}|---|---|---|---|\n{table}")).expect("it is written");
    } else {
        assert_eq!(kept, table);
    }
}
