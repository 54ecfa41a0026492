//! The worker: one attempt at one review of one tenant, from claim to outcome.
//!
//! The itinerary is [`run`]; each stage takes its input by value and returns the next type:
//! `Claimed -> Hydrated -> Scanned -> Reviewed -> Confirmed -> Decision`. Owns the judgement over hostile bytes and a
//! hostile agent. Refuses to parse what it judges: the agent is a child process, started by its command line.

mod announce;
mod case;
mod check;
mod claim;
mod config;
mod deliver;
mod entry;
pub mod fuzz;
mod judge;
mod manifest;
mod outbox;
mod progress;
mod review;
mod room;
mod run;
pub mod scan;
mod volume;

pub use carrel_sandbox::enter;
pub use config::{Config, ConfigError};
pub use entry::main;
pub use run::{End, run};
