//! What every part of the fleet agrees on, as serde types.
//!
//! Owns the words that cross a process boundary: ids, the tenant registry, upload events, review requests, seals,
//! claims, outcomes, the agent's request file and events, findings, completions, dead letters and campaigns of their
//! replay, and the names of the objects that carry them ([`layout`]). JSON Schemas generated from these types lie in `schemas/json/`.
//! Refuses behaviour: no I/O, no clock, no network.

pub mod agent;
pub mod async_api;
pub mod campaign;
pub mod claim;
pub mod cloud_event;
pub mod completion;
pub mod dead_letter;
pub mod findings;
pub mod ids;
pub mod json_schema;
pub mod layout;
pub mod limits;
pub mod outcome;
pub mod registry;
pub mod review_request;
pub mod scan;
pub mod seal;
pub mod timestamp;
pub mod upload_event;
