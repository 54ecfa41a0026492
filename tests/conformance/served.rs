//! Everything that the cloud serves is tried by a row of the table of permissions: each rpc of its protos, each route of
//! its JSON APIs.
//!
//! What there is is read from the protos and from the code, so that what is added without a row fails. Pub/Sub's JSON is
//! another way to its rpcs, and a batch one to the routes of Cloud Storage.

use std::collections::BTreeSet;
use std::path::Path;

use crate::iam::TABLE;

/// What is served, and the row that tries it.
const SERVED: &[(&str, &str)] = &[
    ("Publisher.CreateTopic", "create topic"),
    ("Publisher.UpdateTopic", "update topic"),
    ("Publisher.Publish", "publish to events"),
    ("Publisher.GetTopic", "get topic"),
    ("Publisher.ListTopics", "list topics"),
    ("Publisher.ListTopicSubscriptions", "list topic-subscriptions"),
    ("Publisher.ListTopicSnapshots", "list topic-snapshots"),
    ("Publisher.DeleteTopic", "delete topic"),
    ("Publisher.DetachSubscription", "detach subscription"),
    ("Subscriber.CreateSubscription", "create subscription"),
    ("Subscriber.GetSubscription", "get subscription"),
    ("Subscriber.UpdateSubscription", "update subscription"),
    ("Subscriber.ListSubscriptions", "list subscriptions"),
    ("Subscriber.DeleteSubscription", "delete subscription"),
    ("Subscriber.ModifyAckDeadline", "prolong for inbox"),
    ("Subscriber.Acknowledge", "acknowledge to inbox"),
    ("Subscriber.Pull", "take from inbox"),
    ("Subscriber.StreamingPull", "pull from inbox"),
    ("Subscriber.GetSnapshot", "get snapshot"),
    ("Subscriber.ListSnapshots", "list snapshots"),
    ("Subscriber.CreateSnapshot", "create snapshot"),
    ("Subscriber.UpdateSnapshot", "update snapshot"),
    ("Subscriber.DeleteSnapshot", "delete snapshot"),
    ("Subscriber.Seek", "seek to time"),
    ("Storage.DeleteBucket", "delete bucket"),
    ("Storage.CreateBucket", "create bucket"),
    ("Storage.UpdateBucket", "update bucket"),
    ("Storage.ComposeObject", "compose a"),
    ("Storage.BidiReadObject", "open a"),
    ("Storage.GetBucket", "get bucket"),
    ("Storage.ListBuckets", "list buckets"),
    ("Storage.DeleteObject", "delete a"),
    ("Storage.GetObject", "stat a"),
    ("Storage.UpdateObject", "patch a"),
    ("Storage.ListObjects", "list a"),
    ("Storage.RewriteObject", "copy a to b"),
    ("get /storage/v1/b", "list buckets"),
    ("post /storage/v1/b", "create bucket"),
    ("get /storage/v1/b/{bucket}", "get bucket"),
    ("patch /storage/v1/b/{bucket}", "update bucket"),
    ("put /storage/v1/b/{bucket}", "update bucket"),
    ("delete /storage/v1/b/{bucket}", "delete bucket"),
    ("get /storage/v1/b/{bucket}/iam", "get policy"),
    ("put /storage/v1/b/{bucket}/iam", "set policy"),
    ("get /storage/v1/b/{bucket}/iam/testPermissions", "test permissions"),
    ("get /storage/v1/b/{bucket}/notificationConfigs", "list notifications"),
    ("post /storage/v1/b/{bucket}/notificationConfigs", "add notification"),
    ("get /storage/v1/b/{bucket}/notificationConfigs/{id}", "get notification"),
    ("delete /storage/v1/b/{bucket}/notificationConfigs/{id}", "remove notification"),
    ("get /storage/v1/b/{bucket}/o", "list a"),
    ("get /storage/v1/b/{bucket}/o/{object}", "read a"),
    ("patch /storage/v1/b/{bucket}/o/{object}", "patch a"),
    ("put /storage/v1/b/{bucket}/o/{object}", "patch a"),
    ("delete /storage/v1/b/{bucket}/o/{object}", "delete a"),
    ("post /storage/v1/b/{bucket}/o/{object}/compose", "compose a"),
    ("post /storage/v1/b/{bucket}/o/{object}/rewriteTo/b/{to_bucket}/o/{to_object}", "copy a to b"),
    ("post /storage/v1/b/{bucket}/o/{object}/copyTo/b/{to_bucket}/o/{to_object}", "copy a to b"),
    ("get /download/storage/v1/b/{bucket}/o/{object}", "read a"),
    ("post /upload/storage/v1/b/{bucket}/o", "write a"),
    ("put /upload/storage/v1/b/{bucket}/o", "continue upload"),
    ("delete /upload/storage/v1/b/{bucket}/o", "cancel upload"),
    ("GET Jobs", "list jobs"),
    ("POST Jobs", "create job"),
    ("PATCH Job", "update job"),
    ("DELETE Job", "delete job"),
    ("DELETE Execution", "delete execution"),
    ("GET Job", "get job"),
    ("POST Job:run", "run job"),
    ("GET Executions", "list executions"),
    ("GET Execution", "get execution"),
    ("POST Execution:cancel", "cancel execution"),
    ("GET Tasks", "list tasks"),
    ("GET Task", "get task"),
    ("GET Operation", "get operation"),
];

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/local").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `Service.Rpc` of a proto.
fn rpcs(proto: &str) -> Vec<String> {
    let (mut service, mut found) = ("", Vec::new());
    for line in proto.lines().map(str::trim_start) {
        if let Some(rest) = line.strip_prefix("service ") {
            service = rest.split_whitespace().next().expect("it has a name");
        } else if let Some(rest) = line.strip_prefix("rpc ") {
            found.push(format!("{service}.{}", rest.split('(').next().expect("it has a name")));
        }
    }
    found
}

/// `method /path` of each `.route("/path", method(…).method(…))`.
fn routes(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for route in code.split(".route(").skip(1) {
        let route = route.split(".with_state(").next().expect("it begins");
        let path = route.split('"').nth(1).expect("it has a path");
        let methods = ["get", "post", "put", "patch", "delete", "any"].into_iter();
        found.extend(methods.filter(|one| route.contains(&format!("{one}("))).map(|one| format!("{one} {path}")));
    }
    found
}

/// `METHOD Target:verb` of each arm of `(method, target, verb)`.
fn arms(code: &str) -> Vec<String> {
    let arm = |line: &str| {
        let (method, rest) = line.trim_start().strip_prefix("(\"")?.split_once("\", Target::")?;
        let target = rest.split(['(', ',']).next()?;
        let verb = rest.split_once("Some(\"").and_then(|(_, verb)| verb.split('"').next());
        let verb = verb.map(|verb| format!(":{verb}")).unwrap_or_default();
        Some(format!("{method} {target}{verb}"))
    };
    code.lines().filter_map(arm).collect()
}

#[test]
fn every_rpc_and_every_route_has_a_row_of_the_table() {
    let mut there: BTreeSet<String> = BTreeSet::new();
    for proto in ["proto/google/pubsub/v1/pubsub.proto", "proto/google/storage/v2/storage.proto"] {
        there.extend(rpcs(&source(proto)));
    }
    for code in ["src/storage/rest.rs", "src/storage/bucket_rest.rs"] {
        there.extend(routes(&source(code)));
    }
    there.extend(arms(&source("src/run/rest.rs")));
    let tried: BTreeSet<String> = SERVED.iter().map(|(served, _)| (*served).to_owned()).collect();
    let untried: Vec<_> = there.difference(&tried).collect();
    assert!(untried.is_empty(), "{untried:?}: name the row of iam.rs that tries each");
    let gone: Vec<_> = tried.difference(&there).collect();
    assert!(gone.is_empty(), "{gone:?} are not served any more, or the walk lost its way");
    let rowless: Vec<_> = SERVED.iter().filter(|(_, verb)| TABLE.iter().all(|row| row.verb != *verb)).collect();
    assert!(rowless.is_empty(), "{rowless:?}: the table has no such row");
}
