//! Objects of Cloud Storage: create if absent, swap by generation, read with a cap, list, delete.
//!
//! Every write that decides something carries a precondition, so the client may repeat it after a lost reply; the
//! price is that an own success can come back as [`Created::Exists`] or [`Swapped::Mismatch`]. Whoever cares reads
//! the object and compares.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use google_cloud_gax::error::Error;
use google_cloud_gax::options::RequestOptionsBuilder as _;
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_storage::builder::storage_control::ListObjects;
use google_cloud_storage::client::{Storage, StorageControl};
use google_cloud_storage::model::Object;
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt as _;

use crate::Call;
use crate::error::{CallError, in_time, is};

/// Cloud Storage with one identity.
#[derive(Debug, Clone)]
pub struct Objects {
    pub(crate) data: Storage,
    pub(crate) control: StorageControl,
    pub(crate) answer_within: Duration,
}

/// What became of a create-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// Written; this is its generation.
    New(i64),
    /// Something was there: another's object, or our own after a lost reply.
    Exists,
}

/// What became of a compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    /// Written; this is its new generation.
    Done(i64),
    /// The object has another generation, or none: another's write, or our own after a lost reply.
    Mismatch,
}

/// An object read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its generation.
    pub generation: i64,
}

/// What a listing or a look at one object tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Full name.
    pub name: String,
    /// Generation.
    pub generation: i64,
    /// Bytes.
    pub size: u64,
    /// CRC-32C (Castagnoli) of the bytes; absent only for objects whose checksum Google has not computed.
    pub crc32c: Option<u32>,
    /// As the uploader gave it; empty if not.
    pub content_type: String,
    /// When this generation was created.
    pub created: Option<OffsetDateTime>,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In order of names.
    pub objects: Vec<ObjectMeta>,
    /// Where the next page begins; `None` after the last.
    pub next_page_token: Option<String>,
}

/// A generation written to a local file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Downloaded {
    /// Bytes written.
    pub size: u64,
    /// CRC-32C (Castagnoli) of them, computed while writing.
    pub crc32c: u32,
}

/// Why an object could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It has more bytes than allowed.
    #[error("gs://{bucket}/{name} has more than {max_bytes} bytes")]
    TooLarge {
        /// Its bucket.
        bucket: String,
        /// Its name.
        name: String,
        /// The cap.
        max_bytes: u64,
    },
    /// The cloud did not answer, or would not let it be read.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a generation could not be written to a local file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The generation does not exist any more.
    #[error("gs://{bucket}/{name}#{generation} is gone")]
    Gone {
        /// Its bucket.
        bucket: String,
        /// Its name.
        name: String,
        /// The generation asked for.
        generation: i64,
    },
    /// More bytes than allowed.
    #[error("gs://{bucket}/{name} has more than {max_bytes} bytes")]
    TooLarge {
        /// Its bucket.
        bucket: String,
        /// Its name.
        name: String,
        /// The cap.
        max_bytes: u64,
    },
    /// The local file could not be written.
    #[error("write {path}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The cloud did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

pub(crate) fn resource(bucket: &str) -> String {
    format!("projects/_/buckets/{bucket}")
}

pub(crate) fn url(bucket: &str, name: &str) -> String {
    format!("gs://{bucket}/{name}")
}

impl Objects {
    pub(crate) fn new(data: Storage, control: StorageControl, answer_within: Duration) -> Self {
        Self { data, control, answer_within }
    }

    pub(crate) async fn in_time<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        in_time(self.answer_within, call).await
    }

    /// Writes `body` if no object of this name exists.
    pub fn create<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a str,
        body: Bytes,
        kind: &'a str,
    ) -> Call<'a, Result<Created, CallError>> {
        Box::pin(async move {
            let sent = self.write(bucket, name, body, kind, 0).await;
            match sent {
                Ok(object) => Ok(Created::New(object.generation)),
                Err(error) if is(&error, 412) => Ok(Created::Exists),
                Err(error) => Err(CallError::new("create object", url(bucket, name), error)),
            }
        })
    }

    /// Writes the file at `path` if no object of this name exists, and says what the cloud then holds; `None` if one
    /// did. Large files go in resumable chunks. It may take as long as the file asks for: the caller's own limit ends it.
    pub fn create_from_file<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a str,
        path: &'a Path,
        kind: &'a str,
    ) -> Call<'a, Result<Option<ObjectMeta>, CallError>> {
        Box::pin(async move {
            let local = |source| CallError::local("read file", path.display().to_string(), source);
            let file = tokio::fs::File::open(path).await.map_err(local)?;
            let write = self.data.write_object(resource(bucket), name, file);
            let write = write.set_if_generation_match(0).set_content_type(kind);
            match Box::pin(write.send_unbuffered()).await {
                Ok(object) => Ok(Some(meta(object))),
                Err(error) if is(&error, 412) => Ok(None),
                Err(error) => Err(CallError::new("create object", url(bucket, name), error)),
            }
        })
    }

    /// Replaces the object if it still has the `expected` generation.
    pub fn swap<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a str,
        expected: i64,
        body: Bytes,
        kind: &'a str,
    ) -> Call<'a, Result<Swapped, CallError>> {
        Box::pin(async move {
            match self.write(bucket, name, body, kind, expected).await {
                Ok(object) => Ok(Swapped::Done(object.generation)),
                Err(error) if is(&error, 412) || is(&error, 404) => Ok(Swapped::Mismatch),
                Err(error) => Err(CallError::new("replace object", url(bucket, name), error)),
            }
        })
    }

    /// Writes the object whatever was there; for hints that may be lost and overwritten.
    pub fn put<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a str,
        body: Bytes,
        kind: &'a str,
    ) -> Call<'a, Result<i64, CallError>> {
        Box::pin(async move {
            let write =
                self.data.write_object(resource(bucket), name, body).set_content_type(kind).with_idempotency(true);
            match self.in_time(write.send_unbuffered()).await {
                Ok(object) => Ok(object.generation),
                Err(error) => Err(CallError::new("write object", url(bucket, name), error)),
            }
        })
    }

    async fn write(
        &self,
        bucket: &str,
        name: &str,
        body: Bytes,
        kind: &str,
        if_generation: i64,
    ) -> Result<Object, Error> {
        let write = self.data.write_object(resource(bucket), name, body);
        let write = write.set_if_generation_match(if_generation).set_content_type(kind);
        self.in_time(write.send_unbuffered()).await
    }

    /// Reads an object whole; an error if it has more than `max_bytes`, `None` if there is none.
    pub fn get<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a str,
        max_bytes: u64,
    ) -> Call<'a, Result<Option<Body>, ReadError>> {
        Box::pin(async move {
            let fail = |error| CallError::new("read object", url(bucket, name), error);
            let mut response = match self.in_time(self.data.read_object(resource(bucket), name).send()).await {
                Ok(response) => response,
                Err(error) if is(&error, 404) => return Ok(None),
                Err(error) => return Err(fail(error).into()),
            };
            let generation = response.object().generation;
            let mut bytes = BytesMut::new();
            while let Some(chunk) = self.in_time(async { response.next().await.transpose() }).await.map_err(fail)? {
                if (bytes.len() + chunk.len()) as u64 > max_bytes {
                    return Err(ReadError::TooLarge { bucket: bucket.to_owned(), name: name.to_owned(), max_bytes });
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(Some(Body { bytes: bytes.freeze(), generation }))
        })
    }

    /// Writes one generation to the local file `to`, which is created or truncated.
    pub fn download<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a str,
        generation: i64,
        to: &'a Path,
        max_bytes: u64,
    ) -> Call<'a, Result<Downloaded, DownloadError>> {
        Box::pin(async move {
            let fail = |error| CallError::new("read object", url(bucket, name), error);
            let local = |source| DownloadError::File { path: to.display().to_string(), source };
            let read = self.data.read_object(resource(bucket), name).set_generation(generation);
            let mut response = match self.in_time(read.send()).await {
                Ok(response) => response,
                Err(error) if is(&error, 404) => {
                    return Err(DownloadError::Gone { bucket: bucket.to_owned(), name: name.to_owned(), generation });
                }
                Err(error) => return Err(fail(error).into()),
            };
            let mut file = tokio::fs::File::create(to).await.map_err(local)?;
            let mut done = Downloaded { size: 0, crc32c: 0 };
            while let Some(chunk) = self.in_time(async { response.next().await.transpose() }).await.map_err(fail)? {
                done.size += chunk.len() as u64;
                if done.size > max_bytes {
                    return Err(DownloadError::TooLarge {
                        bucket: bucket.to_owned(),
                        name: name.to_owned(),
                        max_bytes,
                    });
                }
                done.crc32c = crc32c::crc32c_append(done.crc32c, &chunk);
                file.write_all(&chunk).await.map_err(local)?;
            }
            file.flush().await.map_err(local)?;
            Ok(done)
        })
    }

    /// The object of exactly this name, found by listing: it takes no right to read objects.
    pub fn find<'a>(&'a self, bucket: &'a str, name: &'a str) -> Call<'a, Result<Option<ObjectMeta>, CallError>> {
        Box::pin(async move {
            // Of all names that begin with it, the name itself comes first.
            let request = self.control.list_objects().set_parent(resource(bucket)).set_prefix(name).set_page_size(1);
            match self.in_time(request.send()).await {
                Ok(page) => Ok(page.objects.into_iter().map(meta).find(|object| object.name == name)),
                Err(error) => Err(CallError::new("look for object", url(bucket, name), error)),
            }
        })
    }

    /// Every object whose name begins with `prefix`, in order of names.
    pub fn list<'a>(&'a self, bucket: &'a str, prefix: &'a str) -> Call<'a, Result<Vec<ObjectMeta>, CallError>> {
        Box::pin(async move { self.list_at_most(bucket, prefix, usize::MAX).await })
    }

    /// The first `most` objects whose names begin with `prefix`, in order of names; no page beyond them is asked for.
    pub fn list_at_most<'a>(
        &'a self,
        bucket: &'a str,
        prefix: &'a str,
        most: usize,
    ) -> Call<'a, Result<Vec<ObjectMeta>, CallError>> {
        Box::pin(async move {
            let listing = self.control.list_objects().set_parent(resource(bucket)).set_prefix(prefix);
            self.items(listing, url(bucket, prefix), most).await
        })
    }

    /// The first `most` objects whose names begin with `prefix` and are `start` or sort after it, in order of names.
    pub fn list_from<'a>(
        &'a self,
        bucket: &'a str,
        prefix: &'a str,
        start: &'a str,
        most: usize,
    ) -> Call<'a, Result<Vec<ObjectMeta>, CallError>> {
        Box::pin(async move {
            let listing = self.control.list_objects().set_parent(resource(bucket)).set_prefix(prefix);
            let listing = listing.set_lexicographic_start(start);
            let listing = listing.set_page_size(i32::try_from(most).unwrap_or(1000).min(1000));
            self.items(listing, url(bucket, prefix), most).await
        })
    }

    /// The first `most` objects whose names hold no `/`, in order of names.
    pub fn list_loose<'a>(&'a self, bucket: &'a str, most: usize) -> Call<'a, Result<Vec<ObjectMeta>, CallError>> {
        Box::pin(async move {
            let listing = self.control.list_objects().set_parent(resource(bucket)).set_delimiter("/");
            self.items(listing, url(bucket, ""), most).await
        })
    }

    async fn items(&self, listing: ListObjects, url: String, most: usize) -> Result<Vec<ObjectMeta>, CallError> {
        let mut items = listing.by_item();
        let mut found = Vec::new();
        while found.len() < most {
            let next = self.in_time(async { items.next().await.transpose() }).await;
            match next.map_err(|error| CallError::new("list objects", url.clone(), error))? {
                Some(object) => found.push(meta(object)),
                None => break,
            }
        }
        Ok(found)
    }

    /// One page of a bucket's objects from `page_token` on; an empty token begins.
    pub fn list_page<'a>(
        &'a self,
        bucket: &'a str,
        page_size: u32,
        page_token: &'a str,
    ) -> Call<'a, Result<Page, CallError>> {
        Box::pin(async move {
            let request = self
                .control
                .list_objects()
                .set_parent(resource(bucket))
                .set_page_size(i32::try_from(page_size).unwrap_or(1000))
                .set_page_token(page_token);
            let page = self.in_time(request.send()).await;
            let page = page.map_err(|error| CallError::new("list objects", url(bucket, ""), error))?;
            Ok(Page {
                objects: page.objects.into_iter().map(meta).collect(),
                next_page_token: Some(page.next_page_token).filter(|token| !token.is_empty()),
            })
        })
    }

    /// Deletes an object, of the given generation only if one is given; false if there was nothing to delete.
    pub fn delete<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a str,
        generation: Option<i64>,
    ) -> Call<'a, Result<bool, CallError>> {
        Box::pin(async move {
            let mut request =
                self.control.delete_object().set_bucket(resource(bucket)).set_object(name).with_idempotency(true);
            if let Some(generation) = generation {
                request = request.set_if_generation_match(generation);
            }
            match self.in_time(request.send()).await {
                Ok(_) => Ok(true),
                Err(error) if is(&error, 404) || is(&error, 412) => Ok(false),
                Err(error) => Err(CallError::new("delete object", url(bucket, name), error)),
            }
        })
    }
}

pub(crate) fn meta(object: Object) -> ObjectMeta {
    let instant = |t: google_cloud_wkt::Timestamp| {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(t.seconds()) * 1_000_000_000 + i128::from(t.nanos())).ok()
    };
    ObjectMeta {
        name: object.name,
        generation: object.generation,
        size: u64::try_from(object.size).unwrap_or(0),
        crc32c: object.checksums.and_then(|sums| sums.crc32c),
        content_type: object.content_type,
        created: object.create_time.and_then(instant),
    }
}
