//! `POST` and `PUT /upload/storage/v1/b/{bucket}/o`: content on its way in.
//!
//! Multipart and media uploads arrive in one request, resumable ones in several. A checksum that the caller sends, in
//! the metadata, behind the media or in `x-goog-hash`, must fit or nothing is finalized. A refusal reads the rest of
//! the body first (within bounds), so that the client sees the answer and not a broken pipe.

use super::blobs::{Progress, Received};
use super::multipart::{self, Multipart};
use super::name::{BucketName, ObjectName};
use super::operations::{Storage, Target, now_us};
use super::params::{ContentRange, Params, content_range, header};
use super::record::{ObjectInput, ObjectRecord, crc32c_text, parse_crc32c};
use super::refusal::Refusal;
use super::sessions::{self, Session};
use super::shelf::{Content, NewObject};
use crate::iam::Principal;
use axum::Json;
use axum::body::BodyDataStream;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header::LOCATION};
use std::collections::HashSet;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};

/// The longest metadata part.
const MAX_METADATA_BYTES: usize = 256 * 1024;
/// How much of a refused body is read and thrown away.
const MAX_DRAIN_BYTES: usize = 64 * 1024 * 1024;
/// A resumable upload vouches for its progress at least this often.
const CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024;

const CREATE: &str = "storage.objects.create";

/// Starts or makes an upload.
pub(super) async fn post(State(storage): State<Storage>, Path(bucket): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut body = body.into_data_stream();
    let answer = begin(&storage, &bucket, &parts, &mut body).await;
    finish(answer, body).await
}

/// Goes on with a resumable upload.
pub(super) async fn put(State(storage): State<Storage>, Path(bucket): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut body = body.into_data_stream();
    let answer = go_on(&storage, &bucket, &parts, &mut body).await;
    finish(answer, body).await
}

async fn finish(answer: Result<Response, Refusal>, mut body: BodyDataStream) -> Response {
    let mut left = MAX_DRAIN_BYTES;
    while let Some(Ok(chunk)) = body.next().await {
        left = left.saturating_sub(chunk.len());
        if left == 0 {
            break;
        }
    }
    answer.unwrap_or_else(IntoResponse::into_response)
}

fn chunks(body: &mut BodyDataStream) -> impl Stream<Item = io::Result<Bytes>> + Unpin + '_ {
    body.map(|chunk| chunk.map_err(io::Error::other))
}

async fn begin(storage: &Storage, bucket: &str, parts: &Parts, body: &mut BodyDataStream) -> Result<Response, Refusal> {
    let inner = &storage.0;
    let who = inner.authenticate(header(&parts.headers, "authorization"))?;
    let bucket = BucketName::parse(bucket)?;
    inner.bucket(&who, CREATE, &bucket)?;
    let params = Params::of(&parts.uri)?;
    let content_type = header(&parts.headers, "content-type").unwrap_or_default();
    match params.upload_type.as_deref() {
        Some("multipart") => {
            let boundary = multipart::boundary(content_type).ok_or_else(|| {
                Refusal::Invalid(format!(
                    "a multipart upload needs multipart/related with a boundary, not {content_type:?}"
                ))
            })?;
            let (input, received) = related(storage, chunks(body), &boundary).await?;
            store(storage, who, bucket, &params, input, received).await
        }
        Some("media") => {
            let input = ObjectInput {
                crc32c: header_crc32c(parts),
                settings: super::record::Settings { content_type: content_type.to_owned(), ..Default::default() },
                ..Default::default()
            };
            let received = inner.blobs.receive(chunks(body)).await?;
            store(storage, who, bucket, &params, input, received).await
        }
        Some("resumable") => {
            let metadata = collect(chunks(body)).await?;
            let mut input = if metadata.is_empty() { ObjectInput::default() } else { parse_metadata(&metadata)? };
            if input.settings.content_type.is_empty() {
                let announced = header(&parts.headers, "x-upload-content-type").unwrap_or_default();
                input.settings.content_type = announced.to_owned();
            }
            open_session(storage, bucket, (&params, parts), input).await
        }
        other => Err(Refusal::Invalid(format!("uploadType {other:?} must be multipart, media or resumable"))),
    }
}

async fn collect(body: impl Stream<Item = io::Result<Bytes>>) -> Result<Vec<u8>, Refusal> {
    let mut body = pin!(body);
    let mut whole = Vec::new();
    while let Some(chunk) = body.next().await {
        whole.extend_from_slice(&chunk?);
        if whole.len() > MAX_METADATA_BYTES {
            return Err(Refusal::Invalid(format!("the metadata has more than {MAX_METADATA_BYTES} bytes")));
        }
    }
    Ok(whole)
}

fn parse_metadata(text: &[u8]) -> Result<ObjectInput, Refusal> {
    serde_json::from_slice(text)
        .map_err(|error| Refusal::Invalid(format!("cannot read the object metadata as JSON: {error}")))
}

fn header_crc32c(parts: &Parts) -> Option<String> {
    let hashes = parts.headers.get_all("x-goog-hash").iter().filter_map(|value| value.to_str().ok());
    hashes.flat_map(|value| value.split(',')).find_map(|hash| hash.trim().strip_prefix("crc32c=")).map(str::to_owned)
}

/// Reads metadata, media and, if the client computes while it sends, the checksums behind the media.
async fn related(
    storage: &Storage,
    body: impl Stream<Item = io::Result<Bytes>> + Unpin,
    boundary: &str,
) -> Result<(ObjectInput, Received), Refusal> {
    let missing = |part: &str| Refusal::Invalid(format!("the multipart body has no {part} part"));
    let mut parts = Multipart::new(body, boundary);
    parts.next_part().await?.ok_or_else(|| missing("metadata"))?;
    let mut input = parse_metadata(&parts.text(MAX_METADATA_BYTES).await?)?;
    let headers = parts.next_part().await?.ok_or_else(|| missing("media"))?;
    if input.settings.content_type.is_empty() {
        input.settings.content_type = multipart::part_header(&headers, "content-type").unwrap_or_default();
    }
    let received = storage.0.blobs.receive(pin!(parts.part())).await?;
    let trailer = async {
        if parts.next_part().await?.is_some() {
            let behind = parse_metadata(&parts.text(MAX_METADATA_BYTES).await?)?;
            input.crc32c = input.crc32c.take().or(behind.crc32c);
            input.md5_hash = input.md5_hash.take().or(behind.md5_hash);
            while parts.next_part().await?.is_some() {}
        }
        Ok::<(), Refusal>(())
    };
    match trailer.await {
        Ok(()) => Ok((input, received)),
        Err(refusal) => {
            discard(storage, &received.content);
            Err(refusal)
        }
    }
}

fn discard(storage: &Storage, content: &Content) {
    if let Content::Blob(id) = content {
        storage.0.blobs.remove(id);
    }
}

/// The checksum that the caller expects; an MD5 cannot be honoured and is therefore refused.
fn expected(input: &ObjectInput) -> Result<Option<u32>, Refusal> {
    if input.md5_hash.is_some() {
        return Err(Refusal::Invalid("md5Hash is not computed here: send crc32c instead".to_owned()));
    }
    let parse = |text: &String| {
        parse_crc32c(text).ok_or_else(|| Refusal::Invalid(format!("crc32c {text:?} is not four bytes in base64")))
    };
    input.crc32c.as_ref().map(parse).transpose()
}

fn verify(expected: Option<u32>, got: u32) -> Result<(), Refusal> {
    match expected {
        Some(wanted) if wanted != got => Err(Refusal::Invalid(format!(
            "provided CRC32C {:?} doesn't match calculated CRC32C {:?}: send the object again",
            crc32c_text(wanted),
            crc32c_text(got),
        ))),
        _ => Ok(()),
    }
}

fn target(bucket: BucketName, params: &Params, input: &ObjectInput) -> Result<Target, Refusal> {
    let name = params.name.as_deref().or(input.name.as_deref()).unwrap_or_default();
    Ok(Target { bucket, name: ObjectName::parse(name)?, generation: None, conditions: params.preconditions() })
}

async fn store(
    storage: &Storage,
    who: Principal,
    bucket: BucketName,
    params: &Params,
    input: ObjectInput,
    received: Received,
) -> Result<Response, Refusal> {
    let checked = expected(&input)
        .and_then(|crc32c| verify(crc32c, received.progress.crc32c))
        .and_then(|()| target(bucket, params, &input));
    let target = match checked {
        Ok(target) => target,
        Err(refusal) => {
            discard(storage, &received.content);
            return Err(refusal);
        }
    };
    let new = NewObject {
        bucket: target.bucket.to_string(),
        name: target.name.to_string(),
        settings: input.settings,
        size: received.progress.size,
        crc32c: received.progress.crc32c,
        content: received.content,
    };
    let record = storage.finalize(who, target, new, None).await?;
    Ok(resource(storage, &record))
}

fn resource(storage: &Storage, record: &ObjectRecord) -> Response {
    Json(record.resource(&storage.0.base)).into_response()
}

/// The address by which the caller found this cloud: a port may be published under another host or number.
fn reached(parts: &Parts) -> Option<String> {
    let host = parts.uri.authority().map(|authority| authority.as_str()).or_else(|| header(&parts.headers, "host"))?;
    let authority: http::uri::Authority = host.parse().ok()?;
    // Google's Rust clients leave the port out, whatever it is.
    authority.port().map(|_| format!("http://{authority}"))
}

async fn open_session(
    storage: &Storage,
    bucket: BucketName,
    (params, parts): (&Params, &Parts),
    input: ObjectInput,
) -> Result<Response, Refusal> {
    let inner = &storage.0;
    let target = target(bucket, params, &input)?;
    let expected_crc32c = expected(&input)?;
    storage.check_upload(&target)?;
    let id = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let session = Session {
        bucket: target.bucket.to_string(),
        name: target.name.to_string(),
        settings: input.settings,
        conditions: target.conditions,
        expected_crc32c,
        blob: inner.blobs.reserve(),
        progress: Progress::default(),
        finished: None,
        created_us: now_us(),
    };
    let key = id.clone();
    inner.store.write(move |txn| sessions::save(txn, &key, &session)).await?;
    let base = reached(parts).unwrap_or_else(|| inner.base.clone());
    let location = format!("{base}/upload/storage/v1/b/{}/o?uploadType=resumable&upload_id={id}", target.bucket);
    let location = HeaderValue::from_str(&location).expect("an address, a bucket and hexadecimal digits are ASCII");
    Ok((StatusCode::OK, [(LOCATION, location)]).into_response())
}

/// Keeps other requests off an upload until the last writer of its file is done.
struct Hold {
    uploading: Arc<Mutex<HashSet<String>>>,
    id: String,
}

impl Hold {
    fn take(storage: &Storage, id: &str) -> Result<Self, Refusal> {
        let uploading = storage.0.uploading.clone();
        if !uploading.lock().expect("no holder panics").insert(id.to_owned()) {
            return Err(Refusal::Busy);
        }
        Ok(Self { uploading, id: id.to_owned() })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.uploading.lock().expect("no holder panics").remove(&self.id);
    }
}

/// 308 with how far the upload is durable.
fn incomplete(size: u64) -> Response {
    let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
    if size > 0 {
        let range = HeaderValue::from_str(&format!("bytes=0-{}", size - 1)).expect("digits are ASCII");
        response.headers_mut().insert("range", range);
    }
    response
}

async fn go_on(storage: &Storage, bucket: &str, parts: &Parts, body: &mut BodyDataStream) -> Result<Response, Refusal> {
    let inner = &storage.0;
    let who = inner.authenticate(header(&parts.headers, "authorization"))?;
    let bucket = BucketName::parse(bucket)?;
    inner.bucket(&who, CREATE, &bucket)?;
    let id = Params::of(&parts.uri)?.upload_id.unwrap_or_default();
    let range = match header(&parts.headers, "content-range") {
        None => ContentRange::Rest(0),
        Some(text) => content_range(text)
            .ok_or_else(|| Refusal::Invalid(format!("content-range {text:?} is none of a resumable upload")))?,
    };
    let find = || {
        let session = inner.store.read(|txn| sessions::find(txn, &id))?.filter(|s| s.bucket == bucket.as_str());
        session.ok_or_else(|| Refusal::NoUpload(id.clone()))
    };
    // Before anything is said of who is at it: an upload to another bucket is none.
    find()?;
    let hold = Hold::take(storage, &id)?;
    let mut session = find()?;
    if let Some(record) = &session.finished {
        return Ok(resource(storage, record));
    }
    if let Some(crc32c) = header_crc32c(parts) {
        session.expected_crc32c = expected(&ObjectInput { crc32c: Some(crc32c), ..Default::default() })?;
    }
    let (start, total, rest) = match range {
        ContentRange::Status(None) => return Ok(incomplete(session.progress.size)),
        ContentRange::Status(total) => (session.progress.size, total, false),
        ContentRange::Chunk(start, total) => (start, total, false),
        ContentRange::Rest(start) => (start, None, true),
    };
    if start > session.progress.size {
        return Ok(incomplete(session.progress.size));
    }
    let arrived = append(storage, &id, &mut session, start, total, hold, chunks(body)).await;
    let size = session.progress.size;
    arrived?;
    if !rest && total != Some(size) {
        return Ok(incomplete(size));
    }
    complete(storage, who, id, session).await
}

/// Writes the body behind what is durable; progress is vouched for on the way and at the end, whatever ends it.
async fn append(
    storage: &Storage,
    id: &str,
    session: &mut Session,
    start: u64,
    total: Option<u64>,
    hold: Hold,
    mut body: impl Stream<Item = io::Result<Bytes>> + Unpin,
) -> Result<(), Refusal> {
    let mut writer = storage.0.blobs.resume(session.blob.clone(), session.progress, Box::new(hold));
    // Bytes that are durable already are sent again by a client that did not hear so.
    let mut known = session.progress.size - start;
    let (mut size, mut vouched) = (session.progress.size, session.progress.size);
    let mut outcome = Ok(());
    while let Some(chunk) = body.next().await {
        let mut chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                outcome = Err(Refusal::Io(error));
                break;
            }
        };
        let skip = known.min(chunk.len() as u64);
        known -= skip;
        bytes::Buf::advance(&mut chunk, usize::try_from(skip).expect("no longer than a chunk"));
        if total.is_some_and(|total| size + chunk.len() as u64 > total) {
            outcome = Err(Refusal::Invalid("the upload has more bytes than its content-range announces".to_owned()));
            break;
        }
        size += chunk.len() as u64;
        writer.write(chunk).await?;
        if size - vouched >= CHECKPOINT_BYTES {
            vouched = size;
            checkpoint(storage, id, session, writer.sync().await?).await?;
        }
    }
    checkpoint(storage, id, session, writer.sync().await?).await?;
    writer.close().await?;
    outcome
}

async fn checkpoint(storage: &Storage, id: &str, session: &mut Session, progress: Progress) -> Result<(), Refusal> {
    session.progress = progress;
    let (id, session) = (id.to_owned(), session.clone());
    Ok(storage.0.store.write(move |txn| sessions::save(txn, &id, &session)).await?)
}

async fn complete(storage: &Storage, who: Principal, id: String, session: Session) -> Result<Response, Refusal> {
    if let Err(refusal) = verify(session.expected_crc32c, session.progress.crc32c) {
        storage.0.store.write(move |txn| sessions::remove(txn, &id)).await?;
        storage.0.blobs.remove(&session.blob);
        return Err(refusal);
    }
    let target = Target {
        bucket: BucketName::parse(&session.bucket)?,
        name: ObjectName::parse(&session.name)?,
        generation: None,
        conditions: session.conditions,
    };
    let new = NewObject {
        bucket: session.bucket.clone(),
        name: session.name.clone(),
        settings: session.settings.clone(),
        size: session.progress.size,
        crc32c: session.progress.crc32c,
        content: Content::Blob(session.blob.clone()),
    };
    let record = storage.finalize(who, target, new, Some((id, session))).await?;
    Ok(resource(storage, &record))
}
