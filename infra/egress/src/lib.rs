//! The only way out of a room: what a tenant's programs may reach, and what no list can open.

mod address;
mod name;
mod policy;

pub use address::{Class, classify};
pub use name::{HostName, NameFault};
pub use policy::{EntryFault, Mistake, Policy, PolicyRefused};
