//! Messages between program, launcher and room: JSON in one packet, descriptors beside it.
//!
//! A packet socket keeps messages whole, and its end says that the other side is gone.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors that go with one message at most.
const MAX_DESCRIPTORS: usize = 32;
/// Bytes of one message at most; a plan, which may be longer, travels as a file.
const MAX_BYTES: usize = 64 << 10;

/// Two ends of one line; neither is inherited by a program that is started.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// How long descriptors that are on their way are waited for, in steps: what stands in unix sockets of all processes of a
/// user is counted together, and a room that keeps many there must not stop the next.
const TURN: Duration = Duration::from_millis(10);
const TURNS: usize = 200;

/// Sends one message; waits if the other side is behind, or if too many descriptors of the user are on their way.
pub(crate) fn send(to: impl AsFd, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = written(message, descriptors)?;
    let turn = Timespec { tv_sec: 0, tv_nsec: i64::from(TURN.subsec_nanos()) };
    for _ in 0..TURNS {
        match attempt(to.as_fd(), &bytes, descriptors) {
            // Nothing is waited for but the time.
            Err(Errno::TOOMANYREFS) => drop(poll(&mut [], Some(&turn))),
            other => return Ok(other?),
        }
    }
    Err(Errno::TOOMANYREFS.into())
}

/// The same for a program that has other things to do meanwhile.
pub(crate) async fn send_in_turn(
    to: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = written(message, descriptors)?;
    Ok(in_turn(|| attempt(to.as_fd(), &bytes, descriptors)).await?)
}

async fn in_turn(mut attempt: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    for _ in 0..TURNS {
        match attempt() {
            Err(Errno::TOOMANYREFS) => tokio::time::sleep(TURN).await,
            other => return other,
        }
    }
    Err(Errno::TOOMANYREFS)
}

fn written(message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_BYTES || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::other("a message to a room is too long"));
    }
    Ok(bytes)
}

fn attempt(to: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::io::retry_on_intr(|| sendmsg(to, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)).map(|_| ())
}

/// Takes the next message; `None` if the other side is gone. Waits unless `flags` say otherwise.
pub(crate) fn receive<T: DeserializeOwned>(from: impl AsFd, flags: RecvFlags) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = loop {
        match recvmsg(from.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut beside, flags) {
            Err(Errno::INTR) => {}
            // A side that was killed with something unread.
            Err(Errno::CONNRESET) => return Ok(None),
            got => break got?,
        }
    };
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a message of a room was cut short"));
    }
    Ok(Some((serde_json::from_slice(&bytes[..got.bytes])?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn descriptors_that_others_have_on_the_way_are_waited_for() {
        let mut left = 3;
        let crowded = || {
            left -= 1;
            if left > 0 { Err(Errno::TOOMANYREFS) } else { Ok(()) }
        };
        assert_eq!((in_turn(crowded).await, left), (Ok(()), 0));
        let mut asked = 0;
        let closed = || {
            asked += 1;
            Err(Errno::PIPE)
        };
        assert_eq!((in_turn(closed).await, asked), (Err(Errno::PIPE), 1));
    }
}
