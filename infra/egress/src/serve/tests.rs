//! The proxy over real sockets: hostile rooms, bounds, and two proxies in a row.
//!
//! Owns the stand-in for the internet: one server on loopback that every judged address leads to. What is dialled is
//! written down, so that a test can say that nothing was.

mod bounds;
mod chain;
mod hostile;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::hello::tests::hello_to;
use crate::ledger::Decision;
use crate::name::HostName;
use crate::reason::{Reason, Verdict};
use crate::resolve::Resolver;
use crate::tunnel::End;
use crate::upstream::{Dial, OpenFault};

/// A host with a public address, listed by most tests.
const API: &str = "api.example.com";

/// Every host of the internet at once: it says back what it hears.
struct Internet {
    address: SocketAddr,
    dialled: Arc<Mutex<Vec<SocketAddr>>>,
    heard: Arc<Mutex<Vec<u8>>>,
    _server: AbortOnDropHandle<()>,
}

impl Internet {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let server = tokio::spawn(echo(listener, heard.clone()));
        Self { address, dialled: Arc::default(), heard, _server: AbortOnDropHandle::new(server) }
    }

    /// A way out on which the names have these addresses, and every address that is dialled leads here.
    fn outside(&self, pins: &[(&str, &[&str])]) -> Outside {
        let (address, dialled) = (self.address, self.dialled.clone());
        let dial: Dial = Arc::new(move |asked| {
            dialled.lock().expect("whole").push(asked);
            Box::pin(TcpStream::connect(address))
        });
        Outside::dialling(Upstream::Direct(pinned(pins)), dial)
    }

    fn dialled(&self) -> Vec<SocketAddr> {
        self.dialled.lock().expect("whole").clone()
    }

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().expect("whole").clone()
    }
}

async fn echo(listener: TcpListener, heard: Arc<Mutex<Vec<u8>>>) {
    let mut hosts = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let heard = heard.clone();
        hosts.spawn(async move {
            let mut chunk = vec![0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                heard.lock().expect("whole").extend_from_slice(&chunk[..read]);
                if stream.write_all(&chunk[..read]).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn pinned(pins: &[(&str, &[&str])]) -> Resolver {
    let address = |text: &&str| text.parse().expect("an address");
    let pin = |(host, addresses): &(&str, &[&str])| {
        (HostName::parse(host).expect("a name"), addresses.iter().map(address).collect())
    };
    Resolver::Pinned(pins.iter().map(pin).collect())
}

/// A room's proxy on a port of its own.
async fn proxy(list: &[&str], outside: Outside, limits: Limits) -> (Running, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    (start(listener.into(), Policy::parse(list).expect("a list"), outside, limits), address)
}

/// Sends a text and hears everything until the proxy closes.
async fn ask(proxy: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    stream.write_all(text.as_bytes()).await.expect("the proxy reads");
    rest(&mut stream).await
}

fn connect(target: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer and an end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A connection of which the proxy has said that it leads to this host.
async fn accepted(proxy: SocketAddr, host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    stream.write_all(connect(&format!("{host}:443")).as_bytes()).await.expect("the proxy reads");
    let expected = b"HTTP/1.1 200 Connection Established\r\n\r\n";
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(expected));
    stream
}

/// A connection on which the host has already said a ClientHello back; and how long that was.
async fn opened(proxy: SocketAddr, host: &str) -> (TcpStream, u64) {
    let mut stream = accepted(proxy, host).await;
    let hello = hello_to(host);
    said_back(&mut stream, &hello).await;
    (stream, hello.len() as u64)
}

async fn said_back(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("the tunnel is open");
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).await.expect("the tunnel is open");
    assert_eq!(answer, bytes);
}

/// The only decision of a report.
fn only(report: &Report) -> &Decision {
    let [decision] = report.decisions.as_slice() else { panic!("one decision, not {report:#?}") };
    decision
}
