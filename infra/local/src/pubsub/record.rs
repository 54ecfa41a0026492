//! What is kept of a topic, a subscription and a snapshot, and what may be asked of them: Google's limits, in one place.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tonic::Status;

use super::core::{Backoff, Micros, Terms};
use super::filter::Filter;
use super::micros;
use super::proto::{DeadLetterPolicy, ExpirationPolicy, RetryPolicy, Snapshot, Subscription, Topic, subscription};

const DAY: u64 = 24 * 3600;
/// How long messages may be kept, seconds.
const RETENTION: RangeInclusive<u64> = 600..=31 * DAY;
/// How long a snapshot is kept, less the age of the oldest message in it.
pub(super) const SNAPSHOT_LIFE: u64 = 7 * DAY;
const BACKOFF: RangeInclusive<u64> = 0..=600;

/// A topic as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct TopicRecord {
    pub(crate) labels: BTreeMap<String, String>,
    /// Seconds for which it keeps every message.
    pub(crate) retention: Option<u64>,
}

/// A subscription as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubscriptionRecord {
    /// `projects/P/topics/T`.
    pub(crate) topic: String,
    /// Seconds.
    pub(crate) ack_deadline: u32,
    /// `projects/P/topics/T` and the number of deliveries before that.
    pub(crate) dead_letter: Option<(String, u32)>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// As it was written; empty is none.
    #[serde(default)]
    pub(crate) filter: String,
    #[serde(default)]
    pub(crate) ordered: bool,
    #[serde(default)]
    pub(crate) backoff: Option<Backoff>,
    #[serde(default)]
    pub(crate) exactly_once: bool,
    /// Seconds.
    #[serde(default = "a_week")]
    pub(crate) retention: u64,
    #[serde(default)]
    pub(crate) retain_acked: bool,
    #[serde(default)]
    pub(crate) detached: bool,
    /// It said so; none expires here.
    #[serde(default)]
    pub(crate) never_expires: bool,
}

/// A snapshot as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub(crate) topic: String,
    pub(crate) expires: Micros,
    pub(crate) labels: BTreeMap<String, String>,
    /// Of the subscription it was taken of: what it drops is not kept for the snapshot either.
    pub(crate) filter: String,
}

fn a_week() -> u64 {
    7 * DAY
}

fn seconds(duration: &prost_types::Duration) -> u64 {
    u64::try_from(duration.seconds).unwrap_or(0)
}

fn duration(seconds: u64) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

fn within(what: &str, duration: &prost_types::Duration, limits: &RangeInclusive<u64>) -> Result<u64, Status> {
    let found = seconds(duration);
    if limits.contains(&found) && duration.seconds >= 0 && (0..1_000_000_000).contains(&duration.nanos) {
        return Ok(found);
    }
    let (from, to) = (limits.start(), limits.end());
    Err(Status::invalid_argument(format!("{what} must be {from} to {to} seconds")))
}

pub(super) fn ack_deadline(seconds: i32) -> Result<u32, Status> {
    match seconds {
        0 => Ok(10),
        10..=600 => Ok(seconds.unsigned_abs()),
        _ => Err(Status::invalid_argument("ack_deadline_seconds must be 10 to 600")),
    }
}

fn dead_letter(policy: Option<&DeadLetterPolicy>) -> Result<Option<(String, u32)>, Status> {
    let Some(policy) = policy else { return Ok(None) };
    well_named(&policy.dead_letter_topic, "topics")?;
    match policy.max_delivery_attempts {
        0 => Ok(Some((policy.dead_letter_topic.clone(), 5))),
        attempts @ 5..=100 => Ok(Some((policy.dead_letter_topic.clone(), attempts.unsigned_abs()))),
        _ => Err(Status::invalid_argument("max_delivery_attempts must be 5 to 100")),
    }
}

fn backoff(policy: Option<&RetryPolicy>) -> Result<Option<Backoff>, Status> {
    let Some(policy) = policy else { return Ok(None) };
    let part = |what: &str, part: Option<&prost_types::Duration>, default: u64| -> Result<Micros, Status> {
        let Some(part) = part else { return Ok(micros(Duration::from_secs(default))) };
        within(what, part, &BACKOFF)?;
        let exact = Duration::new(seconds(part), part.nanos.unsigned_abs());
        Ok(micros(exact))
    };
    let minimum = part("minimum_backoff", policy.minimum_backoff.as_ref(), 10)?;
    let maximum = part("maximum_backoff", policy.maximum_backoff.as_ref(), 600)?;
    if minimum > maximum {
        return Err(Status::invalid_argument("minimum_backoff must not be longer than maximum_backoff"));
    }
    Ok(Some(Backoff { minimum, maximum }))
}

fn retention(what: &str, wanted: Option<&prost_types::Duration>) -> Result<Option<u64>, Status> {
    wanted.map(|wanted| within(what, wanted, &RETENTION)).transpose()
}

fn never_expires(policy: Option<&ExpirationPolicy>) -> Result<bool, Status> {
    match policy {
        None => Ok(false),
        Some(ExpirationPolicy { ttl: None }) => Ok(true),
        Some(_) => Err(Status::invalid_argument("no subscription expires here: leave out expiration_policy.ttl")),
    }
}

fn sorted(labels: &HashMap<String, String>) -> BTreeMap<String, String> {
    labels.clone().into_iter().collect()
}

/// Refuses a name that is none of its kind.
pub(super) fn well_named(name: &str, kind: &str) -> Result<(), Status> {
    let short = name.strip_prefix("projects/").and_then(|rest| rest.split_once(&format!("/{kind}/")));
    let is_legal = |short: &str| {
        (3..=255).contains(&short.len())
            && short.starts_with(|c: char| c.is_ascii_alphabetic())
            && !short.starts_with("goog")
            && short.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~+%".contains(&b))
    };
    match short {
        Some((project, short)) if !project.is_empty() && is_legal(short) => Ok(()),
        _ => Err(Status::invalid_argument(format!("{name:?} is not projects/P/{kind}/NAME"))),
    }
}

fn not_here(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is not served here"))
}

impl TopicRecord {
    pub(super) fn of(wanted: &Topic) -> Result<Self, Status> {
        if wanted.schema_settings.is_some() {
            return Err(not_here("schema_settings"));
        }
        if !wanted.kms_key_name.is_empty() {
            return Err(not_here("kms_key_name"));
        }
        let retention = retention("message_retention_duration", wanted.message_retention_duration.as_ref())?;
        Ok(Self { labels: sorted(&wanted.labels), retention })
    }

    pub(super) fn change(&mut self, wanted: &Topic, paths: &[String]) -> Result<(), Status> {
        let wanted = Self::of(wanted)?;
        for path in paths {
            match path.as_str() {
                "labels" => self.labels.clone_from(&wanted.labels),
                "message_retention_duration" => self.retention = wanted.retention,
                other => return Err(not_changed(other)),
            }
        }
        any_path(paths)
    }

    pub(super) fn to_proto(&self, name: &str) -> Topic {
        Topic {
            name: name.to_owned(),
            labels: self.labels.clone().into_iter().collect(),
            message_retention_duration: self.retention.map(duration),
            ..Topic::default()
        }
    }
}

fn not_changed(path: &str) -> Status {
    Status::invalid_argument(format!("update mask: {path:?} cannot be changed"))
}

fn any_path(paths: &[String]) -> Result<(), Status> {
    if paths.is_empty() { Err(Status::invalid_argument("update mask: it names nothing to change")) } else { Ok(()) }
}

impl SubscriptionRecord {
    /// A plain subscription.
    pub(super) fn new(topic: String, ack_deadline: u32, dead_letter: Option<(String, u32)>) -> Self {
        Self {
            topic,
            ack_deadline,
            dead_letter,
            labels: BTreeMap::new(),
            filter: String::new(),
            ordered: false,
            backoff: None,
            exactly_once: false,
            retention: a_week(),
            retain_acked: false,
            detached: false,
            never_expires: false,
        }
    }

    pub(super) fn of(wanted: &Subscription) -> Result<Self, Status> {
        if wanted.push_config.as_ref().is_some_and(|push| !push.push_endpoint.is_empty()) {
            return Err(not_here("push_config"));
        }
        if wanted.bigquery_config.is_some() || wanted.cloud_storage_config.is_some() {
            return Err(not_here("export to BigQuery or Cloud Storage"));
        }
        if !wanted.message_transforms.is_empty() {
            return Err(not_here("message_transforms"));
        }
        Filter::parse(&wanted.filter).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let retained = retention("message_retention_duration", wanted.message_retention_duration.as_ref())?;
        Ok(Self {
            labels: sorted(&wanted.labels),
            filter: wanted.filter.clone(),
            ordered: wanted.enable_message_ordering,
            backoff: backoff(wanted.retry_policy.as_ref())?,
            exactly_once: wanted.enable_exactly_once_delivery,
            retention: retained.unwrap_or_else(a_week),
            retain_acked: wanted.retain_acked_messages,
            never_expires: never_expires(wanted.expiration_policy.as_ref())?,
            ..Self::new(
                wanted.topic.clone(),
                ack_deadline(wanted.ack_deadline_seconds)?,
                dead_letter(wanted.dead_letter_policy.as_ref())?,
            )
        })
    }

    pub(super) fn change(&mut self, wanted: &Subscription, paths: &[String]) -> Result<(), Status> {
        let wanted = Self::of(wanted)?;
        for path in paths {
            match path.as_str() {
                "ack_deadline_seconds" => self.ack_deadline = wanted.ack_deadline,
                "dead_letter_policy" => self.dead_letter.clone_from(&wanted.dead_letter),
                "retry_policy" => self.backoff = wanted.backoff,
                "labels" => self.labels.clone_from(&wanted.labels),
                "message_retention_duration" => self.retention = wanted.retention,
                "retain_acked_messages" => self.retain_acked = wanted.retain_acked,
                "enable_exactly_once_delivery" => self.exactly_once = wanted.exactly_once,
                "expiration_policy" => self.never_expires = wanted.never_expires,
                // Only a pull subscription was let through: it is one already.
                "push_config" => {}
                other => return Err(not_changed(other)),
            }
        }
        any_path(paths)
    }

    pub(super) fn to_proto(&self, name: &str, topic_retention: Option<u64>) -> Subscription {
        let dead_letter = |(topic, attempts): &(String, u32)| DeadLetterPolicy {
            dead_letter_topic: topic.clone(),
            max_delivery_attempts: i32::try_from(*attempts).unwrap_or(i32::MAX),
        };
        let part = |micros: Micros| {
            let exact = Duration::from_micros(micros);
            Some(prost_types::Duration {
                nanos: i32::try_from(exact.subsec_nanos()).unwrap_or(0),
                ..duration(exact.as_secs())
            })
        };
        let retry = |backoff: Backoff| RetryPolicy {
            minimum_backoff: part(backoff.minimum),
            maximum_backoff: part(backoff.maximum),
        };
        Subscription {
            name: name.to_owned(),
            topic: self.topic.clone(),
            ack_deadline_seconds: i32::try_from(self.ack_deadline).unwrap_or(i32::MAX),
            retain_acked_messages: self.retain_acked,
            message_retention_duration: Some(duration(self.retention)),
            labels: self.labels.clone().into_iter().collect(),
            enable_message_ordering: self.ordered,
            expiration_policy: self.never_expires.then_some(ExpirationPolicy { ttl: None }),
            filter: self.filter.clone(),
            dead_letter_policy: self.dead_letter.as_ref().map(dead_letter),
            retry_policy: self.backoff.map(retry),
            detached: self.detached,
            enable_exactly_once_delivery: self.exactly_once,
            topic_message_retention_duration: topic_retention.map(duration),
            state: subscription::State::Active.into(),
            ..Subscription::default()
        }
    }

    /// What its deliveries keep to, given that its dead-letter topic exists or not.
    pub(super) fn terms(&self, has_graves: bool) -> Terms {
        let max_attempts = self.dead_letter.as_ref().filter(|_| has_graves).map(|(_, attempts)| *attempts);
        Terms { max_attempts, backoff: self.backoff, exactly_once: self.exactly_once }
    }
}

impl SnapshotRecord {
    pub(super) fn change(&mut self, wanted: &Snapshot, paths: &[String]) -> Result<(), Status> {
        for path in paths {
            match path.as_str() {
                "labels" => self.labels = sorted(&wanted.labels),
                other => return Err(not_changed(other)),
            }
        }
        any_path(paths)
    }

    pub(super) fn to_proto(&self, name: &str) -> Snapshot {
        let seconds = i64::try_from(self.expires / 1_000_000).unwrap_or(i64::MAX);
        let nanos = i32::try_from(self.expires % 1_000_000 * 1_000).unwrap_or(0);
        Snapshot {
            name: name.to_owned(),
            topic: self.topic.clone(),
            expire_time: Some(prost_types::Timestamp { seconds, nanos }),
            labels: self.labels.clone().into_iter().collect(),
        }
    }
}
