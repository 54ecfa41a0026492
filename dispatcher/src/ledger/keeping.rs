//! What the collector needs of the control bucket: to walk it, to take objects away, and to remember what is gone.

use std::collections::BTreeSet;

use carrel_cloud::{Created, ObjectMeta, Swapped};
use carrel_schemas::dead_letter::DeadLetter;
use carrel_schemas::ids::{CampaignId, TenantId};
use carrel_schemas::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use super::letters::MAX_LETTER_BYTES;
use super::schema::Stored;
use super::{JSON, Ledger, LedgerError, Versioned, encode, names};

/// Where the collector's pass stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectCursor {
    /// The last name that was looked at; empty between passes.
    pub after: String,
    /// When the last whole pass ended.
    pub pass_ended: Option<Timestamp>,
}

/// "This tenant was deleted."
#[derive(Debug, Serialize, Deserialize)]
struct Tombstone {
    tenant: TenantId,
    deleted_at: Timestamp,
}

/// Up to which place a log of completions was taken away.
#[derive(Debug, Serialize, Deserialize)]
struct LogBegin {
    after: String,
}

impl Stored for CollectCursor {}
impl Stored for LogBegin {}

impl Ledger {
    /// Where the collector stands.
    pub async fn collect_cursor(&self) -> Result<CollectCursor, LedgerError> {
        Ok(self.read(names::COLLECTOR).await?.map(|held| held.value).unwrap_or_default())
    }

    /// Notes where the collector stands; a lost note only has a page looked at twice.
    pub async fn keep_collect_cursor(&self, cursor: &CollectCursor) -> Result<(), LedgerError> {
        self.objects.put(&self.bucket, names::COLLECTOR, encode(cursor), JSON).await?;
        Ok(())
    }

    /// The first `most` objects of the control bucket after this name.
    pub async fn objects_after(&self, after: &str, most: usize) -> Result<Vec<ObjectMeta>, LedgerError> {
        // The object of that very name, if it is still there, is the first of the listing.
        let mut found = self.objects.list_from(&self.bucket, "", after, most + 1).await?;
        found.retain(|meta| meta.name.as_str() > after);
        found.truncate(most);
        Ok(found)
    }

    /// The first `most` objects that are kept for a tenant.
    pub async fn objects_of(&self, tenant: &TenantId, most: usize) -> Result<Vec<ObjectMeta>, LedgerError> {
        Ok(self.objects.list_at_most(&self.bucket, &names::tenant_prefix(tenant), most).await?)
    }

    /// True while a pack or a review of the tenant is open.
    pub async fn has_open(&self, tenant: &TenantId) -> Result<bool, LedgerError> {
        for prefix in [names::OPEN_PACKS, names::OPEN_REVIEWS] {
            if !self.objects.list_at_most(&self.bucket, &format!("{prefix}{tenant}/"), 1).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes an object away in this version, and in no other.
    pub async fn remove(&self, name: &str, generation: i64) -> Result<(), LedgerError> {
        self.objects.delete(&self.bucket, name, Some(generation)).await?;
        Ok(())
    }

    /// The letter of this object.
    pub async fn letter_at(&self, name: &str) -> Result<Option<Versioned<DeadLetter>>, LedgerError> {
        self.read_up_to(name, MAX_LETTER_BYTES).await
    }

    /// True while something of the campaign is left to do.
    pub async fn is_campaign_open(&self, id: &CampaignId) -> Result<bool, LedgerError> {
        Ok(self.objects.find(&self.bucket, &names::open_campaign(id)).await?.is_some())
    }

    /// The log of a tenant is about to begin after this place.
    pub async fn begin_log_after(&self, tenant: &TenantId, place: &str) -> Result<(), LedgerError> {
        let name = names::log_begin(tenant);
        loop {
            let held = self.read::<LogBegin>(&name).await?;
            if held.as_ref().is_some_and(|begin| begin.value.after.as_str() >= place) {
                return Ok(());
            }
            // By compare-and-swap: a leader that was deposed in between must not move it back.
            let begin = encode(&LogBegin { after: place.to_owned() });
            let won = match held {
                Some(held) => {
                    let swapped = self.objects.swap(&self.bucket, &name, held.generation, begin, JSON).await?;
                    matches!(swapped, Swapped::Done(_))
                }
                None => matches!(self.objects.create(&self.bucket, &name, begin, JSON).await?, Created::New(_)),
            };
            if won {
                return Ok(());
            }
        }
    }

    /// The last place of a tenant's log that may be gone, if any is.
    pub async fn log_begin(&self, tenant: &TenantId) -> Result<Option<String>, LedgerError> {
        Ok(self.read::<LogBegin>(&names::log_begin(tenant)).await?.map(|held| held.value.after))
    }

    /// Nothing of a deleted tenant is left.
    pub async fn bury(&self, tenant: &TenantId, now: Timestamp) -> Result<(), LedgerError> {
        let tombstone = Tombstone { tenant: tenant.clone(), deleted_at: now };
        self.create(&names::tombstone(tenant), &tombstone).await?;
        Ok(())
    }

    /// Every tenant that was deleted.
    pub async fn buried(&self) -> Result<BTreeSet<TenantId>, LedgerError> {
        let found = self.objects.list(&self.bucket, names::TOMBSTONES).await?;
        Ok(found.iter().filter_map(|meta| TenantId::parse(names::stem(&meta.name)).ok()).collect())
    }
}
