//! The checks, each over all frames; what one says, it says with evidence.
//!
//! Bounded: a check looks at columns that play a role, never at all pairs of columns.

pub(crate) mod flags;
pub(crate) mod joins;
pub(crate) mod pareto;
pub(crate) mod periods;
pub(crate) mod quality;
pub(crate) mod shelf;
pub(crate) mod totals;
