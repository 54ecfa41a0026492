//! google.storage.v2 as the `StorageControl` client speaks it: the same operations behind gRPC's names and codes.
//!
//! Field masks of reads are not applied: a whole resource is a legal answer.

use super::bidi::{self, Reading};
use super::bucket::BucketRecord;
use super::derive::Component;
use super::generation::Preconditions;
use super::glob::Glob;
use super::listing::Query;
use super::name::{BucketName, ObjectName};
use super::operations::{Storage, Target};
use super::proto;
use super::proto::storage_server::Storage as Service;
use super::record::{ObjectRecord, STORAGE_CLASS, Settings};
use super::refusal::Refusal;
use crate::iam::Principal;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost_types::Timestamp;
use serde_json::{Map, Value, json};
use tonic::{Request, Response, Status, Streaming};

fn caller<T>(storage: &Storage, request: &Request<T>) -> Result<Principal, Refusal> {
    storage.0.authenticate(request.metadata().get("authorization").and_then(|value| value.to_str().ok()))
}

fn timestamp(us: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1000).expect("less than a second of nanoseconds");
    Some(Timestamp { seconds: us.div_euclid(1_000_000), nanos })
}

/// gRPC spells "whichever is live" as generation 0.
fn generation(number: i64) -> Option<i64> {
    (number != 0).then_some(number)
}

/// The resource of an object.
pub(super) fn object(record: ObjectRecord) -> proto::Object {
    let etag = record.etag();
    let md5 = record.md5.as_ref().and_then(|md5| BASE64_STANDARD.decode(md5).ok()).unwrap_or_default();
    let ObjectRecord { bucket, name, settings, .. } = record;
    proto::Object {
        name,
        bucket: format!("projects/_/buckets/{bucket}"),
        etag,
        generation: record.generation,
        metageneration: record.metageneration,
        storage_class: STORAGE_CLASS.to_owned(),
        size: i64::try_from(record.size).expect("objects are smaller than 8 EiB"),
        content_encoding: settings.content_encoding,
        content_disposition: settings.content_disposition,
        cache_control: settings.cache_control,
        content_language: settings.content_language,
        content_type: settings.content_type,
        create_time: timestamp(record.created_us),
        finalize_time: timestamp(record.created_us),
        update_time: timestamp(record.updated_us),
        update_storage_class_time: timestamp(record.created_us),
        delete_time: record.deleted_us.and_then(timestamp),
        component_count: record.components.unwrap_or_default(),
        checksums: Some(proto::ObjectChecksums { crc32c: Some(record.crc32c), md5_hash: md5.into() }),
        metadata: settings.metadata.into_iter().collect(),
        ..Default::default()
    }
}

fn settings(object: &proto::Object) -> Settings {
    Settings {
        content_type: object.content_type.clone(),
        content_encoding: object.content_encoding.clone(),
        content_disposition: object.content_disposition.clone(),
        content_language: object.content_language.clone(),
        cache_control: object.cache_control.clone(),
        metadata: object.metadata.clone().into_iter().collect(),
    }
}

fn bucket(bucket: BucketRecord) -> proto::Bucket {
    proto::Bucket {
        name: format!("projects/_/buckets/{}", bucket.name),
        etag: bucket.etag(),
        bucket_id: bucket.name,
        project: format!("projects/{}", bucket.project),
        metageneration: bucket.metageneration,
        location: bucket.location,
        location_type: "region".to_owned(),
        storage_class: STORAGE_CLASS.to_owned(),
        create_time: timestamp(bucket.created_us),
        update_time: timestamp(bucket.updated_us),
        labels: bucket.labels.into_iter().collect(),
        versioning: bucket.versioning.then_some(proto::bucket::Versioning { enabled: true }),
        ..Default::default()
    }
}

/// A bucket's settings as the JSON API spells them, which is where they are judged.
fn bucket_fields(bucket: &proto::Bucket) -> Map<String, Value> {
    let rules = bucket.lifecycle.iter().flat_map(|lifecycle| &lifecycle.rule).map(|_| json!({})).collect::<Vec<_>>();
    let fields = json!({
        "labels": bucket.labels,
        "versioning": { "enabled": bucket.versioning.is_some_and(|versioning| versioning.enabled) },
        "storageClass": bucket.storage_class,
        "defaultEventBasedHold": bucket.default_event_based_hold,
        "lifecycle": { "rule": rules },
        "retentionPolicy": bucket.retention_policy.is_some().then(|| json!({})),
        "encryption": { "defaultKmsKeyName": bucket.encryption.as_ref().map(|kept| &kept.default_kms_key) },
        "billing": { "requesterPays": bucket.billing.is_some_and(|billing| billing.requester_pays) },
        "hierarchicalNamespace": { "enabled": bucket.hierarchical_namespace.is_some_and(|folders| folders.enabled) },
    });
    let Value::Object(mut fields) = fields else { unreachable!("it is an object") };
    if !bucket.location.is_empty() {
        fields.insert("location".to_owned(), bucket.location.as_str().into());
    }
    fields
}

fn only_metagenerations(metageneration_match: Option<i64>, metageneration_not_match: Option<i64>) -> Preconditions {
    Preconditions { metageneration_match, metageneration_not_match, ..Preconditions::default() }
}

/// The four preconditions, which every request message spells alike.
macro_rules! preconditions {
    ($request:expr) => {
        Preconditions {
            generation_match: $request.if_generation_match,
            generation_not_match: $request.if_generation_not_match,
            metageneration_match: $request.if_metageneration_match,
            metageneration_not_match: $request.if_metageneration_not_match,
        }
    };
}

pub(super) use preconditions;

/// An object in a request.
pub(super) fn target(bucket: &str, name: &str, number: i64, conditions: Preconditions) -> Result<Target, Refusal> {
    Ok(Target {
        bucket: BucketName::parse_resource(bucket)?,
        name: ObjectName::parse(name)?,
        generation: generation(number),
        conditions,
    })
}

/// Copies the fields that `path` names from `new`.
fn apply(path: &str, new: &Settings, settings: &mut Settings) -> bool {
    match path {
        "*" => settings.clone_from(new),
        "content_type" => settings.content_type.clone_from(&new.content_type),
        "content_encoding" => settings.content_encoding.clone_from(&new.content_encoding),
        "content_disposition" => settings.content_disposition.clone_from(&new.content_disposition),
        "content_language" => settings.content_language.clone_from(&new.content_language),
        "cache_control" => settings.cache_control.clone_from(&new.cache_control),
        "metadata" => settings.metadata.clone_from(&new.metadata),
        other => match other.strip_prefix("metadata.") {
            Some(key) => match new.metadata.get(key) {
                Some(value) => drop(settings.metadata.insert(key.to_owned(), value.clone())),
                None => drop(settings.metadata.remove(key)),
            },
            None => return false,
        },
    }
    true
}

#[tonic::async_trait]
impl Service for Storage {
    type BidiReadObjectStream = Reading;

    async fn bidi_read_object(
        &self,
        request: Request<Streaming<proto::BidiReadObjectRequest>>,
    ) -> Result<Response<Reading>, Status> {
        let who = caller(self, &request)?;
        Ok(Response::new(bidi::read(self, &who, request.into_inner()).await?))
    }

    async fn get_bucket(&self, request: Request<proto::GetBucketRequest>) -> Result<Response<proto::Bucket>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        let name = BucketName::parse_resource(&r.name).map_err(Refusal::from)?;
        let conditions = only_metagenerations(r.if_metageneration_match, r.if_metageneration_not_match);
        Ok(Response::new(bucket(self.get_bucket(&who, &name, &conditions)?)))
    }

    async fn list_buckets(
        &self,
        request: Request<proto::ListBucketsRequest>,
    ) -> Result<Response<proto::ListBucketsResponse>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        let project = r.parent.strip_prefix("projects/").unwrap_or_default();
        let mut buckets = self.list_buckets(&who, project, &r.prefix, &r.page_token)?;
        let limit = usize::try_from(r.page_size).ok().filter(|size| *size > 0).unwrap_or(usize::MAX);
        let more = buckets.len() > limit;
        buckets.truncate(limit);
        let next_page_token = buckets.last().filter(|_| more).map(|last| last.name.clone()).unwrap_or_default();
        let buckets = buckets.into_iter().map(bucket).collect();
        Ok(Response::new(proto::ListBucketsResponse { buckets, next_page_token, ..Default::default() }))
    }

    async fn create_bucket(
        &self,
        request: Request<proto::CreateBucketRequest>,
    ) -> Result<Response<proto::Bucket>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        let wanted = r.bucket.unwrap_or_default();
        let owner = if wanted.project.is_empty() { &r.parent } else { &wanted.project };
        let project = owner.strip_prefix("projects/").unwrap_or_default();
        let name = BucketName::parse(&r.bucket_id).map_err(Refusal::from)?;
        Ok(Response::new(bucket(self.create_bucket(&who, project, &name, &bucket_fields(&wanted)).await?)))
    }

    async fn update_bucket(
        &self,
        request: Request<proto::UpdateBucketRequest>,
    ) -> Result<Response<proto::Bucket>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        let wanted = r.bucket.ok_or_else(|| Status::invalid_argument("the request carries no bucket"))?;
        let paths = r.update_mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.is_empty() {
            return Err(Status::invalid_argument("update_mask names no field"));
        }
        let whole = paths.iter().any(|path| path == "*");
        if whole && paths.len() > 1 {
            return Err(Status::invalid_argument("update_mask names * beside other fields"));
        }
        let mut fields = bucket_fields(&wanted);
        let mut named = Map::new();
        for path in &paths {
            match (path.as_str(), path.strip_prefix("labels.")) {
                ("*", _) => named.append(&mut fields),
                ("labels", _) => drop(named.insert("labels".to_owned(), json!(wanted.labels))),
                (_, Some(key)) => {
                    let labels = named.entry("labels").or_insert_with(|| json!({}));
                    labels[key] = json!(wanted.labels.get(key));
                }
                (path, None) => {
                    let field = match path.split('.').next().unwrap_or_default() {
                        "versioning" => "versioning",
                        "storage_class" => "storageClass",
                        "lifecycle" => "lifecycle",
                        "retention_policy" => "retentionPolicy",
                        "billing" => "billing",
                        _ => {
                            let told = format!("update_mask field {path:?} cannot be changed here");
                            return Err(Status::invalid_argument(told));
                        }
                    };
                    named.insert(field.to_owned(), fields.get(field).cloned().unwrap_or_default());
                }
            }
        }
        let name = BucketName::parse_resource(&wanted.name).map_err(Refusal::from)?;
        let conditions = only_metagenerations(r.if_metageneration_match, r.if_metageneration_not_match);
        let all_labels = paths.iter().any(|path| path == "labels");
        let change = move |bucket: &mut BucketRecord| {
            if all_labels {
                bucket.labels.clear();
            }
            bucket.apply(&named, whole)
        };
        Ok(Response::new(bucket(self.update_bucket(&who, &name, conditions, change).await?)))
    }

    async fn delete_bucket(&self, request: Request<proto::DeleteBucketRequest>) -> Result<Response<()>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        let name = BucketName::parse_resource(&r.name).map_err(Refusal::from)?;
        let conditions = only_metagenerations(r.if_metageneration_match, r.if_metageneration_not_match);
        self.delete_bucket(&who, &name, conditions).await?;
        Ok(Response::new(()))
    }

    async fn compose_object(
        &self,
        request: Request<proto::ComposeObjectRequest>,
    ) -> Result<Response<proto::Object>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        if r.delete_source_objects == Some(true) {
            return Err(Status::unimplemented("delete_source_objects is not served here: delete them afterwards"));
        }
        let wanted = r.destination.ok_or_else(|| Status::invalid_argument("the request carries no destination"))?;
        let conditions = Preconditions {
            generation_match: r.if_generation_match,
            metageneration_match: r.if_metageneration_match,
            ..Preconditions::default()
        };
        let target = target(&wanted.bucket, &wanted.name, 0, conditions)?;
        let component = |source: proto::compose_object_request::SourceObject| Component {
            name: source.name,
            generation: generation(source.generation),
            generation_match: source.object_preconditions.and_then(|conditions| conditions.if_generation_match),
        };
        let components = r.source_objects.into_iter().map(component).collect();
        Ok(Response::new(object(self.compose(who, target, components, settings(&wanted)).await?)))
    }

    async fn get_object(&self, request: Request<proto::GetObjectRequest>) -> Result<Response<proto::Object>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        let target = target(&r.bucket, &r.object, r.generation, preconditions!(r))?;
        Ok(Response::new(object(self.get(&who, &target)?)))
    }

    async fn list_objects(
        &self,
        request: Request<proto::ListObjectsRequest>,
    ) -> Result<Response<proto::ListObjectsResponse>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        if !r.filter.is_empty() || r.soft_deleted {
            return Err(Status::unimplemented("filter and soft_deleted are not served here"));
        }
        let glob = Some(r.match_glob.as_str()).filter(|glob| !glob.is_empty()).map(Glob::parse).transpose();
        let bucket = BucketName::parse_resource(&r.parent).map_err(Refusal::from)?;
        let query = Query {
            prefix: r.prefix,
            delimiter: r.delimiter,
            start: r.lexicographic_start,
            end: r.lexicographic_end,
            include_trailing_delimiter: r.include_trailing_delimiter,
            glob: glob.map_err(|wrong| Status::invalid_argument(format!("match_glob: {wrong}")))?,
            versions: r.versions,
            page_token: r.page_token,
            page_size: usize::try_from(r.page_size).map_err(|_| Status::invalid_argument("page_size is negative"))?,
        };
        let page = self.list(&who, &bucket, &query)?;
        Ok(Response::new(proto::ListObjectsResponse {
            objects: page.objects.into_iter().map(object).collect(),
            prefixes: page.prefixes,
            next_page_token: page.next_page_token,
        }))
    }

    async fn delete_object(&self, request: Request<proto::DeleteObjectRequest>) -> Result<Response<()>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        let target = target(&r.bucket, &r.object, r.generation, preconditions!(r))?;
        self.delete(who, target).await?;
        Ok(Response::new(()))
    }

    async fn update_object(
        &self,
        request: Request<proto::UpdateObjectRequest>,
    ) -> Result<Response<proto::Object>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        let input = r.object.as_ref().ok_or_else(|| Status::invalid_argument("the request carries no object"))?;
        let paths = r.update_mask.as_ref().map(|mask| mask.paths.clone()).unwrap_or_default();
        let new = settings(input);
        if paths.is_empty() {
            return Err(Status::invalid_argument("update_mask names no field"));
        }
        if let Some(path) = paths.iter().find(|path| !apply(path, &new, &mut Settings::default())) {
            return Err(Status::invalid_argument(format!("update_mask field {path:?} cannot be changed here")));
        }
        let target = target(&input.bucket, &input.name, input.generation, preconditions!(r))?;
        let edit = move |settings: &mut Settings| {
            for path in &paths {
                apply(path, &new, settings);
            }
        };
        Ok(Response::new(object(self.patch(who, target, edit).await?)))
    }

    async fn rewrite_object(
        &self,
        request: Request<proto::RewriteObjectRequest>,
    ) -> Result<Response<proto::RewriteResponse>, Status> {
        let who = caller(self, &request)?;
        let r = request.into_inner();
        let source_conditions = Preconditions {
            generation_match: r.if_source_generation_match,
            generation_not_match: r.if_source_generation_not_match,
            metageneration_match: r.if_source_metageneration_match,
            metageneration_not_match: r.if_source_metageneration_not_match,
        };
        let source = target(&r.source_bucket, &r.source_object, r.source_generation, source_conditions)?;
        let target = target(&r.destination_bucket, &r.destination_name, 0, preconditions!(r))?;
        let record = self.copy(who, source, target, r.destination.as_ref().map(settings)).await?;
        let size = i64::try_from(record.size).expect("objects are smaller than 8 EiB");
        Ok(Response::new(proto::RewriteResponse {
            total_bytes_rewritten: size,
            object_size: size,
            done: true,
            rewrite_token: String::new(),
            resource: Some(object(record)),
        }))
    }
}
