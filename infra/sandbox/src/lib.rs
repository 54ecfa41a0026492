//! A command under supervision: its own process group, resource limits, a deadline, and nothing inherited.
//!
//! Owns all `unsafe` code of the project. What is built is tier `none`: the command runs as the same user, sees the
//! same files and the same network; it is bounded, not confined. Guaranteed: descriptors 0-2 only, an empty
//! environment but for what was asked, limits on memory (address space), processor time, file size and open files, no
//! new privileges, SIGKILL to the whole process group at the deadline, on an endless output and on drop, and to the
//! command when the supervising process dies; descendants that left the group are killed when the command ends. Not
//! guaranteed: when the supervisor itself is killed only the command dies with it, not its children; memory is counted
//! per process, not summed over the group.

mod command;
mod ended;
mod inherit;
mod lines;
mod strays;
mod supervise;
mod sys;

pub use command::{Command, Limits};
pub use ended::{Ended, Exit, LimitHit, Used};
pub use inherit::inherited;
pub use supervise::{StartError, run};
