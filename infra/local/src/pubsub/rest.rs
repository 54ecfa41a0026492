//! Topics and subscriptions over REST, as the official clients administer them; the gRPC methods share the deeds.
//!
//! `/v1/projects/P/{topics,subscriptions}[/NAME]`: PUT creates, GET looks or lists, PATCH updates a subscription, DELETE.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::PubSub;
use super::proto::{DeadLetterPolicy, Subscription, Topic};
use super::shelf::{self, SubscriptionRecord};

/// What Google calls the topic of a subscription whose topic was deleted.
const DELETED_TOPIC: &str = "_deleted-topic_";

pub(super) fn router(service: PubSub) -> Router {
    Router::new()
        .route("/v1/projects/{project}/{kind}", any(collection))
        .route("/v1/projects/{project}/{kind}/{name}", any(resource))
        .with_state(service)
}

struct Refused(Status);

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (http, word) = match self.0.code() {
            Code::InvalidArgument => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
            Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Code::AlreadyExists => (StatusCode::CONFLICT, "ALREADY_EXISTS"),
            Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        };
        let error = json!({ "code": http.as_u16(), "message": self.0.message(), "status": word });
        (http, Json(json!({ "error": error }))).into_response()
    }
}

fn header(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization").and_then(|value| value.to_str().ok())
}

async fn collection(
    State(service): State<PubSub>,
    Path((project, kind)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Json<Value>, Refused> {
    let parent = format!("projects/{project}");
    match (method, kind.as_str()) {
        (Method::GET, "topics") => {
            service.allow(header(&headers), "pubsub.topics.list", &parent)?;
            let topics: Vec<_> = service.admin_topics(&parent).iter().map(topic_json).collect();
            Ok(Json(json!({ "topics": topics })))
        }
        (Method::GET, "subscriptions") => {
            service.allow(header(&headers), "pubsub.subscriptions.list", &parent)?;
            let found: Vec<_> = service.admin_subscriptions(&parent).iter().map(subscription_json).collect();
            Ok(Json(json!({ "subscriptions": found })))
        }
        _ => Err(Status::unimplemented("this cloud does not serve that method").into()),
    }
}

async fn resource(
    State(service): State<PubSub>,
    Path((project, kind, short)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let name = format!("projects/{project}/{kind}/{short}");
    let allow = |permission: &str| service.allow(header(&headers), permission, &name);
    match (method, kind.as_str()) {
        (Method::PUT, "topics") => {
            allow("pubsub.topics.create")?;
            service.admin_create_topic(&name).await?;
            Ok(Json(json!({ "name": name })))
        }
        (Method::GET, "topics") => {
            allow("pubsub.topics.get")?;
            Ok(Json(topic_json(&service.admin_get_topic(&name)?)))
        }
        (Method::DELETE, "topics") => {
            allow("pubsub.topics.delete")?;
            service.admin_delete_topic(&name).await?;
            Ok(Json(json!({})))
        }
        (Method::PUT, "subscriptions") => {
            allow("pubsub.subscriptions.create")?;
            let wanted: SubscriptionBody = parse(&body)?;
            service.allow(header(&headers), "pubsub.topics.attachSubscription", &wanted.topic)?;
            let created = service.admin_create_subscription(wanted.into_proto(&name)).await?;
            Ok(Json(subscription_json(&created)))
        }
        (Method::GET, "subscriptions") => {
            allow("pubsub.subscriptions.get")?;
            Ok(Json(subscription_json(&service.admin_get_subscription(&name)?)))
        }
        (Method::PATCH, "subscriptions") => {
            allow("pubsub.subscriptions.update")?;
            let update: UpdateBody = parse(&body)?;
            let paths: Vec<String> = update.update_mask.split(',').map(snake_case).collect();
            let updated = service.admin_update_subscription(update.subscription.into_proto(&name), &paths).await?;
            Ok(Json(subscription_json(&updated)))
        }
        (Method::DELETE, "subscriptions") => {
            allow("pubsub.subscriptions.delete")?;
            service.admin_delete_subscription(&name).await?;
            Ok(Json(json!({})))
        }
        _ => Err(Status::unimplemented("this cloud does not serve that method").into()),
    }
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(body).map_err(|error| Status::invalid_argument(format!("body: {error}")))
}

fn snake_case(path: &str) -> String {
    path.chars()
        .flat_map(|c| if c.is_ascii_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] })
        .collect()
}

/// Unknown fields are refused: a subscription without the filter that was asked for would be another one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SubscriptionBody {
    #[serde(default, rename = "name")]
    #[expect(dead_code, reason = "clients send it, and the path says it already")]
    same_as_path: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    ack_deadline_seconds: i32,
    dead_letter_policy: Option<PolicyBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PolicyBody {
    #[serde(default)]
    dead_letter_topic: String,
    #[serde(default)]
    max_delivery_attempts: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdateBody {
    subscription: SubscriptionBody,
    update_mask: String,
}

impl SubscriptionBody {
    fn into_proto(self, name: &str) -> Subscription {
        let policy = |body: PolicyBody| DeadLetterPolicy {
            dead_letter_topic: body.dead_letter_topic,
            max_delivery_attempts: body.max_delivery_attempts,
        };
        Subscription {
            name: name.to_owned(),
            topic: self.topic,
            ack_deadline_seconds: self.ack_deadline_seconds,
            dead_letter_policy: self.dead_letter_policy.map(policy),
            ..Subscription::default()
        }
    }
}

fn topic_json(topic: &Topic) -> Value {
    json!({ "name": topic.name })
}

fn subscription_json(subscription: &Subscription) -> Value {
    let mut json = json!({
        "name": subscription.name,
        "topic": subscription.topic,
        "ackDeadlineSeconds": subscription.ack_deadline_seconds,
    });
    if let Some(policy) = &subscription.dead_letter_policy {
        json["deadLetterPolicy"] = json!({
            "deadLetterTopic": policy.dead_letter_topic,
            "maxDeliveryAttempts": policy.max_delivery_attempts,
        });
    }
    json
}

fn to_proto(name: &str, record: &SubscriptionRecord) -> Subscription {
    let policy = |(topic, attempts): &(String, u32)| DeadLetterPolicy {
        dead_letter_topic: topic.clone(),
        max_delivery_attempts: i32::try_from(*attempts).unwrap_or(i32::MAX),
    };
    Subscription {
        name: name.to_owned(),
        topic: record.topic.clone(),
        ack_deadline_seconds: i32::try_from(record.ack_deadline).unwrap_or(i32::MAX),
        dead_letter_policy: record.dead_letter.as_ref().map(policy),
        ..Subscription::default()
    }
}

fn ack_deadline(seconds: i32) -> Result<u32, Status> {
    match seconds {
        0 => Ok(10),
        10..=600 => Ok(seconds.unsigned_abs()),
        _ => Err(Status::invalid_argument("ack_deadline_seconds must be 10 to 600")),
    }
}

fn dead_letter(policy: Option<DeadLetterPolicy>) -> Result<Option<(String, u32)>, Status> {
    let Some(policy) = policy else { return Ok(None) };
    match policy.max_delivery_attempts {
        0 => Ok(Some((policy.dead_letter_topic, 5))),
        attempts @ 5..=100 => Ok(Some((policy.dead_letter_topic, attempts.unsigned_abs()))),
        _ => Err(Status::invalid_argument("max_delivery_attempts must be 5 to 100")),
    }
}

fn well_named(name: &str, kind: &str) -> Result<(), Status> {
    let short = name.strip_prefix("projects/").and_then(|rest| rest.split_once(&format!("/{kind}/")));
    let is_legal = |short: &str| {
        (3..=255).contains(&short.len())
            && short.starts_with(|c: char| c.is_ascii_alphabetic())
            && short.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~+%".contains(&b))
    };
    match short {
        Some((project, short)) if !project.is_empty() && is_legal(short) => Ok(()),
        _ => Err(Status::invalid_argument(format!("{name:?} is not projects/P/{kind}/NAME"))),
    }
}

impl PubSub {
    pub(super) async fn admin_create_topic(&self, name: &str) -> Result<(), Status> {
        well_named(name, "topics")?;
        if self.subscriptions_of(name).is_some() {
            return Err(Status::already_exists(format!("Topic already exists (resource={name})")));
        }
        let stored = name.to_owned();
        self.0.store.write(move |txn| shelf::put_topic(txn, &stored)).await?;
        self.0.topics.write().expect("no code panics while it holds the map").entry(name.to_owned()).or_default();
        Ok(())
    }

    pub(super) fn admin_get_topic(&self, name: &str) -> Result<Topic, Status> {
        match self.subscriptions_of(name) {
            Some(_) => Ok(Topic { name: name.to_owned(), ..Topic::default() }),
            None => Err(Status::not_found(format!("Topic not found (resource={name})"))),
        }
    }

    pub(super) fn admin_topics(&self, project: &str) -> Vec<Topic> {
        let topics = self.0.topics.read().expect("no code panics while it holds the map");
        let of_project = topics.keys().filter(|name| name.starts_with(&format!("{project}/")));
        of_project.map(|name| Topic { name: name.clone(), ..Topic::default() }).collect()
    }

    pub(super) async fn admin_delete_topic(&self, name: &str) -> Result<(), Status> {
        self.admin_get_topic(name)?;
        let removed = self.0.topics.write().expect("no code panics while it holds the map").remove(name);
        let without_topic =
            |live: &SubscriptionRecord| SubscriptionRecord { topic: DELETED_TOPIC.into(), ..live.clone() };
        let left = removed.into_iter().flatten().filter_map(|name| self.subscription(&name));
        let left: Vec<_> = left.map(|live| (live.name.clone(), without_topic(&live.record))).collect();
        let (topic, stored) = (name.to_owned(), left.clone());
        self.0
            .store
            .write(move |txn| {
                shelf::remove_topic(txn, &topic)?;
                stored.iter().try_for_each(|(name, record)| shelf::put_subscription(txn, name, record))
            })
            .await?;
        for (name, record) in left {
            self.attach(name, record)?;
        }
        Ok(())
    }

    pub(super) async fn admin_create_subscription(&self, wanted: Subscription) -> Result<Subscription, Status> {
        well_named(&wanted.name, "subscriptions")?;
        self.admin_get_topic(&wanted.topic)?;
        if self.subscription(&wanted.name).is_some() {
            return Err(Status::already_exists(format!("Subscription already exists (resource={})", wanted.name)));
        }
        if wanted.enable_message_ordering || wanted.retry_policy.is_some() {
            return Err(Status::invalid_argument("ordering and retry policies are not served here"));
        }
        let record = SubscriptionRecord {
            topic: wanted.topic,
            ack_deadline: ack_deadline(wanted.ack_deadline_seconds)?,
            dead_letter: dead_letter(wanted.dead_letter_policy)?,
        };
        let (name, stored) = (wanted.name.clone(), record.clone());
        self.0.store.write(move |txn| shelf::put_subscription(txn, &name, &stored)).await?;
        self.attach(wanted.name.clone(), record.clone())?;
        Ok(to_proto(&wanted.name, &record))
    }

    pub(super) fn admin_get_subscription(&self, name: &str) -> Result<Subscription, Status> {
        Ok(to_proto(name, &self.find(name)?.record))
    }

    /// Changes what the mask names; deliveries in hand are given back.
    pub(super) async fn admin_update_subscription(
        &self,
        wanted: Subscription,
        paths: &[String],
    ) -> Result<Subscription, Status> {
        let mut record = self.find(&wanted.name)?.record.clone();
        for path in paths {
            match path.as_str() {
                "ack_deadline_seconds" => record.ack_deadline = ack_deadline(wanted.ack_deadline_seconds)?,
                "dead_letter_policy" => record.dead_letter = dead_letter(wanted.dead_letter_policy.clone())?,
                other => {
                    return Err(Status::invalid_argument(format!("update mask: {other:?} cannot be changed here")));
                }
            }
        }
        let (name, stored) = (wanted.name.clone(), record.clone());
        self.0.store.write(move |txn| shelf::put_subscription(txn, &name, &stored)).await?;
        self.attach(wanted.name.clone(), record.clone())?;
        Ok(to_proto(&wanted.name, &record))
    }

    pub(super) fn admin_subscriptions(&self, project: &str) -> Vec<Subscription> {
        let live = self.0.subscriptions.read().expect("no code panics while it holds the map");
        let of_project = live.values().filter(|live| live.name.starts_with(&format!("{project}/")));
        let mut found: Vec<_> = of_project.map(|live| to_proto(&live.name, &live.record)).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Out of sight first, so that nothing is published to rows that nobody settles.
    pub(super) async fn admin_delete_subscription(&self, name: &str) -> Result<(), Status> {
        let live = self.find(name)?;
        self.detach(&live);
        let stored = name.to_owned();
        Ok(self.0.store.write(move |txn| shelf::remove_subscription(txn, &stored)).await?)
    }
}
