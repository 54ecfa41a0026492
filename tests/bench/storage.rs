//! Objects of the loopback cloud beside plain files over HTTP, in the same process, by the same client, in turns.
//!
//! `cargo bench --profile dev --bench storage` measures the build that `cargo run` and the tests use. The peer opens a file
//! and streams it in pieces of 64 KiB, as static file servers do, or streams a body into a file and makes it durable. It
//! knows no names, generations, tokens, checksums or notifications. Refuses to judge: goals are printed, never asserted.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt as _;
use bytes::{Bytes, BytesMut};
use carrel_local::{Cloud, CloudConfig, config};
use futures::StreamExt as _;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Pieces that the client sends, and that the peer reads.
const PIECE: usize = 64 * 1024;
/// Turns of each side; the best counts, since neighbours only ever take.
const TURNS: usize = 9;

/// What is measured: a size, how many of it in a turn, and how many at once.
const SIZES: [(&str, usize, usize, usize); 3] =
    [("1 KiB", 1 << 10, 600, 8), ("1 MiB", 1 << 20, 48, 4), ("1 GiB", 1 << 30, 1, 1)];

/// One side: where objects are read and written.
struct Side {
    client: reqwest::Client,
    token: String,
    /// Addresses before a name.
    read: String,
    write: String,
    method: reqwest::Method,
}

impl Side {
    async fn read(&self, name: &str, size: usize) {
        let get = self.client.get(format!("{}{name}?alt=media", self.read)).bearer_auth(&self.token);
        let answer = get.send().await.and_then(reqwest::Response::error_for_status).expect("it is served");
        let mut body = answer.bytes_stream();
        let mut left = size;
        while let Some(chunk) = body.next().await {
            left -= chunk.expect("it goes on").len();
        }
        assert_eq!(left, 0, "{name} is whole");
    }

    async fn write(&self, name: &str, size: usize) {
        let pieces = (0..size).step_by(PIECE).map(move |at| Ok::<_, std::io::Error>(piece(PIECE.min(size - at))));
        let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        let put = self
            .client
            .request(self.method.clone(), format!("{}{name}", self.write))
            .bearer_auth(&self.token)
            .body(body);
        put.send().await.and_then(reqwest::Response::error_for_status).expect("it is stored");
    }

    /// How long one turn takes.
    async fn turn(&self, writes: bool, size: usize, count: usize, at_once: usize) -> Duration {
        let began = Instant::now();
        let calls = (0..count).map(|at| async move {
            let name = format!("{size}-{at}");
            if writes { self.write(&name, size).await } else { self.read(&name, size).await }
        });
        futures::stream::iter(calls).buffer_unordered(at_once).for_each(async |()| {}).await;
        began.elapsed()
    }
}

fn piece(len: usize) -> Bytes {
    static PIECES: [u8; PIECE] = [7; PIECE];
    Bytes::from_static(&PIECES[..len])
}

async fn read_file(State(dir): State<PathBuf>, Path(name): Path<String>) -> Response {
    let Ok(file) = tokio::fs::File::open(dir.join(name)).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let length = file.metadata().await.expect("an open file has a size").len();
    let pieces = futures::stream::try_unfold(file, |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok::<_, std::io::Error>((read > 0).then(|| (piece.freeze(), file)))
    });
    ([(CONTENT_LENGTH, length)], Body::from_stream(pieces)).into_response()
}

async fn write_file(State(dir): State<PathBuf>, Path(name): Path<String>, body: Body) -> StatusCode {
    let mut file = tokio::fs::File::create(dir.join(name)).await.expect("a file");
    let mut body = body.into_data_stream();
    while let Some(chunk) = body.next().await {
        file.write_all(&chunk.expect("it goes on")).await.expect("room");
    }
    file.flush().await.expect("written");
    file.sync_all().await.expect("durable");
    StatusCode::OK
}

async fn peer(dir: PathBuf) -> String {
    std::fs::create_dir_all(&dir).expect("a directory");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has one");
    let app = Router::new().route("/{name}", axum::routing::get(read_file).put(write_file)).with_state(dir);
    // As the cloud does: without it a small answer waits 40 ms for the acknowledgement of its head.
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a socket takes it"));
    tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
    format!("http://{address}")
}

fn main() {
    // `cargo test --benches` asks whether it starts, not how fast it is.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(compare());
}

async fn compare() {
    carrel_cloud::install_crypto();
    let dir = tempfile::tempdir().expect("a directory");
    let bucket = config::Bucket { name: "bench".into(), notifications: Vec::new() };
    let config = CloudConfig { buckets: vec![bucket], ..CloudConfig::new(dir.path().join("cloud"), "bench") };
    let cloud = Cloud::start(config).await.expect("the cloud starts");
    let (base, plain) = (cloud.endpoint().to_owned(), peer(dir.path().join("peer")).await);
    let sides = [
        Side {
            client: reqwest::Client::new(),
            token: cloud.owner_token().to_owned(),
            read: format!("{base}/storage/v1/b/bench/o/"),
            write: format!("{base}/upload/storage/v1/b/bench/o?uploadType=media&name="),
            method: reqwest::Method::POST,
        },
        Side {
            client: reqwest::Client::new(),
            token: "none".to_owned(),
            read: format!("{plain}/"),
            write: format!("{plain}/"),
            method: reqwest::Method::PUT,
        },
    ];
    for (what, size, count, at_once) in SIZES {
        for writes in [true, false] {
            let mut best = [Duration::MAX; 2];
            // A gigabyte written five times over is the disk's bench.
            let turns = if writes && size >= 1 << 30 { 3 } else { TURNS };
            for _ in 0..turns {
                for (side, best) in sides.iter().zip(&mut best) {
                    *best = side.turn(writes, size, count, at_once).await.min(*best);
                }
            }
            let shown = |best: Duration| {
                let per_second = count as f64 / best.as_secs_f64();
                if size < 1 << 20 {
                    format!("{per_second:.0}/s")
                } else {
                    format!("{:.0} MiB/s", per_second * size as f64 / f64::from(1 << 20))
                }
            };
            let ratio = best[1].as_secs_f64() / best[0].as_secs_f64();
            let (verb, goal) = if writes { ("written", "") } else { ("read", "  goal >= 0.80") };
            println!(
                "{what} {verb:8} {:>12}  plain files {:>12}  {ratio:.2} of peer{goal}",
                shown(best[0]),
                shown(best[1])
            );
        }
    }
    cloud.shutdown().await;
}
