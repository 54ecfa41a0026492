//! Pub/Sub notifications of a bucket: which events go to which topic, and what a message carries.
//!
//! The message is appended in the transaction that changes the object, so neither exists without the other. Attributes
//! and payload are those Google documents for `JSON_API_V1` and `NONE`.

use super::record::{ObjectRecord, rfc3339_micros};
use crate::pubsub::NewMessage;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// New content is live.
    Finalize,
    /// A generation is gone.
    Delete,
    /// Metadata changed.
    MetadataUpdate,
}

/// One event about one generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'r> {
    /// What happened.
    pub(super) kind: EventKind,
    /// To which generation.
    pub(super) record: &'r ObjectRecord,
    /// Finalize: the generation that went. Delete: the generation that came.
    pub(super) other_generation: Option<i64>,
}

/// One notification configuration of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// `projects/P/topics/T`.
    pub topic: String,
    /// Event types to send; empty means all.
    pub event_types: Vec<String>,
    /// Whether the payload is the object's resource.
    pub payload: bool,
}

impl EventKind {
    /// Google's name for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Finalize => "OBJECT_FINALIZE",
            Self::Delete => "OBJECT_DELETE",
            Self::MetadataUpdate => "OBJECT_METADATA_UPDATE",
        }
    }
}

impl Notification {
    /// The message for `event`, unless this configuration does not want it. `number` is its place in the bucket, from 1.
    pub(super) fn message(&self, number: usize, event: &Event<'_>, base: &str, now_us: i64) -> Option<NewMessage> {
        let kind = event.kind.as_str();
        if !self.event_types.is_empty() && !self.event_types.iter().any(|wanted| wanted == kind) {
            return None;
        }
        let record = event.record;
        let mut attributes = BTreeMap::from([
            (
                "notificationConfig".to_owned(),
                format!("projects/_/buckets/{}/notificationConfigs/{number}", record.bucket),
            ),
            ("eventType".to_owned(), kind.to_owned()),
            ("payloadFormat".to_owned(), if self.payload { "JSON_API_V1" } else { "NONE" }.to_owned()),
            ("bucketId".to_owned(), record.bucket.clone()),
            ("objectId".to_owned(), record.name.clone()),
            ("objectGeneration".to_owned(), record.generation.to_string()),
            ("eventTime".to_owned(), rfc3339_micros(now_us)),
        ]);
        if let Some(other) = event.other_generation {
            let key = match event.kind {
                EventKind::Delete => "overwrittenByGeneration",
                EventKind::Finalize | EventKind::MetadataUpdate => "overwroteGeneration",
            };
            attributes.insert(key.to_owned(), other.to_string());
        }
        let data = if self.payload { Bytes::from(record.resource(base).to_string()) } else { Bytes::new() };
        Some(NewMessage { data, attributes, ordering_key: String::new() })
    }
}
