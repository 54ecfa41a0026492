//! One connection from its first byte to its line in the ledger.
//!
//! Owns the order of the walk: nothing is resolved before the list has allowed the name, nothing is dialled before the
//! address was judged, nothing passes before the ClientHello named the host.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::budget::Budget;
use crate::head::read_head;
use crate::hello::read_hello;
use crate::ledger::{Entry, Ledger};
use crate::limits::Limits;
use crate::name::HostName;
use crate::policy::Policy;
use crate::reason::Reason;
use crate::tunnel::{self, End, Meter, Opening};
use crate::upstream::{Outside, Stream};

/// How long, and for how many bytes, a refused client is listened to. Closing on unread bytes would reset the
/// connection, and the reset can overtake the answer.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 64 * 1024);

/// What the connections of one room share.
pub(crate) struct Room {
    pub(crate) policy: Policy,
    pub(crate) outside: Outside,
    pub(crate) limits: Limits,
    pub(crate) left: Budget,
    pub(crate) ledger: Ledger,
}

/// What is known of a connection so far.
struct Seen {
    host: String,
    port: Option<u16>,
    open: bool,
    meter: Meter,
}

impl Room {
    /// Serves one connection until it ends or `cut` turns true.
    pub(crate) async fn serve(&self, client: Box<dyn Stream>, mut cut: watch::Receiver<bool>) {
        let meter = Meter::new(self.limits.connection_bytes);
        let mut seen = Seen { host: String::new(), port: None, open: false, meter };
        let walked = tokio::select! {
            reason = self.walk(client, &mut seen) => Some(reason),
            _ = cut.wait_for(|cut| *cut) => None,
        };
        let unfinished = if seen.open { Reason::Ended(End::Finished) } else { Reason::Finished };
        let (up, down) = (seen.meter.up.into_inner(), seen.meter.down.into_inner());
        let reason = walked.unwrap_or(unfinished);
        self.ledger.record(Entry { host: seen.host, port: seen.port, reason, up, down });
    }

    async fn walk(&self, mut client: Box<dyn Stream>, seen: &mut Seen) -> Reason {
        let (host, stream, early) = match self.admit(&mut client, seen).await {
            Ok(admitted) => admitted,
            Err(reason) => {
                refuse(&mut client, &reason).await;
                return reason;
            }
        };
        if client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await.is_err() {
            return Reason::Ended(End::Broken);
        }
        let hello = match read_hello(&mut client, early, &host, self.limits.head).await {
            Ok(hello) => hello,
            Err(fault) => return Reason::Hello(fault),
        };
        seen.open = true;
        let opening = Opening { hello, name: &host, within: self.limits.head, answer: self.limits.open };
        Reason::Ended(tunnel::run(client, stream, opening, &seen.meter, &self.left, self.limits.idle).await)
    }

    /// From the first byte to an open way to a listed host.
    async fn admit(
        &self,
        client: &mut Box<dyn Stream>,
        seen: &mut Seen,
    ) -> Result<(HostName, Box<dyn Stream>, Vec<u8>), Reason> {
        let (head, early) = read_head(client, self.limits.head).await.map_err(Reason::Head)?;
        let (asked, port) = head.asked();
        (seen.host, seen.port) = (asked, Some(port));
        let host = head.target().map_err(Reason::Head)?;
        seen.host = host.to_string();
        if !self.policy.allows(&host) {
            return Err(Reason::NotListed);
        }
        if self.left.is_spent() {
            return Err(Reason::Spent);
        }
        let stream = self.outside.open(&host, self.limits.open).await.map_err(Reason::Open)?;
        Ok((host, stream, early))
    }

    /// Answers a connection beyond the room's number.
    pub(crate) async fn turn_away(&self, mut client: Box<dyn Stream>, mut cut: watch::Receiver<bool>) {
        tokio::select! {
            () = refuse(&mut client, &Reason::Busy) => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
        self.note_busy();
    }

    pub(crate) fn note_busy(&self) {
        self.ledger.record(Entry { host: String::new(), port: None, reason: Reason::Busy, up: 0, down: 0 });
    }
}

/// Says why, and waits for the client to have heard it.
async fn refuse(client: &mut Box<dyn Stream>, reason: &Reason) {
    let Some(answer) = reason.answer() else { return };
    let saying = async {
        client.write_all(answer.as_bytes()).await?;
        client.shutdown().await?;
        tokio::io::copy(&mut client.take(LINGER.1), &mut tokio::io::sink()).await
    };
    if !matches!(timeout(LINGER.0, saying).await, Ok(Ok(_))) {
        tracing::debug!(egress.reason = %reason, "egress: the room did not wait for its refusal");
    }
}
