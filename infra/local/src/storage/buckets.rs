//! What is done to buckets: created, changed, emptied of everything and deleted; whom they tell and who may use them.
//!
//! What the cloud's configuration says of a bucket holds at every start: a configured bucket that was deleted is there
//! again, and so are its notifications. A binding of the configuration cannot be taken back through a policy.

use super::bucket::{self, BUCKETS, BucketRecord};
use super::generation::{Preconditions, Version};
use super::name::BucketName;
use super::notify::{EVENT_TYPES, Notification};
use super::operations::{Consequences, Inner, Storage, now_us};
use super::refusal::Refusal;
use super::shelf;
use crate::iam::Principal;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Google's limits on the notifications of a bucket: in all, and for one type of event.
const MAX_NOTIFICATIONS: (usize, usize) = (100, 10);

/// Why a bucket was not changed: decided inside the transaction.
type Decided<T> = Result<T, Refusal>;

impl BucketRecord {
    /// Holds the preconditions of a request, which know metagenerations only.
    fn check(&self, conditions: &Preconditions, read: bool) -> Result<(), Refusal> {
        let version = Version { generation: 1, metageneration: self.metageneration };
        let conditions = Preconditions { generation_match: None, generation_not_match: None, ..*conditions };
        conditions.check(Some(version)).map_err(|violation| Refusal::Precondition { violation, read })
    }
}

impl Inner {
    /// Whether a client granted this on the bucket.
    pub(super) fn granted(&self, who: &Principal, permission: &str, bucket: &BucketName) -> Result<bool, Refusal> {
        let Some(bucket) = self.find_bucket(bucket)? else { return Ok(false) };
        let roles = bucket.policy.iter().filter(|(_, members)| members.contains(who.as_str()));
        Ok(roles.filter_map(|(role, _)| self.iam.permissions(role)).flatten().any(|granted| granted == permission))
    }
}

impl Storage {
    /// Buckets of a project that start with `prefix`, after `after`.
    pub(super) fn list_buckets(
        &self,
        who: &Principal,
        project: &str,
        prefix: &str,
        after: &str,
    ) -> Result<Vec<BucketRecord>, Refusal> {
        self.0.may_in_project(who, "storage.buckets.list", project)?;
        let all = self.0.store.read(|txn| bucket::all(&txn.open_table(BUCKETS)?))?;
        let wanted = |bucket: &BucketRecord| {
            bucket.project == project && bucket.name.starts_with(prefix) && bucket.name.as_str() > after
        };
        Ok(all.into_iter().filter(wanted).collect())
    }

    /// A bucket.
    pub(super) fn get_bucket(
        &self,
        who: &Principal,
        name: &BucketName,
        conditions: &Preconditions,
    ) -> Result<BucketRecord, Refusal> {
        let bucket = self.0.bucket(who, "storage.buckets.get", name)?;
        bucket.check(conditions, true)?;
        Ok(bucket)
    }

    /// Creates a bucket.
    pub(super) async fn create_bucket(
        &self,
        who: &Principal,
        project: &str,
        name: &BucketName,
        fields: &Map<String, Value>,
    ) -> Result<BucketRecord, Refusal> {
        self.0.may_in_project(who, "storage.buckets.create", project)?;
        let location = fields.get("location").and_then(Value::as_str).unwrap_or(&self.0.location);
        let mut new = BucketRecord::new(name.as_str(), project, location, now_us());
        new.apply(fields, false)?;
        let outcome = self
            .0
            .store
            .write(move |txn| {
                if bucket::find(&txn.open_table(BUCKETS)?, &new.name)?.is_some() {
                    return Ok(Err(Refusal::Exists(new.name.clone())));
                }
                bucket::save(txn, &new)?;
                Ok(Ok(new.clone()))
            })
            .await?;
        self.answer(outcome)
    }

    /// Changes a bucket's settings.
    pub(super) async fn update_bucket(
        &self,
        who: &Principal,
        name: &BucketName,
        conditions: Preconditions,
        change: impl Fn(&mut BucketRecord) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<BucketRecord, Refusal> {
        self.0.bucket(who, "storage.buckets.update", name)?;
        self.edit(name, move |bucket| {
            bucket.check(&conditions, false)?;
            change(bucket)?;
            bucket.metageneration += 1;
            Ok(bucket.clone())
        })
        .await
    }

    /// Deletes a bucket that holds nothing.
    pub(super) async fn delete_bucket(
        &self,
        who: &Principal,
        name: &BucketName,
        conditions: Preconditions,
    ) -> Result<(), Refusal> {
        self.0.bucket(who, "storage.buckets.delete", name)?;
        let name = name.to_string();
        let outcome = self
            .0
            .store
            .write(move |txn| {
                let Some(bucket) = bucket::find(&txn.open_table(BUCKETS)?, &name)? else {
                    return Ok(Err(Refusal::NoBucket(name.clone())));
                };
                if let Err(refusal) = bucket.check(&conditions, false) {
                    return Ok(Err(refusal));
                }
                if !shelf::is_empty(txn, &name)? {
                    return Ok(Err(Refusal::NotEmpty(name.clone())));
                }
                bucket::remove(txn, &name)?;
                Ok(Ok(()))
            })
            .await?;
        self.answer(outcome)
    }

    /// The notifications of a bucket, by id.
    pub(super) fn notifications(
        &self,
        who: &Principal,
        name: &BucketName,
    ) -> Result<BTreeMap<u64, Notification>, Refusal> {
        Ok(self.0.bucket(who, "storage.buckets.get", name)?.notifications)
    }

    /// Adds a notification; returns its id.
    pub(super) async fn add_notification(
        &self,
        who: &Principal,
        name: &BucketName,
        new: Notification,
    ) -> Result<u64, Refusal> {
        self.0.bucket(who, "storage.buckets.update", name)?;
        let all = || EVENT_TYPES.map(str::to_owned).to_vec();
        let kinds = if new.event_types.is_empty() { all() } else { new.event_types.clone() };
        if let Some(unknown) = kinds.iter().find(|kind| !EVENT_TYPES.contains(&kind.as_str())) {
            return Err(Refusal::Invalid(format!("event type {unknown:?} is none of {EVENT_TYPES:?}")));
        }
        self.edit(name, move |bucket| {
            let (most, most_of_a_kind) = MAX_NOTIFICATIONS;
            let crowded = |kind: &String| {
                let wants = |n: &&Notification| n.event_types.is_empty() || n.event_types.contains(kind);
                bucket.notifications.values().filter(wants).count() >= most_of_a_kind
            };
            if bucket.notifications.len() >= most || kinds.iter().any(crowded) {
                return Err(Refusal::Invalid(format!(
                    "too many overlapping notifications: a bucket has at most {most}, and {most_of_a_kind} for one event type"
                )));
            }
            Ok(bucket.add_notification(new.clone()))
        })
        .await
    }

    /// Removes a notification.
    pub(super) async fn remove_notification(&self, who: &Principal, name: &BucketName, id: u64) -> Result<(), Refusal> {
        self.0.bucket(who, "storage.buckets.update", name)?;
        let missing = format!("{name}/notificationConfigs/{id}");
        self.edit(name, move |bucket| {
            bucket.notifications.remove(&id).map(drop).ok_or_else(|| Refusal::NoNotification(missing.clone()))
        })
        .await
    }

    /// Who may use the bucket, by role, and how often that was said anew.
    pub(super) fn policy(
        &self,
        who: &Principal,
        name: &BucketName,
    ) -> Result<(BTreeMap<String, BTreeSet<String>>, u64), Refusal> {
        let bucket = self.0.bucket(who, "storage.buckets.getIamPolicy", name)?;
        Ok((self.whole_policy(name, &bucket), bucket.policy_version))
    }

    /// What the configuration binds, and what clients granted.
    fn whole_policy(&self, name: &BucketName, bucket: &BucketRecord) -> BTreeMap<String, BTreeSet<String>> {
        let mut policy = bucket.policy.clone();
        for binding in self.0.iam.bindings_on(&name.resource()) {
            policy.entry(binding.role.clone()).or_default().extend(binding.members.iter().cloned());
        }
        policy
    }

    /// Says anew who may use the bucket. `version` is the one that the caller has read, if it says so.
    pub(super) async fn set_policy(
        &self,
        who: &Principal,
        name: &BucketName,
        mut policy: BTreeMap<String, BTreeSet<String>>,
        version: Option<u64>,
    ) -> Result<(BTreeMap<String, BTreeSet<String>>, u64), Refusal> {
        self.0.bucket(who, "storage.buckets.setIamPolicy", name)?;
        if let Some(unknown) = policy.keys().find(|role| self.0.iam.permissions(role).is_none()) {
            return Err(Refusal::Invalid(format!("there is no role {unknown:?} here")));
        }
        let known = |member: &String| member.starts_with("user:") || member.starts_with("serviceAccount:");
        if let Some(other) = policy.values().flatten().find(|member| !known(member)) {
            return Err(Refusal::Invalid(format!("member {other:?} must start with user: or serviceAccount:")));
        }
        for binding in self.0.iam.bindings_on(&name.resource()) {
            if let Some(members) = policy.get_mut(&binding.role) {
                members.retain(|member| !binding.members.contains(member));
            }
        }
        policy.retain(|_, members| !members.is_empty());
        let bucket = self
            .edit(name, move |bucket| {
                if version.is_some_and(|read| read != bucket.policy_version) {
                    return Err(Refusal::PolicyChanged);
                }
                bucket.policy.clone_from(&policy);
                bucket.policy_version += 1;
                Ok(bucket.clone())
            })
            .await?;
        Ok((self.whole_policy(name, &bucket), bucket.policy_version))
    }

    /// Changes a bucket's record in a transaction.
    async fn edit<T: Send + 'static>(
        &self,
        name: &BucketName,
        mut edit: impl FnMut(&mut BucketRecord) -> Decided<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let name = name.to_string();
        let outcome = self
            .0
            .store
            .write(move |txn| {
                let Some(mut bucket) = bucket::find(&txn.open_table(BUCKETS)?, &name)? else {
                    return Ok(Err(Refusal::NoBucket(name.clone())));
                };
                bucket.updated_us = now_us();
                let answer = match edit(&mut bucket) {
                    Ok(answer) => answer,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                bucket::save(txn, &bucket)?;
                Ok(Ok(answer))
            })
            .await?;
        self.answer(outcome)
    }

    /// What was decided, unless the reply is to be lost.
    fn answer<T>(&self, outcome: Decided<T>) -> Result<T, Refusal> {
        let answer = outcome?;
        self.0.committed(&Consequences::default())?;
        Ok(answer)
    }
}
