//! A host that asks for another ClientHello: it must name the same host as the first.
//!
//! Owns the peek at a host's first bytes. By RFC 8446, 4.1.4, a server may answer once with HelloRetryRequest, and it is
//! the second hello that it then obeys. Until it is known what a host says first, nothing behind the first hello travels:
//! a client that expects the question could send its second hello beforehand.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::hello::{HelloFault, read_hello};
use crate::name::HostName;

/// RFC 8446, 4.1.3: the random of a ServerHello that is a HelloRetryRequest.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
/// What may stand before a second hello: change_cipher_spec, and early data, which the host skips.
const SKIPPED: [u8; 2] = [20, 23];
/// Of that, as much as fits beside a hello; a client that was asked again has little of it on the way.
const SKIPPED_BYTES: usize = 64 * 1024;

/// Whether a host asks for another hello; `None` while its first bytes do not tell.
pub(crate) fn asks_again(mut records: &[u8]) -> Option<bool> {
    let mut message = Vec::new();
    loop {
        let kind = *records.first()?;
        if kind != HANDSHAKE {
            return Some(false);
        }
        let (head, rest) = records.split_at_checked(5)?;
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        message.extend_from_slice(&rest[..length.min(rest.len())]);
        match (message.first(), message.get(6..6 + RETRY.len())) {
            (Some(kind), _) if *kind != SERVER_HELLO => return Some(false),
            (_, Some(random)) => return Some(random == RETRY),
            _ => records = rest.split_at_checked(length)?.1,
        }
    }
}

/// Reads up to the end of a second hello for `host`, from the bytes of `early` on, and returns all that was read.
pub(crate) async fn read_again(
    stream: &mut (impl AsyncRead + Unpin),
    mut early: Vec<u8>,
    host: &HostName,
    deadline: Duration,
) -> Result<Vec<u8>, HelloFault> {
    let reading = async {
        let mut passed = Vec::new();
        loop {
            fill(stream, &mut early, 5).await?;
            if early[0] == HANDSHAKE {
                let hello = read_hello(stream, early, host, deadline).await?;
                return Ok([passed, hello.bytes, hello.behind].concat());
            }
            let length = 5 + usize::from(u16::from_be_bytes([early[3], early[4]]));
            if !SKIPPED.contains(&early[0]) || passed.len() + length > SKIPPED_BYTES {
                return Err(HelloFault::NotTls);
            }
            fill(stream, &mut early, length).await?;
            passed.extend(early.drain(..length));
        }
    };
    timeout(deadline, reading).await.unwrap_or(Err(HelloFault::Slow))
}

async fn fill(stream: &mut (impl AsyncRead + Unpin), held: &mut Vec<u8>, length: usize) -> Result<(), HelloFault> {
    while held.len() < length {
        if !matches!(stream.read_buf(held).await, Ok(1..)) {
            return Err(HelloFault::Cut);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A ServerHello of this random, in records of at most `size` bytes.
    pub(crate) fn server_hello(random: &[u8; 32], size: usize) -> Vec<u8> {
        let body = [&[3, 3][..], random, &[0, 0x13, 0x01, 0, 0, 0]].concat();
        let length = u8::try_from(body.len()).expect("short");
        let message = [&[SERVER_HELLO, 0, 0, length][..], &body].concat();
        let record = |part: &[u8]| [&[HANDSHAKE, 3, 3, 0, part.len() as u8][..], part].concat();
        message.chunks(size).flat_map(record).collect()
    }

    pub(crate) fn retry() -> Vec<u8> {
        server_hello(&RETRY, 200)
    }

    #[test]
    fn a_host_that_asks_again_is_told_from_others_however_its_bytes_are_cut() {
        for size in [1, 7, 200] {
            for (random, asks) in [(RETRY, true), ([7; 32], false)] {
                let said = server_hello(&random, size);
                assert_eq!(asks_again(&said), Some(asks), "{size}");
                let first = (0..said.len()).find_map(|length| asks_again(&said[..length]));
                assert!(first.is_none_or(|told| told == asks), "{size}");
            }
        }
        // An alert, HTTP, a ClientHello said back.
        for said in [&b"\x15\x03\x03\0\x02\x02\x28"[..], b"HTTP/1.1 400", b"\x16\x03\x01\0\x04\x01\0\0\0"] {
            assert_eq!(asks_again(said), Some(false));
        }
        assert_eq!(asks_again(b""), None);
    }
}
