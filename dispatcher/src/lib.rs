//! The dispatcher: from an upload to a job of that tenant, and from its outcome to one completion event.
//!
//! ```text
//! intake ─► validate ─► pack (close, seal) ─► ledger ─► schedule (fair) ─► launch ─► Cloud Run Job of THAT tenant
//!    ▲                                          ▲                                        │
//!    └── uploads, review-requests, outcomes     └── completion ◄── outcome object ◄──────┘
//!                                   reconcile: no input, the same arrows
//! ```
//! Events are hints, the bucket is the truth. Refuses the bytes of uploads: it may list them and not read them.

pub mod age;
pub mod api;
pub mod backlog;
pub mod collect;
pub mod completion;
pub mod completion_log;
pub mod config;
pub mod dead_letters;
pub mod desk;
pub mod drive;
pub mod explain;
pub mod flight;
pub mod flood;
pub mod fuzz;
pub mod intake;
pub mod launch;
pub mod leadership;
pub mod ledger;
pub mod limbo;
pub mod pace;
pub mod pack;
pub mod place;
pub mod reconcile;
pub mod registry_file;
pub mod replay;
pub mod schedule;
mod serve;
pub mod validate;

use carrel_schemas::timestamp::Timestamp;

pub use serve::main;

/// The one place that reads the clock; everything pure takes `now`.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    text
}
