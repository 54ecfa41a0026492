//! The promises of the volume, over real FUSE mounts of the loopback cloud's buckets.
//!
//! Mounting takes root and /dev/fuse. Where either is missing every test says SKIPPED and what is needed.

mod failures;
mod names;
mod process;
mod proxy;
mod reads;
mod refusals;
mod requests;
mod versions;
mod world;
