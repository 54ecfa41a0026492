//! Every verb that the cloud serves, tried by everybody: what a binding grants is done, everything else is denied.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use carrel_local::iam::{Iam, Principal};
use google_cloud_pubsub::client::{SubscriptionAdmin, TopicAdmin};
use google_cloud_pubsub::model::{DeadLetterPolicy, Snapshot, Subscription, Topic};
use google_cloud_pubsub::subscriber::ShutdownBehavior;
use google_cloud_run_v2::client::{Executions, Jobs, Tasks};
use google_cloud_run_v2::model::{Container, ExecutionTemplate, Job, TaskTemplate};
use google_cloud_storage::client::{Storage, StorageControl};
use google_cloud_storage::model::Object;
use google_cloud_storage::model::compose_object_request::SourceObject;
use google_cloud_wkt::FieldMask;
use reqwest::Method;
use serde_json::{Value, json};

use crate::calls::{Caller, Error, Inbox, message, publish_status, status};
use crate::run::script;
use crate::world::{ALICE, BOB, JOB, World, bind};

/// May look at bucket-b and consume the inbox; a custom role lets her list bucket-a.
const CAROL: &str = "carol@demo.iam.gserviceaccount.com";
/// May launch the job as it is and look at it, and add objects to bucket-b without replacing any.
const DAVE: &str = "dave@demo.iam.gserviceaccount.com";
/// May do everything to the topics and subscriptions of the project, by one binding on the project.
const EVE: &str = "eve@demo.iam.gserviceaccount.com";

pub(crate) const A: &str = "projects/_/buckets/bucket-a";
pub(crate) const B: &str = "projects/_/buckets/bucket-b";
pub(crate) const PROJECT: &str = "projects/demo";
const LOCATION: &str = "projects/demo/locations/us-central1";
const EVENTS: &str = "projects/demo/topics/events";
const INBOX: &str = "projects/demo/subscriptions/inbox";

/// A verb.
pub(crate) struct Row {
    /// Its name.
    pub(crate) verb: &'static str,
    /// What it is answered with when it is allowed. Verbs on what does not exist end in 404 or 409, but only for those who
    /// may know.
    pub(crate) allowed: u16,
    /// The permissions it takes, all of them.
    pub(crate) needs: &'static [&'static str],
    /// Who holds them here, beside the owner.
    to: &'static [&'static str],
}

const fn row(verb: &'static str, allowed: u16, needs: &'static [&'static str], to: &'static [&'static str]) -> Row {
    Row { verb, allowed, needs, to }
}

const CREATE: &str = "storage.objects.create";
const GET: &str = "storage.objects.get";
const SUBSCRIBE: &str = "pubsub.subscriptions.create";
const ATTACH: &str = "pubsub.topics.attachSubscription";

/// Every verb that the cloud serves.
pub(crate) const TABLE: &[Row] = &[
    row("write a", 200, &[CREATE], &[ALICE]),
    row("read a", 200, &[GET], &[ALICE]),
    row("stat a", 200, &[GET], &[ALICE]),
    row("list a", 200, &["storage.objects.list"], &[ALICE, CAROL]),
    row("patch a", 200, &["storage.objects.update"], &[ALICE]),
    row("delete a", 404, &["storage.objects.delete", "storage.objects.list"], &[ALICE]),
    row("write b", 200, &[CREATE], &[DAVE]),
    row("overwrite b", 200, &[CREATE, "storage.objects.delete"], &[]),
    row("read b", 200, &[GET], &[CAROL]),
    row("stat b", 200, &[GET], &[CAROL]),
    row("list b", 200, &["storage.objects.list"], &[CAROL]),
    row("patch b", 200, &["storage.objects.update"], &[]),
    row("delete b", 404, &["storage.objects.delete", "storage.objects.list"], &[]),
    row("copy a to b", 200, &[GET, CREATE], &[]),
    row("copy b to a", 200, &[GET, CREATE], &[]),
    row("open a", 200, &[GET], &[ALICE]),
    row("compose a", 200, &[GET, CREATE], &[ALICE]),
    row("continue upload", 404, &[CREATE], &[ALICE]),
    row("cancel upload", 404, &[CREATE], &[ALICE]),
    row("get bucket", 200, &["storage.buckets.get"], &[]),
    row("list buckets", 200, &["storage.buckets.list"], &[]),
    row("create bucket", 409, &["storage.buckets.create"], &[]),
    row("update bucket", 200, &["storage.buckets.update"], &[]),
    row("delete bucket", 409, &["storage.buckets.delete"], &[]),
    row("get policy", 200, &["storage.buckets.getIamPolicy"], &[]),
    row("set policy", 412, &["storage.buckets.setIamPolicy"], &[]),
    row("test permissions", 200, &[], &[ALICE, BOB, CAROL, DAVE, EVE]),
    row("list notifications", 200, &["storage.buckets.get"], &[]),
    row("get notification", 404, &["storage.buckets.get"], &[]),
    row("add notification", 404, &["storage.buckets.update", "pubsub.topics.publish"], &[]),
    row("remove notification", 404, &["storage.buckets.update"], &[]),
    row("publish to events", 200, &["pubsub.topics.publish"], &[ALICE, EVE]),
    row("publish to graves", 200, &["pubsub.topics.publish"], &[EVE]),
    row("publish to missing", 404, &["pubsub.topics.publish"], &[EVE]),
    row("pull from inbox", 200, &["pubsub.subscriptions.consume"], &[CAROL, EVE]),
    row("pull from strict", 200, &["pubsub.subscriptions.consume"], &[EVE]),
    row("take from inbox", 200, &["pubsub.subscriptions.consume"], &[CAROL, EVE]),
    row("acknowledge to inbox", 200, &["pubsub.subscriptions.consume"], &[CAROL, EVE]),
    row("prolong for inbox", 200, &["pubsub.subscriptions.consume"], &[CAROL, EVE]),
    row("seek to time", 404, &["pubsub.subscriptions.consume"], &[EVE]),
    row("get topic", 200, &["pubsub.topics.get"], &[EVE]),
    row("list topics", 200, &["pubsub.topics.list"], &[EVE]),
    row("list topic-subscriptions", 200, &["pubsub.topics.get"], &[EVE]),
    row("list topic-snapshots", 200, &["pubsub.topics.get"], &[EVE]),
    row("create topic", 409, &["pubsub.topics.create"], &[EVE]),
    row("delete topic", 404, &["pubsub.topics.delete"], &[EVE]),
    row("update topic", 404, &["pubsub.topics.update"], &[EVE]),
    row("detach subscription", 404, &["pubsub.topics.detachSubscription"], &[EVE]),
    row("get snapshot", 404, &["pubsub.snapshots.get"], &[EVE]),
    row("list snapshots", 200, &["pubsub.snapshots.list"], &[EVE]),
    row("create snapshot", 404, &["pubsub.snapshots.create", "pubsub.subscriptions.consume"], &[EVE]),
    row("update snapshot", 404, &["pubsub.snapshots.update"], &[EVE]),
    row("delete snapshot", 404, &["pubsub.snapshots.delete"], &[EVE]),
    row("seek to snapshot", 404, &["pubsub.subscriptions.consume", "pubsub.snapshots.seek"], &[EVE]),
    row("get subscription", 200, &["pubsub.subscriptions.get"], &[EVE]),
    row("list subscriptions", 200, &["pubsub.subscriptions.list"], &[EVE]),
    row("create subscription", 409, &[SUBSCRIBE, ATTACH], &[EVE]),
    row("update subscription", 200, &["pubsub.subscriptions.update"], &[EVE]),
    row("create dead-letters", 409, &[SUBSCRIBE, ATTACH, "pubsub.topics.publish"], &[EVE]),
    row("update dead-letters", 404, &["pubsub.subscriptions.update", "pubsub.topics.publish"], &[EVE]),
    row("delete subscription", 404, &["pubsub.subscriptions.delete"], &[EVE]),
    row("get job", 200, &["run.jobs.get"], &[DAVE]),
    row("list jobs", 200, &["run.jobs.list"], &[]),
    row("create job", 409, &["run.jobs.create", "iam.serviceAccounts.actAs"], &[]),
    row("update job", 404, &["run.jobs.update"], &[]),
    row("delete job", 404, &["run.jobs.delete"], &[]),
    row("run job", 200, &["run.jobs.run"], &[DAVE]),
    row("run job with overrides", 200, &["run.jobs.run", "run.jobs.runWithOverrides"], &[]),
    row("list executions", 200, &["run.executions.list"], &[DAVE]),
    row("get execution", 404, &["run.executions.get"], &[DAVE]),
    row("cancel execution", 404, &["run.executions.cancel"], &[DAVE]),
    row("delete execution", 404, &["run.executions.delete"], &[]),
    row("list tasks", 404, &["run.tasks.list"], &[DAVE]),
    row("get task", 404, &["run.tasks.get"], &[DAVE]),
    row("get operation", 404, &["run.operations.get"], &[]),
];

/// Every client of one caller.
pub(crate) struct Hand {
    /// Names what it makes, with a number.
    name: String,
    made: AtomicU32,
    caller: Caller,
    storage: Storage,
    control: StorageControl,
    topics: TopicAdmin,
    subscriptions: SubscriptionAdmin,
    jobs: Jobs,
    executions: Executions,
    tasks: Tasks,
}

fn answered<T>(answer: Result<T, Error>) -> u16 {
    answer.map_or_else(|error| status(&error), |_| 200)
}

impl Hand {
    pub(crate) async fn new(name: &str, caller: Caller) -> Self {
        Self {
            name: name.to_owned(),
            made: AtomicU32::default(),
            storage: caller.storage().await,
            control: caller.control().await,
            topics: caller.topics().await,
            subscriptions: caller.subscriptions().await,
            jobs: caller.jobs().await,
            executions: caller.executions().await,
            tasks: caller.tasks().await,
            caller,
        }
    }

    fn fresh(&self) -> String {
        format!("{}-{}", self.name, self.made.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn tries(&self, verb: &str) -> u16 {
        match verb.split_once(' ').expect("a verb has an object") {
            ("publish", to) => {
                let topic = format!("{PROJECT}/topics/{}", to.trim_start_matches("to "));
                let published = self.caller.publisher(&topic).await.publish(message("x")).await;
                published.map_or_else(|error| publish_status(&error), |_| 200)
            }
            ("pull", from) => {
                let subscription = format!("{PROJECT}/subscriptions/{}", from.trim_start_matches("from "));
                let stream = self.caller.subscriber().await.subscribe(subscription).set_max_outstanding_messages(1);
                let mut inbox = Inbox(stream.set_shutdown_behavior(ShutdownBehavior::NackImmediately).build());
                let got = answered(inbox.heard().await);
                // What it got is given back to the next one who tries.
                inbox.close().await;
                got
            }
            (verb, "a") => self.tries_object(verb, A).await,
            (verb, "b") => self.tries_object(verb, B).await,
            ("copy", "a to b") => self.copies(A, B).await,
            ("copy", "b to a") => self.copies(B, A).await,
            ("get", "bucket") => answered(self.control.get_bucket().set_name(A).send().await),
            ("list", "buckets") => self.asks(Method::GET, "b?project=demo", Value::Null).await,
            ("create", "bucket") => self.asks(Method::POST, "b?project=demo", json!({ "name": "bucket-a" })).await,
            ("update", "bucket") => self.asks(Method::PATCH, "b/bucket-a", json!({ "labels": {} })).await,
            ("delete", "bucket") => self.asks(Method::DELETE, "b/bucket-a", Value::Null).await,
            ("get", "policy") => self.asks(Method::GET, "b/bucket-a/iam", Value::Null).await,
            ("test", "permissions") => {
                self.asks(Method::GET, &format!("b/bucket-a/iam/testPermissions?permissions={GET}"), Value::Null).await
            }
            (verb, "upload") => {
                let method = if verb == "cancel" { Method::DELETE } else { Method::PUT };
                let path = "upload/storage/v1/b/bucket-a/o?uploadType=resumable&upload_id=00";
                self.calls(method, path, Value::Null).await
            }
            (verb, "notification" | "notifications") => self.tries_notification(verb).await,
            // One that was read before another was set.
            ("set", "policy") => {
                self.asks(Method::PUT, "b/bucket-a/iam", json!({ "etag": "999", "bindings": [] })).await
            }
            ("take", _) => self.consumes("pull", json!({ "maxMessages": 1, "returnImmediately": true })).await,
            ("acknowledge", _) => self.consumes("acknowledge", json!({ "ackIds": ["none"] })).await,
            ("prolong", _) => {
                self.consumes("modifyAckDeadline", json!({ "ackIds": ["none"], "ackDeadlineSeconds": 20 })).await
            }
            ("seek", "to time") => {
                let seek = self.subscriptions.seek().set_subscription(format!("{INBOX}-2"));
                answered(seek.set_time(google_cloud_wkt::Timestamp::clamp(0, 0)).send().await)
            }
            (verb, "dead-letters") => self.tries_dead_letters(verb).await,
            ("list", "topic-subscriptions") => {
                answered(self.topics.list_topic_subscriptions().set_topic(EVENTS).send().await)
            }
            ("list", "topic-snapshots") => answered(self.topics.list_topic_snapshots().set_topic(EVENTS).send().await),
            (_, "topic" | "topics" | "subscription" | "subscriptions") => self.tries_admin(verb).await,
            (verb, "snapshot" | "snapshots" | "to snapshot") => self.tries_snapshot(verb).await,
            _ => self.tries_run(verb).await,
        }
    }

    async fn tries_object(&self, verb: &str, bucket: &str) -> u16 {
        let object = || Object::new().set_bucket(bucket).set_name("x").set_content_type("text/plain");
        let mask = FieldMask::default().set_paths(["content_type"]);
        match verb {
            "write" => answered(self.storage.write_object(bucket, self.fresh(), "1").send_unbuffered().await),
            "overwrite" => answered(self.storage.write_object(bucket, "x", "1").send_unbuffered().await),
            "read" => answered(self.storage.read_object(bucket, "x").send().await),
            "stat" => answered(self.control.get_object().set_bucket(bucket).set_object("x").send().await),
            "list" => answered(self.control.list_objects().set_parent(bucket).send().await),
            "patch" => answered(self.control.update_object().set_object(object()).set_update_mask(mask).send().await),
            "delete" => answered(self.control.delete_object().set_bucket(bucket).set_object("none").send().await),
            "open" => answered(self.storage.open_object(bucket, "x").send().await),
            "compose" => {
                let to = Object::new().set_bucket(bucket).set_name(self.fresh());
                let compose = self.control.compose_object().set_destination(to);
                answered(compose.set_source_objects([SourceObject::new().set_name("x")]).send().await)
            }
            other => panic!("no verb {other}"),
        }
    }

    /// Google's Rust client asks for buckets over methods that are not served here; others ask like this.
    async fn asks(&self, method: Method, path: &str, body: Value) -> u16 {
        self.calls(method, &format!("storage/v1/{path}"), body).await
    }

    async fn calls(&self, method: Method, path: &str, body: Value) -> u16 {
        let url = format!("{}/{path}", self.caller.endpoint);
        let request = reqwest::Client::new().request(method, url).headers(self.caller.headers().await);
        let request = if body.is_null() { request } else { request.json(&body) };
        request.send().await.expect("it answers").status().as_u16()
    }

    /// Google's Rust client takes messages over streams alone.
    async fn consumes(&self, verb: &str, body: Value) -> u16 {
        self.calls(Method::POST, &format!("v1/{INBOX}:{verb}"), body).await
    }

    async fn tries_notification(&self, verb: &str) -> u16 {
        let (all, one) = ("b/bucket-a/notificationConfigs", "b/bucket-a/notificationConfigs/999");
        match verb {
            "list" => self.asks(Method::GET, all, Value::Null).await,
            "get" => self.asks(Method::GET, one, Value::Null).await,
            "add" => {
                let missing = json!({ "topic": format!("{PROJECT}/topics/missing"), "payload_format": "NONE" });
                self.asks(Method::POST, all, missing).await
            }
            "remove" => self.asks(Method::DELETE, one, Value::Null).await,
            other => panic!("no verb {other}"),
        }
    }

    async fn tries_dead_letters(&self, verb: &str) -> u16 {
        let policy = DeadLetterPolicy::new().set_dead_letter_topic(format!("{PROJECT}/topics/graves"));
        let wanted = Subscription::new().set_topic(EVENTS).set_dead_letter_policy(policy);
        match verb {
            "create" => {
                let create = self.subscriptions.create_subscription().with_request(wanted.set_name(INBOX));
                answered(create.send().await)
            }
            "update" => {
                let mask = FieldMask::default().set_paths(["dead_letter_policy"]);
                let update = self.subscriptions.update_subscription().set_update_mask(mask);
                answered(update.set_subscription(wanted.set_name(format!("{INBOX}-2"))).send().await)
            }
            other => panic!("no verb {other}"),
        }
    }

    async fn copies(&self, from: &str, to: &str) -> u16 {
        let copy = self.control.rewrite_object().set_source_bucket(from).set_source_object("x");
        answered(copy.set_destination_bucket(to).set_destination_name(self.fresh()).send().await)
    }

    async fn tries_admin(&self, verb: &str) -> u16 {
        let (topics, subscriptions) = (&self.topics, &self.subscriptions);
        let wanted = || Subscription::new().set_name(INBOX).set_topic(EVENTS);
        let mask = FieldMask::default().set_paths(["ack_deadline_seconds"]);
        match verb {
            "get topic" => answered(topics.get_topic().set_topic(EVENTS).send().await),
            "list topics" => answered(topics.list_topics().set_project(PROJECT).send().await),
            "create topic" => answered(topics.create_topic().set_name(EVENTS).send().await),
            "update topic" => {
                let wanted = Topic::new().set_name(format!("{EVENTS}-2"));
                let mask = FieldMask::default().set_paths(["labels"]);
                answered(topics.update_topic().set_topic(wanted).set_update_mask(mask).send().await)
            }
            "detach subscription" => {
                answered(topics.detach_subscription().set_subscription(format!("{INBOX}-2")).send().await)
            }
            "delete topic" => answered(topics.delete_topic().set_topic(format!("{EVENTS}-2")).send().await),
            "get subscription" => answered(subscriptions.get_subscription().set_subscription(INBOX).send().await),
            "list subscriptions" => answered(subscriptions.list_subscriptions().set_project(PROJECT).send().await),
            "create subscription" => answered(subscriptions.create_subscription().with_request(wanted()).send().await),
            "update subscription" => {
                let update = subscriptions.update_subscription().set_subscription(wanted());
                answered(update.set_update_mask(mask).send().await)
            }
            "delete subscription" => {
                answered(subscriptions.delete_subscription().set_subscription(format!("{INBOX}-2")).send().await)
            }
            other => panic!("no verb {other}"),
        }
    }

    async fn tries_snapshot(&self, verb: &str) -> u16 {
        let subscriptions = &self.subscriptions;
        let none = format!("{PROJECT}/snapshots/none");
        match verb {
            "get" => answered(subscriptions.get_snapshot().set_snapshot(none).send().await),
            "list" => answered(subscriptions.list_snapshots().set_project(PROJECT).send().await),
            "create" => {
                let wanted = subscriptions.create_snapshot().set_name(none).set_subscription(format!("{INBOX}-2"));
                answered(wanted.send().await)
            }
            "update" => {
                let mask = FieldMask::default().set_paths(["labels"]);
                let wanted = Snapshot::new().set_name(none);
                answered(subscriptions.update_snapshot().set_snapshot(wanted).set_update_mask(mask).send().await)
            }
            "delete" => answered(subscriptions.delete_snapshot().set_snapshot(none).send().await),
            "seek" => answered(subscriptions.seek().set_subscription(INBOX).set_snapshot(none).send().await),
            other => panic!("no verb {other}"),
        }
    }

    async fn tries_run(&self, verb: &str) -> u16 {
        let missing = format!("{JOB}/executions/none");
        let operation = format!("{LOCATION}/operations/none");
        match verb {
            "get job" => answered(self.jobs.get_job().set_name(JOB).send().await),
            "list jobs" => answered(self.jobs.list_jobs().set_parent(LOCATION).send().await),
            "create job" => {
                let container = Container::new().set_image("shell");
                let template = TaskTemplate::new().set_containers([container]).set_service_account(ALICE);
                let wanted = Job::new().set_template(ExecutionTemplate::new().set_template(template));
                answered(self.jobs.create_job().set_parent(LOCATION).set_job_id("shell").set_job(wanted).send().await)
            }
            "update job" => {
                let wanted = Job::new().set_name(format!("{JOB}-2"));
                answered(self.jobs.update_job().set_job(wanted).send().await)
            }
            "delete job" => answered(self.jobs.delete_job().set_name(format!("{JOB}-2")).send().await),
            "delete execution" => answered(self.executions.delete_execution().set_name(missing).send().await),
            "get task" => answered(self.tasks.get_task().set_name(format!("{missing}/tasks/none")).send().await),
            "run job" => answered(self.jobs.run_job().set_name(JOB).send().await),
            "run job with overrides" => {
                answered(self.jobs.run_job().set_name(JOB).set_overrides(script("exit 0")).send().await)
            }
            "list executions" => answered(self.executions.list_executions().set_parent(JOB).send().await),
            "get execution" => answered(self.executions.get_execution().set_name(missing).send().await),
            "cancel execution" => answered(self.executions.cancel_execution().set_name(missing).send().await),
            "list tasks" => answered(self.tasks.list_tasks().set_parent(missing).send().await),
            "get operation" => answered(self.jobs.get_operation().set_name(operation).send().await),
            other => panic!("no verb {other}"),
        }
    }
}

async fn crowded() -> World {
    let world = World::with(|config| {
        for account in [CAROL, DAVE, EVE] {
            config.service_accounts.push(account.into());
            let server = carrel_local::config::MetadataServer { service_account: account.into(), listen: None };
            config.metadata_servers.push(server);
        }
        config.roles = BTreeMap::from([("roles/lister".into(), vec!["storage.objects.list".into()])]);
        config.bindings.extend([
            bind(B, "roles/storage.objectViewer", CAROL),
            bind(A, "roles/lister", CAROL),
            bind(INBOX, "roles/pubsub.subscriber", CAROL),
            bind(JOB, "roles/run.jobsExecutor", DAVE),
            bind(JOB, "roles/run.viewer", DAVE),
            bind(B, "roles/storage.objectCreator", DAVE),
            bind(PROJECT, "roles/pubsub.editor", EVE),
            // Buckets are bound one by one: this gives nothing.
            bind(PROJECT, "roles/storage.objectAdmin", EVE),
        ]);
    })
    .await;
    let storage = world.as_owner().storage().await;
    for bucket in [A, B] {
        storage.write_object(bucket, "x", "1").send_unbuffered().await.expect("is stored");
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_do_what_a_binding_grants_and_nothing_else() {
    let world = crowded().await;
    let mut hands = vec![("owner", Hand::new("owner", world.as_owner()).await)];
    for account in [ALICE, BOB, CAROL, DAVE, EVE] {
        hands.push((account, Hand::new(account, world.caller(account).await).await));
    }
    let mut wrong = Vec::new();
    for Row { verb, allowed, to, .. } in TABLE {
        for (who, hand) in &hands {
            let expected = if *who == "owner" || to.contains(who) { *allowed } else { 403 };
            let got = hand.tries(verb).await;
            if got != expected {
                wrong.push(format!("{who}: {verb}: {got} instead of {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_expired_foreign_or_tampered_with_opens_nothing() {
    let world = crowded().await;
    let policy = |dir| Iam::open(dir, &BTreeMap::new(), &[]).expect("it opens");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let hour = Duration::from_secs(3600);
    let owners = policy(elsewhere.path()).mint(&Principal::owner(), hour);
    let alices = world.token(ALICE).await;
    let (claims, _) = owners.rsplit_once('.').expect("a token has a seal");
    let (_, seal) = alices.rsplit_once('.').expect("a token has a seal");
    let mut hands = Vec::new();
    for (what, token) in [
        ("expired", policy(&world.config().data_dir).mint(&Principal::owner(), Duration::ZERO)),
        ("of another cloud", owners.clone()),
        ("of the owner, sealed for another", format!("{claims}.{seal}")),
        ("without its seal", format!("{claims}.")),
    ] {
        hands.push((what, Hand::new("nobody", Caller::new(world.endpoint(), &token)).await));
    }
    let mut wrong = Vec::new();
    for Row { verb, .. } in TABLE {
        for (what, hand) in &hands {
            let got = hand.tries(verb).await;
            if got != 401 {
                wrong.push(format!("{what}: {verb}: {got} instead of 401"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    world.stop().await;
}
