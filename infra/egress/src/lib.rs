//! The only way out of a room: a proxy that lets a tenant's programs reach the names on the tenant's list.
//!
//! Runs outside the room. One listener belongs to exactly one room (a socket in the room's own network namespace, or a
//! unix socket mounted into it), so the socket is the identity: whoever in the room asks, and through whomever, is
//! judged by that room's policy, and a header proves nothing.
//!
//! ```text
//! head ─► name ─► listed? ─► resolve once ─► public? ─► dial ─► 200 ─► ClientHello names the same host? ─► bytes
//!  4xx     403      403          502           403       502                     closed                 caps, idle
//! ```
//!
//! Refuses whatever is not `CONNECT name:443 HTTP/1.1` followed by TLS for that very name, also where a host asks for a
//! second ClientHello. Does not see inside TLS: a
//! listed host that serves other sites under one certificate, or whose name servers read the names asked of them
//! (`*.example.org`), remains a way for data to leave. List hosts, not providers.

mod address;
mod budget;
mod connection;
pub mod fuzz;
mod head;
mod hello;
mod ledger;
mod limits;
mod name;
mod policy;
mod reason;
mod resolve;
mod retry;
mod serve;
mod tunnel;
mod upstream;

pub use address::{Class, classify};
pub use head::{Head, HeadFault, parse_head};
pub use hello::HelloFault;
pub use ledger::{Decision, Report};
pub use limits::Limits;
pub use name::{HostName, NameFault};
pub use policy::{EntryFault, Mistake, Policy, PolicyRefused};
pub use reason::{Reason, Verdict};
pub use resolve::Resolver;
pub use serve::{Listener, Running, serve};
pub use tunnel::End;
pub use upstream::{NextHop, OpenFault, Upstream};
