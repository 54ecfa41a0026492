//! The first message of TLS, read in passing: it must name the host that was asked for.
//!
//! Owns the peek at a ClientHello; its bytes travel on unchanged. Without it a room could ask for a listed host and then
//! name another one that the same front door serves. Refuses what is not TLS, a hello without a name, and
//! encrypted_client_hello: its true name is inside and the outer one is a cover. (A client that sends the extension
//! as grease is refused with it; Chromium needs `--disable-features=EncryptedClientHello`.)

use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::name::HostName;

/// How long a ClientHello may be, in bytes. Key shares that resist quantum computers make it about 2 KiB; one TLS
/// record holds 16 KiB.
const HELLO_BYTES: usize = 16 * 1024;

/// RFC 9849.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Why a tunnel's first bytes end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum HelloFault {
    /// Something else, or more than 16 KiB of it.
    #[error("the tunnel does not begin with a TLS ClientHello")]
    NotTls,
    /// No server_name, or an address in it.
    #[error("the ClientHello names no server")]
    Unnamed,
    /// Another server_name.
    #[error("the ClientHello names another server than the CONNECT did")]
    OtherName,
    /// A name under encryption.
    #[error("the ClientHello carries encrypted_client_hello, which can name another server")]
    Encrypted,
    /// Not complete in time.
    #[error("the ClientHello did not come in time")]
    Slow,
    /// The connection ended first.
    #[error("the connection ended before the ClientHello did")]
    Cut,
}

/// All bytes that were read for a ClientHello.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Its records, whole.
    pub(crate) bytes: Vec<u8>,
    /// What came behind them.
    pub(crate) behind: Vec<u8>,
}

/// Reads a whole ClientHello for `host`, which begins with the bytes of `early`.
pub(crate) async fn read_hello(
    stream: &mut (impl AsyncRead + Unpin),
    early: Vec<u8>,
    host: &HostName,
    deadline: Duration,
) -> Result<Hello, HelloFault> {
    let reading = async {
        let (mut seen, mut fed, mut acceptor) = (early, 0, Acceptor::default());
        loop {
            if feed(&mut acceptor, &seen[fed..], host)? {
                // Past rustls the message is well formed; what this walk cannot read is then its own fault.
                return match carries(&seen, ENCRYPTED_CLIENT_HELLO) {
                    Some((false, length)) => {
                        let behind = seen.split_off(length);
                        Ok(Hello { bytes: seen, behind })
                    }
                    Some((true, _)) => Err(HelloFault::Encrypted),
                    None => Err(HelloFault::NotTls),
                };
            }
            fed = seen.len();
            if fed >= HELLO_BYTES {
                return Err(HelloFault::NotTls);
            }
            match (&mut *stream).take((HELLO_BYTES - fed) as u64).read_buf(&mut seen).await {
                Ok(0) | Err(_) => return Err(HelloFault::Cut),
                Ok(_) => {}
            }
        }
    };
    timeout(deadline, reading).await.unwrap_or(Err(HelloFault::Slow))
}

/// Whether the bytes complete a ClientHello for `host`.
fn feed(acceptor: &mut Acceptor, mut bytes: &[u8], host: &HostName) -> Result<bool, HelloFault> {
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).map_err(|_| HelloFault::NotTls)?;
        let Some(accepted) = acceptor.accept().map_err(|_| HelloFault::NotTls)? else { continue };
        let hello = accepted.client_hello();
        let named = HostName::parse(hello.server_name().ok_or(HelloFault::Unnamed)?);
        return if named.as_ref() == Ok(host) { Ok(true) } else { Err(HelloFault::OtherName) };
    }
    Ok(false)
}

/// Whether the ClientHello at the start of `records` has this extension, and the length of the records that it fills;
/// `None` where it cannot be read.
fn carries(records: &[u8], wanted: u16) -> Option<(bool, usize)> {
    let mut message = Vec::new();
    let mut rest = Bytes(records);
    // A hello may be spread over several records.
    while message.len() < 4 || message.len() < 4 + Bytes(&message[1..]).number(3)? {
        let [22, _, _] = *rest.take(3)? else { return None };
        message.extend_from_slice(rest.sized(2)?);
    }
    let length = records.len() - rest.0.len();
    let mut hello = Bytes(&message);
    let [1] = *hello.take(1)? else { return None };
    let body = hello.sized(3)?;
    // A second message in the same record would pass unread.
    if !hello.0.is_empty() {
        return None;
    }
    let mut hello = Bytes(body);
    hello.take(2 + 32)?;
    hello.sized(1)?;
    hello.sized(2)?;
    hello.sized(1)?;
    let mut extensions = Bytes(hello.sized(2)?);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        extensions.sized(2)?;
        if kind == usize::from(wanted) {
            return Some((true, length));
        }
    }
    Some((false, length))
}

/// A cursor over TLS's presentation language.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector behind its length of `width` bytes.
    fn sized(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        self.take(length)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What a client of rustls sends first to this server.
    pub(crate) fn hello_to(server: &str) -> Vec<u8> {
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("ring has both versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let server = ServerName::try_from(server.to_owned()).expect("a server's name");
        let mut client = ClientConnection::new(Arc::new(config), server).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("writes to memory");
        hello
    }

    /// The same hello with one more extension at its end.
    fn with_extension(hello: &[u8], kind: u16, body: &[u8]) -> Vec<u8> {
        let size = body.len() as u16;
        let mut longer = [hello, &kind.to_be_bytes(), &size.to_be_bytes(), body].concat();
        let mut grow = |at: usize| {
            let length = u16::from_be_bytes([longer[at], longer[at + 1]]) + 4 + size;
            longer[at..at + 2].copy_from_slice(&length.to_be_bytes());
        };
        // Record, message (its last two of three bytes), and the extensions behind the session, suites and compression.
        grow(3);
        grow(7);
        let suites = 5 + 4 + 34 + 1 + usize::from(hello[5 + 4 + 34]);
        let compression = suites + 2 + usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
        grow(compression + 1 + usize::from(hello[compression]));
        longer
    }

    /// The same message cut into records of at most `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&hello[..3], &(part.len() as u16).to_be_bytes()[..], part].concat();
        hello[5..].chunks(size).flat_map(record).collect()
    }

    fn peek(mut sent: &[u8], early: usize, host: &str) -> Result<Vec<u8>, HelloFault> {
        let early = sent.split_off(..early).expect("within what is sent").to_vec();
        let host = HostName::parse(host).expect("a name");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let read = runtime.block_on(read_hello(&mut sent, early, &host, Duration::from_secs(60)));
        read.map(|hello| [hello.bytes, hello.behind].concat())
    }

    #[test]
    fn a_hello_passes_for_the_name_it_bears_and_for_no_other() {
        let hello = hello_to("api.example.com");
        assert_eq!(peek(&hello, 0, "api.example.com"), Ok(hello.clone()));
        assert_eq!(peek(&hello, hello.len(), "API.example.com."), Ok(hello.clone()));
        assert_eq!(peek(&hello, 0, "example.com"), Err(HelloFault::OtherName));
        assert_eq!(peek(&hello_to("127.0.0.1"), 0, "api.example.com"), Err(HelloFault::Unnamed));
    }

    #[test]
    fn what_is_not_a_hello_is_told_at_its_first_bytes() {
        for sent in
            [&b"CONNECT evil.example:443 HTTP/1.1\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x00"]
        {
            assert_eq!(peek(sent, 0, "api.example.com"), Err(HelloFault::NotTls));
        }
        let hello = hello_to("api.example.com");
        assert_eq!(peek(&hello[..hello.len() - 1], 0, "api.example.com"), Err(HelloFault::Cut));
    }

    #[test]
    fn a_hello_with_a_name_under_encryption_is_refused() {
        let hello = hello_to("api.example.com");
        let harmless = with_extension(&hello, 0xfafa, &[0]);
        assert_eq!(peek(&harmless, 0, "api.example.com"), Ok(harmless.clone()));
        // Outer; HKDF-SHA256 and AES-128-GCM; configuration 7; a key and a payload of one byte each.
        let body = [0, 0, 1, 0, 1, 7, 0, 1, 0xaa, 0, 1, 0xbb];
        let covered = with_extension(&hello, ENCRYPTED_CLIENT_HELLO, &body);
        assert_eq!(peek(&covered, 0, "api.example.com"), Err(HelloFault::Encrypted));
        assert_eq!(peek(&in_records(&covered, 50), 0, "api.example.com"), Err(HelloFault::Encrypted));
    }

    #[test]
    fn what_comes_behind_a_hello_is_told_from_it_and_nothing_hides_in_its_record() {
        let hello = hello_to("api.example.com");
        let both = [in_records(&hello, 50), b"more".to_vec()].concat();
        let (_, length) = carries(&both, ENCRYPTED_CLIENT_HELLO).expect("a hello");
        assert_eq!(length, both.len() - 4);
        let message = [&hello[5..], &hello_to("evil.example")[5..]].concat();
        let size = u16::try_from(message.len()).expect("short").to_be_bytes();
        let smuggled = [&hello[..3], &size, &message].concat();
        assert_eq!(peek(&smuggled, 0, "api.example.com"), Err(HelloFault::NotTls));
    }

    #[test]
    fn an_endless_hello_is_cut_at_its_limit() {
        // The head of a message of 64 KiB, then records that never complete it.
        let mut endless = vec![22, 3, 1, 0x3f, 0x04, 1, 0, 0xff, 0xff];
        endless.resize(5 + 0x3f04, 0);
        endless.extend_from_slice(&[22, 3, 1, 0x3f, 0x00]);
        endless.resize(5 + 0x3f04 + 5 + 0x3f00, 0);
        assert_eq!(peek(&endless, 0, "api.example.com"), Err(HelloFault::NotTls));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_hello_passes_however_it_is_cut(size in 30usize..400, early in 0usize..100) {
            let hello = in_records(&hello_to("api.example.com"), size);
            prop_assert_eq!(peek(&hello, early, "api.example.com"), Ok(hello));
        }

        #[test]
        fn any_bytes_are_a_hello_or_a_fault(at in 0usize..200, byte: u8, tail in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut hello = hello_to("api.example.com");
            let at = at.min(hello.len() - 1);
            hello[at] = byte;
            if let Ok(passed) = peek(&hello, 0, "api.example.com") {
                prop_assert_eq!(passed, hello);
            }
            prop_assert!(peek(&tail, 0, "api.example.com").is_err());
            prop_assert!(carries(&tail, ENCRYPTED_CLIENT_HELLO).is_none_or(|(covered, _)| !covered || tail[0] == 22));
        }
    }
}
