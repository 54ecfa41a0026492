//! A virus scanner beside the worker: clamd's socket, its `VERSION` and `INSTREAM` commands.
//!
//! Source: clamd(8). Blocking, with a time limit on every step. Fails closed: a scanner that is set and does not answer,
//! or answers with anything but a verdict, is an error, and the attempt is made again. clamd is no guard against bombs:
//! what inflates too far was refused before it comes here.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// For a connection, and for each piece sent.
const STEP: Duration = Duration::from_secs(10);
/// For the verdict: clamd gives a file up after MaxScanTime, which is two minutes unless it is told otherwise.
const SCAN: Duration = Duration::from_secs(180);
const PIECE: usize = 64 << 10;
/// A verdict is a line.
const MAX_REPLY: u64 = 4 << 10;

/// Where clamd listens: the path of its socket, or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clamd {
    /// `LocalSocket` of its configuration.
    Unix(PathBuf),
    /// `TCPSocket` and `TCPAddr`.
    Tcp(String),
}

impl FromStr for Clamd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(1..)) => Ok(Self::Tcp(text.to_owned())),
            _ => Err(format!("{text:?} is neither the path of a socket, as /run/clamav/clamd.ctl, nor host:port")),
        }
    }
}

impl fmt::Display for Clamd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// What clamd says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Clean,
    /// The signature's name.
    Found(String),
    /// Beyond a limit of clamd's own, so that it cannot be said to be clean.
    TooLarge,
}

/// Why clamd gave no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClamdError {
    #[error("ask clamd at {clamd}; start it, or correct CARREL_CLAMD")]
    Io {
        clamd: String,
        #[source]
        source: io::Error,
    },
    #[error("clamd at {clamd} answered {reply:?}; its log says more")]
    Reply { clamd: String, reply: String },
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Clamd {
    /// Its version and that of its signatures, as it names them.
    pub(crate) fn version(&self) -> Result<String, ClamdError> {
        let asked = self.connect().and_then(|mut stream| {
            stream.write_all(b"zVERSION\0")?;
            reply(&mut stream)
        });
        let version = asked.map_err(|source| self.failed(source))?;
        if version.starts_with("ClamAV ") { Ok(version) } else { Err(self.odd(version)) }
    }

    /// Shows it a file to its end.
    pub(crate) fn look(&self, file: &mut impl Read) -> Result<Answer, ClamdError> {
        let reply = self.instream(file).map_err(|source| self.failed(source))?;
        read(&reply).ok_or_else(|| self.odd(reply))
    }

    fn instream(&self, file: &mut impl Read) -> io::Result<String> {
        let mut stream = self.connect()?;
        match send(&mut stream, file) {
            Ok(()) => {}
            // It closes upon its own limit, and has said so before.
            Err(Sent::Refused(error)) => return reply(&mut stream).map_err(|_| error),
            Err(Sent::Unread(error)) => return Err(error),
        }
        reply(&mut stream)
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(SCAN))?;
                stream.set_write_timeout(Some(STEP))?;
                Ok(Box::new(stream))
            }
            Self::Tcp(address) => {
                let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for address in address.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, STEP) {
                        Ok(stream) => {
                            stream.set_read_timeout(Some(SCAN))?;
                            stream.set_write_timeout(Some(STEP))?;
                            return Ok(Box::new(stream));
                        }
                        Err(error) => failed = error,
                    }
                }
                Err(failed)
            }
        }
    }

    fn failed(&self, source: io::Error) -> ClamdError {
        ClamdError::Io { clamd: self.to_string(), source }
    }

    fn odd(&self, reply: String) -> ClamdError {
        ClamdError::Reply { clamd: self.to_string(), reply }
    }
}

/// Which side failed.
enum Sent {
    /// clamd takes no more.
    Refused(io::Error),
    /// The file cannot be read.
    Unread(io::Error),
}

/// Pieces, each after its length in network order; an empty one ends the file.
fn send(stream: &mut impl Write, file: &mut impl Read) -> Result<(), Sent> {
    stream.write_all(b"zINSTREAM\0").map_err(Sent::Refused)?;
    let mut buffer = vec![0; PIECE];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Sent::Unread(error)),
        };
        let length = u32::try_from(count).unwrap_or_default().to_be_bytes();
        stream.write_all(&length).map_err(Sent::Refused)?;
        stream.write_all(&buffer[..count]).map_err(Sent::Refused)?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// The verdict in a reply, if there is one.
fn read(reply: &str) -> Option<Answer> {
    let verdict = reply.strip_prefix("stream: ").unwrap_or(reply);
    match verdict.strip_suffix(" FOUND") {
        // What AlertExceedsMax reports is a limit, not a virus.
        Some(name) if name.contains("Limits.Exceeded") => Some(Answer::TooLarge),
        Some(name) => Some(Answer::Found(name.to_owned())),
        None if verdict == "OK" => Some(Answer::Clean),
        None if verdict.contains("size limit exceeded") => Some(Answer::TooLarge),
        None => None,
    }
}

/// For fuzzing: what clamd says, of which only its own two words are a clean file.
pub(crate) fn heard(bytes: &[u8]) {
    let Ok(said) = reply(&mut io::Cursor::new(bytes)) else { return };
    assert!(said.len() <= 200 && said.bytes().all(|b| b.is_ascii_graphic() || b == b' '), "{said:?}");
    assert!(read(&said) != Some(Answer::Clean) || ["OK", "stream: OK"].contains(&said.as_str()), "{said:?}");
}

/// A reply ends with a zero byte, as its command did.
fn reply(stream: &mut impl Read) -> io::Result<String> {
    let mut reply = Vec::new();
    let mut rest = stream.take(MAX_REPLY);
    let mut byte = [0];
    while rest.read(&mut byte)? == 1 && byte != [0] {
        reply.push(byte[0]);
    }
    if reply.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up without a reply"));
    }
    let plain = reply.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '?' });
    Ok(plain.take(200).collect())
}

#[cfg(test)]
mod tests;
