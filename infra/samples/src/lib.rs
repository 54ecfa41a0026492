//! The demo packs, made by code: two invented retailers, each with the dozen files of a line review.
//!
//! Owns the generator and, beside it, the list of every problem planted in the files. The same build makes the same
//! bytes: one seed per pack, no clock, no floating-point functions beyond the four operations. Every file says inside
//! that it is synthetic, where a parser does not trip over it. Refuses real names: retailers, brands, vendors and towns
//! are invented.
//!
//! ```text
//! catalogue (names, seed, what to plant) -> line (items, stores, weeks, sales: the truth) -> files (what was uploaded)
//! ```

mod acme;
mod bolt;
mod books;
mod catalogue;
mod documents;
mod line;
mod pack;
mod pdf;
mod random;
mod tables;

pub use pack::{Planted, SampleFile, SamplePack, packs};

/// What every file says about itself.
pub const LABEL: &str = "Synthetic demo data: retailers, brands, people and figures are invented.";
