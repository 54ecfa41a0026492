//! A Cloud Storage notification as Pub/Sub carries it, parsed from attributes and payload.
//!
//! Both payload formats are read: the attributes name the object version, and `JSON_API_V1` payloads are only held
//! against them. Source: <https://cloud.google.com/storage/docs/pubsub-notifications#format>.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{BucketName, Generation, IdError, ObjectName, ObjectRef};
use crate::timestamp::Timestamp;

/// The event type of a new object version.
pub const OBJECT_FINALIZE: &str = "OBJECT_FINALIZE";

/// One `OBJECT_FINALIZE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UploadEvent {
    /// The version that was finalized.
    pub object: ObjectRef,
    /// The generation it replaced, if it replaced one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrote: Option<Generation>,
    /// When Cloud Storage saw it, if the attribute was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<Timestamp>,
}

/// What a notification message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A new object version.
    Finalized(UploadEvent),
    /// A known event of another type (`OBJECT_DELETE`, `OBJECT_ARCHIVE`, `OBJECT_METADATA_UPDATE`): nothing to do.
    OtherEvent(String),
}

/// Why a message is not a notification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadEventError {
    /// An attribute is absent.
    #[error("attribute {0:?} is missing")]
    MissingAttribute(&'static str),
    /// The event type is not one that Cloud Storage sends.
    #[error("event type {0:?} is not one that Cloud Storage sends")]
    ForeignEventType(String),
    /// The payload format is not one that Cloud Storage sends.
    #[error("payload format {0:?} is neither JSON_API_V1 nor NONE")]
    ForeignPayloadFormat(String),
    /// A bucket or object name breaks its rules.
    #[error(transparent)]
    Name(#[from] IdError),
    /// A generation is no number.
    #[error("attribute {attribute:?}: generation {value:?} is not a positive whole number")]
    Generation {
        /// Which attribute.
        attribute: &'static str,
        /// Its value.
        value: String,
    },
    /// The payload cannot be read.
    #[error("payload is not a JSON object resource: {0}")]
    Payload(String),
    /// Payload and attributes speak of different objects.
    #[error("payload names {payload}, the attributes name {attributes}")]
    Contradiction {
        /// What the payload names.
        payload: String,
        /// What the attributes name.
        attributes: String,
    },
}

/// The fields of the JSON API's object resource that are held against the attributes.
#[derive(Deserialize)]
struct ObjectResource {
    bucket: String,
    name: String,
    generation: String,
}

impl Notification {
    /// Reads a message's attributes and payload. Absent `eventTime` is tolerated, contradictions are not.
    pub fn parse(attributes: &BTreeMap<String, String>, payload: &[u8]) -> Result<Self, UploadEventError> {
        let get = |name: &'static str| {
            attributes.get(name).map(String::as_str).ok_or(UploadEventError::MissingAttribute(name))
        };
        match get("eventType")? {
            OBJECT_FINALIZE => {}
            other @ ("OBJECT_DELETE" | "OBJECT_ARCHIVE" | "OBJECT_METADATA_UPDATE") => {
                return Ok(Self::OtherEvent(other.to_owned()));
            }
            foreign => return Err(UploadEventError::ForeignEventType(foreign.to_owned())),
        }
        let object = ObjectRef {
            bucket: BucketName::parse(get("bucketId")?)?,
            name: ObjectName::parse(get("objectId")?)?,
            generation: generation("objectGeneration", get("objectGeneration")?)?,
        };
        match get("payloadFormat")? {
            "NONE" => {}
            "JSON_API_V1" => agrees(payload, &object)?,
            foreign => return Err(UploadEventError::ForeignPayloadFormat(foreign.to_owned())),
        }
        let overwrote =
            attributes.get("overwroteGeneration").map(|value| generation("overwroteGeneration", value)).transpose()?;
        let event_time = attributes.get("eventTime").and_then(|value| Timestamp::parse(value).ok());
        Ok(Self::Finalized(UploadEvent { object, overwrote, event_time }))
    }
}

fn generation(attribute: &'static str, value: &str) -> Result<Generation, UploadEventError> {
    match value.parse::<i64>() {
        Ok(number) if number > 0 => Ok(Generation::new(number)),
        _ => Err(UploadEventError::Generation { attribute, value: value.chars().take(80).collect() }),
    }
}

fn agrees(payload: &[u8], object: &ObjectRef) -> Result<(), UploadEventError> {
    let resource: ObjectResource =
        serde_json::from_slice(payload).map_err(|error| UploadEventError::Payload(error.to_string()))?;
    let same = resource.bucket == object.bucket.as_str()
        && resource.name == object.name.as_str()
        && resource.generation == object.generation.to_string();
    if same {
        return Ok(());
    }
    Err(UploadEventError::Contradiction {
        payload: format!("gs://{}/{}#{}", resource.bucket, resource.name, resource.generation),
        attributes: object.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(changes: &[(&str, Option<&str>)]) -> BTreeMap<String, String> {
        let mut map: BTreeMap<String, String> = [
            ("notificationConfig", "projects/_/buckets/acme-uploads/notificationConfigs/1"),
            ("eventType", "OBJECT_FINALIZE"),
            ("payloadFormat", "NONE"),
            ("bucketId", "acme-uploads"),
            ("objectId", "q3/pos.csv"),
            ("objectGeneration", "17"),
            ("eventTime", "2026-03-01T12:00:00.5Z"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        for (key, value) in changes {
            match value {
                Some(value) => map.insert((*key).to_owned(), (*value).to_owned()),
                None => map.remove(*key),
            };
        }
        map
    }

    fn refusal(changes: &[(&str, Option<&str>)], payload: &[u8]) -> String {
        Notification::parse(&attributes(changes), payload).expect_err("must be refused").to_string()
    }

    #[test]
    fn both_payload_formats_give_the_same_event() {
        let plain = Notification::parse(&attributes(&[]), b"").expect("NONE");
        let body = br#"{"kind":"storage#object","bucket":"acme-uploads","name":"q3/pos.csv","generation":"17"}"#;
        let json = Notification::parse(&attributes(&[("payloadFormat", Some("JSON_API_V1"))]), body).expect("JSON");
        assert_eq!(plain, json);
    }

    #[test]
    fn every_malformed_message_has_a_named_refusal() {
        let json = ("payloadFormat", Some("JSON_API_V1"));
        assert_eq!(refusal(&[("eventType", None)], b""), r#"attribute "eventType" is missing"#);
        assert!(refusal(&[("eventType", Some("BLOB_CREATED"))], b"").contains("BLOB_CREATED"));
        assert!(refusal(&[json], b"{not json").contains("payload is not a JSON object resource"));
        assert!(refusal(&[("objectId", Some("a\nb"))], b"").contains("line break"));
        assert!(refusal(&[("objectGeneration", Some("-1"))], b"").contains("objectGeneration"));
        let foreign = br#"{"bucket":"other","name":"q3/pos.csv","generation":"17"}"#;
        assert!(refusal(&[json], foreign).contains("payload names gs://other/"));
    }

    #[test]
    fn deletions_are_known_and_not_reviews() {
        let parsed = Notification::parse(&attributes(&[("eventType", Some("OBJECT_DELETE"))]), b"");
        assert_eq!(parsed, Ok(Notification::OtherEvent("OBJECT_DELETE".into())));
    }
}
