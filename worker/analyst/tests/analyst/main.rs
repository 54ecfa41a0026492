//! The agent as the worker runs it: files in; findings, deck and appendix out.

mod any_pack;
mod frames;
mod left;
mod planted;
mod real_data;
mod truth;
