//! What is kept about one generation of an object, and its face as a JSON API resource.

use super::blobs::BlobId;
use super::checksum::crc32c_text;
use super::generation::Version;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// Metadata that a caller chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Settings {
    /// The media type; empty when none was given.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) content_type: String,
    /// Stored and served as it came; nothing is decompressed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) content_encoding: String,
    /// Served as a header.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) content_disposition: String,
    /// Served as a header.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) content_language: String,
    /// Served as a header.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) cache_control: String,
    /// The caller's own keys and values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
}

/// The metadata part of an upload, a copy or a patch, as the JSON API spells it; other fields are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ObjectInput {
    /// Only used when the query names no object.
    pub(super) name: Option<String>,
    /// CRC-32C, big endian in base64: the upload is refused unless the content has it.
    pub(super) crc32c: Option<String>,
    /// MD5 in base64: likewise.
    pub(super) md5_hash: Option<String>,
    /// The caller's metadata.
    #[serde(flatten)]
    pub(super) settings: Settings,
}

/// Where the content lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Placement {
    /// In the database, under the generation.
    Inline,
    /// In a file of the blob directory.
    Blob(BlobId),
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ObjectRecord {
    /// The bucket's id.
    pub(super) bucket: String,
    /// The object's name.
    pub(super) name: String,
    /// Unique in the store.
    pub(super) generation: i64,
    /// Starts at 1.
    pub(super) metageneration: i64,
    /// Bytes of content.
    pub(super) size: u64,
    /// CRC-32C of the content.
    pub(super) crc32c: u32,
    /// Its MD5 as the JSON API spells it; composed objects have none.
    #[serde(default)]
    pub(super) md5: Option<String>,
    /// Of a composed object: how many uploads it is made of.
    #[serde(default)]
    pub(super) components: Option<i32>,
    /// When it ceased to be the live generation, if it did.
    #[serde(default)]
    pub(super) deleted_us: Option<i64>,
    /// When this generation was finalized, in microseconds since 1970.
    pub(super) created_us: i64,
    /// When its metadata last changed.
    pub(super) updated_us: i64,
    /// The caller's metadata.
    pub(super) settings: Settings,
    /// Where the content lies.
    pub(super) placement: Placement,
}

/// Google's storage class for everything here.
pub(super) const STORAGE_CLASS: &str = "STANDARD";

const MILLIS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const MICROS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

fn instant(us: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// RFC 3339 with milliseconds, as object resources show times.
pub(super) fn rfc3339_millis(us: i64) -> String {
    instant(us).format(MILLIS).expect("a four-digit year has this form")
}

/// RFC 3339 with microseconds, as notifications show times.
pub(super) fn rfc3339_micros(us: i64) -> String {
    instant(us).format(MICROS).expect("a four-digit year has this form")
}

impl ObjectRecord {
    /// What preconditions look at.
    pub(super) fn version(&self) -> Version {
        Version { generation: self.generation, metageneration: self.metageneration }
    }

    /// Changes with every write of content or metadata.
    pub(super) fn etag(&self) -> String {
        BASE64_STANDARD.encode(format!("{}/{}", self.generation, self.metageneration))
    }

    /// The JSON API's object resource. `base` is the address links start with.
    pub(super) fn resource(&self, base: &str) -> Value {
        let Self { bucket, name, generation, metageneration, .. } = self;
        let encoded = super::params::percent_encode(name);
        let mut resource = json!({
            "kind": "storage#object",
            "id": format!("{bucket}/{name}/{generation}"),
            "selfLink": format!("{base}/storage/v1/b/{bucket}/o/{encoded}"),
            "mediaLink": format!("{base}/download/storage/v1/b/{bucket}/o/{encoded}?generation={generation}&alt=media"),
            "name": name,
            "bucket": bucket,
            "generation": generation.to_string(),
            "metageneration": metageneration.to_string(),
            "size": self.size.to_string(),
            "crc32c": crc32c_text(self.crc32c),
            "etag": self.etag(),
            "storageClass": STORAGE_CLASS,
            "timeCreated": rfc3339_millis(self.created_us),
            "timeFinalized": rfc3339_millis(self.created_us),
            "timeStorageClassUpdated": rfc3339_millis(self.created_us),
            "updated": rfc3339_millis(self.updated_us),
        });
        if let Some(md5) = &self.md5 {
            resource["md5Hash"] = md5.as_str().into();
        }
        if let Some(components) = self.components {
            resource["componentCount"] = components.into();
        }
        if let Some(us) = self.deleted_us {
            resource["timeDeleted"] = rfc3339_millis(us).into();
        }
        if let (Value::Object(fields), Ok(Value::Object(settings))) =
            (&mut resource, serde_json::to_value(&self.settings))
        {
            fields.extend(settings);
        }
        resource
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_a_fixed_number_of_digits() {
        assert_eq!(rfc3339_millis(1_500_000), "1970-01-01T00:00:01.500Z");
        assert_eq!(rfc3339_micros(1_000_001), "1970-01-01T00:00:01.000001Z");
    }
}
