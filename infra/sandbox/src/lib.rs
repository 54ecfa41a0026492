//! A command in a room: what it sees, whom it may talk to, what it may use; built by a tier, watched to its end.
//!
//! ```text
//! main ─ enter ─► launcher (small, one thread) ─ a room: its first process ─ the command and whatever it starts
//!   └─ run ─ plan ─────────┘                        │
//!   ◄─ sockets, volume, directories ────────────────┘
//! ```
//! Owns all `unsafe` code of the project. Guaranteed in every tier: descriptors 0-2 only, an environment of what was
//! asked, limits, no new privileges, a system call filter, and that nothing outlives the room, whoever is killed. What
//! more a tier gives is said at [`Tier`]; a machine that cannot give it is told so by name, never served with less.

mod cgroup;
mod ended;
mod inherit;
mod jail;
mod launcher;
mod lines;
mod messages;
mod oci;
mod platform;
mod probe;
mod ranges;
mod room;
mod running;
mod sample;
mod seccomp;
mod strays;
mod supervise;
mod sys;
mod tier;
mod watched;
mod wire;

pub use ended::{Ended, Exit, LimitHit, Used};
pub use inherit::{inherited, pass};
pub use launcher::{enter, launcher_gone};
pub use platform::probe_cloud_run;
pub use probe::{Missing, probe, probe_held, probe_memory, probe_volume};
pub use room::{Command, Entry, Limits, Network, PlanError, Profile, Room, USER};
pub use running::{Ending, Handed, Running, StartError, start};
pub use supervise::{Finished, Hearing, run};
pub use tier::{Runtime, Tier, TierError};
pub use watched::Watched;
