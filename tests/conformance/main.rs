//! The loopback cloud as Google's own Rust clients see it: the whole of it, over real sockets.

mod bearer;
mod calls;
mod delivery;
mod documented;
mod durability;
mod faults;
mod iam;
mod identity;
mod pubsub;
mod run;
mod storage;
mod topics;
mod world;
