//! What a review leaves in its tenant's outputs bucket beside what was decided and delivered: the worker's copy of the
//! seal, claims, progress, and the files of attempts that no outcome names.

use std::collections::BTreeSet;

use carrel_schemas::layout;
use carrel_schemas::outcome::{Outcome, Verdict};
use carrel_schemas::registry::Tenant;

use super::{CollectError, Collector};
use crate::ledger::ReviewRecord;

impl Collector {
    /// Takes the leftovers of a review away. Those of a later epoch than the record's stay: a replay may just begin it,
    /// and a claim that vanished could be taken twice.
    pub(super) async fn take_leftovers(&self, tenant: &Tenant, record: &ReviewRecord) -> Result<(), CollectError> {
        let bucket = tenant.outputs_bucket.as_str();
        let is_past = |prefix: &str, name: &str| {
            let epoch = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            epoch.is_some_and(|epoch| epoch <= record.epoch.get())
        };
        let delivered = self.delivered(bucket, record).await?;
        let review = &record.review;
        for prefix in [layout::claims(review), layout::progresses(review), layout::attempts(review)] {
            for object in self.objects.list(bucket, &prefix).await? {
                let is_wanted = delivered.as_ref().is_none_or(|named| named.contains(&object.name));
                if is_past(&prefix, &object.name) && !(prefix == layout::attempts(review) && is_wanted) {
                    self.objects.delete(bucket, &object.name, Some(object.generation)).await?;
                }
            }
        }
        self.objects.delete(bucket, layout::seal(review).as_str(), None).await?;
        Ok(())
    }

    /// Every file that an outcome of the review names; none where an outcome cannot be read, and then all files stay.
    async fn delivered(&self, bucket: &str, record: &ReviewRecord) -> Result<Option<BTreeSet<String>>, CollectError> {
        let mut named = BTreeSet::new();
        for object in self.objects.list(bucket, &layout::outcomes(&record.review)).await? {
            let Some(body) = self.objects.get(bucket, &object.name, Outcome::MAX_BYTES).await? else { continue };
            let Ok(outcome) = serde_json::from_slice::<Outcome>(&body.bytes) else { return Ok(None) };
            if let Verdict::Delivered { files, .. } = outcome.verdict {
                named.extend(files.into_iter().map(|file| file.object.as_str().to_owned()));
            }
        }
        Ok(Some(named))
    }
}
