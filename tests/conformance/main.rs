//! The loopback cloud as Google's own Rust clients see it: the whole of it, over real sockets.

mod buckets;
mod calls;
mod durability;
mod faults;
mod http;
mod iam;
mod identity;
mod objects;
mod pubsub;
mod run;
mod storage;
mod topics;
mod uploads;
mod world;
