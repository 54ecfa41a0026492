//! Packs: which uploads belong together, when a pack closes, and its seal.
//!
//! Owns the open marker of a pack ([`open`]), the rule that closes it ([`policy`], pure) and the sealing itself
//! ([`seal`]). Refuses the bytes: metadata from listings is all it sees.

pub mod open;
pub mod policy;
pub mod seal;
