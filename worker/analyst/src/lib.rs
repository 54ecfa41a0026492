//! The built-in deterministic agent: reads a pack's files, states findings with evidence, writes the deck.
//!
//! A process under the agent contract, started as `analyst REQUEST.json`. Refuses network, clock and randomness: the
//! same inputs give byte-identical `findings.json` and `deck.html`. Events need a time, which `main.rs` passes in.
//!
//! ```text
//! request -> load (ingest) -> frames -> roles -> checks -> ranked findings -> deck.html, appendix.xlsx
//! ```

mod appendix;
mod calendar;
mod chart;
mod checks;
mod deck;
mod frame;
mod html;
mod load;
mod pack;
mod review;
mod role;
mod run;
mod state;

pub use frame::{Column, Frame, FrameSource, Values};
pub use pack::Pack;
pub use review::{Review, review};
pub use role::Role;
pub use run::{main, run};
