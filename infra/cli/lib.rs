//! The command line: starts the fleet on one machine, and speaks to it.
//!
//! Owns what people type and read. Every part of the fleet is this same binary, started again as a process; in the
//! cloud the images carry the small binaries instead. Refuses product logic: it talks to the parts over their wires.

pub mod args;
pub mod client;
mod cloud;
mod demo;
mod directory;
pub mod fleet;
mod internal;
mod interrupt;
pub mod plan;
mod replay;
mod rooms;
mod run;
mod shown;
mod up;
pub mod upload;

pub use run::main;
