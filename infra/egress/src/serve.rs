//! The accept loop of one room's proxy, and its end.
//!
//! Owns every task it starts. `finish` stops intake, lets open tunnels end within the grace period, cuts the others,
//! and returns the report; a [`Running`] that is dropped instead cuts everything at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, error, info, warn};

use crate::budget::Budget;
use crate::connection::Room;
use crate::ledger::{Ledger, Report};
use crate::limits::Limits;
use crate::policy::Policy;
use crate::upstream::{Outside, Stream, Upstream, prompt};

/// How many clients beyond the room's number are told so at once; further ones are closed without a word.
const TURNED_AWAY: usize = 16;

/// Accepting fails when descriptors or memory run out. Trying again at once would only burn the processor.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A socket that one room and nobody else can connect to.
#[derive(Debug)]
pub enum Listener {
    /// A listener whose socket lies in the room's own network namespace.
    Tcp(TcpListener),
    /// A unix socket that is mounted into the room.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Box::new(prompt(stream)?))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// A proxy at work.
#[must_use = "a proxy that is dropped cuts its connections"]
pub struct Running {
    stop: oneshot::Sender<()>,
    task: AbortOnDropHandle<()>,
    room: Arc<Room>,
}

/// Serves one room until [`Running::finish`]. Log lines appear in the span that is current here. Panics outside a tokio
/// runtime.
pub fn serve(listener: impl Into<Listener>, policy: Policy, upstream: Upstream, limits: Limits) -> Running {
    start(listener.into(), policy, Outside::new(upstream), limits)
}

pub(crate) fn start(listener: Listener, policy: Policy, outside: Outside, limits: Limits) -> Running {
    let left = Budget::new(limits.room_bytes);
    let room = Arc::new(Room { policy, outside, limits, left, ledger: Ledger::default() });
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(accept(listener, room.clone(), stopped).in_current_span());
    Running { stop, task: AbortOnDropHandle::new(task), room }
}

impl Running {
    /// Stops intake, drains within the grace period, cuts what is left, and tells what was decided. Dropping this future
    /// cuts at once.
    pub async fn finish(self) -> Report {
        drop(self.stop);
        if let Err(failure) = self.task.await {
            error!(error = %failure, "egress: the accept loop failed; the report ends where it did");
        }
        self.room.ledger.report(self.room.outside.asked())
    }
}

async fn accept(listener: Listener, room: Arc<Room>, mut stopped: oneshot::Receiver<()>) {
    let slots = Arc::new(Semaphore::new(room.limits.connections.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(TURNED_AWAY));
    let (cut, cutting) = watch::channel(false);
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => break,
            Some(joined) = tasks.join_next() => {
                sound(joined);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let client = match accepted {
            Ok(client) => client,
            Err(failure) => {
                warn!(error = %failure, "egress: accept a connection of the room: failed; trying again in a second");
                if timeout(AFTER_FAILURE, &mut stopped).await.is_ok() {
                    break;
                }
                continue;
            }
        };
        let (room, cutting) = (room.clone(), cutting.clone());
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            let serving = async move {
                room.serve(client, cutting).await;
                drop(slot);
            };
            tasks.spawn(serving.in_current_span());
        } else if let Ok(slot) = refusals.clone().try_acquire_owned() {
            let refusing = async move {
                room.turn_away(client, cutting).await;
                drop(slot);
            };
            tasks.spawn(refusing.in_current_span());
        } else {
            room.note_busy();
        }
    }
    drop(listener);
    let open = tasks.len();
    let drained = timeout(room.limits.grace, drain(&mut tasks)).await.is_ok();
    if !drained {
        info!(egress.open = open, "egress: the grace period is over; cutting the tunnels that are still open");
        cut.send_replace(true);
        drain(&mut tasks).await;
    }
}

async fn drain(tasks: &mut JoinSet<()>) {
    while let Some(joined) = tasks.join_next().await {
        sound(joined);
    }
}

/// A connection that panicked is a fault of the proxy; the others go on.
fn sound(joined: Result<(), JoinError>) {
    if let Err(failure) = joined {
        error!(error = %failure, "egress: a connection's task failed");
    }
}

#[cfg(test)]
mod tests;
