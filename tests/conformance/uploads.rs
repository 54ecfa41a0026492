//! Resumable uploads in every state a client can find them in, and checksums that do not fit.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use reqwest::Response;
use serde_json::{Value, json};

use crate::http::Http;
use crate::storage::noise;
use crate::world::World;

const QUANTUM: usize = 256 * 1024;

/// Starts an upload to `bucket-a`; the path of its session.
async fn begin(http: &Http, metadata: Value) -> String {
    let start = http.request("POST", "/upload/storage/v1/b/bucket-a/o?uploadType=resumable&name=r");
    let answer = start.header("content-type", "application/json").body(metadata.to_string()).send().await;
    let answer = answer.expect("answers");
    assert_eq!(answer.status(), 200);
    let location = answer.headers()["location"].to_str().expect("is text");
    location[location.find("/upload/").expect("is a path of the upload")..].to_owned()
}

async fn put(http: &Http, session: &str, range: &str, hash: Option<&str>, bytes: Bytes) -> Response {
    let mut request = http.request("PUT", session).header("content-range", range);
    if let Some(hash) = hash {
        request = request.header("x-goog-hash", hash);
    }
    request.body(bytes).send().await.expect("answers")
}

/// The status of an answer, and how far the upload is said to be.
fn standing(answer: &Response) -> (u16, Option<String>) {
    let range = answer.headers().get("range").map(|value| value.to_str().expect("is text").to_owned());
    (answer.status().as_u16(), range)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_stands_where_its_status_says_whatever_came_between() {
    let mut world = World::start().await;
    let content = noise(2 * QUANTUM + 1000);
    let (len, quanta) = (content.len(), |n: usize| Some(format!("bytes=0-{}", n * QUANTUM - 1)));
    let http = Http::new(&world);
    let session = begin(&http, json!({ "contentType": "text/csv" })).await;
    let ask = async |http: &Http| standing(&put(http, &session, "bytes */*", None, Bytes::new()).await);
    assert_eq!(ask(&http).await, (308, None), "nothing is there yet");
    // What is no multiple of 256 KiB is kept as far as it is one.
    let odd = QUANTUM + 500;
    let sent = put(&http, &session, &format!("bytes 0-{}/*", odd - 1), None, content.slice(..odd)).await;
    assert_eq!(standing(&sent), (308, quanta(1)));
    let small = put(&http, &session, &format!("bytes {QUANTUM}-{}/*", QUANTUM + 9), None, content.slice(..10)).await;
    assert_eq!(standing(&small), (308, quanta(1)));
    // Neither more nor less than it says, and not beyond a gap.
    for (range, bytes) in [("bytes 262144-262153/*", 11), ("bytes 262144-262153/*", 9)] {
        assert_eq!(standing(&put(&http, &session, range, None, content.slice(..bytes)).await).0, 400);
    }
    let gap = format!("bytes {}-{}/{len}", 2 * QUANTUM, len - 1);
    assert_eq!(standing(&put(&http, &session, &gap, None, content.slice(2 * QUANTUM..)).await), (308, quanta(1)));
    assert_eq!(put(&http, &session, "bytes 9-8/*", None, Bytes::new()).await.status(), 400);
    assert_eq!(ask(&http).await, (308, quanta(1)));
    world.restart().await;
    let http = Http::new(&world);
    let next = format!("bytes {QUANTUM}-{}/*", 2 * QUANTUM - 1);
    let more = put(&http, &session, &next, None, content.slice(QUANTUM..2 * QUANTUM));
    assert_eq!(standing(&more.await), (308, quanta(2)));
    assert_eq!(http.json("GET", "/storage/v1/b/bucket-a/o/r", None).await.0, 404, "nothing is live before the end");
    let done = put(&http, &session, &gap, None, content.slice(2 * QUANTUM..)).await;
    assert_eq!(done.status(), 200);
    let object: Value = done.json().await.expect("is JSON");
    let crc32c = BASE64_STANDARD.encode(crc32c::crc32c(&content).to_be_bytes());
    assert_eq!((object["crc32c"].as_str(), object["contentType"].as_str()), (Some(crc32c.as_str()), Some("text/csv")));
    let again: Value = put(&http, &session, "bytes */*", None, Bytes::new()).await.json().await.expect("is JSON");
    assert_eq!(again["generation"], object["generation"], "a finished upload answers with its object");

    // The MD5 was carried over chunks and the restart: a second upload in one piece has the same.
    let session = begin(&http, json!({ "md5Hash": object["md5Hash"], "crc32c": crc32c })).await;
    let whole = http.request("PUT", &session).body(content.clone()).send().await.expect("answers");
    assert_eq!(whole.status(), 200);

    let session = begin(&http, json!({})).await;
    put(&http, &session, &format!("bytes 0-{}/*", QUANTUM - 1), None, content.slice(..QUANTUM)).await;
    assert_eq!(http.request("DELETE", &session).send().await.expect("answers").status(), 499);
    for range in ["bytes */*", "bytes 0-9/10"] {
        let late = put(&http, &session, range, None, content.slice(..10)).await;
        assert_eq!(late.status(), 410, "what was cancelled is over");
    }
    let unknown = session.split_once("upload_id=").expect("it has one").0.to_owned() + "upload_id=00";
    assert_eq!(put(&http, &unknown, "bytes */*", None, Bytes::new()).await.status(), 404);
    let blobs = std::fs::read_dir(world.config().data_dir.join("blobs")).expect("is there").count();
    assert_eq!(blobs, 1, "neither the cancelled nor the overwritten content is left");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_that_does_not_fit_finalizes_nothing_however_it_is_sent() {
    let world = World::start().await;
    let http = Http::new(&world);
    // Of "content": right CRC-32C, right MD5; and wrong ones.
    let crc = BASE64_STANDARD.encode(crc32c::crc32c(b"content").to_be_bytes());
    let (md5, bad_crc, bad_md5) = ("mgNkuembtIDdJeHwKEyFVQ==", "AAAAAA==", "AAAAAAAAAAAAAAAAAAAAAA==");
    let media = async |hash: String| {
        let post = http.request("POST", "/upload/storage/v1/b/bucket-a/o?uploadType=media&name=m");
        post.header("x-goog-hash", hash).body("content").send().await.expect("answers").status().as_u16()
    };
    let multipart = async |metadata: Value| {
        let post = http.request("POST", "/upload/storage/v1/b/bucket-a/o?uploadType=multipart&name=m");
        let body = format!("--B\r\n\r\n{metadata}\r\n--B\r\n\r\ncontent\r\n--B--");
        let post = post.header("content-type", "multipart/related; boundary=B");
        post.body(body).send().await.expect("answers").status().as_u16()
    };
    let announced = async |metadata: Value| {
        let session = begin(&http, metadata).await;
        put(&http, &session, "bytes 0-6/7", None, "content".into()).await.status().as_u16()
    };
    let last = async |hash: String| {
        let session = begin(&http, json!({})).await;
        put(&http, &session, "bytes 0-6/7", Some(&hash), "content".into()).await.status().as_u16()
    };
    for (crc, md5, wanted) in [(bad_crc, md5, 400), (crc.as_str(), bad_md5, 400), (crc.as_str(), md5, 200)] {
        let (header, metadata) = (format!("crc32c={crc},md5={md5}"), json!({ "crc32c": crc, "md5Hash": md5 }));
        let got = [
            media(header.clone()).await,
            multipart(metadata.clone()).await,
            announced(metadata).await,
            last(header).await,
        ];
        assert_eq!(got, [wanted; 4], "{crc} {md5}");
        let there = if wanted == 200 { 200 } else { 404 };
        for name in ["m", "r"] {
            let path = format!("/storage/v1/b/bucket-a/o/{name}");
            assert_eq!(http.json("GET", &path, None).await.0, there, "{name} after {crc} {md5}");
        }
    }
    assert_eq!(multipart(json!({ "md5Hash": "short" })).await, 400);
    world.stop().await;
}
