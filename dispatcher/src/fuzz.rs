//! Parsers of hostile bytes in this crate, as functions over bytes: for fuzzing, and for nothing else.
//!
//! A target returns on any bytes at all, soon and in bounded memory, whatever it makes of them.

use std::collections::BTreeMap;

use carrel_schemas::claim::{Claim, ClaimHolder};
use carrel_schemas::cloud_event::EventContext;
use carrel_schemas::completion::{Completion, OUTCOME_WRITTEN, OutcomeWritten};
use carrel_schemas::ids::BucketName;

use crate::completion::parse;
use crate::completion_log::Cursor;
use crate::ledger::ReviewRecord;

/// What outcomes are held against.
const RECORD: &str = r#"{
    "schema": 1, "review": "rv_00000000000000000000000000000000", "tenant": "acme", "pack": "q3", "revision": 1,
    "closed_by": "marker", "files": 1, "opened_at": "2026-01-01T00:00:00Z", "epoch": 1, "attempts": 1,
    "state": { "kind": "queued", "not_before": "2026-01-01T00:00:00Z" }, "writer": "00000000000000000000000000000000"
}"#;

/// An outcome, which lies where a tenant's worker writes: what passes can be told.
pub fn outcome(bytes: &[u8]) {
    let record: ReviewRecord = serde_json::from_str(RECORD).expect("a record");
    match parse(bytes, &record) {
        Ok(outcome) => {
            let completion = Completion::of(&outcome, BucketName::parse("acme-outputs").expect("a name"));
            assert_eq!((&completion.tenant, &completion.review), (&record.tenant, &record.review));
            assert!(!completion.attributes().is_empty());
            serde_json::to_vec(&completion).expect("a completion is plain JSON");
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

/// A claim, which lies there too.
pub fn claim(bytes: &[u8]) {
    if let Ok(Claim { holder: ClaimHolder::Execution { execution }, .. }) = serde_json::from_slice(bytes) {
        assert!(execution.as_str().starts_with(execution.job().as_str()));
    }
}

/// A worker's wake-up: its attributes, and its data.
pub fn wake_up(bytes: &[u8]) {
    let attributes: BTreeMap<String, String> = serde_json::from_slice(bytes).unwrap_or_default();
    if let Err(error) = EventContext::parse(&attributes, OUTCOME_WRITTEN) {
        assert!(!error.to_string().is_empty());
    }
    if let Err(error) = serde_json::from_slice::<OutcomeWritten>(bytes) {
        assert!(!error.to_string().is_empty());
    }
}

/// Where a reader of completions says it stands: what passes means the same when it is sent again.
pub fn cursor(bytes: &[u8]) {
    match Cursor::parse(&String::from_utf8_lossy(bytes)) {
        Ok(cursor) => assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor)),
        Err(error) => assert!(error.to_string().len() < 1000),
    }
}
