//! Generations, preconditions, compositions and reads of objects, over the JSON API and Google's Rust clients.

use google_cloud_storage::model::compose_object_request::SourceObject;
use google_cloud_storage::model::compose_object_request::source_object::ObjectPreconditions;
use google_cloud_storage::model::{Bucket, Object, bucket::Versioning};
use google_cloud_storage::model_ext::ReadRange;
use google_cloud_storage::read_object::ReadObjectResponse;
use google_cloud_wkt::FieldMask;
use serde_json::{Value, json};

use crate::calls::status;
use crate::http::{Http, number};
use crate::storage::noise;
use crate::world::World;

const A: &str = "projects/_/buckets/bucket-a";
const X: &str = "/storage/v1/b/bucket-a/o/v%2Fx";

async fn set_versioning(world: &World, enabled: bool) -> Bucket {
    let bucket = Bucket::new().set_name(A).set_versioning(Versioning::new().set_enabled(enabled));
    let update = world.as_owner().control().await.update_bucket().set_bucket(bucket);
    update.set_update_mask(FieldMask::default().set_paths(["versioning"])).send().await.expect("is changed")
}

/// Name, generation and whether it is live, of every generation, one to a page.
async fn versions(http: &Http) -> Vec<(String, i64, bool)> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/storage/v1/b/bucket-a/o?versions=True&prefix=v/&maxResults=1&pageToken={token}");
        let page = http.ok("GET", &path, None).await;
        let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(items.len() <= 1, "{page}");
        all.extend(items.iter().map(|item| {
            let name = item["name"].as_str().expect("has a name").to_owned();
            (name, number(item, "generation"), item.get("timeDeleted").is_none())
        }));
        match page["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_generation_of_a_versioned_bucket_stays_until_it_is_deleted_by_its_number() {
    let mut world = World::start().await;
    assert!(set_versioning(&world, true).await.versioning.is_some_and(|versioning| versioning.enabled));
    let http = Http::new(&world);
    let told = json!({
        "topic": "//pubsub.googleapis.com/projects/demo/topics/graves",
        "payload_format": "NONE",
        "object_name_prefix": "v/",
        "custom_attributes": { "colour": "blue" },
    });
    let told = http.ok("POST", "/storage/v1/b/bucket-a/notificationConfigs", Some(told)).await;
    let config = format!("projects/_/buckets/bucket-a/notificationConfigs/{}", told["id"].as_str().expect("has an id"));

    let mut generations = Vec::new();
    for content in ["one", "two", "three"] {
        generations.push(number(&http.write("v%2Fx", content).await, "generation"));
    }
    let other = number(&http.write("v%2Fy", "other").await, "generation");
    http.write("elsewhere", "nobody is told").await;
    let [one, two, three] = generations[..] else { panic!("three were written") };
    let name = || "v/x".to_owned();
    let all = [(name(), one, false), (name(), two, false), (name(), three, true), ("v/y".to_owned(), other, true)];
    assert_eq!(versions(&http).await, all);
    let old = http.ok("GET", &format!("{X}?generation={one}"), None).await;
    assert_eq!((number(&old, "size"), old["timeDeleted"].is_string()), (3, true));
    let patched = http.ok("PATCH", &format!("{X}?generation={one}"), Some(json!({ "contentType": "a/b" }))).await;
    assert_eq!((number(&patched, "generation"), number(&patched, "metageneration")), (one, 2));
    let live = http.ok("GET", "/storage/v1/b/bucket-a/o?prefix=v/x", None).await;
    assert_eq!(number(&live["items"][0], "generation"), three);

    assert_eq!(http.json("DELETE", X, None).await.0, 204);
    assert_eq!(http.json("GET", X, None).await.0, 404, "the live one is gone");
    world.restart().await;
    let http = Http::new(&world);
    assert_eq!(versions(&http).await.iter().filter(|(name, ..)| name == "v/x").count(), 3, "and all are kept");
    let restored = http.ok("POST", &format!("{X}/rewriteTo/b/bucket-a/o/v%2Fx?sourceGeneration={one}"), None).await;
    let four = number(&restored["resource"], "generation");
    assert_eq!((http.read("v%2Fx").await.as_str(), restored["done"].as_bool()), ("one", Some(true)));
    assert_eq!(http.json("DELETE", &format!("{X}?generation={two}"), None).await.0, 204);
    assert_eq!(http.json("GET", &format!("{X}?generation={two}"), None).await.0, 404);
    set_versioning(&world, false).await;
    let five = number(&http.write("v%2Fx", "five").await, "generation");
    assert_eq!(http.json("DELETE", "/storage/v1/b/bucket-a", None).await.0, 409);

    let mut inbox = world.as_owner().inbox("projects/demo/subscriptions/graves").await;
    for (kind, generation, other) in [
        ("OBJECT_FINALIZE", one, None),
        ("OBJECT_FINALIZE", two, Some(("overwroteGeneration", one))),
        ("OBJECT_ARCHIVE", one, Some(("overwrittenByGeneration", two))),
        ("OBJECT_FINALIZE", three, Some(("overwroteGeneration", two))),
        ("OBJECT_ARCHIVE", two, Some(("overwrittenByGeneration", three))),
        ("OBJECT_FINALIZE", other, None),
        ("OBJECT_METADATA_UPDATE", one, None),
        ("OBJECT_ARCHIVE", three, None),
        ("OBJECT_FINALIZE", four, None),
        ("OBJECT_DELETE", two, None),
        ("OBJECT_FINALIZE", five, Some(("overwroteGeneration", four))),
        ("OBJECT_DELETE", four, Some(("overwrittenByGeneration", five))),
    ] {
        let (message, handler) = inbox.next().await;
        handler.ack();
        let said = |key: &str| message.attributes.get(key).map(String::as_str);
        let generation = generation.to_string();
        assert_eq!((said("eventType"), said("objectGeneration")), (Some(kind), Some(generation.as_str())));
        assert_eq!((said("payloadFormat"), said("colour")), (Some("NONE"), Some("blue")));
        assert_eq!((said("notificationConfig"), said("bucketId")), (Some(config.as_str()), Some("bucket-a")));
        for key in ["overwroteGeneration", "overwrittenByGeneration"] {
            let expected = other.filter(|(name, _)| *name == key).map(|(_, generation)| generation.to_string());
            assert_eq!(said(key), expected.as_deref(), "{kind} {generation}");
        }
        assert!(message.data.is_empty());
    }
    world.stop().await;
}

/// What a verb is answered with: whether it goes on, whether it reads.
fn expected(holds: bool, not: bool, reads: bool) -> u16 {
    match (holds, not, reads) {
        (true, ..) => 200,
        (false, true, true) => 304,
        (false, ..) => 412,
    }
}

/// Uploads `x` in two requests, with something between them; the answer to the first that was refused.
async fn resumable(http: &Http, condition: &str, between: impl AsyncFnOnce()) -> u16 {
    let path = format!("/upload/storage/v1/b/bucket-a/o?uploadType=resumable&name=x&{condition}");
    let begun = http.request("POST", &path).send().await.expect("answers");
    if begun.status() != 200 {
        return begun.status().as_u16();
    }
    between().await;
    let location = begun.headers()["location"].to_str().expect("is text");
    let session = &location[location.find("/upload/").expect("is a path of the upload")..];
    http.request("PUT", session).body("new").send().await.expect("answers").status().as_u16()
}

/// What a resumable upload is answered with, if what its condition speaks of changes before its end.
fn expected_after_a_change(name: &str, holds: bool) -> u16 {
    // The other generation that `x` must not be is still another, the other metageneration is the one it has now.
    if holds && name == "GenerationNotMatch" { 200 } else { 412 }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_precondition_is_held_by_every_verb() {
    let world = World::start().await;
    let http = Http::new(&world);
    http.write("source", "s").await;
    let mut wrong = Vec::new();
    for verb in [
        "get",
        "media",
        "patch",
        "update",
        "insert",
        "multipart",
        "resumable",
        "resumable over a change",
        "compose",
        "rewrite to",
        "copy to",
        "rewrite from",
        "delete",
    ] {
        let reads = matches!(verb, "get" | "media");
        for (name, value, holds) in [
            ("GenerationMatch", 0, true),
            ("GenerationMatch", 1, false),
            ("GenerationNotMatch", 0, false),
            ("GenerationNotMatch", 1, true),
            ("MetagenerationMatch", 0, true),
            ("MetagenerationMatch", 1, false),
            ("MetagenerationNotMatch", 0, false),
            ("MetagenerationNotMatch", 1, true),
        ] {
            let current = http.write("x", "x").await;
            let base = if name.starts_with("Meta") { 1 } else { number(&current, "generation") };
            let source = if verb == "rewrite from" { "Source" } else { "" };
            let condition = format!("if{source}{name}={}", base + value);
            let at = |object: &str, more: &str| format!("/storage/v1/b/bucket-a/o/{object}{more}{condition}");
            let fields = Some(json!({ "contentType": "text/plain" }));
            let (got, _) = match verb {
                "get" => http.json("GET", &at("x", "?"), None).await,
                "media" => http.json("GET", &at("x", "?alt=media&"), None).await,
                "patch" => http.json("PATCH", &at("x", "?"), fields).await,
                "update" => http.json("PUT", &at("x", "?"), fields).await,
                "insert" => {
                    let path = format!("/upload/storage/v1/b/bucket-a/o?uploadType=media&name=x&{condition}");
                    http.json("POST", &path, Some(json!("new"))).await
                }
                "multipart" => {
                    let path = format!("/upload/storage/v1/b/bucket-a/o?uploadType=multipart&name=x&{condition}");
                    let post = http.request("POST", &path).header("content-type", "multipart/related; boundary=B");
                    let answer = post.body("--B\r\n\r\n{}\r\n--B\r\n\r\nnew\r\n--B--").send().await.expect("answers");
                    (answer.status().as_u16(), Value::Null)
                }
                "resumable" => (resumable(&http, &condition, async || {}).await, Value::Null),
                "resumable over a change" => {
                    let changed = async || {
                        if name.starts_with("Meta") {
                            http.ok("PATCH", "/storage/v1/b/bucket-a/o/x", fields).await;
                        } else {
                            http.write("x", "another").await;
                        }
                    };
                    (resumable(&http, &condition, changed).await, Value::Null)
                }
                "compose" => {
                    let sources = json!({ "sourceObjects": [{ "name": "source" }] });
                    http.json("POST", &at("x", "/compose?"), Some(sources)).await
                }
                "rewrite to" => http.json("POST", &at("source", "/rewriteTo/b/bucket-a/o/x?"), None).await,
                "copy to" => http.json("POST", &at("source", "/copyTo/b/bucket-a/o/x?"), None).await,
                "rewrite from" => http.json("POST", &at("x", "/rewriteTo/b/bucket-a/o/y?"), None).await,
                "delete" => http.json("DELETE", &at("x", "?"), None).await,
                other => panic!("no verb {other}"),
            };
            let wanted = match expected(holds, name.ends_with("NotMatch"), reads) {
                200 if verb == "delete" => 204,
                _ if verb == "resumable over a change" => expected_after_a_change(name, holds),
                wanted => wanted,
            };
            if got != wanted {
                wrong.push(format!("{verb} {condition}: {got} instead of {wanted}"));
            }
        }
    }
    // Where nothing is live, 0 is what matches, and nothing else holds.
    for (condition, wanted) in [
        ("ifGenerationMatch=0", 200),
        ("ifGenerationMatch=7", 412),
        ("ifGenerationNotMatch=0", 412),
        ("ifMetagenerationMatch=1", 412),
    ] {
        http.json("DELETE", "/storage/v1/b/bucket-a/o/absent", None).await;
        let path = format!("/upload/storage/v1/b/bucket-a/o?uploadType=media&name=absent&{condition}");
        let (got, _) = http.json("POST", &path, Some(json!("new"))).await;
        if got != wanted {
            wrong.push(format!("insert where nothing is, {condition}: {got} instead of {wanted}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    world.stop().await;
}

async fn collected(mut response: ReadObjectResponse) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(chunk) = response.next().await.transpose().expect("reads") {
        whole.extend_from_slice(&chunk);
    }
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composition_is_its_sources_one_behind_another() {
    let world = World::start().await;
    let (http, owner) = (Http::new(&world), world.as_owner());
    let (storage, control) = (owner.storage().await, owner.control().await);
    let large = noise(300_000);
    let first = storage.write_object(A, "c/1", "first ").send_unbuffered().await.expect("is stored");
    storage.write_object(A, "c/2", large.clone()).send_unbuffered().await.expect("is stored");
    assert_eq!(http.ok("GET", "/storage/v1/b/bucket-a/o/c%2F1", None).await["md5Hash"], "LZGd53pGQQQ6dX4aHwQkVw==");
    let source = |name: &str| SourceObject::new().set_name(name);
    let compose = async |to: &str, sources: Vec<SourceObject>| {
        let to = Object::new().set_bucket(A).set_name(to).set_content_type("text/csv");
        control.compose_object().set_destination(to).set_source_objects(sources).send().await
    };
    let object = compose("c/both", vec![source("c/1"), source("c/2"), source("c/1")]).await.expect("is composed");
    let whole = [&b"first "[..], &large, b"first "].concat();
    assert_eq!((object.component_count, object.content_type.as_str()), (3, "text/csv"));
    let sums = object.checksums.expect("has one");
    assert_eq!((sums.crc32c, sums.md5_hash.len()), (Some(crc32c::crc32c(&whole)), 0), "and no MD5");
    let read = storage.read_object(A, "c/both").send().await.expect("is served");
    assert!(collected(read).await == whole);

    // Onto one of its own sources, as one appends; a composition counts as all that it was made of.
    let appended = compose("c/both", vec![source("c/both"), source("c/1")]).await.expect("is composed");
    assert_eq!((appended.component_count, appended.size), (4, whole.len() as i64 + 6));
    let resource = http.ok("GET", "/storage/v1/b/bucket-a/o/c%2Fboth", None).await;
    assert_eq!((&resource["componentCount"], resource.get("md5Hash")), (&json!(4), None));
    let stale = ObjectPreconditions::new().set_if_generation_match(first.generation + 1);
    let stale = compose("c/none", vec![source("c/1").set_object_preconditions(stale)]).await;
    assert_eq!(status(&stale.expect_err("is stale")), 400, "gRPC's failed precondition");
    assert_eq!(status(&compose("c/none", vec![source("c/9")]).await.expect_err("is missing")), 404);
    for sources in [vec![], vec![source("c/1"); 33]] {
        assert_eq!(status(&compose("c/none", sources).await.expect_err("is no number of sources")), 400);
    }
    let stale = json!({ "sourceObjects": [
        { "name": "c/1", "generation": first.generation.to_string(), "objectPreconditions": { "ifGenerationMatch": 7 } },
    ] });
    assert_eq!(http.json("POST", "/storage/v1/b/bucket-a/o/c%2Fnone/compose", Some(stale)).await.0, 412);
    assert_eq!(http.json("GET", "/storage/v1/b/bucket-a/o/c%2Fnone", None).await.0, 404);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opened_object_reads_many_ranges_of_one_generation() {
    let world = World::start().await;
    let storage = world.as_owner().storage().await;
    for size in [1000, 3_000_000] {
        let content = noise(size);
        let written = storage.write_object(A, "open", content.clone()).send_unbuffered().await.expect("is stored");
        let open = storage.open_object(A, "open").send().await.expect("opens");
        assert_eq!((open.object().generation, open.object().size), (written.generation, size as i64));
        // Whatever becomes of the object meanwhile.
        storage.write_object(A, "open", "another").send_unbuffered().await.expect("is stored");
        let ranges = [
            (ReadRange::all(), 0, size),
            (ReadRange::segment(100, 50), 100, 150),
            (ReadRange::tail(10), size - 10, size),
            (ReadRange::offset(990), 990, size),
            (ReadRange::head(3), 0, 3),
        ];
        let (mut reads, mut expected) = (Vec::new(), Vec::new());
        for (range, from, to) in ranges {
            reads.push(open.read_range(range).await);
            expected.push((from, to));
        }
        // The first read is the longest; the others are asked for while it is under way.
        let got = futures::future::join_all(reads.into_iter().map(collected)).await;
        for (got, (from, to)) in got.into_iter().zip(expected) {
            assert!(got == content[from..to], "{from}..{to} of {size}");
        }
        let mut beyond = open.read_range(ReadRange::offset(size as u64 + 1)).await;
        assert!(beyond.next().await.expect("is answered").is_err());
    }
    let missing = storage.open_object(A, "missing").send().await;
    assert_eq!(status(&missing.expect_err("is not there")), 404);
    let (open, read) = storage.open_object(A, "open").send_and_read(ReadRange::head(4)).await.expect("opens");
    assert_eq!((open.object().size, collected(read).await), (7, b"anot".to_vec()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_say_what_they_hold_and_listings_match_what_was_asked() {
    let world = World::start().await;
    let http = Http::new(&world);
    let object = http.write("r%2F1.csv", "0123456789").await;
    let etag = object["etag"].as_str().expect("has one");
    let media = "/storage/v1/b/bucket-a/o/r%2F1.csv?alt=media";
    for (header, value, status, body, range) in [
        ("range", "bytes=-3", 206, "789", Some("bytes 7-9/10")),
        ("range", "bytes=8-", 206, "89", Some("bytes 8-9/10")),
        ("range", "bytes=0-1,4-5", 200, "0123456789", None),
        ("range", "bytes=10-", 416, "", Some("bytes */10")),
        ("if-none-match", etag, 304, "", None),
        ("if-none-match", "other", 200, "0123456789", None),
        ("if-match", etag, 200, "0123456789", None),
        ("if-match", "other", 412, "", None),
    ] {
        let answer = http.request("GET", media).header(header, value).send().await.expect("answers");
        assert_eq!(answer.status(), status, "{header}: {value}");
        let told = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("is text").to_owned());
        assert_eq!(told("content-range").as_deref(), range, "{header}: {value}");
        if status < 300 {
            assert_eq!(told("etag").as_deref(), Some(etag));
            let hash =
                format!("crc32c={},md5={}", object["crc32c"].as_str().expect("has one"), "eB5eJF1ptWaXm4bijSPyxw==");
            assert_eq!(told("x-goog-hash"), Some(hash));
            assert_eq!(answer.text().await.expect("is text"), body);
        }
    }
    for name in ["r%2F2.pdf", "r%2Fsub%2F3.csv", "r%2Fsub%2F", "s"] {
        http.write(name, "x").await;
    }
    for (query, names, prefixes) in [
        ("prefix=r/&delimiter=/", &["r/1.csv", "r/2.pdf"][..], &["r/sub/"][..]),
        ("prefix=r/&delimiter=/&includeTrailingDelimiter=True", &["r/1.csv", "r/2.pdf", "r/sub/"], &["r/sub/"]),
        ("startOffset=r/2&endOffset=s", &["r/2.pdf", "r/sub/", "r/sub/3.csv"], &[]),
        ("matchGlob=r/*.csv", &["r/1.csv"], &[]),
        ("matchGlob=**.csv", &["r/1.csv", "r/sub/3.csv"], &[]),
    ] {
        let page = http.ok("GET", &format!("/storage/v1/b/bucket-a/o?{query}"), None).await;
        let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        let got: Vec<_> = items.iter().filter_map(|item| item["name"].as_str()).collect();
        assert_eq!(got, names, "{query}");
        let got = page["prefixes"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(got.iter().filter_map(Value::as_str).collect::<Vec<_>>(), prefixes, "{query}");
    }
    assert_eq!(http.json("GET", "/storage/v1/b/bucket-a/o?matchGlob=[a", None).await.0, 400);
    world.stop().await;
}
