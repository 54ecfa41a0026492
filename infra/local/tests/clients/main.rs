//! The loopback cloud as Google's own Rust clients see it: the whole of it, over real sockets.

mod identity;
mod storage;
mod world;
