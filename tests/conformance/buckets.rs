//! Buckets made, changed, told of, granted and deleted through the API.

use google_cloud_storage::model::Bucket;
use google_cloud_wkt::FieldMask;
use serde_json::{Value, json};

use crate::calls::status;
use crate::http::Http;
use crate::world::{BOB, World};

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_made_changed_and_deleted_and_survive_a_restart() {
    let mut world = World::start().await;
    let (http, control) = (Http::new(&world), world.as_owner().control().await);
    let made = http.ok("POST", "/storage/v1/b?project=other", Some(json!({ "name": "made-by-hand" }))).await;
    assert_eq!((made["name"].as_str(), made["location"].as_str()), (Some("made-by-hand"), Some("us-central1")));
    let again = json!({ "name": "made-by-hand" });
    assert_eq!(http.json("POST", "/storage/v1/b?project=other", Some(again)).await.0, 409);
    for refused in [
        json!({ "name": "UPPER" }),
        json!({ "name": "aged", "lifecycle": { "rule": [{ "action": { "type": "Delete" } }] } }),
    ] {
        assert_eq!(http.json("POST", "/storage/v1/b?project=other", Some(refused)).await.0, 400);
    }
    let new = Bucket::new().set_project("projects/demo").set_labels([("k", "v")]).set_location("EU");
    let create = || control.create_bucket().set_parent("projects/_").set_bucket(new.clone());
    let bucket = create().set_bucket_id("made-by-client").send().await.expect("is made");
    assert_eq!((bucket.name.as_str(), bucket.location.as_str()), ("projects/_/buckets/made-by-client", "EU"));
    assert_eq!(status(&create().set_bucket_id("made-by-client").send().await.expect_err("is there")), 409);

    let path = "/storage/v1/b/made-by-client";
    let patched = http.ok("PATCH", path, Some(json!({ "labels": { "k": null, "l": "w" } }))).await;
    assert_eq!((&patched["labels"], patched["metageneration"].as_str()), (&json!({ "l": "w" }), Some("2")));
    let stale = http.json("PATCH", &format!("{path}?ifMetagenerationMatch=1"), Some(json!({}))).await;
    assert_eq!(stale.0, 412);
    assert_eq!(http.json("GET", &format!("{path}?ifMetagenerationNotMatch=2"), None).await.0, 304);
    let relabelled = bucket.clone().set_labels([("m", "x")]);
    let update = control.update_bucket().set_bucket(relabelled);
    let update = update.set_update_mask(FieldMask::default().set_paths(["labels"])).send().await.expect("is changed");
    assert_eq!(update.labels.into_iter().collect::<Vec<_>>(), [("m".to_owned(), "x".to_owned())]);

    world.restart().await;
    let (http, control) = (Http::new(&world), world.as_owner().control().await);
    let names = |page: &Value| {
        let items = page["items"].as_array().expect("lists").iter();
        items.map(|item| item["name"].as_str().expect("has a name").to_owned()).collect::<Vec<_>>()
    };
    let first = http.ok("GET", "/storage/v1/b?project=demo&maxResults=2", None).await;
    assert_eq!(names(&first), ["bucket-a", "bucket-b"]);
    let token = first["nextPageToken"].as_str().expect("there is more");
    let last = http.ok("GET", &format!("/storage/v1/b?project=demo&maxResults=2&pageToken={token}"), None).await;
    assert_eq!((names(&last), last.get("nextPageToken")), (vec!["made-by-client".to_owned()], None));

    let upload = "/upload/storage/v1/b/made-by-client/o?uploadType=media&name=x";
    http.ok("POST", upload, Some(json!("content"))).await;
    let (code, told) = http.json("DELETE", path, None).await;
    assert_eq!((code, told["error"]["errors"][0]["reason"].as_str()), (409, Some("conflict")));
    assert_eq!(http.json("DELETE", &format!("{path}/o/x"), None).await.0, 204);
    assert_eq!(http.json("DELETE", &format!("{path}?ifMetagenerationMatch=1"), None).await.0, 412);
    assert_eq!(http.json("DELETE", path, None).await.0, 204);
    control.delete_bucket().set_name("projects/_/buckets/made-by-hand").send().await.expect("is empty");
    for gone in [path, "/storage/v1/b/made-by-hand"] {
        assert_eq!(http.json("GET", gone, None).await.0, 404);
    }
    assert_eq!(http.json("POST", upload, Some(json!("content"))).await.0, 404, "nothing is written to no bucket");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_are_added_listed_and_removed_beside_the_configured_ones() {
    let mut world = World::start().await;
    let http = Http::new(&world);
    let all = "/storage/v1/b/bucket-a/notificationConfigs";
    let configured = http.ok("GET", all, None).await;
    assert_eq!(configured["items"].as_array().map(Vec::len), Some(1));
    let topic = "//pubsub.googleapis.com/projects/demo/topics/graves";
    assert_eq!(configured["items"][0]["topic"], "//pubsub.googleapis.com/projects/demo/topics/events");
    let new = json!({ "topic": topic, "payload_format": "JSON_API_V1", "event_types": ["OBJECT_DELETE"] });
    let added = http.ok("POST", all, Some(new)).await;
    let one = format!("{all}/{}", added["id"].as_str().expect("has an id"));
    for (wrong, code) in [
        (json!({ "topic": "//pubsub.googleapis.com/projects/demo/topics/none", "payload_format": "NONE" }), 404),
        (json!({ "topic": topic, "payload_format": "XML" }), 400),
        (json!({ "topic": topic, "payload_format": "NONE", "event_types": ["OBJECT_LOST"] }), 400),
        (json!({ "topic": topic }), 400),
    ] {
        assert_eq!(http.json("POST", all, Some(wrong)).await.0, code);
    }
    http.write("x", "content").await;
    world.restart().await;
    let http = Http::new(&world);
    assert_eq!(http.ok("GET", &one, None).await, {
        let mut moved = added.clone();
        moved["selfLink"] = format!("{}{one}", world.endpoint()).into();
        moved
    });
    assert_eq!(http.ok("GET", all, None).await["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(http.json("DELETE", "/storage/v1/b/bucket-a/o/x", None).await.0, 204);
    let mut inbox = world.as_owner().inbox("projects/demo/subscriptions/graves").await;
    let (message, handler) = inbox.next().await;
    handler.ack();
    assert_eq!(message.attributes["eventType"], "OBJECT_DELETE", "and nothing of what it does not want");
    let payload: Value = serde_json::from_slice(&message.data).expect("is JSON");
    assert_eq!((payload["kind"].as_str(), payload["name"].as_str()), (Some("storage#object"), Some("x")));
    assert_eq!(http.json("DELETE", &one, None).await.0, 204);
    for verb in ["GET", "DELETE"] {
        assert_eq!(http.json(verb, &one, None).await.0, 404);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_grants_beside_the_configuration_and_takes_back_what_it_gave() {
    let mut world = World::start().await;
    let http = Http::new(&world);
    http.write("x", "content").await;
    let iam = "/storage/v1/b/bucket-a/iam";
    let bob = async |world: &World| {
        let http = Http::with_token(world, &world.token(BOB).await);
        let read = http.json("GET", "/storage/v1/b/bucket-a/o/x", None).await.0;
        let asked = format!("{iam}/testPermissions?permissions=storage.objects.get&permissions=storage.objects.create");
        (read, http.ok("GET", &asked, None).await["permissions"].clone(), http.json("GET", iam, None).await.0)
    };
    assert_eq!(bob(&world).await, (403, json!([]), 403));
    let before = http.ok("GET", iam, None).await;
    assert_eq!(before["bindings"][0]["role"], "roles/storage.objectAdmin", "what is configured is told");
    let member = format!("serviceAccount:{BOB}");
    let mut policy = before.clone();
    let bindings = policy["bindings"].as_array_mut().expect("is a list");
    bindings.push(json!({ "role": "roles/storage.objectViewer", "members": [member] }));
    let set = http.ok("PUT", iam, Some(policy.clone())).await;
    assert_eq!(set["bindings"], policy["bindings"]);
    assert_eq!(bob(&world).await, (200, json!(["storage.objects.get"]), 403));
    world.restart().await;
    assert_eq!(bob(&world).await.0, 200);
    let http = Http::new(&world);
    assert_eq!(http.json("PUT", iam, Some(before.clone())).await.0, 412, "it has changed since it was read");
    for wrong in [
        json!({ "bindings": [{ "role": "roles/none", "members": [member] }] }),
        json!({ "bindings": [{ "role": "roles/storage.objectViewer", "members": ["allUsers"] }] }),
        json!({ "bindings": [{ "role": "roles/storage.objectViewer", "members": [], "condition": {} }] }),
    ] {
        assert_eq!(http.json("PUT", iam, Some(wrong)).await.0, 400);
    }
    let back = http.ok("PUT", iam, Some(json!({ "bindings": [] }))).await;
    assert_eq!(back["bindings"], before["bindings"], "a binding of the configuration stays");
    assert_eq!(bob(&world).await.0, 403);
    world.stop().await;
}
