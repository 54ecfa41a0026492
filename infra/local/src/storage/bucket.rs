//! One bucket: what is kept about it, the table it lies in, and its faces.
//!
//! Served are labels, versioning, notifications and a policy. What would change how objects behave and is not done here
//! (lifecycle, retention, default encryption, other classes than STANDARD, requester pays, folders of their own) is refused
//! by name; what only describes a bucket (CORS, website, logging) is ignored. Functions of tables run in the caller's
//! transaction.

use super::notify::Notification;
use super::record::{STORAGE_CLASS, rfc3339_millis};
use super::refusal::Refusal;
use crate::store::StoreError;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Bucket to the record, as JSON.
pub(super) const BUCKETS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("storage.bucket");
/// What there was before buckets had settings: bucket to when it was created.
const BARE_BUCKETS: TableDefinition<'static, &str, i64> = TableDefinition::new("storage.buckets");

/// A bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BucketRecord {
    /// Its id.
    pub(super) name: String,
    /// Whose it is.
    pub(super) project: String,
    /// Where it says it is.
    pub(super) location: String,
    /// When it was created, in microseconds since 1970.
    pub(super) created_us: i64,
    /// When it last changed.
    pub(super) updated_us: i64,
    /// Starts at 1 and grows with every change.
    pub(super) metageneration: i64,
    /// Generations that are replaced or deleted are kept.
    pub(super) versioning: bool,
    /// The caller's keys and values.
    pub(super) labels: BTreeMap<String, String>,
    /// Whom it tells, by id.
    pub(super) notifications: BTreeMap<u64, Notification>,
    /// The last id given out.
    pub(super) last_notification: u64,
    /// What clients granted: role to members.
    pub(super) policy: BTreeMap<String, BTreeSet<String>>,
    /// How often that was said anew.
    pub(super) policy_version: u64,
}

/// Creates the table; buckets of before keep their age.
pub(super) fn create_table(txn: &WriteTransaction, project: &str, location: &str) -> Result<(), StoreError> {
    let mut bare = Vec::new();
    for entry in txn.open_table(BARE_BUCKETS)?.iter()? {
        let (name, created_us) = entry?;
        bare.push((name.value().to_owned(), created_us.value()));
    }
    txn.delete_table(BARE_BUCKETS)?;
    txn.open_table(BUCKETS)?;
    for (name, created_us) in bare {
        save(txn, &BucketRecord::new(&name, project, location, created_us))?;
    }
    Ok(())
}

/// A bucket, if there is one.
pub(super) fn find(
    buckets: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<BucketRecord>, StoreError> {
    Ok(buckets.get(name)?.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?)
}

/// Every bucket in order.
pub(super) fn all(buckets: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Vec<BucketRecord>, StoreError> {
    let mut all = Vec::new();
    for entry in buckets.iter()? {
        all.push(serde_json::from_slice(entry?.1.value())?);
    }
    Ok(all)
}

/// Writes a bucket as it now is.
pub(super) fn save(txn: &WriteTransaction, bucket: &BucketRecord) -> Result<(), StoreError> {
    txn.open_table(BUCKETS)?.insert(bucket.name.as_str(), serde_json::to_vec(bucket)?.as_slice())?;
    Ok(())
}

/// Forgets a bucket.
pub(super) fn remove(txn: &WriteTransaction, name: &str) -> Result<(), StoreError> {
    txn.open_table(BUCKETS)?.remove(name)?;
    Ok(())
}

impl BucketRecord {
    /// A new bucket.
    pub(super) fn new(name: &str, project: &str, location: &str, now_us: i64) -> Self {
        Self {
            name: name.to_owned(),
            project: project.to_owned(),
            location: location.to_owned(),
            created_us: now_us,
            updated_us: now_us,
            metageneration: 1,
            ..Self::default()
        }
    }

    /// Takes the notifications that the cloud's configuration wants in the place of those it wanted before. One that it
    /// goes on wanting keeps its id.
    pub(super) fn configure(&mut self, mut wanted: Vec<Notification>) {
        self.notifications.retain(|_, known| {
            let place = wanted.iter().position(|wanted| wanted == known);
            place.map(|at| wanted.remove(at)).is_some() || !known.configured
        });
        for notification in wanted {
            self.add_notification(notification);
        }
    }

    /// Adds a notification; returns its id.
    pub(super) fn add_notification(&mut self, notification: Notification) -> u64 {
        self.last_notification += 1;
        self.notifications.insert(self.last_notification, notification);
        self.last_notification
    }

    /// Applies the fields of a bucket resource; `whole` ones clear what they do not say.
    pub(super) fn apply(&mut self, fields: &Map<String, Value>, whole: bool) -> Result<(), Refusal> {
        refuse_unserved(fields)?;
        let mut next = self.clone();
        if whole {
            (next.versioning, next.labels) = (false, BTreeMap::new());
        }
        match fields.get("versioning") {
            None => {}
            Some(Value::Null) => next.versioning = false,
            Some(versioning) => match versioning.get("enabled") {
                None => {}
                Some(enabled) => {
                    let wrong = || Refusal::Invalid(format!("versioning.enabled {enabled} must be true or false"));
                    next.versioning = enabled.as_bool().ok_or_else(wrong)?;
                }
            },
        }
        match fields.get("labels") {
            None => {}
            Some(Value::Null) => next.labels.clear(),
            Some(Value::Object(changes)) => {
                for (key, value) in changes {
                    match value {
                        Value::Null => drop(next.labels.remove(key)),
                        Value::String(text) => drop(next.labels.insert(key.clone(), text.clone())),
                        _ => return Err(Refusal::Invalid(format!("label {key:?} must be a string"))),
                    }
                }
            }
            Some(_) => return Err(Refusal::Invalid("labels must be an object".to_owned())),
        }
        *self = next;
        Ok(())
    }

    /// Changes with every change.
    pub(super) fn etag(&self) -> String {
        BASE64_STANDARD.encode(format!("{}/{}", self.created_us, self.metageneration))
    }

    /// The JSON API's bucket resource. `base` is the address links start with.
    pub(super) fn resource(&self, base: &str) -> Value {
        let name = &self.name;
        let mut resource = json!({
            "kind": "storage#bucket",
            "id": name,
            "name": name,
            "selfLink": format!("{base}/storage/v1/b/{name}"),
            "location": self.location,
            "locationType": "region",
            "storageClass": STORAGE_CLASS,
            "metageneration": self.metageneration.to_string(),
            "etag": self.etag(),
            "timeCreated": rfc3339_millis(self.created_us),
            "updated": rfc3339_millis(self.updated_us),
            // There are no ACLs and nothing public here, so this is how it is.
            "iamConfiguration": {
                "uniformBucketLevelAccess": { "enabled": true },
                "bucketPolicyOnly": { "enabled": true },
                "publicAccessPrevention": "enforced",
            },
            "softDeletePolicy": { "retentionDurationSeconds": "0" },
        });
        if self.versioning {
            resource["versioning"] = json!({ "enabled": true });
        }
        if !self.labels.is_empty() {
            resource["labels"] = json!(self.labels);
        }
        resource
    }
}

/// Refuses by name what would have to change how the bucket behaves.
fn refuse_unserved(fields: &Map<String, Value>) -> Result<(), Refusal> {
    let at = |pointer: &str| {
        let (first, rest) = pointer.split_once('/').unwrap_or((pointer, ""));
        let value = fields.get(first)?;
        if rest.is_empty() { Some(value) } else { value.get(rest) }
    };
    let asked = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    for name in [
        "lifecycle/rule",
        "retentionPolicy",
        "encryption/defaultKmsKeyName",
        "billing/requesterPays",
        "defaultEventBasedHold",
        "hierarchicalNamespace/enabled",
        "autoclass/enabled",
        "customPlacementConfig",
    ] {
        if at(name).is_some_and(asked) {
            return Err(Refusal::Invalid(format!("{} is not served here: leave it out", name.replace('/', "."))));
        }
    }
    match at("storageClass").and_then(Value::as_str) {
        None | Some("" | STORAGE_CLASS) => Ok(()),
        Some(class) => Err(Refusal::Invalid(format!("storageClass {class:?} is not served here: all is STANDARD"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(bucket: &BucketRecord, fields: Value, whole: bool) -> Result<BucketRecord, String> {
        let mut bucket = bucket.clone();
        let fields = fields.as_object().expect("an object").clone();
        bucket.apply(&fields, whole).map(|()| bucket).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_patch_changes_what_it_names_and_an_update_clears_the_rest() {
        let bucket = BucketRecord::new("b", "p", "l", 1);
        let one = json!({ "versioning": { "enabled": true }, "labels": { "a": "1", "b": "2" }, "cors": [{}] });
        let bucket = applied(&bucket, one, false).expect("is served");
        assert!(bucket.versioning);
        let patched = applied(&bucket, json!({ "labels": { "a": null, "c": "3" } }), false).expect("is served");
        assert!(patched.versioning);
        assert_eq!(patched.labels.keys().collect::<Vec<_>>(), ["b", "c"]);
        let updated = applied(&bucket, json!({ "labels": { "d": "4" } }), true).expect("is served");
        assert!(!updated.versioning);
        assert_eq!(updated.labels.keys().collect::<Vec<_>>(), ["d"]);
        assert!(applied(&bucket, json!({ "labels": { "a": 7 } }), false).is_err());
    }

    #[test]
    fn what_would_change_how_objects_behave_is_refused_by_name() {
        let bucket = BucketRecord::new("b", "p", "l", 1);
        for (fields, name) in [
            (json!({ "lifecycle": { "rule": [{ "action": { "type": "Delete" } }] } }), "lifecycle.rule"),
            (json!({ "retentionPolicy": { "retentionPeriod": "60" } }), "retentionPolicy"),
            (json!({ "storageClass": "NEARLINE" }), "storageClass"),
            (json!({ "billing": { "requesterPays": true } }), "billing.requesterPays"),
        ] {
            let refused = applied(&bucket, fields, false).expect_err("is refused");
            assert!(refused.contains(name), "{refused}");
        }
        for fields in [
            json!({ "lifecycle": {}, "storageClass": "STANDARD", "retentionPolicy": null }),
            json!({ "lifecycle": { "rule": [] }, "billing": { "requesterPays": false } }),
        ] {
            applied(&bucket, fields, false).expect("asks for nothing");
        }
    }

    #[test]
    fn a_bucket_of_before_keeps_its_age() {
        let db = redb::Database::builder().create_with_backend(redb::backends::InMemoryBackend::new());
        let txn = db.expect("creates").begin_write().expect("begins");
        txn.open_table(BARE_BUCKETS).expect("opens").insert("old", 7).expect("writes");
        for _ in 0..2 {
            create_table(&txn, "p", "l").expect("creates");
            let kept = all(&txn.open_table(BUCKETS).expect("opens")).expect("reads");
            assert_eq!(kept, [BucketRecord::new("old", "p", "l", 7)]);
        }
    }

    #[test]
    fn a_configured_notification_keeps_its_id_and_a_clients_own_stays() {
        let configured = |topic: &str| Notification { topic: topic.to_owned(), configured: true, ..Default::default() };
        let mut bucket = BucketRecord::new("b", "p", "l", 1);
        bucket.configure(vec![configured("one"), configured("two")]);
        let own = bucket.add_notification(Notification { topic: "two".to_owned(), ..Default::default() });
        bucket.configure(vec![configured("three"), configured("two")]);
        let topics: Vec<_> = bucket.notifications.iter().map(|(id, n)| (*id, n.topic.as_str())).collect();
        assert_eq!((own, topics), (3, vec![(2, "two"), (3, "two"), (4, "three")]));
    }
}
