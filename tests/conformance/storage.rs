//! Cloud Storage as Google's own Rust clients see it, over real sockets.

use crate::calls::Caller;
use crate::world::{ALICE, World};
use bytes::Bytes;
use google_cloud_gax::paginator::ItemPaginator;
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_storage::client::Storage;
use google_cloud_storage::model_ext::ReadRange;
use reqwest::StatusCode;
use serde_json::{Value, json};

const A: &str = "projects/_/buckets/bucket-a";
const B: &str = "projects/_/buckets/bucket-b";

async fn read(client: &Storage, name: &str, generation: i64) -> Result<Vec<u8>, google_cloud_storage::Error> {
    let mut response = client.read_object(A, name).set_generation(generation).send().await?;
    let mut whole = Vec::new();
    while let Some(chunk) = response.next().await.transpose()? {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

fn code(error: &google_cloud_storage::Error) -> Option<u16> {
    error.http_status_code()
}

/// Bytes without a pattern.
pub(crate) fn noise(size: usize) -> Bytes {
    let mut state = 0x9E37_79B9_u32;
    let mut bytes = Vec::with_capacity(size + 4);
    while bytes.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_decide_who_writes() {
    let world = World::start().await;
    let client = world.as_owner().storage().await;
    let first = client.write_object(A, "x", "one").set_if_generation_match(0).send_unbuffered().await.expect("is new");
    let again = client.write_object(A, "x", "two").set_if_generation_match(0).send_unbuffered().await;
    assert_eq!(code(&again.expect_err("exists")), Some(412));
    let swapped = client
        .write_object(A, "x", "two")
        .set_if_generation_match(first.generation)
        .send_unbuffered()
        .await
        .expect("is current");
    assert!(swapped.generation > first.generation);
    let stale = client.write_object(A, "x", "three").set_if_generation_match(first.generation).send_unbuffered().await;
    assert_eq!(code(&stale.expect_err("is stale")), Some(412));
    assert_eq!(read(&client, "x", swapped.generation).await.expect("is live"), b"two");
    let gone = read(&client, "x", first.generation).await.expect_err("an overwritten generation is gone");
    assert_eq!(code(&gone), Some(404));
    let same = client.read_object(A, "x").set_if_generation_not_match(swapped.generation).send().await;
    assert_eq!(code(&same.expect_err("is not modified")), Some(304));

    let control = world.as_owner().control().await;
    let stale =
        control.delete_object().set_bucket(A).set_object("x").set_if_generation_match(first.generation).send().await;
    let status = stale.expect_err("is stale").status().map(|s| s.code);
    assert_eq!(status, Some(google_cloud_gax::error::rpc::Code::FailedPrecondition));
    let unmodified =
        control.get_object().set_bucket(A).set_object("x").set_if_generation_not_match(swapped.generation).send().await;
    let status = unmodified.expect_err("is not modified").status().map(|s| s.code);
    assert_eq!(status, Some(google_cloud_gax::error::rpc::Code::Aborted));
    control
        .delete_object()
        .set_bucket(A)
        .set_object("x")
        .set_if_generation_match(swapped.generation)
        .send()
        .await
        .expect("is current");
    assert_eq!(code(&read(&client, "x", 0).await.expect_err("is deleted")), Some(404));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_resumes_and_every_range_of_it_reads() {
    let world = World::start().await;
    let client = world.as_owner().storage().await;
    let content = noise(17 * 1024 * 1024 + 5);
    let buffered = client.write_object(A, "big/buffered", content.clone()).send_buffered().await.expect("arrives");
    let object = client.write_object(A, "big/one", content.clone()).send_unbuffered().await.expect("arrives");
    assert_eq!(object.size, content.len() as i64);
    assert_eq!(object.checksums.as_ref().and_then(|c| c.crc32c), Some(crc32c::crc32c(&content)));
    assert!(object.generation > buffered.generation);
    assert!(read(&client, "big/buffered", 0).await.expect("reads") == content, "the content differs");
    let whole = content.len();
    for (range, from, to) in [
        (ReadRange::head(10), 0, 10),
        (ReadRange::tail(10), whole - 10, whole),
        (ReadRange::segment(1_000_000, 77), 1_000_000, 1_000_077),
        (ReadRange::offset(16 * 1024 * 1024), 16 * 1024 * 1024, whole),
    ] {
        let mut response = client.read_object(A, "big/one").set_read_range(range).send().await.expect("is served");
        let mut got = Vec::new();
        while let Some(chunk) = response.next().await.transpose().expect("reads") {
            got.extend_from_slice(&chunk);
        }
        assert!(got == content[from..to], "bytes {from}..{to} differ");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_upload_goes_on_after_a_restart_of_the_cloud() {
    let mut world = World::start().await;
    let content = noise(600 * 1024);
    let http = reqwest::Client::new();
    let start = http
        .post(format!("{}/upload/storage/v1/b/bucket-a/o?uploadType=resumable&name=r%2F1", world.endpoint()))
        .bearer_auth(world.owner())
        .header("content-type", "application/json")
        .body(json!({ "contentType": "text/csv", "metadata": { "k": "v" } }).to_string())
        .send()
        .await
        .expect("answers");
    assert_eq!(start.status(), StatusCode::OK);
    let location = start.headers()["location"].to_str().expect("is text").to_owned();
    assert!(location.starts_with(world.endpoint()), "{location}");
    let path = location[world.endpoint().len()..].to_owned();
    let put = async |world: &World, range: String, hash: Option<String>, bytes: Bytes| {
        let mut request = http.put(format!("{}{path}", world.endpoint())).bearer_auth(world.owner());
        if let Some(hash) = hash {
            request = request.header("x-goog-hash", hash);
        }
        request.header("content-range", range).body(bytes).send().await.expect("answers")
    };
    // Of what is sent before the end, multiples of 256 KiB are kept.
    let (half, kept) = (300 * 1024, 256 * 1024);
    let reply = put(&world, format!("bytes 0-{}/*", half - 1), None, content.slice(..half)).await;
    assert_eq!(reply.status(), StatusCode::PERMANENT_REDIRECT);
    world.restart().await;
    let status = put(&world, "bytes */*".to_owned(), None, Bytes::new()).await;
    assert_eq!(status.status(), StatusCode::PERMANENT_REDIRECT);
    assert_eq!(status.headers()["range"], format!("bytes=0-{}", kept - 1));
    // The client has not heard of the last 1,000 bytes and sends them again.
    let from = kept - 1000;
    let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
    let done = put(&world, range, None, content.slice(from..)).await;
    assert_eq!(done.status(), StatusCode::OK);
    let object: Value = done.json().await.expect("is JSON");
    assert_eq!(object["contentType"], "text/csv");
    let status = put(&world, "bytes */*".to_owned(), None, Bytes::new()).await;
    assert_eq!(status.status(), StatusCode::OK, "a finished upload answers with its object");
    assert_eq!(status.json::<Value>().await.expect("is JSON")["generation"], object["generation"]);
    let client = world.as_owner().storage().await;
    assert!(read(&client, "r/1", 0).await.expect("reads") == content, "the content differs");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_does_not_fit_its_checksum_is_refused() {
    let world = World::start().await;
    let client = world.as_owner().storage().await;
    for size in [3, 200 * 1024] {
        let wrong = client
            .write_object(A, "bad", noise(size))
            .with_known_crc32c(7_u32)
            .with_retry_policy(NeverRetry)
            .send_unbuffered()
            .await;
        assert_eq!(code(&wrong.expect_err("does not fit")), Some(400));
    }
    assert_eq!(code(&read(&client, "bad", 0).await.expect_err("was not stored")), Some(404));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_written_read_listed_and_deleted() {
    let world = World::start().await;
    let client = world.as_owner().storage().await;
    let control = world.as_owner().control().await;
    let long = "é".repeat(512);
    let mut names = vec!["../x", "a//b", "a/b?c#d&e=f%2F", "\u{202e}gpj.exe", " ", "a/../../b", "z+z", &long];
    names.sort();
    for name in &names {
        client.write_object(A, *name, name.to_string()).send_unbuffered().await.expect("is stored");
        assert_eq!(read(&client, name, 0).await.expect("reads"), name.as_bytes());
        let object = control.get_object().set_bucket(A).set_object(*name).send().await.expect("is there");
        assert_eq!(object.name, *name);
    }
    let mut listed = Vec::new();
    let mut items = control.list_objects().set_parent(A).set_page_size(3).by_item();
    while let Some(object) = items.next().await {
        listed.push(object.expect("lists").name);
    }
    assert_eq!(listed, names);
    let folders = control.list_objects().set_parent(A).set_prefix("a/").set_delimiter("/").send().await.expect("lists");
    assert_eq!(folders.prefixes, ["a/../", "a//"]);
    assert_eq!(folders.objects.len(), 1);
    let too_long = client.write_object(A, "x".repeat(1025), "").send_unbuffered().await;
    assert_eq!(code(&too_long.expect_err("is too long")), Some(400));
    let newline = client.write_object(A, "a\nb", "").send_unbuffered().await;
    assert_eq!(code(&newline.expect_err("holds a newline")), Some(400));
    for name in &names {
        control.delete_object().set_bucket(A).set_object(*name).send().await.expect("is deleted");
    }
    assert!(control.list_objects().set_parent(A).send().await.expect("lists").objects.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_token_opens_only_its_own_bucket() {
    let world = World::start().await;
    let token = world.token(ALICE).await;
    let caller = Caller::new(world.endpoint(), &token);
    let client = caller.storage().await;
    client.write_object(A, "mine", "1").send_unbuffered().await.expect("is its own");
    let foreign = client.write_object(B, "theirs", "1").send_unbuffered().await;
    assert_eq!(code(&foreign.expect_err("is foreign")), Some(403));
    let unknown = client.write_object("projects/_/buckets/no-such", "x", "1").send_unbuffered().await;
    assert_eq!(code(&unknown.expect_err("is unknown, and that is not told")), Some(403));
    let owner = world.as_owner().storage().await;
    let unknown = owner.write_object("projects/_/buckets/no-such", "x", "1").send_unbuffered().await;
    assert_eq!(code(&unknown.expect_err("is unknown")), Some(404));
    owner.write_object(B, "theirs", "secret").send_unbuffered().await.expect("is stored");
    for name in ["theirs", "not-there"] {
        let foreign = client.read_object(B, name).send().await;
        assert_eq!(code(&foreign.expect_err("is foreign")), Some(403), "existence is not told");
    }
    let control = caller.control().await;
    let foreign = control.list_objects().set_parent(B).send().await.expect_err("is foreign");
    assert_eq!(foreign.status().map(|s| s.code), Some(google_cloud_gax::error::rpc::Code::PermissionDenied));
    let forged = Caller::new(world.endpoint(), &format!("{token}x")).storage().await;
    let forged = forged.read_object(A, "mine").with_retry_policy(NeverRetry).send().await;
    assert_eq!(code(&forged.expect_err("is forged")), Some(401));
    let nobody = reqwest::get(format!("{}/storage/v1/b/bucket-a/o/mine", world.endpoint())).await.expect("answers");
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_and_patches_change_what_they_name_and_nothing_else() {
    let world = World::start().await;
    let client = world.as_owner().storage().await;
    let control = world.as_owner().control().await;
    for size in [10, 100 * 1024] {
        let content = noise(size);
        let object = client
            .write_object(A, "from", content.clone())
            .set_content_type("text/csv")
            .set_metadata([("k", "v")])
            .send_unbuffered()
            .await
            .expect("is stored");
        let copied = control
            .rewrite_object()
            .set_source_bucket(A)
            .set_source_object("from")
            .set_source_generation(object.generation)
            .set_destination_bucket(A)
            .set_destination_name("to")
            .send()
            .await
            .expect("is copied");
        let copy = copied.resource.expect("comes back");
        assert!(copied.done && copy.generation > object.generation && copy.content_type == "text/csv");
        control.delete_object().set_bucket(A).set_object("from").send().await.expect("is deleted");
        assert!(read(&client, "to", copy.generation).await.expect("outlives its source") == content);
        let new =
            google_cloud_storage::model::Object::new().set_bucket(A).set_name("to").set_content_type("text/plain");
        let patched = control
            .update_object()
            .set_object(new)
            .set_update_mask(google_cloud_wkt::FieldMask::default().set_paths(["content_type"]))
            .send()
            .await
            .expect("is patched");
        assert_eq!((patched.generation, patched.metageneration), (copy.generation, 2));
        assert_eq!(patched.content_type, "text/plain");
        assert_eq!(patched.metadata.get("k").map(String::as_str), Some("v"));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_survive_a_restart_and_generations_go_on() {
    let mut world = World::start().await;
    let client = world.as_owner().storage().await;
    let small = client.write_object(A, "small", "1").send_unbuffered().await.expect("is stored");
    let large = client.write_object(A, "large", noise(200_000)).send_unbuffered().await.expect("is stored");
    world.restart().await;
    let client = world.as_owner().storage().await;
    assert_eq!(read(&client, "small", small.generation).await.expect("reads"), b"1");
    assert!(read(&client, "large", large.generation).await.expect("reads") == noise(200_000));
    let next = client.write_object(A, "small", "2").send_unbuffered().await.expect("is stored");
    assert!(next.generation > large.generation);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_reply_was_lost_has_been_made() {
    let world = World::start_losing_every_reply().await;
    let client = world.as_owner().storage().await;
    let lost = client
        .write_object(A, "x", "one")
        .set_if_generation_match(0)
        .with_retry_policy(NeverRetry)
        .send_unbuffered()
        .await;
    assert_eq!(code(&lost.expect_err("the reply is lost")), Some(503));
    let again = client
        .write_object(A, "x", "one")
        .set_if_generation_match(0)
        .with_retry_policy(NeverRetry)
        .send_unbuffered()
        .await;
    assert_eq!(code(&again.expect_err("the first one was made")), Some(412));
    assert_eq!(read(&client, "x", 0).await.expect("reads"), b"one");
    world.stop().await;
}
