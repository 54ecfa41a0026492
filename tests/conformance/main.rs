//! The loopback cloud as Google's own Rust clients see it: the whole of it, over real sockets.

mod bearer;
mod buckets;
mod calls;
mod clients;
mod delivery;
mod documented;
mod durability;
mod faults;
mod http;
mod iam;
mod identity;
mod jobs;
mod objects;
mod permissions;
mod pubsub;
mod run;
mod served;
mod storage;
mod topics;
mod uploads;
mod world;
