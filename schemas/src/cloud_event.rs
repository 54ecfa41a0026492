//! CloudEvents 1.0 in Pub/Sub's binary binding: the context in `ce-` attributes, the data as the message body.
//! Source: <https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md>.

use std::collections::BTreeMap;

use crate::timestamp::Timestamp;

/// The context of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventContext {
    /// Unique per source; consumers deduplicate on it.
    pub id: String,
    /// Who says so, as a URI reference.
    pub source: String,
    /// What happened: `dev.carrel.review.completed.v1`.
    pub kind: String,
    /// What it happened to.
    pub subject: Option<String>,
    /// When.
    pub time: Option<Timestamp>,
}

/// Why attributes are no event of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventContextError {
    /// A required attribute is absent.
    #[error("attribute {0:?} is missing")]
    Missing(&'static str),
    /// Not CloudEvents 1.0.
    #[error("ce-specversion is {0:?}, expected \"1.0\"")]
    SpecVersion(String),
    /// Another kind of event.
    #[error("ce-type is {found:?}, expected {expected:?}")]
    Kind {
        /// What was found.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl EventContext {
    /// The Pub/Sub attributes of this event.
    pub fn to_attributes(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::from([
            ("ce-specversion".to_owned(), "1.0".to_owned()),
            ("ce-id".to_owned(), self.id.clone()),
            ("ce-source".to_owned(), self.source.clone()),
            ("ce-type".to_owned(), self.kind.clone()),
            ("content-type".to_owned(), "application/json".to_owned()),
        ]);
        if let Some(subject) = &self.subject {
            map.insert("ce-subject".to_owned(), subject.clone());
        }
        if let Some(time) = self.time {
            map.insert("ce-time".to_owned(), time.to_string());
        }
        map
    }

    /// Reads the context of an event of `expected` type.
    pub fn parse(attributes: &BTreeMap<String, String>, expected: &'static str) -> Result<Self, EventContextError> {
        let get = |name: &'static str| attributes.get(name).cloned().ok_or(EventContextError::Missing(name));
        let version = get("ce-specversion")?;
        if version != "1.0" {
            return Err(EventContextError::SpecVersion(version));
        }
        let kind = get("ce-type")?;
        if kind != expected {
            return Err(EventContextError::Kind { found: kind, expected });
        }
        Ok(Self {
            id: get("ce-id")?,
            source: get("ce-source")?,
            kind,
            subject: attributes.get("ce-subject").cloned(),
            time: attributes.get("ce-time").and_then(|text| Timestamp::parse(text).ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_carry_the_context_there_and_back() {
        let context = EventContext {
            id: "ev_1".into(),
            source: "//carrel/tenants/acme".into(),
            kind: "dev.carrel.review.completed.v1".into(),
            subject: Some("rv_1".into()),
            time: Timestamp::from_unix_seconds(0),
        };
        let parsed = EventContext::parse(&context.to_attributes(), "dev.carrel.review.completed.v1");
        assert_eq!(parsed, Ok(context.clone()));
        assert!(EventContext::parse(&context.to_attributes(), "another").is_err());
    }
}
