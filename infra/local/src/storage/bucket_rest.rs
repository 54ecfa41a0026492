//! The JSON API's routes of buckets: their settings, whom they tell, and who may use them.

use super::bucket::BucketRecord;
use super::name::BucketName;
use super::notify::Notification;
use super::operations::Storage;
use super::params::{Params, header};
use super::refusal::Refusal;
use super::rest::{Answer, json_body};
use axum::extract::{Path, Query, Request, State};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Google's greatest page of buckets.
const MAX_PAGE: usize = 1000;
/// How topics are called here, and only here.
const TOPIC_PREFIX: &str = "//pubsub.googleapis.com/";

/// All routes of buckets.
pub(super) fn router(storage: Storage) -> Router {
    Router::new()
        .route("/storage/v1/b", get(list_buckets).post(create_bucket))
        .route("/storage/v1/b/{bucket}", get(get_bucket).patch(patch_bucket).put(update_bucket).delete(delete_bucket))
        .route("/storage/v1/b/{bucket}/iam", get(get_policy).put(set_policy))
        .route("/storage/v1/b/{bucket}/iam/testPermissions", get(test_permissions))
        .route("/storage/v1/b/{bucket}/notificationConfigs", get(list_notifications).post(add_notification))
        .route("/storage/v1/b/{bucket}/notificationConfigs/{id}", get(get_notification).delete(remove_notification))
        .with_state(storage)
}

async fn object(request: Request, what: &str) -> Result<Map<String, Value>, Refusal> {
    match json_body(request).await? {
        Some(Value::Object(fields)) => Ok(fields),
        _ => Err(Refusal::Invalid(format!("{what} is a JSON object"))),
    }
}

async fn list_buckets(State(storage): State<Storage>, request: Request) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    let project = params.project.ok_or_else(|| Refusal::Invalid("the query must name a project".to_owned()))?;
    let (prefix, after) = (params.prefix.unwrap_or_default(), params.page_token.unwrap_or_default());
    let buckets = storage.list_buckets(&who, &project, &prefix, &after)?;
    let limit = params.max_results.filter(|wanted| (1..MAX_PAGE).contains(wanted)).unwrap_or(MAX_PAGE);
    let page: Vec<_> = buckets.iter().take(limit).collect();
    let items: Vec<Value> = page.iter().map(|bucket| bucket.resource(&storage.0.base)).collect();
    let mut answer = json!({ "kind": "storage#buckets", "items": items });
    if let Some(last) = page.last().filter(|_| buckets.len() > limit) {
        answer["nextPageToken"] = last.name.as_str().into();
    }
    Ok(Json(answer).into_response())
}

async fn create_bucket(State(storage): State<Storage>, request: Request) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    let project = params.project.ok_or_else(|| Refusal::Invalid("the query must name a project".to_owned()))?;
    let fields = object(request, "a bucket").await?;
    let name = BucketName::parse(fields.get("name").and_then(Value::as_str).unwrap_or_default())?;
    let bucket = storage.create_bucket(&who, &project, &name, &fields).await?;
    Ok(Json(bucket.resource(&storage.0.base)).into_response())
}

async fn get_bucket(State(storage): State<Storage>, Path(bucket): Path<String>, request: Request) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    let found = storage.get_bucket(&who, &BucketName::parse(&bucket)?, &params.preconditions())?;
    Ok(Json(found.resource(&storage.0.base)).into_response())
}

async fn patch_bucket(storage: State<Storage>, bucket: Path<String>, request: Request) -> Answer {
    change(storage, bucket, request, false).await
}

async fn update_bucket(storage: State<Storage>, bucket: Path<String>, request: Request) -> Answer {
    change(storage, bucket, request, true).await
}

async fn change(State(storage): State<Storage>, Path(bucket): Path<String>, request: Request, whole: bool) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    let name = BucketName::parse(&bucket)?;
    let fields = object(request, "a bucket").await?;
    let change = move |bucket: &mut BucketRecord| bucket.apply(&fields, whole);
    let changed = storage.update_bucket(&who, &name, params.preconditions(), change).await?;
    Ok(Json(changed.resource(&storage.0.base)).into_response())
}

async fn delete_bucket(State(storage): State<Storage>, Path(bucket): Path<String>, request: Request) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    storage.delete_bucket(&who, &BucketName::parse(&bucket)?, params.preconditions()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// One binding of a policy.
#[derive(Serialize, Deserialize)]
struct Binding {
    role: String,
    #[serde(default)]
    members: BTreeSet<String>,
    /// Refused: a condition would have to be held.
    #[serde(default, skip_serializing)]
    condition: Option<Value>,
}

fn policy(bucket: &str, (policy, version): (BTreeMap<String, BTreeSet<String>>, u64)) -> Value {
    let bindings: Vec<_> =
        policy.into_iter().map(|(role, members)| Binding { role, members, condition: None }).collect();
    json!({
        "kind": "storage#policy",
        "resourceId": format!("projects/_/buckets/{bucket}"),
        "version": 1,
        "etag": version.to_string(),
        "bindings": bindings,
    })
}

async fn get_policy(State(storage): State<Storage>, Path(bucket): Path<String>, request: Request) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let found = storage.policy(&who, &BucketName::parse(&bucket)?)?;
    Ok(Json(policy(&bucket, found)).into_response())
}

async fn set_policy(State(storage): State<Storage>, Path(bucket): Path<String>, request: Request) -> Answer {
    #[derive(Deserialize)]
    struct Policy {
        #[serde(default)]
        bindings: Vec<Binding>,
        #[serde(default)]
        etag: Option<String>,
    }
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let name = BucketName::parse(&bucket)?;
    let Policy { bindings, etag } = serde_json::from_value(object(request, "a policy").await?.into())
        .map_err(|error| Refusal::Invalid(format!("cannot read the policy: {error}")))?;
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Binding { role, members, condition } in bindings {
        if condition.is_some_and(|condition| !condition.is_null()) {
            return Err(Refusal::Invalid("conditions are not served here: bind without one".to_owned()));
        }
        wanted.entry(role).or_default().extend(members);
    }
    let read = etag.map(|etag| etag.parse().map_err(|_| Refusal::PolicyChanged)).transpose()?;
    let set = storage.set_policy(&who, &name, wanted, read).await?;
    Ok(Json(policy(&bucket, set)).into_response())
}

async fn test_permissions(
    State(storage): State<Storage>,
    Path(bucket): Path<String>,
    Query(asked): Query<Vec<(String, String)>>,
    request: Request,
) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let name = BucketName::parse(&bucket)?;
    let mut held = Vec::new();
    for (_, permission) in asked.into_iter().filter(|(key, _)| key == "permissions") {
        if storage.0.holds(&who, &permission, &name)? {
            held.push(permission);
        }
    }
    Ok(Json(json!({ "kind": "storage#testIamPermissionsResponse", "permissions": held })).into_response())
}

/// A notification as the JSON API spells it.
#[derive(Deserialize)]
struct NotificationInput {
    topic: String,
    payload_format: String,
    #[serde(default)]
    event_types: Vec<String>,
    #[serde(default)]
    custom_attributes: BTreeMap<String, String>,
    #[serde(default)]
    object_name_prefix: String,
}

fn notification(storage: &Storage, bucket: &str, id: u64, kept: &Notification) -> Value {
    let mut resource = json!({
        "kind": "storage#notification",
        "id": id.to_string(),
        "selfLink": format!("{}/storage/v1/b/{bucket}/notificationConfigs/{id}", storage.0.base),
        "topic": format!("{TOPIC_PREFIX}{}", kept.topic),
        "payload_format": kept.payload_format(),
        "etag": id.to_string(),
    });
    if !kept.event_types.is_empty() {
        resource["event_types"] = json!(kept.event_types);
    }
    if !kept.custom_attributes.is_empty() {
        resource["custom_attributes"] = json!(kept.custom_attributes);
    }
    if !kept.object_name_prefix.is_empty() {
        resource["object_name_prefix"] = kept.object_name_prefix.as_str().into();
    }
    resource
}

async fn list_notifications(State(storage): State<Storage>, Path(bucket): Path<String>, request: Request) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let all = storage.notifications(&who, &BucketName::parse(&bucket)?)?;
    let items: Vec<_> = all.iter().map(|(id, kept)| notification(&storage, &bucket, *id, kept)).collect();
    Ok(Json(json!({ "kind": "storage#notifications", "items": items })).into_response())
}

async fn add_notification(State(storage): State<Storage>, Path(bucket): Path<String>, request: Request) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let name = BucketName::parse(&bucket)?;
    storage.0.may(&who, "storage.buckets.update", &name)?;
    let input: NotificationInput = serde_json::from_value(object(request, "a notification").await?.into())
        .map_err(|error| Refusal::Invalid(format!("cannot read the notification: {error}")))?;
    let topic = input.topic.strip_prefix(TOPIC_PREFIX).unwrap_or(&input.topic).to_owned();
    // At Google it is the service's own account that must be let publish.
    storage.0.may_on(&who, "pubsub.topics.publish", topic.clone())?;
    if !storage.0.pubsub.has_topic(&topic) {
        return Err(Refusal::NoTopic(topic));
    }
    let payload = match input.payload_format.as_str() {
        "JSON_API_V1" => true,
        "NONE" => false,
        other => return Err(Refusal::Invalid(format!("payload_format {other:?} must be JSON_API_V1 or NONE"))),
    };
    let new = Notification {
        topic,
        event_types: input.event_types,
        payload,
        custom_attributes: input.custom_attributes,
        object_name_prefix: input.object_name_prefix,
        configured: false,
    };
    let id = storage.add_notification(&who, &name, new.clone()).await?;
    Ok(Json(notification(&storage, &bucket, id, &new)).into_response())
}

fn number(bucket: &BucketName, id: &str) -> Result<u64, Refusal> {
    id.parse().map_err(|_| Refusal::NoNotification(format!("{bucket}/notificationConfigs/{id}")))
}

async fn get_notification(
    State(storage): State<Storage>,
    Path((bucket, id)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let name = BucketName::parse(&bucket)?;
    let all = storage.notifications(&who, &name)?;
    let id = number(&name, &id)?;
    let kept = all.get(&id).ok_or_else(|| Refusal::NoNotification(format!("{name}/notificationConfigs/{id}")))?;
    Ok(Json(notification(&storage, &bucket, id, kept)).into_response())
}

async fn remove_notification(
    State(storage): State<Storage>,
    Path((bucket, id)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let name = BucketName::parse(&bucket)?;
    storage.0.may(&who, "storage.buckets.update", &name)?;
    storage.remove_notification(&who, &name, number(&name, &id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
