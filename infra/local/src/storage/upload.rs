//! `POST` and `PUT /upload/storage/v1/b/{bucket}/o`: content on its way in.
//!
//! Multipart and media uploads arrive in one request, resumable ones in several. A checksum that the caller sends, in
//! the metadata, behind the media or in `x-goog-hash`, must fit or nothing is finalized. Of a resumable upload that is
//! not complete, multiples of 256 KiB are kept, as at Google: a client that sends other chunks is told to send the rest of
//! them again. A refusal reads the rest of the body first (within bounds), so that the client sees the answer and not a
//! broken pipe.

use super::blobs::Received;
use super::checksum::{Progress, Sums, crc32c_text, is_md5, parse_crc32c};
use super::multipart::{self, Multipart};
use super::name::{BucketName, ObjectName};
use super::operations::{Storage, Target, now_us};
use super::params::{ContentRange, Params, content_range, header};
use super::record::{ObjectInput, ObjectRecord};
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

/// Cancels a resumable upload.
pub(super) async fn cancel(
    State(storage): State<Storage>,
    Path(bucket): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    let (_, _, id, hold, session) = held(&storage, &bucket, &parts)?;
    if session.finished.is_some() {
        return Err(Refusal::NoUpload(id));
    }
    let over = Session { cancelled: true, ..session.clone() };
    let upload = id.clone();
    // It may have finished since it was looked at.
    if !storage.0.store.write(move |txn| sessions::advance(txn, &id, &over)).await? {
        return Err(Refusal::NoUpload(upload));
    }
    storage.0.blobs.remove(&session.blob);
    drop(hold);
    // Google's own code: client closed request.
    let closed = StatusCode::from_u16(499).expect("three digits are a code");
    Ok(closed.into_response())
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
            let (mut input, received) = related(storage, chunks(body), &boundary).await?;
            input.crc32c = input.crc32c.or_else(|| header_hash(parts, "crc32c"));
            input.md5_hash = input.md5_hash.or_else(|| header_hash(parts, "md5"));
            store(storage, who, bucket, &params, input, received).await
        }
        Some("media") => {
            let input = ObjectInput {
                crc32c: header_hash(parts, "crc32c"),
                md5_hash: header_hash(parts, "md5"),
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

/// One of the checksums in `x-goog-hash: crc32c=…,md5=…`.
fn header_hash(parts: &Parts, kind: &str) -> Option<String> {
    let hashes = parts.headers.get_all("x-goog-hash").iter().filter_map(|value| value.to_str().ok());
    let mut hashes = hashes.flat_map(|value| value.split(',')).filter_map(|hash| hash.trim().split_once('='));
    hashes.find_map(|(name, value)| (name == kind).then(|| value.to_owned()))
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

/// The checksums that the caller expects.
#[derive(Default)]
struct Expected {
    crc32c: Option<u32>,
    md5: Option<String>,
}

impl Expected {
    fn by(input: &ObjectInput) -> Result<Self, Refusal> {
        let crc32c = |text: &String| {
            parse_crc32c(text).ok_or_else(|| Refusal::Invalid(format!("crc32c {text:?} is not four bytes in base64")))
        };
        let md5 = |text: &String| {
            let wrong = || Refusal::Invalid(format!("md5Hash {text:?} is not sixteen bytes in base64"));
            if is_md5(text) { Ok(text.clone()) } else { Err(wrong()) }
        };
        let (crc32c, md5) = (input.crc32c.as_ref().map(crc32c), input.md5_hash.as_ref().map(md5));
        Ok(Self { crc32c: crc32c.transpose()?, md5: md5.transpose()? })
    }

    fn verify(&self, got: &Sums) -> Result<(), Refusal> {
        let differ = |kind: &str, wanted: &str, got: &str| {
            Err(Refusal::Invalid(format!(
                "provided {kind} {wanted:?} doesn't match calculated {kind} {got:?}: send the object again"
            )))
        };
        if let Some(wanted) = self.crc32c.filter(|wanted| *wanted != got.crc32c) {
            return differ("CRC32C", &crc32c_text(wanted), &crc32c_text(got.crc32c));
        }
        match (&self.md5, &got.md5) {
            (Some(wanted), Some(got)) if wanted != got => differ("MD5 hash", wanted, got),
            _ => Ok(()),
        }
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
    let checked = Expected::by(&input)
        .and_then(|expected| expected.verify(&received.sums))
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
        size: received.size,
        sums: received.sums,
        components: None,
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
    let expected = Expected::by(&input)?;
    storage.check_upload(&target)?;
    let id = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let session = Session {
        bucket: target.bucket.to_string(),
        name: target.name.to_string(),
        settings: input.settings,
        conditions: target.conditions,
        expected_crc32c: expected.crc32c,
        expected_md5: expected.md5,
        blob: inner.blobs.reserve(),
        progress: Progress::default(),
        finished: None,
        created_us: now_us(),
        cancelled: false,
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

/// The upload that a request is about, while no other request is at it, and who asks.
fn held(
    storage: &Storage,
    bucket: &str,
    parts: &Parts,
) -> Result<(Principal, BucketName, String, Hold, Session), Refusal> {
    let inner = &storage.0;
    let who = inner.authenticate(header(&parts.headers, "authorization"))?;
    let bucket = BucketName::parse(bucket)?;
    inner.bucket(&who, CREATE, &bucket)?;
    let id = Params::of(&parts.uri)?.upload_id.unwrap_or_default();
    let find = || {
        let session = inner.store.read(|txn| sessions::find(txn, &id))?.filter(|s| s.bucket == bucket.as_str());
        session.ok_or_else(|| Refusal::NoUpload(id.clone()))
    };
    // Before anything is said of who is at it: an upload to another bucket is none.
    find()?;
    let hold = Hold::take(storage, &id)?;
    let session = find()?;
    if session.is_over(now_us()) {
        return Err(Refusal::UploadOver);
    }
    Ok((who, bucket, id, hold, session))
}

async fn go_on(storage: &Storage, bucket: &str, parts: &Parts, body: &mut BodyDataStream) -> Result<Response, Refusal> {
    let range = match header(&parts.headers, "content-range") {
        None => Ok(ContentRange::Rest(0)),
        Some(text) => content_range(text)
            .ok_or_else(|| Refusal::Invalid(format!("content-range {text:?} is none of a resumable upload"))),
    };
    let (who, _, id, hold, mut session) = held(storage, bucket, parts)?;
    let range = range?;
    if let Some(record) = &session.finished {
        return Ok(resource(storage, record));
    }
    let (crc32c, md5_hash) = (header_hash(parts, "crc32c"), header_hash(parts, "md5"));
    let said = Expected::by(&ObjectInput { crc32c, md5_hash, ..Default::default() })?;
    session.expected_crc32c = said.crc32c.or(session.expected_crc32c);
    session.expected_md5 = said.md5.or(session.expected_md5);
    let durable = session.progress.size;
    let chunk = match range {
        ContentRange::Status(None) => return Ok(incomplete(durable)),
        ContentRange::Status(total) => Chunk { start: durable, end: Some(durable), total, rest: false },
        ContentRange::Chunk { start, end, total } => Chunk { start, end, total, rest: false },
        ContentRange::Rest(start) => Chunk { start, end: None, total: None, rest: true },
    };
    if chunk.start > durable {
        return Ok(incomplete(durable));
    }
    if append(storage, &id, &mut session, &chunk, hold, chunks(body)).await? {
        complete(storage, who, id, session).await
    } else {
        Ok(incomplete(session.progress.size))
    }
}

/// What one request says of the bytes it brings.
struct Chunk {
    start: u64,
    /// Behind the last byte.
    end: Option<u64>,
    /// Bytes of the whole object.
    total: Option<u64>,
    /// The object ends where the body ends.
    rest: bool,
}

/// Writes the body behind what is durable; progress is vouched for on the way and at the end, whatever ends it. True if
/// the object is whole now.
async fn append(
    storage: &Storage,
    id: &str,
    session: &mut Session,
    chunk: &Chunk,
    hold: Hold,
    mut body: impl Stream<Item = io::Result<Bytes>> + Unpin,
) -> Result<bool, Refusal> {
    let mut writer = storage.0.blobs.resume(session.blob.clone(), session.progress.clone(), Box::new(hold));
    // Bytes that are durable already are sent again by a client that did not hear so.
    let mut known = session.progress.size - chunk.start;
    let (mut at, mut vouched) = (chunk.start, session.progress.size);
    let end = chunk.end.or(chunk.total);
    let mut outcome = Ok(());
    while let Some(bytes) = body.next().await {
        let mut bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                outcome = Err(Refusal::Io(error));
                break;
            }
        };
        at += bytes.len() as u64;
        if end.is_some_and(|end| at > end) {
            outcome = Err(Refusal::Invalid("the body has more bytes than its content-range announces".to_owned()));
            break;
        }
        let skip = known.min(bytes.len() as u64);
        known -= skip;
        bytes::Buf::advance(&mut bytes, usize::try_from(skip).expect("no longer than a chunk"));
        writer.write(bytes).await?;
        if at >= vouched + CHECKPOINT_BYTES {
            vouched = at;
            checkpoint(storage, id, session, writer.sync().await?.quanta).await?;
        }
    }
    if outcome.is_ok() && chunk.end.is_some_and(|end| at < end) {
        outcome = Err(Refusal::Invalid("the body has fewer bytes than its content-range announces".to_owned()));
    }
    let durable = writer.sync().await?;
    let whole = outcome.is_ok() && (chunk.rest || chunk.total == Some(durable.whole.size));
    checkpoint(storage, id, session, if whole { durable.whole } else { durable.quanta }).await?;
    writer.close().await?;
    outcome.map(|()| whole)
}

async fn checkpoint(storage: &Storage, id: &str, session: &mut Session, progress: Progress) -> Result<(), Refusal> {
    session.progress = progress;
    let (id, session) = (id.to_owned(), session.clone());
    // One that has finished meanwhile is left as it is: whoever completes it next is given its object.
    storage.0.store.write(move |txn| sessions::advance(txn, &id, &session)).await?;
    Ok(())
}

async fn complete(storage: &Storage, who: Principal, id: String, session: Session) -> Result<Response, Refusal> {
    let sums = session.progress.sums();
    let expected = Expected { crc32c: session.expected_crc32c, md5: session.expected_md5.clone() };
    if let Err(refusal) = expected.verify(&sums) {
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
        sums,
        components: None,
        content: Content::Blob(session.blob.clone()),
    };
    let record = storage.finalize(who, target, new, Some((id, session))).await?;
    Ok(resource(storage, &record))
}
