//! What Carrel promises, held over a whole fleet of real processes on loopback: cloud, dispatcher, workers, agents.
//!
//! Owns nothing that one room can show alone; those tests lie beside the room. Refuses waiting on time: every wait is
//! for something that happens, with a deadline that only a failure reaches.

mod across;
mod agents;
mod bad_input;
mod campaign_effects;
mod cancel;
mod commands;
mod effects;
mod ending;
mod explain;
mod fair;
mod files;
mod fuzz;
mod gate;
mod hostile_files;
mod identity;
mod integrators;
mod journey;
mod leaving;
mod leaving_effects;
mod limbo;
mod line;
mod lost_machines;
mod replay;
mod scanner;
mod steps;
mod storm;
mod suspended;
mod upgrade;
mod world;
