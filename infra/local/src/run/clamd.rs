//! The door before clamd: a task may ask for its version and have a stream looked at, and nothing else.
//!
//! clamd obeys whoever reaches its socket: it ends, reloads, and reads paths of its own machine. So what a task says is
//! read here, and only what is understood goes on. Source: clamd(8), `VERSION` and `INSTREAM`, prefixed by z or n. A
//! refusal is said in clamd's own form, a reply that ends with ERROR.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// clamd looks at no file beyond this, whatever it is told.
pub(super) const STREAM_BYTES: u64 = 2 << 30;
/// For each piece from a task, and each that clamd takes.
const STEP: Duration = Duration::from_secs(30);
/// For a verdict: clamd gives a file up after MaxScanTime, two minutes unless it is told otherwise.
const VERDICT: Duration = Duration::from_secs(180);
/// No command that passes is longer.
const COMMAND_BYTES: usize = 16;
/// A verdict is a line.
const REPLY_BYTES: u64 = 4 << 10;
const PIECE: usize = 64 << 10;
/// How long, and for how many bytes, a task that was answered early is listened to. Closing on unread bytes would reset
/// the connection, and the reset can overtake the answer.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 1 << 20);

/// Where clamd listens: the path of its socket, or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
        match text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
            Some((host, Ok(1..))) if !host.is_empty() => Ok(Self::Tcp(text.to_owned())),
            _ => Err(format!("clamd {text:?} is neither the path of a socket nor host:port")),
        }
    }
}

impl TryFrom<String> for Clamd {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Clamd> for String {
    fn from(clamd: Clamd) -> Self {
        clamd.to_string()
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

/// Why a task got no answer of clamd's own.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("a task may ask clamd for VERSION and INSTREAM, not for {0:?}")]
    Command(String),
    /// In clamd's own words, which callers know.
    #[error("INSTREAM size limit exceeded.")]
    Long,
    #[error("the stream did not go on in time")]
    Slow,
    #[error("the stream broke off")]
    Broken,
    #[error("clamd at {clamd} gives no answer: {source}")]
    Silent { clamd: String, source: io::Error },
}

/// What a task may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Version,
    Stream,
}

/// Answers one connection of a task, which may stream so many bytes.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, clamd: &Clamd, most: u64) {
    let (from, mut to) = tokio::io::split(stream);
    let mut from = BufReader::with_capacity(PIECE, from);
    let command = timeout(STEP, command(&mut from)).await.unwrap_or_default();
    // A reply ends as its command did.
    let end = command.last().copied().filter(|end| *end == b'\n').unwrap_or(0);
    let answer = match asked(&command) {
        Some(asked) => ask(clamd, asked, &command, &mut from, most).await,
        None => Err(Refused::Command(String::from_utf8_lossy(command.trim_ascii_end()).trim_matches('\0').to_owned())),
    };
    let reply = answer.unwrap_or_else(|refused| {
        tracing::warn!(clamd = %clamd, refused = %refused, "a task was refused by the door before clamd");
        let mut reply = format!("{refused} ERROR").into_bytes();
        reply.push(end);
        reply
    });
    let told = async {
        to.write_all(&reply).await?;
        to.shutdown().await?;
        tokio::io::copy(&mut from.take(LINGER.1), &mut tokio::io::sink()).await
    };
    if let Ok(Err(error)) = timeout(LINGER.0, told).await {
        tracing::debug!(%error, "a task did not hear the answer of clamd");
    }
}

/// Up to the first end of a command; what is longer than any that passes is cut there.
async fn command(from: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut command = Vec::new();
    while command.len() < COMMAND_BYTES {
        match from.read_u8().await {
            Ok(byte) => command.push(byte),
            Err(_) => break,
        }
        if matches!(command.last(), Some(0 | b'\n')) {
            break;
        }
    }
    command
}

fn asked(command: &[u8]) -> Option<Asked> {
    match command {
        b"zVERSION\0" | b"nVERSION\n" => Some(Asked::Version),
        b"zINSTREAM\0" | b"nINSTREAM\n" => Some(Asked::Stream),
        _ => None,
    }
}

async fn ask(
    clamd: &Clamd,
    asked: Asked,
    command: &[u8],
    from: &mut (impl AsyncRead + Unpin),
    most: u64,
) -> Result<Vec<u8>, Refused> {
    let silent = |source| Refused::Silent { clamd: clamd.to_string(), source };
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let connected = async {
        let stream: Box<dyn Stream> = match clamd {
            Clamd::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Clamd::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        };
        let (reading, mut writing) = tokio::io::split(stream);
        writing.write_all(command).await?;
        Ok::<_, io::Error>((reading, writing))
    };
    let connected = timeout(STEP, connected).await.unwrap_or_else(|_| Err(late()));
    let (reading, mut writing) = connected.map_err(silent)?;
    let mut reply = std::pin::pin!(reply(reading));
    if asked == Asked::Stream {
        let sent = tokio::select! {
            // It has seen enough, as it does upon a limit of its own.
            early = &mut reply => return early.map_err(silent),
            sent = send(from, &mut writing, most) => sent,
        };
        match sent {
            Ok(()) => {}
            // It takes no more, and has said why.
            Err(Sent::Unwanted) => return timeout(STEP, reply).await.unwrap_or_else(|_| Err(late())).map_err(silent),
            Err(Sent::Refused(refused)) => return Err(refused),
        }
    }
    tokio::select! {
        answered = timeout(VERDICT, reply) => answered.unwrap_or_else(|_| Err(late())).map_err(silent),
        // Nothing follows a question: whoever goes on, or away, wants no answer.
        _ = from.read_u8() => Err(Refused::Broken),
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn reply(from: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    from.take(REPLY_BYTES).read_to_end(&mut reply).await?;
    if reply.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up without a reply"));
    }
    Ok(reply)
}

enum Sent {
    Unwanted,
    Refused(Refused),
}

/// Pieces, each after its length in network order, to the empty one that ends the stream.
async fn send(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), most: u64) -> Result<(), Sent> {
    let mut left = most;
    let mut buffer = vec![0; PIECE];
    loop {
        let length = patient(from.read_u32()).await?;
        left = left.checked_sub(length.into()).ok_or(Sent::Refused(Refused::Long))?;
        pass(&length.to_be_bytes(), to).await?;
        let mut rest = length as usize;
        if rest == 0 {
            return patient(to.flush()).await;
        }
        while rest > 0 {
            let room = rest.min(PIECE);
            let count = patient(from.read(&mut buffer[..room])).await?;
            if count == 0 {
                return Err(Sent::Refused(Refused::Broken));
            }
            pass(&buffer[..count], to).await?;
            rest -= count;
        }
    }
}

/// A task that sends nothing holds one of clamd's few threads.
async fn patient<T>(step: impl Future<Output = io::Result<T>>) -> Result<T, Sent> {
    let done = timeout(STEP, step).await.map_err(|_| Sent::Refused(Refused::Slow))?;
    done.map_err(|_| Sent::Refused(Refused::Broken))
}

async fn pass(bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> Result<(), Sent> {
    match timeout(STEP, to.write_all(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Sent::Unwanted),
        Err(_) => Err(Sent::Refused(Refused::Slow)),
    }
}

/// For fuzzing: whatever a task says, what passes of a stream is whole pieces of what it said, and no more than it may.
pub(crate) fn fuzz(mut bytes: &[u8]) {
    const MOST: u64 = 1 << 10;
    let all = bytes;
    let walked = async {
        let said = command(&mut bytes).await;
        if asked(&said) == Some(Asked::Stream) {
            let mut passed = Vec::new();
            // Why it ended is the task's to hear.
            drop(send(&mut bytes, &mut passed, MOST).await);
            assert!(all[said.len()..].starts_with(&passed));
            // A piece holds a byte at least, beside the four of its length.
            assert!(passed.len() as u64 <= 5 * MOST + 4);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(walked);
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    const ANSWER: &[u8] = b"stream: OK\0";

    /// What a task is answered, and what clamd heard of it, which answers once it has heard the whole question.
    async fn told(says: &[u8], most: u64) -> (String, Vec<u8>) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("clamd.ctl");
        let clamd = Clamd::Unix(path.clone());
        let listener = UnixListener::bind(&path).expect("bound");
        let clamds = async {
            let (mut stream, _) = listener.accept().await.expect("called");
            let mut heard = Vec::new();
            while heard != says && stream.read_buf(&mut heard).await.expect("reads") > 0 {}
            if heard == says {
                stream.write_all(ANSWER).await.expect("answers");
            }
            heard
        };
        let (mut task, inside) = tokio::io::duplex(1 << 20);
        let tasks = async move {
            task.write_all(says).await.expect("sent");
            let mut answer = String::new();
            task.read_to_string(&mut answer).await.expect("answered");
            answer
        };
        let ((), answer, heard) = tokio::join!(serve(inside, &clamd, most), tasks, clamds);
        (answer, heard)
    }

    #[tokio::test]
    async fn a_version_and_a_stream_pass_as_they_were_said() {
        let stream = b"zINSTREAM\0\0\0\0\x03sku\0\0\0\x02,1\0\0\0\0";
        for asked in [&b"zVERSION\0"[..], b"nVERSION\n", stream] {
            let (answer, heard) = told(asked, 5).await;
            assert_eq!((answer.as_bytes(), &heard[..]), (ANSWER, asked));
        }
    }

    #[tokio::test]
    async fn any_other_command_is_named_and_clamd_never_hears_of_it() {
        for asked in [
            "zSHUTDOWN\0",
            "nSHUTDOWN\n",
            "SHUTDOWN",
            "zSCAN /etc/shadow\0",
            "zCONTSCAN /\0",
            "nRELOAD\n",
            "zFILDES\0",
            "zIDSESSION\0",
            "zVERSIONCOMMANDS\0",
            "zVERSION\n",
            "VERSION\n",
            " zVERSION\0",
            "",
        ] {
            let (answer, called) = told_and_hung_up(asked.as_bytes()).await;
            let named: String = asked.trim_end_matches(['\0', '\n']).chars().take(8).collect();
            assert!(answer.contains(&named) && answer.contains("not for"), "{asked:?}: {answer}");
            assert!(answer.trim_end_matches(['\0', '\n']).ends_with(" ERROR"), "{asked:?}: {answer}");
            assert!(!called, "{asked:?}");
        }
    }

    /// What a task is answered that says no more, and whether clamd was called.
    async fn told_and_hung_up(says: &[u8]) -> (String, bool) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("clamd.ctl");
        let listener = UnixListener::bind(&path).expect("bound");
        let (task, inside) = tokio::io::duplex(1 << 10);
        let (mut hears, mut speaks) = tokio::io::split(task);
        speaks.write_all(says).await.expect("sent");
        speaks.shutdown().await.expect("ended");
        let (clamd, mut answer) = (Clamd::Unix(path), String::new());
        tokio::join!(serve(inside, &clamd, 1), async { hears.read_to_string(&mut answer).await.expect("answered") });
        let listener = listener.into_std().expect("a socket");
        (answer, listener.accept().is_ok())
    }

    #[tokio::test]
    async fn a_stream_beyond_the_limit_and_words_behind_one_do_not_reach_clamd() {
        let (answer, heard) = told(b"zINSTREAM\0\0\0\0\x03sku\0\0\0\x03,1,\0\0\0\0", 5).await;
        assert_eq!(answer, "INSTREAM size limit exceeded. ERROR\0", "as clamd says it");
        assert_eq!(heard, b"zINSTREAM\0\0\0\0\x03sku");
        let (answer, heard) = told(b"zINSTREAM\0\0\0\0\x01x\0\0\0\0zSHUTDOWN\0", 5).await;
        assert_eq!(answer, "the stream broke off ERROR\0");
        assert_eq!(heard, b"zINSTREAM\0\0\0\0\x01x\0\0\0\0");
    }

    #[tokio::test]
    async fn a_clamd_that_is_not_there_is_named() {
        let nobody: Clamd = "/nonexistent/clamd.ctl".parse().expect("a path");
        let (mut task, inside) = tokio::io::duplex(1 << 10);
        task.write_all(b"nVERSION\n").await.expect("sent");
        let answer = async move {
            let mut answer = String::new();
            task.read_to_string(&mut answer).await.expect("answered");
            answer
        };
        let ((), answer) = tokio::join!(serve(inside, &nobody, 1), answer);
        assert!(answer.contains("/nonexistent/clamd.ctl") && answer.ends_with(" ERROR\n"), "{answer}");
    }
}
