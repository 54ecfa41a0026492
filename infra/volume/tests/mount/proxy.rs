//! A line to the server that can be held: what was sent is then neither delivered nor refused. It counts what is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub(crate) struct Line {
    address: SocketAddr,
    held: watch::Sender<bool>,
    requests: Arc<AtomicUsize>,
    _relay: AbortOnDropHandle<()>,
}

impl Line {
    pub(crate) async fn to(endpoint: &str) -> Self {
        let server = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (held, watch) = watch::channel(false);
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let relay = tokio::spawn(async move {
            let mut relays = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.expect("a caller");
                let (server, watch, counted) = (server.clone(), watch.clone(), counted.clone());
                relays.spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let mut asked = Asked::default();
                    let count = |bytes: &[u8]| {
                        counted.fetch_add(asked.hear(bytes), Ordering::Relaxed);
                    };
                    tokio::join!(
                        pass(from_client, to_server, watch.clone(), count),
                        pass(from_server, to_client, watch, |_| {}),
                    );
                });
            }
        });
        Self { address, held, requests, _relay: AbortOnDropHandle::new(relay) }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests have been sent by it.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut held: watch::Receiver<bool>,
    mut hear: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        hear(&buffer[..count]);
        if held.wait_for(|held| !held).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// How a client of HTTP/2 begins, and how the first line of a request of HTTP/1 ends.
const TWO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ONE: &[u8] = b" HTTP/1.1\r\n";

/// The requests in what a client sends on one connection.
#[derive(Default)]
struct Asked {
    is_two: Option<bool>,
    unread: Vec<u8>,
    last_stream: u32,
}

impl Asked {
    /// How many began in these bytes.
    fn hear(&mut self, bytes: &[u8]) -> usize {
        self.unread.extend_from_slice(bytes);
        if self.is_two.is_none() {
            if self.unread.len() < TWO.len() && TWO.starts_with(&self.unread) {
                return 0;
            }
            self.is_two = Some(self.unread.starts_with(TWO));
            if self.unread.starts_with(TWO) {
                self.unread.drain(..TWO.len());
            }
        }
        if self.is_two == Some(true) { self.frames() } else { self.lines() }
    }

    /// Each stream begins with a frame of headers, which is of type 1.
    fn frames(&mut self) -> usize {
        let mut count = 0;
        while let Some(&[a, b, c, kind, _flags, s0, s1, s2, s3]) = self.unread.first_chunk() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if self.unread.len() < 9 + length {
                break;
            }
            let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
            if kind == 1 && stream > self.last_stream {
                self.last_stream = stream;
                count += 1;
            }
            self.unread.drain(..9 + length);
        }
        count
    }

    fn lines(&mut self) -> usize {
        let mut count = 0;
        while let Some(at) = self.unread.windows(ONE.len()).position(|bytes| bytes == ONE) {
            self.unread.drain(..at + ONE.len());
            count += 1;
        }
        let read = self.unread.len().saturating_sub(ONE.len() - 1);
        self.unread.drain(..read);
        count
    }
}
