//! The loopback cloud as Google's own Rust clients see it: the whole of it, over real sockets.

mod calls;
mod clients;
mod durability;
mod faults;
mod iam;
mod identity;
mod jobs;
mod permissions;
mod pubsub;
mod run;
mod storage;
mod topics;
mod world;
