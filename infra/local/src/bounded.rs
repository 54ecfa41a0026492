//! A listener whose connections are counted: who opens too many waits, and nobody else does.
//!
//! A place is taken before a connection is accepted and given back when it is dropped; what comes meanwhile stands in the
//! kernel's own queue. Refuses to end: accepting fails when descriptors run out, and goes on once there are some again.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Trying again at once would only burn the processor.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Accepts so many connections at once.
#[derive(Debug)]
pub(crate) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

/// A connection in its place.
#[derive(Debug)]
pub(crate) struct Held {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Bounded {
    pub(crate) fn new(listener: TcpListener, places: usize) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(places)) }
    }
}

impl Listener for Bounded {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        let place = self.places.clone().acquire_owned().await.expect("nobody closes the places");
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    // Small answers must not wait for the acknowledgement of the one before.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection stays as slow as it was");
                    }
                    return (Held { stream, _place: place }, from);
                }
                Err(error) if is_of_the_caller(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection; trying again in a second");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A caller that went away before it was accepted says nothing about this machine.
fn is_of_the_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_connection_too_many_waits_until_another_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let mut bounded = Bounded::new(listener, 2);
        let address = bounded.local_addr().expect("bound");
        let mut callers = Vec::new();
        for name in [b"1", b"2", b"3"] {
            let mut caller = TcpStream::connect(address).await.expect("the kernel's queue is longer");
            caller.write_all(name).await.expect("sent");
            callers.push(caller);
        }
        let (first, _) = bounded.accept().await;
        let (_second, _) = bounded.accept().await;
        assert_eq!(bounded.places.available_permits(), 0);
        {
            let mut third = Box::pin(bounded.accept());
            assert!(futures::poll!(&mut third).is_pending(), "the third has no place");
            drop(first);
            let (mut third, _) = third.await;
            let mut name = [0];
            third.read_exact(&mut name).await.expect("it was waiting");
            assert_eq!(&name, b"3");
        }
        assert_eq!(bounded.places.available_permits(), 1, "and gives its place back");
    }

    #[test]
    fn a_machine_without_descriptors_is_waited_for_and_a_caller_that_left_is_not() {
        for (errno, caller) in [(24, false), (23, false), (12, false), (103, true), (104, true)] {
            assert_eq!(is_of_the_caller(&io::Error::from_raw_os_error(errno)), caller, "{errno}");
        }
    }
}
