//! The head of a request: `CONNECT name:443 HTTP/1.1`, and nothing else.
//!
//! Owns the parser, a plain function over bytes for fuzzing, and its bounded reader. Fields are read past: none of them
//! says who asks, and none travels on. Refuses other methods, other versions, other ports and addresses; a head that is
//! too long or too slow.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::name::{HostName, NameFault};
use crate::policy::shown;

/// How long a head may be, in bytes. Clients send a few hundred.
pub(crate) const HEAD_BYTES: usize = 8 * 1024;

/// How many fields a head may have; they are skipped, so the number only bounds the parser's table.
const FIELDS: usize = 64;

/// A well-formed head, its target still as the room wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    host: String,
    port: u16,
    bytes: usize,
}

/// Why a head opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum HeadFault {
    /// Not HTTP.
    #[error("the request is not HTTP/1.1; set HTTPS_PROXY=http://…, without TLS to the proxy")]
    NotHttp,
    /// GET, POST and the rest.
    #[error("the method is not CONNECT; use https:// addresses")]
    NotConnect,
    /// Not `name:port`.
    #[error("the target is not of the form name:443")]
    Target,
    /// Another port.
    #[error("443 is the only port")]
    Port,
    /// The name.
    #[error("the target's name: {0}")]
    Name(NameFault),
    /// More than 8 KiB or 64 fields.
    #[error("the request's head is longer than 8 KiB or 64 fields")]
    Long,
    /// Not complete in time.
    #[error("the request's head did not come in time")]
    Slow,
    /// The connection ended within the head.
    #[error("the connection ended before the request's head did")]
    Cut,
}

/// Reads a head from the start of a connection: `None` as long as more bytes are needed.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head>, HeadFault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            let other = request.method.is_some_and(|method| method != "CONNECT");
            return if other { Err(HeadFault::NotConnect) } else { Ok(None) };
        }
        Err(httparse::Error::TooManyHeaders) => return Err(HeadFault::Long),
        Err(_) => return Err(HeadFault::NotHttp),
    };
    if request.method != Some("CONNECT") {
        return Err(HeadFault::NotConnect);
    }
    if request.version != Some(1) {
        return Err(HeadFault::NotHttp);
    }
    let (host, port) = request.path.and_then(|path| path.rsplit_once(':')).ok_or(HeadFault::Target)?;
    // `u16::from_str` takes `+443` too, and a second spelling of the one port serves nobody.
    let plain = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| plain).ok_or(HeadFault::Target)?;
    Ok(Some(Head { host: host.to_owned(), port, bytes: length }))
}

impl Head {
    /// How many bytes the head took; what follows belongs to the tunnel.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The host and port as they were asked for, fit for a log line.
    pub fn asked(&self) -> (String, u16) {
        (shown(&self.host), self.port)
    }

    /// The name to judge, if the target is one at the one port.
    pub fn target(self) -> Result<HostName, HeadFault> {
        let name = HostName::parse(&self.host).map_err(HeadFault::Name)?;
        if self.port == 443 { Ok(name) } else { Err(HeadFault::Port) }
    }
}

/// Reads a head and what came with it.
pub(crate) async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    deadline: Duration,
) -> Result<(Head, Vec<u8>), HeadFault> {
    let reading = async {
        let mut seen = Vec::with_capacity(1024);
        loop {
            let room = HEAD_BYTES - seen.len();
            if room == 0 {
                return Err(HeadFault::Long);
            }
            match (&mut *stream).take(room as u64).read_buf(&mut seen).await {
                Ok(0) | Err(_) => return Err(HeadFault::Cut),
                Ok(_) => {}
            }
            if let Some(head) = parse_head(&seen)? {
                let early = seen.split_off(head.bytes());
                return Ok((head, early));
            }
        }
    };
    timeout(deadline, reading).await.unwrap_or(Err(HeadFault::Slow))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(head: &str) -> Result<HostName, HeadFault> {
        parse_head(head.as_bytes())?.expect("a whole head").target()
    }

    #[test]
    fn only_connect_to_a_name_at_443_is_a_request() {
        let address = HeadFault::Name(NameFault::Address);
        for (head, fault) in [
            ("GET http://example.org/ HTTP/1.1\r\n\r\n", HeadFault::NotConnect),
            ("POST / HTTP/1.1\r\nHost: example.org\r\n\r\n", HeadFault::NotConnect),
            ("connect example.org:443 HTTP/1.1\r\n\r\n", HeadFault::NotConnect),
            ("CONNECT example.org:443 HTTP/1.0\r\n\r\n", HeadFault::NotHttp),
            ("CONNECT example.org:443 HTTP/2\r\n\r\n", HeadFault::NotHttp),
            ("CONNECT example.org:443\r\n\r\n", HeadFault::NotHttp),
            ("CONNECT  example.org:443 HTTP/1.1\r\n\r\n", HeadFault::NotHttp),
            ("CONNECT example.org:443 HTTP/1.1\r\nno field\r\n\r\n", HeadFault::NotHttp),
            ("\x16\x03\x01\x02\x00\x01\x00\x01", HeadFault::NotHttp),
            ("SSH-2.0-OpenSSH_9.9\r\n", HeadFault::NotHttp),
            ("CONNECT example.org HTTP/1.1\r\n\r\n", HeadFault::Target),
            ("CONNECT example.org: HTTP/1.1\r\n\r\n", HeadFault::Target),
            ("CONNECT example.org:+443 HTTP/1.1\r\n\r\n", HeadFault::Target),
            ("CONNECT example.org:0443 HTTP/1.1\r\n\r\n", HeadFault::Target),
            ("CONNECT example.org:65979 HTTP/1.1\r\n\r\n", HeadFault::Target),
            ("CONNECT example.org:80 HTTP/1.1\r\n\r\n", HeadFault::Port),
            ("CONNECT example.org:53 HTTP/1.1\r\n\r\n", HeadFault::Port),
            ("CONNECT 169.254.169.254:443 HTTP/1.1\r\n\r\n", address),
            ("CONNECT [::ffff:169.254.169.254]:443 HTTP/1.1\r\n\r\n", address),
            ("CONNECT ::1:443 HTTP/1.1\r\n\r\n", address),
            ("CONNECT u:p@example.org:443 HTTP/1.1\r\n\r\n", address),
            ("CONNECT u@example.org:443 HTTP/1.1\r\n\r\n", HeadFault::Name(NameFault::Character)),
            ("CONNECT https://example.org:443 HTTP/1.1\r\n\r\n", address),
            ("CONNECT :443 HTTP/1.1\r\n\r\n", HeadFault::Name(NameFault::Empty)),
        ] {
            assert_eq!(target(head), Err(fault), "{head:?}");
        }
        let name = HostName::parse("example.org").expect("a name");
        assert_eq!(target("CONNECT Example.ORG.:443 HTTP/1.1\r\nHost: elsewhere:1\r\n\r\n"), Ok(name));
    }

    #[test]
    fn another_method_is_refused_before_its_head_ends() {
        assert_eq!(parse_head(b"GET /"), Err(HeadFault::NotConnect));
        assert_eq!(parse_head(b"CONNE"), Ok(None));
    }

    #[test]
    fn more_than_sixty_four_fields_are_too_long() {
        let head = format!("CONNECT example.org:443 HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert_eq!(parse_head(head.as_bytes()), Err(HeadFault::Long));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_a_fault_or_a_beginning(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some(head)) = parse_head(&bytes) {
                prop_assert!(head.bytes() <= bytes.len());
            }
        }

        #[test]
        fn bytes_that_almost_ask_right_pass_only_if_they_ask_right(
            text in "(CONNECT|GET) [a-z0-9.:\\[\\]@%-]{0,20}:(443|80|0443)? HTTP/1\\.[01]\r\n([a-z]{1,3}: ?[a-z]{0,3}\r\n){0,3}\r\n.{0,5}",
        ) {
            if let Ok(Some(head)) = parse_head(text.as_bytes()) {
                let (asked, port) = head.asked();
                let line = format!("CONNECT {asked}:{port} HTTP/1.1\r\n");
                prop_assert!(text.starts_with(&line));
                prop_assert!(text.as_bytes()[..head.bytes()].ends_with(b"\n\r\n"));
                if let Ok(name) = head.target() {
                    prop_assert_eq!(port, 443);
                    prop_assert!(asked.trim_end_matches('.').eq_ignore_ascii_case(name.as_str()));
                }
            }
        }

        #[test]
        fn a_head_is_whole_at_its_last_byte_and_not_before(fields in "([a-zA-Z-]{1,8}: [ -~]{0,20}\r\n){0,4}") {
            let text = format!("CONNECT example.org:443 HTTP/1.1\r\n{fields}\r\n");
            for end in 0..text.len() {
                prop_assert_eq!(parse_head(&text.as_bytes()[..end]), Ok(None));
            }
            let head = parse_head(text.as_bytes()).expect("well formed").expect("whole");
            prop_assert_eq!(head.bytes(), text.len());
        }
    }
}
