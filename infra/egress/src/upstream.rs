//! The way from the proxy to a listed host: by itself, or through the next proxy.
//!
//! Owns the order resolve once, classify, dial: what is dialled is an address that was just judged, never a name. A
//! proxy that lives in a room of its own goes by way of the next one: the list is checked here, the address there, and
//! the next one checks its own list for the room that this proxy lives in. Refuses any address that is not public.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::address::{Class, classify};
use crate::head::HEAD_BYTES;
use crate::name::HostName;
use crate::resolve::Resolver;

/// How many of a host's addresses are tried; a name server may answer with hundreds.
const TRIED: usize = 8;

/// How many lookups of one room may wait for a name server at once.
const LOOKUPS: usize = 8;

/// How connections leave.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// By name and address, from here.
    Direct(Resolver),
    /// Through another proxy of this kind, which resolves and judges the address.
    Via(NextHop),
}

/// Where the next proxy listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// At an address.
    Tcp(SocketAddr),
    /// At a unix socket.
    Unix(PathBuf),
}

/// Why a listed host was not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum OpenFault {
    /// No such name, or no answer.
    #[error("the name does not resolve")]
    NotResolved,
    /// Addresses, and none of them public; the first one's class.
    #[error("the name has no public address; the first is {0}")]
    NotPublic(Class),
    /// No address answered.
    #[error("the host refuses connections or cannot be reached")]
    Unreachable,
    /// Neither yes nor no in time.
    #[error("the host was not reached in time")]
    Slow,
    /// The next proxy is not there, or speaks otherwise.
    #[error("the next proxy cannot be reached or does not speak HTTP/1.1")]
    Hop,
    /// The next proxy's list, or its judgement of the address.
    #[error("the next proxy denies the name")]
    HopDenied,
    /// The next proxy's other answers.
    #[error("the next proxy answers with status {0}")]
    HopFailed(u16),
}

/// Either kind of socket.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// How a judged address is dialled. A parameter inside this crate and nowhere else, so that tests can stand in for the
/// internet while no setting can weaken the judgement.
pub(crate) type Dial =
    Arc<dyn Fn(SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>> + Send + Sync>;

/// One room's way out.
pub(crate) struct Outside {
    upstream: Upstream,
    dial: Dial,
    lookups: Arc<Semaphore>,
    asked: AtomicU64,
}

impl Outside {
    pub(crate) fn new(upstream: Upstream) -> Self {
        Self::dialling(upstream, Arc::new(|address| Box::pin(TcpStream::connect(address))))
    }

    pub(crate) fn dialling(upstream: Upstream, dial: Dial) -> Self {
        Self { upstream, dial, lookups: Arc::new(Semaphore::new(LOOKUPS)), asked: AtomicU64::new(0) }
    }

    /// How many names the resolver was asked for.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Opens the way to a host whose name was found on the list.
    pub(crate) async fn open(&self, host: &HostName, within: Duration) -> Result<Box<dyn Stream>, OpenFault> {
        let until = Instant::now() + within;
        let opening = async {
            match &self.upstream {
                Upstream::Direct(resolver) => self.direct(resolver, host, until).await,
                Upstream::Via(NextHop::Tcp(address)) => {
                    let stream = TcpStream::connect(address).await.and_then(prompt).map_err(|_| OpenFault::Hop)?;
                    through(Box::new(stream), host).await
                }
                Upstream::Via(NextHop::Unix(path)) => {
                    let stream = UnixStream::connect(path).await.map_err(|_| OpenFault::Hop)?;
                    through(Box::new(stream), host).await
                }
            }
        };
        timeout_at(until, opening).await.unwrap_or(Err(OpenFault::Slow))
    }

    async fn direct(&self, resolver: &Resolver, host: &HostName, until: Instant) -> Result<Box<dyn Stream>, OpenFault> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found = resolver.look_up(host, &self.lookups).await.map_err(|_| OpenFault::NotResolved)?;
        let first = *found.first().ok_or(OpenFault::NotResolved)?;
        let public: Vec<_> =
            found.into_iter().filter(|address| classify(*address) == Class::Public).take(TRIED).collect();
        if public.is_empty() {
            return Err(OpenFault::NotPublic(classify(first)));
        }
        let mut left = u32::try_from(public.len()).unwrap_or(1);
        // A mapped address is the IPv4 host it was judged as.
        for address in public.iter().map(IpAddr::to_canonical) {
            // Each address has its share of the time, so that a silent first one leaves some to the next.
            let share = until.saturating_duration_since(Instant::now()) / left;
            left = left.saturating_sub(1).max(1);
            let dialled = timeout(share, (self.dial)(SocketAddr::new(address, 443))).await;
            if let Ok(Ok(stream)) = dialled.map(|dialled| dialled.and_then(prompt)) {
                return Ok(Box::new(stream));
            }
        }
        Err(if Instant::now() < until { OpenFault::Unreachable } else { OpenFault::Slow })
    }
}

/// TLS is a conversation of small messages, and waiting to fill a packet would slow each of them.
pub(crate) fn prompt(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks the next proxy. The head is written anew: nothing that the room sent travels on.
async fn through(mut stream: Box<dyn Stream>, host: &HostName) -> Result<Box<dyn Stream>, OpenFault> {
    let head = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n");
    stream.write_all(head.as_bytes()).await.map_err(|_| OpenFault::Hop)?;
    let mut seen = Vec::new();
    let (status, length) = loop {
        if let Some(answer) = answer(&seen)? {
            break answer;
        }
        let read = (&mut stream).take((HEAD_BYTES - seen.len()) as u64).read_buf(&mut seen).await;
        if !matches!(read, Ok(1..)) {
            return Err(OpenFault::Hop);
        }
    };
    match status {
        // In TLS the client speaks first: bytes behind the answer come from no server.
        200 if seen.len() == length => Ok(stream),
        200 => Err(OpenFault::Hop),
        403 => Err(OpenFault::HopDenied),
        other => Err(OpenFault::HopFailed(other)),
    }
}

/// The status of a whole head and the head's length.
fn answer(bytes: &[u8]) -> Result<Option<(u16, usize)>, OpenFault> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes).map_err(|_| OpenFault::Hop)? {
        httparse::Status::Complete(length) => Ok(response.code.map(|code| (code, length))),
        httparse::Status::Partial => Ok(None),
    }
}
