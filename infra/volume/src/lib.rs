//! A tenant's bucket as a read-only filesystem, served over FUSE by a process of its own.
//!
//! ```text
//!  kernel ─► filesystem ─┬─► tree ──► names (what is known, how long) ──► listings of the bucket
//!                        ├─► nodes (inode = one generation of one object)
//!                        └─► file ─┬► window (what to fetch ahead) ────► ranges of the generation
//!                                  └► siblings (small files likely next)
//! ```
//! The semantics are gcsfuse's: directories are prefixes; an open handle keeps its generation or gets `ESTALE`, a new
//! open may see a new version; what is known of a name is believed for 60 s, that there is none for 5 s. An inode
//! stands for one generation, so the kernel's page cache never mixes two. Refused: every write (`EROFS`), and names
//! that no directory can hold: an empty component (`a//b`), `.`, `..`, one longer than 255 bytes; of an object `a`
//! beside objects under `a/` the directory is shown and the object is not. No call waits longer than
//! [`Limits::answer_within`] before it fails with `EIO`.

mod ahead;
mod args;
mod attributes;
mod budget;
mod entry;
mod fail;
mod file;
mod filesystem;
mod handles;
mod limits;
mod listing;
mod lru;
mod names;
mod nodes;
mod serve;
mod shared;
mod siblings;
mod tree;
mod trim;
mod window;

pub use filesystem::Volume;
pub use limits::Limits;
pub use serve::{Mountpoint, ServeError, Served, main, serve};
