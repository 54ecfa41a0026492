//! google.pubsub.v1 over JSON: a way in for each call, each of which is the one of gRPC with the same token.
//!
//! `/v1/projects/P/{topics,subscriptions,snapshots}[/NAME[:VERB]]`: PUT creates, GET looks or lists, PATCH updates,
//! DELETE removes; POST publishes, pulls, acknowledges, modifies a deadline, seeks and detaches.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

use super::PubSub;
use super::json::{self as form, MessageBody, SubscriptionBody, TopicBody};
use super::proto::publisher_server::Publisher;
use super::proto::seek_request::Target;
use super::proto::subscriber_server::Subscriber;
use super::proto::*;

/// 10 MB of messages, in base64 and with its names.
const LARGEST_BODY: usize = 20 << 20;

pub(super) fn router(service: PubSub) -> Router {
    Router::new()
        .route("/v1/projects/{project}/{kind}", any(collection))
        .route("/v1/projects/{project}/{kind}/{name}", any(resource))
        .route("/v1/projects/{project}/topics/{name}/{kind}", get(of_topic))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
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
            Code::FailedPrecondition => (StatusCode::BAD_REQUEST, "FAILED_PRECONDITION"),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
            Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Code::AlreadyExists => (StatusCode::CONFLICT, "ALREADY_EXISTS"),
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
            Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        };
        let error = json!({ "code": http.as_u16(), "message": self.0.message(), "status": word });
        (http, Json(json!({ "error": error }))).into_response()
    }
}

type Answer = Result<Json<Value>, Refused>;

fn not_served() -> Refused {
    Status::unimplemented("this cloud does not serve that method").into()
}

/// The message as who sent these headers sends it.
fn asked<T>(headers: &HeaderMap, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let header = headers.get("authorization").and_then(|value| value.to_str().ok());
    if let Some(value) = header.and_then(|value| value.parse().ok()) {
        request.metadata_mut().insert("authorization", value);
    }
    request
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PageQuery {
    page_size: i32,
    page_token: String,
}

/// A page of a list, without its empty parts.
fn listed(name: &str, found: Vec<Value>, next: String) -> Json<Value> {
    let mut json = json!({});
    if !found.is_empty() {
        json[name] = json!(found);
    }
    if !next.is_empty() {
        json["nextPageToken"] = json!(next);
    }
    Json(json)
}

async fn collection(
    State(service): State<PubSub>,
    Path((project, kind)): Path<(String, String)>,
    Query(PageQuery { page_size, page_token }): Query<PageQuery>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let project = format!("projects/{project}");
    match (method, kind.as_str()) {
        (Method::GET, "topics") => {
            let request = asked(&headers, ListTopicsRequest { project, page_size, page_token });
            let found = service.list_topics(request).await?.into_inner();
            Ok(listed("topics", found.topics.iter().map(form::topic).collect(), found.next_page_token))
        }
        (Method::GET, "subscriptions") => {
            let request = asked(&headers, ListSubscriptionsRequest { project, page_size, page_token });
            let found = service.list_subscriptions(request).await?.into_inner();
            let list = found.subscriptions.iter().map(form::subscription).collect();
            Ok(listed("subscriptions", list, found.next_page_token))
        }
        (Method::GET, "snapshots") => {
            let request = asked(&headers, ListSnapshotsRequest { project, page_size, page_token });
            let found = service.list_snapshots(request).await?.into_inner();
            Ok(listed("snapshots", found.snapshots.iter().map(form::snapshot).collect(), found.next_page_token))
        }
        _ => Err(not_served()),
    }
}

async fn of_topic(
    State(service): State<PubSub>,
    Path((project, name, kind)): Path<(String, String, String)>,
    Query(PageQuery { page_size, page_token }): Query<PageQuery>,
    headers: HeaderMap,
) -> Answer {
    let topic = format!("projects/{project}/topics/{name}");
    let names = |names: Vec<String>| names.into_iter().map(Value::String).collect();
    match kind.as_str() {
        "subscriptions" => {
            let request = asked(&headers, ListTopicSubscriptionsRequest { topic, page_size, page_token });
            let found = service.list_topic_subscriptions(request).await?.into_inner();
            Ok(listed("subscriptions", names(found.subscriptions), found.next_page_token))
        }
        "snapshots" => {
            let request = asked(&headers, ListTopicSnapshotsRequest { topic, page_size, page_token });
            let found = service.list_topic_snapshots(request).await?.into_inner();
            Ok(listed("snapshots", names(found.snapshots), found.next_page_token))
        }
        _ => Err(not_served()),
    }
}

async fn resource(
    State(service): State<PubSub>,
    Path((project, kind, short)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    // No name holds a colon.
    let (short, verb) = short.split_once(':').unwrap_or((&short, ""));
    let name = format!("projects/{project}/{kind}/{short}");
    match (method, kind.as_str(), verb) {
        (Method::POST, "topics", _) => publish(&service, name, verb, &headers, &body).await,
        (Method::POST, "subscriptions", _) => consume(&service, name, verb, &headers, &body).await,
        (method, "topics", "") => topic(&service, name, method, &headers, &body).await,
        (method, "subscriptions", "") => subscription(&service, name, method, &headers, &body).await,
        (method, "snapshots", "") => snapshot(&service, name, method, &headers, &body).await,
        _ => Err(not_served()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdateTopicBody {
    topic: TopicBody,
    update_mask: String,
}

async fn topic(service: &PubSub, name: String, method: Method, headers: &HeaderMap, body: &[u8]) -> Answer {
    match method {
        Method::PUT => {
            let wanted: TopicBody = form::parse(body)?;
            let made = service.create_topic(asked(headers, wanted.into_proto(name))).await?;
            Ok(Json(form::topic(made.get_ref())))
        }
        Method::GET => {
            let found = service.get_topic(asked(headers, GetTopicRequest { topic: name })).await?;
            Ok(Json(form::topic(found.get_ref())))
        }
        Method::PATCH => {
            let UpdateTopicBody { topic, update_mask } = form::parse(body)?;
            let update_mask = Some(prost_types::FieldMask { paths: form::paths(&update_mask) });
            let update = UpdateTopicRequest { topic: Some(topic.into_proto(name)), update_mask };
            Ok(Json(form::topic(service.update_topic(asked(headers, update)).await?.get_ref())))
        }
        Method::DELETE => {
            service.delete_topic(asked(headers, DeleteTopicRequest { topic: name })).await?;
            Ok(Json(json!({})))
        }
        _ => Err(not_served()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdateSubscriptionBody {
    subscription: SubscriptionBody,
    update_mask: String,
}

async fn subscription(service: &PubSub, name: String, method: Method, headers: &HeaderMap, body: &[u8]) -> Answer {
    match method {
        Method::PUT => {
            let wanted: SubscriptionBody = form::parse(body)?;
            let made = service.create_subscription(asked(headers, wanted.into_proto(name))).await?;
            Ok(Json(form::subscription(made.get_ref())))
        }
        Method::GET => {
            let request = asked(headers, GetSubscriptionRequest { subscription: name });
            Ok(Json(form::subscription(service.get_subscription(request).await?.get_ref())))
        }
        Method::PATCH => {
            let UpdateSubscriptionBody { subscription, update_mask } = form::parse(body)?;
            let update_mask = Some(prost_types::FieldMask { paths: form::paths(&update_mask) });
            let subscription = Some(subscription.into_proto(name));
            let request = asked(headers, UpdateSubscriptionRequest { subscription, update_mask });
            Ok(Json(form::subscription(service.update_subscription(request).await?.get_ref())))
        }
        Method::DELETE => {
            service.delete_subscription(asked(headers, DeleteSubscriptionRequest { subscription: name })).await?;
            Ok(Json(json!({})))
        }
        _ => Err(not_served()),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SnapshotBody {
    subscription: String,
    labels: std::collections::HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdateSnapshotBody {
    snapshot: SnapshotBody,
    update_mask: String,
}

async fn snapshot(service: &PubSub, name: String, method: Method, headers: &HeaderMap, body: &[u8]) -> Answer {
    match method {
        Method::PUT => {
            let SnapshotBody { subscription, labels } = form::parse(body)?;
            let request = asked(headers, CreateSnapshotRequest { name, subscription, labels });
            Ok(Json(form::snapshot(service.create_snapshot(request).await?.get_ref())))
        }
        Method::GET => {
            let found = service.get_snapshot(asked(headers, GetSnapshotRequest { snapshot: name })).await?;
            Ok(Json(form::snapshot(found.get_ref())))
        }
        Method::PATCH => {
            let UpdateSnapshotBody { snapshot, update_mask } = form::parse(body)?;
            let update_mask = Some(prost_types::FieldMask { paths: form::paths(&update_mask) });
            let snapshot = Some(Snapshot { name, labels: snapshot.labels, ..Snapshot::default() });
            let request = asked(headers, UpdateSnapshotRequest { snapshot, update_mask });
            Ok(Json(form::snapshot(service.update_snapshot(request).await?.get_ref())))
        }
        Method::DELETE => {
            service.delete_snapshot(asked(headers, DeleteSnapshotRequest { snapshot: name })).await?;
            Ok(Json(json!({})))
        }
        _ => Err(not_served()),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PublishBody {
    messages: Vec<MessageBody>,
}

async fn publish(service: &PubSub, topic: String, verb: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
    if verb != "publish" {
        return Err(not_served());
    }
    let PublishBody { messages } = form::parse(body)?;
    let messages = messages.into_iter().map(MessageBody::into_proto).collect::<Result<_, _>>()?;
    let published = Publisher::publish(service, asked(headers, PublishRequest { topic, messages })).await?;
    Ok(Json(json!({ "messageIds": published.get_ref().message_ids })))
}

/// What the verbs of a subscription are told.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ConsumeBody {
    max_messages: i32,
    return_immediately: bool,
    ack_ids: Vec<String>,
    ack_deadline_seconds: i32,
    time: Option<String>,
    snapshot: Option<String>,
}

async fn consume(service: &PubSub, subscription: String, verb: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
    let told: ConsumeBody = form::parse(body)?;
    let ConsumeBody { max_messages, return_immediately, ack_ids, ack_deadline_seconds, time, snapshot } = told;
    match verb {
        "pull" => {
            let request = PullRequest { subscription, return_immediately, max_messages };
            let pulled = service.pull(asked(headers, request)).await?;
            let received: Vec<_> = pulled.get_ref().received_messages.iter().map(form::received).collect();
            return Ok(listed("receivedMessages", received, String::new()));
        }
        "acknowledge" => {
            let request = asked(headers, AcknowledgeRequest { subscription, ack_ids });
            Subscriber::acknowledge(service, request).await?;
        }
        "modifyAckDeadline" => {
            let request = ModifyAckDeadlineRequest { subscription, ack_deadline_seconds, ack_ids };
            service.modify_ack_deadline(asked(headers, request)).await?;
        }
        "seek" => {
            let time = time.as_deref().map(form::timestamp).transpose()?.map(Target::Time);
            let target = time.or(snapshot.map(Target::Snapshot));
            service.seek(asked(headers, SeekRequest { subscription, target })).await?;
        }
        "detach" => {
            service.detach_subscription(asked(headers, DetachSubscriptionRequest { subscription })).await?;
        }
        _ => return Err(not_served()),
    }
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_too_much_is_told_so_and_not_that_the_cloud_failed() {
        let refused = Refused(Status::resource_exhausted("too much")).into_response();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    }
}
