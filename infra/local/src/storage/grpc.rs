//! google.storage.v2 as the `StorageControl` client speaks it: the same operations behind gRPC's names and codes.
//!
//! Field masks of reads are not applied: a whole resource is a legal answer.

use super::generation::Preconditions;
use super::listing::Query;
use super::name::{BucketName, ObjectName};
use super::operations::{Bucket, Storage, Target};
use super::proto;
use super::proto::storage_server::Storage as Service;
use super::record::{ObjectRecord, STORAGE_CLASS, Settings};
use super::refusal::Refusal;
use crate::iam::Principal;
use bytes::Bytes;
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

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

fn object(record: ObjectRecord) -> proto::Object {
    let etag = record.etag();
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
        checksums: Some(proto::ObjectChecksums { crc32c: Some(record.crc32c), md5_hash: Bytes::new() }),
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

fn bucket_resource(storage: &Storage, name: &str, bucket: &Bucket) -> proto::Bucket {
    proto::Bucket {
        name: format!("projects/_/buckets/{name}"),
        bucket_id: name.to_owned(),
        etag: "CAE=".to_owned(),
        project: format!("projects/{}", storage.0.project),
        metageneration: 1,
        location: storage.0.location.clone(),
        location_type: "region".to_owned(),
        storage_class: STORAGE_CLASS.to_owned(),
        create_time: timestamp(bucket.created_us),
        update_time: timestamp(bucket.created_us),
        ..Default::default()
    }
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

fn target(bucket: &str, name: &str, number: i64, conditions: Preconditions) -> Result<Target, Refusal> {
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
    async fn get_bucket(&self, request: Request<proto::GetBucketRequest>) -> Result<Response<proto::Bucket>, Status> {
        let who = caller(self, &request)?;
        let name = BucketName::parse_resource(&request.get_ref().name).map_err(Refusal::from)?;
        let bucket = self.0.bucket(&who, "storage.buckets.get", &name)?;
        Ok(Response::new(bucket_resource(self, name.as_str(), bucket)))
    }

    async fn list_buckets(
        &self,
        request: Request<proto::ListBucketsRequest>,
    ) -> Result<Response<proto::ListBucketsResponse>, Status> {
        let who = caller(self, &request)?;
        let request = request.into_inner();
        let project = request.parent.strip_prefix("projects/").unwrap_or_default();
        self.0.may_list_buckets(&who, project)?;
        let here = if project == self.0.project { Some(&self.0.buckets) } else { None };
        let named = here.into_iter().flatten().filter(|(name, _)| name.starts_with(&request.prefix));
        let buckets = named.map(|(name, bucket)| bucket_resource(self, name, bucket)).collect();
        Ok(Response::new(proto::ListBucketsResponse { buckets, ..Default::default() }))
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
        if !r.match_glob.is_empty() || !r.filter.is_empty() {
            return Err(Status::unimplemented(
                "match_glob and filter are not served here: list with prefix and delimiter",
            ));
        }
        let bucket = BucketName::parse_resource(&r.parent).map_err(Refusal::from)?;
        let query = Query {
            prefix: r.prefix,
            delimiter: r.delimiter,
            start: r.lexicographic_start,
            end: r.lexicographic_end,
            include_trailing_delimiter: r.include_trailing_delimiter,
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
