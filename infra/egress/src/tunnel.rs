//! Bytes in both directions, counted, until an end, a cap or silence.
//!
//! Owns the pump. A direction that ends is closed onward and the other goes on. Refuses to look at what passes behind the
//! hellos: a second CONNECT in here is bytes for the host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use crate::budget::Budget;
use crate::hello::{Hello, HelloFault};
use crate::name::HostName;
use crate::retry::{asks_again, read_again};
use crate::upstream::Stream;

/// One TLS record, so that a record seldom takes two turns.
const CHUNK: usize = 16 * 1024;

/// How an open tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum End {
    /// Both sides were done.
    #[error("both sides closed")]
    Closed,
    /// A side reset the connection.
    #[error("a side broke the connection off")]
    Broken,
    /// The host asked for another ClientHello, and got one that may not pass.
    #[error("the host asked for another ClientHello: {0}")]
    Again(HelloFault),
    /// The host took the hello and did not answer it.
    #[error("the host did not answer the ClientHello in time")]
    Unanswered,
    /// Silence.
    #[error("no byte passed for the idle time")]
    Idle,
    /// The connection's cap.
    #[error("the connection used all bytes that it may send and receive")]
    ConnectionBytes,
    /// The room's cap.
    #[error("the room used all bytes that it may send and receive")]
    RoomBytes,
    /// The proxy finished.
    #[error("the proxy finished")]
    Finished,
}

/// What one connection has moved and may still move.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) up: AtomicU64,
    pub(crate) down: AtomicU64,
    left: Budget,
}

impl Meter {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { up: AtomicU64::new(0), down: AtomicU64::new(0), left: Budget::new(bytes) }
    }
}

/// When a byte last passed, in milliseconds since the tunnel opened.
struct Pulse {
    opened: Instant,
    last: AtomicU64,
}

impl Pulse {
    fn beat(&self) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
    }

    /// Returns once nothing has passed for `idle`.
    async fn stops(&self, idle: Duration) {
        loop {
            let until = self.opened + Duration::from_millis(self.last.load(Ordering::Relaxed)) + idle;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A ClientHello that may pass, and what another one must name and how soon it must come.
pub(crate) struct Opening<'a> {
    pub(crate) hello: Hello,
    pub(crate) name: &'a HostName,
    pub(crate) within: Duration,
    /// How soon the host must answer. Nothing is read of the client until then, so nobody would notice that it left.
    pub(crate) answer: Duration,
}

/// Sends the hello up, then everything both ways.
pub(crate) async fn run(
    client: Box<dyn Stream>,
    host: Box<dyn Stream>,
    opening: Opening<'_>,
    meter: &Meter,
    room: &Budget,
    idle: Duration,
) -> End {
    let Opening { hello: Hello { bytes: hello, behind }, name, within, answer } = opening;
    let (judged, judgement) = oneshot::channel();
    let pulse = Pulse { opened: Instant::now(), last: AtomicU64::new(0) };
    let (from_client, to_client) = tokio::io::split(client);
    let (from_host, to_host) = tokio::io::split(host);
    let way = |counted| Way { counted, meter, room, pulse: &pulse };
    let up = async {
        let (mut from_client, mut to_host, way) = (from_client, to_host, way(&meter.up));
        way.pass(&hello, &mut to_host).await?;
        let behind = match judgement.await {
            Ok(true) => read_again(&mut from_client, behind, name, within).await.map_err(End::Again)?,
            Ok(false) | Err(_) => behind,
        };
        way.pass(&behind, &mut to_host).await?;
        way.pump(from_client, to_host).await
    };
    let down = async {
        let (mut from_host, mut to_client, way) = (from_host, to_client, way(&meter.down));
        let (first, asks) = timeout(answer, listen(&mut from_host)).await.unwrap_or(Err(End::Unanswered))?;
        // Nobody is left to hear it where the other direction has ended.
        judged.send(asks).or(Ok::<(), End>(()))?;
        way.pass(&first, &mut to_client).await?;
        way.pump(from_host, to_client).await
    };
    let both = async { tokio::try_join!(up, down) };
    tokio::select! {
        ended = both => ended.map_or_else(|end| end, |_| End::Closed),
        () = pulse.stops(idle) => End::Idle,
    }
}

/// The host's first bytes, and whether they ask for another hello.
async fn listen(from_host: &mut (impl AsyncRead + Unpin)) -> Result<(Vec<u8>, bool), End> {
    let mut first = Vec::with_capacity(CHUNK);
    loop {
        match from_host.read_buf(&mut first).await {
            Ok(0) => return Ok((first, false)),
            Ok(_) => {}
            Err(_) => return Err(End::Broken),
        }
        match asks_again(&first) {
            Some(asks) => return Ok((first, asks)),
            // No server cuts its hello that small.
            None if first.len() >= CHUNK => return Ok((first, false)),
            None => {}
        }
    }
}

/// One direction.
struct Way<'a> {
    counted: &'a AtomicU64,
    meter: &'a Meter,
    room: &'a Budget,
    pulse: &'a Pulse,
}

impl Way<'_> {
    async fn pump<S: AsyncRead + AsyncWrite>(&self, mut from: ReadHalf<S>, mut to: WriteHalf<S>) -> Result<(), End> {
        let mut chunk = vec![0; CHUNK];
        loop {
            match from.read(&mut chunk).await {
                Ok(0) => break,
                Ok(read) => self.pass(&chunk[..read], &mut to).await?,
                Err(_) => return Err(End::Broken),
            }
        }
        // A side that is gone already needs no goodbye; the other direction says how it went.
        to.shutdown().await.or(Ok(()))
    }

    /// Writes what both budgets give, and ends where they do not give all.
    async fn pass<W: AsyncWrite + Unpin>(&self, bytes: &[u8], to: &mut W) -> Result<(), End> {
        self.pulse.beat();
        let wanted = bytes.len() as u64;
        let own = self.meter.left.take(wanted);
        let given = self.room.take(own);
        let mut open = &bytes[..usize::try_from(given).unwrap_or_default()];
        while !open.is_empty() {
            match to.write(open).await {
                Ok(0) | Err(_) => return Err(End::Broken),
                Ok(written) => {
                    self.pulse.beat();
                    self.counted.fetch_add(written as u64, Ordering::Relaxed);
                    open = &open[written..];
                }
            }
        }
        if given < own {
            Err(End::RoomBytes)
        } else if own < wanted {
            Err(End::ConnectionBytes)
        } else {
            Ok(())
        }
    }
}
