//! Pub/Sub's JSON: what clients send and are answered, to and from the messages of google.pubsub.v1.
//!
//! Unknown fields of a subscription or a topic are refused: one without the setting that was asked for would be another.

use std::collections::HashMap;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Status;

use super::proto::{
    DeadLetterPolicy, Elsewhere, ExpirationPolicy, PubsubMessage, PushConfig, ReceivedMessage, RetryPolicy,
    SchemaSettings, Snapshot, Subscription, Topic,
};

pub(super) fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Status> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Status::invalid_argument(format!("body: {error}")))
}

/// A mask's paths: `ackDeadlineSeconds,labels`.
pub(super) fn paths(mask: &str) -> Vec<String> {
    mask.split(',').filter(|path| !path.is_empty()).map(snake_case).collect()
}

fn snake_case(path: &str) -> String {
    path.chars()
        .flat_map(|c| if c.is_ascii_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] })
        .collect()
}

/// `604800s`, `1.5s`.
#[derive(Clone, Copy)]
struct Span(prost_types::Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom(format!("{text:?} is no duration such as \"600s\""));
        let number = text.strip_suffix('s').ok_or_else(wrong)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        let nanos = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
        Ok(Self(prost_types::Duration { seconds: whole.parse().map_err(|_| wrong())?, nanos }))
    }
}

fn span(duration: &prost_types::Duration) -> String {
    let prost_types::Duration { seconds, nanos } = duration;
    if *nanos == 0 { format!("{seconds}s") } else { format!("{seconds}.{nanos:09}s") }
}

pub(super) fn instant(time: &prost_types::Timestamp) -> String {
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let instant = OffsetDateTime::from_unix_timestamp_nanos(nanos);
    instant.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// A point in time as RFC 3339 writes it.
pub(super) fn timestamp(text: &str) -> Result<prost_types::Timestamp, Status> {
    let at = OffsetDateTime::parse(text, &Rfc3339);
    let at = at.map_err(|_| Status::invalid_argument(format!("{text:?} is no time of RFC 3339")))?;
    let nanos = i32::try_from(at.nanosecond()).unwrap_or(0);
    Ok(prost_types::Timestamp { seconds: at.unix_timestamp(), nanos })
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SubscriptionBody {
    /// The path says it already. Clients that change what they got send this and what else they cannot set.
    #[serde(rename = "name")]
    same_as_path: String,
    pub(super) topic: String,
    push_config: Option<PushBody>,
    ack_deadline_seconds: i32,
    retain_acked_messages: bool,
    message_retention_duration: Option<Span>,
    labels: HashMap<String, String>,
    enable_message_ordering: bool,
    expiration_policy: Option<ExpirationBody>,
    filter: String,
    dead_letter_policy: Option<DeadLetterBody>,
    retry_policy: Option<RetryBody>,
    detached: bool,
    enable_exactly_once_delivery: bool,
    topic_message_retention_duration: Option<Span>,
    state: Value,
    bigquery_config: Option<Value>,
    cloud_storage_config: Option<Value>,
    message_transforms: Vec<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PushBody {
    push_endpoint: String,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct ExpirationBody {
    ttl: Option<Span>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct DeadLetterBody {
    dead_letter_topic: String,
    max_delivery_attempts: i32,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct RetryBody {
    minimum_backoff: Option<Span>,
    maximum_backoff: Option<Span>,
}

impl SubscriptionBody {
    pub(super) fn into_proto(self, name: String) -> Subscription {
        let dead_letter = |body: DeadLetterBody| DeadLetterPolicy {
            dead_letter_topic: body.dead_letter_topic,
            max_delivery_attempts: body.max_delivery_attempts,
        };
        let retry = |body: RetryBody| RetryPolicy {
            minimum_backoff: body.minimum_backoff.map(|span| span.0),
            maximum_backoff: body.maximum_backoff.map(|span| span.0),
        };
        let elsewhere = |body: Option<Value>| body.map(|_| Elsewhere {});
        Subscription {
            name,
            topic: self.topic,
            push_config: self.push_config.map(|push| PushConfig { push_endpoint: push.push_endpoint }),
            ack_deadline_seconds: self.ack_deadline_seconds,
            retain_acked_messages: self.retain_acked_messages,
            message_retention_duration: self.message_retention_duration.map(|span| span.0),
            labels: self.labels,
            enable_message_ordering: self.enable_message_ordering,
            expiration_policy: self.expiration_policy.map(|body| ExpirationPolicy { ttl: body.ttl.map(|span| span.0) }),
            filter: self.filter,
            dead_letter_policy: self.dead_letter_policy.map(dead_letter),
            retry_policy: self.retry_policy.map(retry),
            enable_exactly_once_delivery: self.enable_exactly_once_delivery,
            bigquery_config: elsewhere(self.bigquery_config),
            cloud_storage_config: elsewhere(self.cloud_storage_config),
            message_transforms: self.message_transforms.iter().map(|_| Elsewhere {}).collect(),
            ..Subscription::default()
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TopicBody {
    #[serde(rename = "name")]
    same_as_path: String,
    labels: HashMap<String, String>,
    kms_key_name: String,
    schema_settings: Option<SchemaBody>,
    message_retention_duration: Option<Span>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SchemaBody {
    schema: String,
}

impl TopicBody {
    pub(super) fn into_proto(self, name: String) -> Topic {
        Topic {
            name,
            labels: self.labels,
            kms_key_name: self.kms_key_name,
            schema_settings: self.schema_settings.map(|body| SchemaSettings { schema: body.schema }),
            message_retention_duration: self.message_retention_duration.map(|span| span.0),
        }
    }
}

/// A message to publish.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct MessageBody {
    data: String,
    attributes: HashMap<String, String>,
    ordering_key: String,
}

impl MessageBody {
    pub(super) fn into_proto(self) -> Result<PubsubMessage, Status> {
        let data = STANDARD.decode(&self.data).map_err(|_| Status::invalid_argument("data is not base64"))?;
        Ok(PubsubMessage {
            data: Bytes::from(data),
            attributes: self.attributes,
            ordering_key: self.ordering_key,
            ..PubsubMessage::default()
        })
    }
}

/// An object without the fields that have their default, as Google writes them.
fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let is_default = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
    };
    let fields = fields.into_iter().filter(|(_, value)| !is_default(value));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

pub(super) fn received(received: &ReceivedMessage) -> Value {
    let message = received.message.clone().unwrap_or_default();
    let message = object([
        ("data", json!(STANDARD.encode(&message.data))),
        ("attributes", json!(message.attributes)),
        ("messageId", json!(message.message_id)),
        ("publishTime", json!(message.publish_time.as_ref().map(instant))),
        ("orderingKey", json!(message.ordering_key)),
    ]);
    let attempt = received.delivery_attempt;
    object([("ackId", json!(received.ack_id)), ("message", message), ("deliveryAttempt", json!(attempt))])
}

pub(super) fn topic(topic: &Topic) -> Value {
    object([
        ("name", json!(topic.name)),
        ("labels", json!(topic.labels)),
        ("messageRetentionDuration", json!(topic.message_retention_duration.as_ref().map(span))),
    ])
}

pub(super) fn snapshot(snapshot: &Snapshot) -> Value {
    object([
        ("name", json!(snapshot.name)),
        ("topic", json!(snapshot.topic)),
        ("expireTime", json!(snapshot.expire_time.as_ref().map(instant))),
        ("labels", json!(snapshot.labels)),
    ])
}

pub(super) fn subscription(subscription: &Subscription) -> Value {
    let dead_letter = subscription.dead_letter_policy.as_ref().map(|policy| {
        json!({
            "deadLetterTopic": policy.dead_letter_topic,
            "maxDeliveryAttempts": policy.max_delivery_attempts,
        })
    });
    let retry = subscription.retry_policy.as_ref().map(|policy| {
        json!({
            "minimumBackoff": policy.minimum_backoff.as_ref().map(span),
            "maximumBackoff": policy.maximum_backoff.as_ref().map(span),
        })
    });
    let mut json = object([
        ("name", json!(subscription.name)),
        ("topic", json!(subscription.topic)),
        ("ackDeadlineSeconds", json!(subscription.ack_deadline_seconds)),
        ("retainAckedMessages", json!(subscription.retain_acked_messages)),
        ("messageRetentionDuration", json!(subscription.message_retention_duration.as_ref().map(span))),
        ("labels", json!(subscription.labels)),
        ("enableMessageOrdering", json!(subscription.enable_message_ordering)),
        ("filter", json!(subscription.filter)),
        ("deadLetterPolicy", json!(dead_letter)),
        ("retryPolicy", json!(retry)),
        ("detached", json!(subscription.detached)),
        ("enableExactlyOnceDelivery", json!(subscription.enable_exactly_once_delivery)),
        ("topicMessageRetentionDuration", json!(subscription.topic_message_retention_duration.as_ref().map(span))),
        ("state", json!("ACTIVE")),
    ]);
    // What is never is said by an empty object; every subscription is a pull subscription.
    json["pushConfig"] = json!({});
    if subscription.expiration_policy.is_some() {
        json["expirationPolicy"] = json!({});
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_times_are_read_as_they_are_written() {
        for (text, expected) in [("600s", Some("600s")), ("1.5s", Some("1.500000000s")), ("0s", Some("0s"))] {
            let read: Span = serde_json::from_value(json!(text)).expect("a duration");
            assert_eq!(Some(span(&read.0).as_str()), expected);
        }
        for text in ["600", "s", "1.s2s", "1.0000000001s", "1.-5s", ""] {
            assert!(serde_json::from_value::<Span>(json!(text)).is_err(), "{text}");
        }
        let time = timestamp("2026-01-02T03:04:05.000006Z").expect("a time");
        assert_eq!(instant(&time), "2026-01-02T03:04:05.000006Z");
        assert!(timestamp("yesterday").is_err());
    }
}
