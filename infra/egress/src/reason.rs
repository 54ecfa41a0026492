//! How a connection ended, for the room, the log and the report.
//!
//! Owns the translation of every operation's faults into a verdict and, where the room still waits for an answer, a
//! status. Refuses detail to the room: it hears what it did wrong, not which addresses the outside has.

use crate::head::HeadFault;
use crate::hello::HelloFault;
use crate::name::NameFault;
use crate::tunnel::End;
use crate::upstream::OpenFault;

/// What was decided about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The listed host was reached; bytes passed.
    Allowed,
    /// The room asked for what it may not have.
    Denied,
    /// The room may, and the outside did not answer.
    Failed,
}

impl Verdict {
    /// The word for logs and reports.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Reason {
    /// The request.
    #[error("{0}")]
    Head(HeadFault),
    /// The policy.
    #[error("the name is not on the room's allow-list")]
    NotListed,
    /// Too many at once.
    #[error("as many connections are open as the room may have; close one and try again")]
    Busy,
    /// Nothing left to send.
    #[error("the room has used all bytes that it may send and receive")]
    Spent,
    /// The way to the host.
    #[error("{0}")]
    Open(OpenFault),
    /// The first bytes of the tunnel.
    #[error("{0}")]
    Hello(HelloFault),
    /// The tunnel.
    #[error("{0}")]
    Ended(End),
    /// The proxy finished before the tunnel was open.
    #[error("the proxy finished before the tunnel was open")]
    Finished,
}

impl Reason {
    /// What was decided.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Head(_) | Self::NotListed | Self::Busy | Self::Spent | Self::Hello(_) => Verdict::Denied,
            Self::Open(OpenFault::NotPublic(_) | OpenFault::HopDenied) => Verdict::Denied,
            Self::Open(OpenFault::NotResolved | OpenFault::Unreachable | OpenFault::Slow) => Verdict::Failed,
            Self::Open(OpenFault::Hop | OpenFault::HopFailed(_)) | Self::Finished => Verdict::Failed,
            Self::Ended(End::Again(_)) => Verdict::Denied,
            Self::Ended(_) => Verdict::Allowed,
        }
    }

    /// The status line's code and phrase; `None` once the tunnel is open, or nobody is left to read it.
    pub(crate) fn status(&self) -> Option<&'static str> {
        match self {
            Self::Head(HeadFault::NotHttp | HeadFault::Target) => Some("400 Bad Request"),
            Self::Head(HeadFault::NotConnect) => Some("405 Method Not Allowed"),
            Self::Head(HeadFault::Name(NameFault::Address) | HeadFault::Port) => Some("403 Forbidden"),
            Self::Head(HeadFault::Name(_)) => Some("400 Bad Request"),
            Self::Head(HeadFault::Long) => Some("431 Request Header Fields Too Large"),
            Self::Head(HeadFault::Slow) => Some("408 Request Timeout"),
            Self::NotListed | Self::Spent => Some("403 Forbidden"),
            Self::Busy => Some("429 Too Many Requests"),
            Self::Open(OpenFault::NotPublic(_) | OpenFault::HopDenied) => Some("403 Forbidden"),
            Self::Open(OpenFault::NotResolved | OpenFault::Unreachable) => Some("502 Bad Gateway"),
            Self::Open(OpenFault::Hop | OpenFault::HopFailed(_)) => Some("502 Bad Gateway"),
            Self::Open(OpenFault::Slow) => Some("504 Gateway Timeout"),
            Self::Head(HeadFault::Cut) | Self::Hello(_) | Self::Ended(_) | Self::Finished => None,
        }
    }

    /// The whole answer to a request that opens nothing.
    pub(crate) fn answer(&self) -> Option<String> {
        let status = self.status()?;
        let line = match self {
            // Which private address a name has is the outside's business.
            Self::Open(OpenFault::NotPublic(_)) => "egress: the name has no public address\n".to_owned(),
            _ => format!("egress: {self}\n"),
        };
        let length = line.len();
        let fields =
            format!("content-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\nconnection: close");
        Some(format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n{line}"))
    }
}
