//! The JSON API's routes of objects but uploads: metadata, content, listings, copies, compositions, changes, deletions.
//!
//! Content is served as it is stored: nothing is decompressed, and a request for several ranges gets the whole.

use super::blobs;
use super::bucket_rest;
use super::checksum::crc32c_text;
use super::derive::Component;
use super::glob::Glob;
use super::listing::Query;
use super::name::{BucketName, ObjectName};
use super::operations::{Source, Storage, Target};
use super::params::{Params, Slice, check_etag, header, slice};
use super::record::{ObjectInput, ObjectRecord, STORAGE_CLASS, Settings};
use super::refusal::Refusal;
use super::upload;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The longest JSON body.
const MAX_JSON_BYTES: usize = 1024 * 1024;

pub(super) type Answer = Result<Response, Refusal>;

/// All routes of the JSON API.
pub(super) fn router(storage: Storage) -> Router {
    Router::new()
        .route("/storage/v1/b/{bucket}/o", get(list_objects))
        .route(
            "/storage/v1/b/{bucket}/o/{object}",
            get(get_object).patch(patch_object).put(update_object).delete(delete_object),
        )
        .route("/storage/v1/b/{bucket}/o/{object}/compose", post(compose_object))
        .route("/storage/v1/b/{bucket}/o/{object}/rewriteTo/b/{to_bucket}/o/{to_object}", post(rewrite_object))
        .route("/storage/v1/b/{bucket}/o/{object}/copyTo/b/{to_bucket}/o/{to_object}", post(copy_object))
        .route("/download/storage/v1/b/{bucket}/o/{object}", get(get_object))
        .route("/upload/storage/v1/b/{bucket}/o", post(upload::post).put(upload::put).delete(upload::cancel))
        .with_state(storage.clone())
        .merge(bucket_rest::router(storage))
}

fn target(bucket: &str, object: &str, params: &Params) -> Result<Target, Refusal> {
    Ok(Target {
        bucket: BucketName::parse(bucket)?,
        name: ObjectName::parse(object)?,
        generation: params.generation,
        conditions: params.preconditions(),
    })
}

pub(super) async fn json_body(request: Request) -> Result<Option<Value>, Refusal> {
    let bytes = axum::body::to_bytes(request.into_body(), MAX_JSON_BYTES)
        .await
        .map_err(|error| Refusal::Invalid(format!("cannot read the request body: {error}")))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Refusal::Invalid(format!("the request body is no JSON: {error}")))
}

async fn list_objects(State(storage): State<Storage>, Path(bucket): Path<String>, request: Request) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    if params.soft_deleted {
        return Err(Refusal::Invalid("softDeleted is not served here: nothing is soft-deleted".to_owned()));
    }
    let glob = params.match_glob.as_deref().map(Glob::parse).transpose();
    let query = Query {
        prefix: params.prefix.unwrap_or_default(),
        delimiter: params.delimiter.unwrap_or_default(),
        start: params.start_offset.unwrap_or_default(),
        end: params.end_offset.unwrap_or_default(),
        include_trailing_delimiter: params.include_trailing_delimiter,
        glob: glob.map_err(|wrong| Refusal::Invalid(format!("matchGlob: {wrong}")))?,
        versions: params.versions,
        page_token: params.page_token.unwrap_or_default(),
        page_size: params.max_results.unwrap_or_default(),
    };
    let page = storage.list(&who, &BucketName::parse(&bucket)?, &query)?;
    let mut answer = json!({ "kind": "storage#objects" });
    if !page.objects.is_empty() {
        answer["items"] = page.objects.iter().map(|r| r.resource(&storage.0.base)).collect();
    }
    if !page.prefixes.is_empty() {
        answer["prefixes"] = page.prefixes.into();
    }
    if !page.next_page_token.is_empty() {
        answer["nextPageToken"] = page.next_page_token.into();
    }
    Ok(Json(answer).into_response())
}

async fn get_object(
    State(storage): State<Storage>,
    Path((bucket, object)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    let target = target(&bucket, &object, &params)?;
    if params.alt.as_deref() == Some("media") {
        let (record, source) = storage.fetch(&who, &target, true)?;
        check_etag(request.headers(), &record.etag())?;
        return content(&record, source, header(request.headers(), "range"));
    }
    let record = storage.get(&who, &target)?;
    check_etag(request.headers(), &record.etag())?;
    Ok(Json(record.resource(&storage.0.base)).into_response())
}

fn content(record: &ObjectRecord, source: Source, range: Option<&str>) -> Answer {
    let part = slice(range, record.size).map_err(|()| Refusal::Range(record.size))?;
    let Slice { start, length } = part.unwrap_or(Slice { start: 0, length: record.size });
    let body = match source {
        Source::Inline(bytes) => {
            let at = |offset: u64| usize::try_from(offset).expect("inline content is small");
            Body::from(bytes.slice(at(start)..at(start + length)))
        }
        Source::File(file) => Body::from_stream(blobs::pieces(file, start..start + length)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let mut put = |name: HeaderName, value: &str| {
        // A value that no header can carry (a line break in metadata) is left out, as its resource still shows it.
        if !value.is_empty()
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(name, value);
        }
    };
    let goog = HeaderName::from_static;
    let settings = &record.settings;
    let content_type =
        if settings.content_type.is_empty() { "application/octet-stream" } else { &settings.content_type };
    put(http::header::CONTENT_TYPE, content_type);
    put(http::header::CONTENT_ENCODING, &settings.content_encoding);
    put(http::header::CONTENT_DISPOSITION, &settings.content_disposition);
    put(http::header::CONTENT_LANGUAGE, &settings.content_language);
    put(
        http::header::CACHE_CONTROL,
        if settings.cache_control.is_empty() { "private, max-age=0" } else { &settings.cache_control },
    );
    put(http::header::CONTENT_LENGTH, &length.to_string());
    put(http::header::ACCEPT_RANGES, "bytes");
    put(http::header::ETAG, &record.etag());
    put(goog("x-goog-generation"), &record.generation.to_string());
    put(goog("x-goog-metageneration"), &record.metageneration.to_string());
    let md5 = record.md5.as_ref().map(|md5| format!(",md5={md5}")).unwrap_or_default();
    put(goog("x-goog-hash"), &format!("crc32c={}{md5}", crc32c_text(record.crc32c)));
    put(goog("x-goog-stored-content-length"), &record.size.to_string());
    let stored_encoding = if settings.content_encoding.is_empty() { "identity" } else { &settings.content_encoding };
    put(goog("x-goog-stored-content-encoding"), stored_encoding);
    put(goog("x-goog-storage-class"), STORAGE_CLASS);
    if let Some(components) = record.components {
        put(goog("x-goog-component-count"), &components.to_string());
    }
    for (key, value) in &settings.metadata {
        if let Ok(name) = HeaderName::try_from(format!("x-goog-meta-{key}")) {
            put(name, value);
        }
    }
    if part.is_some() {
        put(http::header::CONTENT_RANGE, &format!("bytes {start}-{}/{}", start + length - 1, record.size));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

async fn delete_object(
    State(storage): State<Storage>,
    Path((bucket, object)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    storage.delete(who, target(&bucket, &object, &params)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn patch_object(
    State(storage): State<Storage>,
    Path((bucket, object)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    let target = target(&bucket, &object, &params)?;
    let Some(Value::Object(patch)) = json_body(request).await? else {
        return Err(Refusal::Invalid("a patch is a JSON object with the fields to change".to_owned()));
    };
    // Tried on empty settings first, so that nothing can fail inside the transaction.
    merged(&Settings::default(), &patch)
        .map_err(|error| Refusal::Invalid(format!("cannot apply the patch: {error}")))?;
    let edit = move |settings: &mut Settings| {
        if let Ok(changed) = merged(settings, &patch) {
            *settings = changed;
        }
    };
    Ok(Json(storage.patch(who, target, edit).await?.resource(&storage.0.base)).into_response())
}

async fn update_object(
    State(storage): State<Storage>,
    Path((bucket, object)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    let target = target(&bucket, &object, &params)?;
    let whole = json_body(request).await?.ok_or_else(|| Refusal::Invalid("an update is a JSON object".to_owned()))?;
    let ObjectInput { settings: new, .. } = input(whole)?;
    let edit = move |settings: &mut Settings| settings.clone_from(&new);
    Ok(Json(storage.patch(who, target, edit).await?.resource(&storage.0.base)).into_response())
}

fn input(fields: Value) -> Result<ObjectInput, Refusal> {
    serde_json::from_value(fields)
        .map_err(|error| Refusal::Invalid(format!("cannot read the object metadata: {error}")))
}

/// The body of a composition.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Composition {
    #[serde(default)]
    source_objects: Vec<SourceObject>,
    #[serde(default)]
    destination: ObjectInput,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SourceObject {
    name: String,
    #[serde(default)]
    generation: Option<Number>,
    #[serde(default)]
    object_preconditions: Option<SourcePreconditions>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SourcePreconditions {
    #[serde(default)]
    if_generation_match: Option<Number>,
}

/// A 64-bit number: JSON's clients write it as a string, some as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(i64),
    Text(String),
}

impl Number {
    fn read(self) -> Result<i64, Refusal> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Text(text) => text.parse().map_err(|_| Refusal::Invalid(format!("{text:?} is no generation"))),
        }
    }
}

async fn compose_object(
    State(storage): State<Storage>,
    Path((bucket, object)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    let target = Target { generation: None, ..target(&bucket, &object, &params)? };
    let body = json_body(request).await?.unwrap_or_else(|| json!({}));
    let Composition { source_objects, destination } = serde_json::from_value(body)
        .map_err(|error| Refusal::Invalid(format!("cannot read the composition: {error}")))?;
    let component = |SourceObject { name, generation, object_preconditions }| {
        let generation_match =
            object_preconditions.and_then(|conditions: SourcePreconditions| conditions.if_generation_match);
        Ok(Component {
            name,
            generation: generation.map(Number::read).transpose()?,
            generation_match: generation_match.map(Number::read).transpose()?,
        })
    };
    let components = source_objects.into_iter().map(component).collect::<Result<_, Refusal>>()?;
    let record = storage.compose(who, target, components, destination.settings).await?;
    Ok(Json(record.resource(&storage.0.base)).into_response())
}

/// JSON merge patch (RFC 7396) of the settings: null clears, a map of metadata is merged key by key.
fn merged(settings: &Settings, patch: &Map<String, Value>) -> Result<Settings, serde_json::Error> {
    let mut whole = serde_json::to_value(settings)?;
    let fields = whole.as_object_mut().expect("settings are a JSON object");
    for (key, value) in patch {
        match (key.as_str(), value) {
            (_, Value::Null) => {
                fields.remove(key);
            }
            ("metadata", Value::Object(changes)) => {
                let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
                let metadata = metadata.as_object_mut().expect("metadata is a JSON object");
                for (key, value) in changes {
                    if value.is_null() {
                        metadata.remove(key);
                    } else {
                        metadata.insert(key.clone(), value.clone());
                    }
                }
            }
            _ => {
                fields.insert(key.clone(), value.clone());
            }
        }
    }
    serde_json::from_value(whole)
}

type Addresses = (String, String, String, String);

async fn copied(
    storage: &Storage,
    (bucket, object, to_bucket, to_object): Addresses,
    request: Request,
) -> Result<ObjectRecord, Refusal> {
    let who = storage.0.authenticate(header(request.headers(), "authorization"))?;
    let params = Params::of(request.uri())?;
    let source = Target {
        generation: params.source_generation,
        conditions: params.source_preconditions(),
        ..target(&bucket, &object, &params)?
    };
    let target = Target { generation: None, ..target(&to_bucket, &to_object, &params)? };
    let settings = match json_body(request).await? {
        Some(Value::Object(fields)) if !fields.is_empty() => Some(input(Value::Object(fields))?.settings),
        _ => None,
    };
    storage.copy(who, source, target, settings).await
}

async fn copy_object(State(storage): State<Storage>, Path(addresses): Path<Addresses>, request: Request) -> Answer {
    let record = copied(&storage, addresses, request).await?;
    Ok(Json(record.resource(&storage.0.base)).into_response())
}

async fn rewrite_object(State(storage): State<Storage>, Path(addresses): Path<Addresses>, request: Request) -> Answer {
    let record = copied(&storage, addresses, request).await?;
    Ok(Json(json!({
        "kind": "storage#rewriteResponse",
        "totalBytesRewritten": record.size.to_string(),
        "objectSize": record.size.to_string(),
        "done": true,
        "resource": record.resource(&storage.0.base),
    }))
    .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_merges_metadata_and_null_clears() {
        let settings = Settings {
            content_type: "text/plain".to_owned(),
            metadata: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into(),
            ..Default::default()
        };
        let patch = json!({ "contentType": null, "metadata": { "a": null, "c": "3" }, "cacheControl": "no-store" });
        let got = merged(&settings, patch.as_object().expect("an object")).expect("applies");
        assert_eq!(got.content_type, "");
        assert_eq!(got.cache_control, "no-store");
        assert_eq!(got.metadata.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert!(merged(&settings, json!({ "metadata": 7 }).as_object().expect("an object")).is_err());
    }
}
