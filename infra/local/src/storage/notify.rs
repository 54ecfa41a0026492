//! Pub/Sub notifications of a bucket: which events go to which topic, and what a message carries.
//!
//! A configuration comes from the cloud's own configuration, at every start, or from a client, and then it stays with the
//! bucket. The message is appended in the transaction that changes the object, so neither exists without the other. Attributes
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
    /// A generation ceased to be live and is kept.
    Archive,
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
    /// Finalize: the generation that went. Archive and delete: the generation that came.
    pub(super) other_generation: Option<i64>,
}

/// Every event type.
pub(super) const EVENT_TYPES: [&str; 4] =
    ["OBJECT_FINALIZE", "OBJECT_ARCHIVE", "OBJECT_DELETE", "OBJECT_METADATA_UPDATE"];

/// One notification configuration of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// `projects/P/topics/T`.
    pub topic: String,
    /// Event types to send; empty means all.
    pub event_types: Vec<String>,
    /// Whether the payload is the object's resource.
    pub payload: bool,
    /// What every message says besides.
    #[serde(default)]
    pub custom_attributes: BTreeMap<String, String>,
    /// Only objects whose names start so.
    #[serde(default)]
    pub object_name_prefix: String,
    /// It is the cloud's own configuration that wants it, not a client.
    #[serde(default)]
    pub configured: bool,
}

impl EventKind {
    /// Google's name for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Finalize => "OBJECT_FINALIZE",
            Self::Archive => "OBJECT_ARCHIVE",
            Self::Delete => "OBJECT_DELETE",
            Self::MetadataUpdate => "OBJECT_METADATA_UPDATE",
        }
    }
}

impl Notification {
    /// What a message's payload is called.
    pub(super) fn payload_format(&self) -> &'static str {
        if self.payload { "JSON_API_V1" } else { "NONE" }
    }

    /// The message for `event`, unless this configuration does not want it. `number` is its id in the bucket.
    pub(super) fn message(&self, number: u64, event: &Event<'_>, base: &str, now_us: i64) -> Option<NewMessage> {
        let kind = event.kind.as_str();
        let record = event.record;
        let wanted = self.event_types.is_empty() || self.event_types.iter().any(|wanted| wanted == kind);
        if !wanted || !record.name.starts_with(&self.object_name_prefix) {
            return None;
        }
        let mut attributes = self.custom_attributes.clone();
        attributes.extend([
            (
                "notificationConfig".to_owned(),
                format!("projects/_/buckets/{}/notificationConfigs/{number}", record.bucket),
            ),
            ("eventType".to_owned(), kind.to_owned()),
            ("payloadFormat".to_owned(), self.payload_format().to_owned()),
            ("bucketId".to_owned(), record.bucket.clone()),
            ("objectId".to_owned(), record.name.clone()),
            ("objectGeneration".to_owned(), record.generation.to_string()),
            ("eventTime".to_owned(), rfc3339_micros(now_us)),
        ]);
        if let Some(other) = event.other_generation {
            let key = match event.kind {
                EventKind::Archive | EventKind::Delete => "overwrittenByGeneration",
                EventKind::Finalize | EventKind::MetadataUpdate => "overwroteGeneration",
            };
            attributes.insert(key.to_owned(), other.to_string());
        }
        let data = if self.payload { Bytes::from(record.resource(base).to_string()) } else { Bytes::new() };
        Some(NewMessage { data, attributes, ordering_key: String::new() })
    }
}
