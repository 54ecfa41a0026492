//! How long things are believed and waited for, and how much is held.
//!
//! Constants of the service; a test shortens them, no command line does.

use std::time::Duration;

/// The bounds of one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long one call of a reader may wait before it fails with `EIO`.
    pub answer_within: Duration,
    /// How long what is known of a name is believed; gcsfuse's default.
    pub believe_present: Duration,
    /// How long it is believed that there is no such name; gcsfuse's default.
    pub believe_absent: Duration,
    /// Entries of listings, and names looked up one by one, that are remembered; about 150 bytes each.
    pub remembered: usize,
    /// Inodes from which on the kernel is asked to forget the oldest.
    pub inodes: usize,
    /// Bytes fetched ahead of all readers together.
    pub ahead_bytes: usize,
    /// Bytes on their way to readers that wait for them.
    pub demand_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer_within: Duration::from_secs(30),
            believe_present: Duration::from_secs(60),
            believe_absent: Duration::from_secs(5),
            remembered: 200_000,
            inodes: 200_000,
            ahead_bytes: 64 << 20,
            demand_bytes: 32 << 20,
        }
    }
}
