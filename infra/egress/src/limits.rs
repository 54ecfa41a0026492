//! What one room may use of its way out. The bounds are the room's, not the tenant's: two rooms have twice as much.

use std::time::Duration;

/// Bounds of one room's proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once; the next one is refused, not queued.
    pub connections: usize,
    /// Within what time a request's head must be complete, and after it a ClientHello.
    pub head: Duration,
    /// Within what time a host must be resolved and reached, and after it must answer a ClientHello.
    pub open: Duration,
    /// After what time without a byte in either direction a tunnel is closed.
    pub idle: Duration,
    /// Bytes through one connection, both directions together.
    pub connection_bytes: u64,
    /// Bytes through all connections of the room, both directions together.
    pub room_bytes: u64,
    /// How long tunnels may go on once the proxy was told to finish.
    pub grace: Duration,
}

impl Default for Limits {
    /// Ample for calls of an API and a few packages, short for carrying a bucket away. An answer of a model may think
    /// for minutes without a byte, hence the long idle time. Two seconds of grace are a fifth of what Cloud Run leaves
    /// between SIGTERM and SIGKILL.
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            open: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            connection_bytes: 256 << 20,
            room_bytes: 1 << 30,
            grace: Duration::from_secs(2),
        }
    }
}
