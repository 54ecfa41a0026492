//! The loopback cloud: Pub/Sub, Cloud Storage, Cloud Run, IAM and metadata on one machine, over the real wire protocols.
//!
//! It knows Google's nouns and nothing of the product, so that a shared bug cannot hide on both sides. Everything is
//! durable before it is answered, nobody may do what no binding grants, and it misbehaves on demand ([`faults`]).

mod aside;
mod batch;
mod bounded;
pub mod config;
pub mod error;
pub mod faults;
pub mod fuzz;
pub mod iam;
mod idle;
pub mod metadata;
mod misfortune;
pub mod pubsub;
pub mod run;
mod server;
pub mod storage;
pub mod store;

pub use config::CloudConfig;
pub use server::{Cloud, CloudError};
