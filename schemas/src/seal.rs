//! The seal: exactly which object versions one review reads, and the review id that follows from them.

use std::num::NonZeroU64;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{BucketName, Generation, IdempotencyKey, ObjectName, PackId, ReviewId, Revision, TenantId};
use crate::timestamp::Timestamp;

/// The members of one closed pack, written once by the dispatcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seal {
    /// Schema number of this record: [`Seal::SCHEMA`].
    pub schema: u32,
    /// Derived from tenant, pack, members, manifest and idempotency key; see [`review_id`].
    pub review: ReviewId,
    /// Whose pack it is.
    pub tenant: TenantId,
    /// Which pack.
    pub pack: PackId,
    /// Which closing of the pack.
    pub revision: Revision,
    /// The tenant's uploads bucket.
    pub bucket: BucketName,
    /// Members in order of their names; markers and placeholders are not among them.
    pub members: Vec<Member>,
    /// The `_manifest.json` that closed the pack, which the worker holds against the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Member>,
    /// The generation of the `_COMPLETE` that lay in the pack: another one closes the next revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Generation>,
    /// The pack holds more files than a seal may name: none is named, and nothing reviews it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub excess: bool,
    /// What closed the pack.
    pub closed_by: ClosedBy,
    /// When the sealer listed the bucket.
    pub sealed_at: Timestamp,
    /// Present on an explicit re-review of the same files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// Seconds from the seal by which whoever asked wants an outcome; the tenant's own deadline holds beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<NonZeroU64>,
}

impl Seal {
    /// The schema number that this code writes.
    pub const SCHEMA: u32 = 1;
    /// A pack of more objects is sealed as excess.
    pub const MAX_MEMBERS: usize = 5_000;
    /// A seal of more bytes as JSON is no seal; members whose names come to more are sealed as excess.
    pub const MAX_BYTES: u64 = 8 << 20;

    /// True if `review` is what tenant, pack, members, manifest and key derive to: a forged seal shows here.
    pub fn is_consistent(&self) -> bool {
        let (manifest, key) = (self.manifest.as_ref(), self.idempotency_key.as_ref());
        self.review == review_id(&self.tenant, &self.pack, &self.members, manifest, key)
    }
}

/// One object version of a seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// The object's full name in the uploads bucket.
    pub name: ObjectName,
    /// The version sealed.
    pub generation: Generation,
    /// Bytes.
    pub size: u64,
    /// CRC-32C (Castagnoli) of the bytes, as Cloud Storage computed it.
    pub crc32c: u32,
    /// What the uploader said it was; never trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// Why a pack closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClosedBy {
    /// A `_COMPLETE` object arrived.
    Marker,
    /// A `_manifest.json` object arrived.
    Manifest,
    /// No upload arrived for the tenant's quiet period.
    Quiet,
    /// The maximum age passed first.
    MaxAge,
    /// The tenant's policy makes every object a pack of one.
    Each,
    /// Somebody asked for a review.
    Request,
}

/// `H("v1", tenant, pack, sorted (name, generation)[, manifest][, key])`: the same files, held against the same
/// manifest, are always the same review.
pub fn review_id(
    tenant: &TenantId,
    pack: &PackId,
    members: &[Member],
    manifest: Option<&Member>,
    key: Option<&IdempotencyKey>,
) -> ReviewId {
    let mut sorted: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.generation.get().to_be_bytes())).collect();
    sorted.sort_unstable();
    let mut parts: Vec<&[u8]> = vec![tenant.as_str().as_bytes(), pack.as_str().as_bytes()];
    for (name, generation) in &sorted {
        parts.push(name.as_bytes());
        parts.push(generation);
    }
    let manifest = manifest.map(|manifest| manifest.generation.get().to_be_bytes());
    if let Some(generation) = &manifest {
        parts.extend([b"manifest".as_slice(), generation]);
    }
    if let Some(key) = key {
        parts.push(b"idempotency-key");
        parts.push(key.as_str().as_bytes());
    }
    ReviewId::derive(&parts)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    fn member(name: &str, generation: i64) -> Member {
        Member {
            name: ObjectName::parse(name).expect("name"),
            generation: Generation::new(generation),
            size: 1,
            crc32c: 0,
            content_type: None,
        }
    }

    #[test]
    fn the_same_files_are_the_same_review_in_any_order() {
        let (tenant, pack) = (TenantId::parse("acme").expect("id"), PackId::parse("q3").expect("id"));
        let id = |members: &[Member], key: Option<&IdempotencyKey>| review_id(&tenant, &pack, members, None, key);
        let (a, b) = (member("q3/a.csv", 1), member("q3/b.csv", 2));
        assert_eq!(id(&[a.clone(), b.clone()], None), id(&[b.clone(), a.clone()], None));
        assert_ne!(id(&[a.clone(), b.clone()], None), id(&[a.clone(), member("q3/b.csv", 3)], None));
        let key = IdempotencyKey::parse("again-1").expect("key");
        assert_ne!(id(slice::from_ref(&a), None), id(slice::from_ref(&a), Some(&key)));
        let manifest = member("q3/_manifest.json", 1);
        let held = review_id(&tenant, &pack, slice::from_ref(&a), Some(&manifest), None);
        assert_ne!(held, id(slice::from_ref(&a), None), "a manifest asks for more");
    }
}
