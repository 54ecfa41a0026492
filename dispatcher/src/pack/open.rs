//! Notes durably that a pack has uploads that no seal holds, one write per pack and revision, not per upload.
//!
//! ```text
//! event ─► create open/<revision> if absent ─► is that revision sealed? ─no─► noted: the sealer will list the bucket
//!                        ▲                                └─yes─► next revision ─┐
//!                        └────────────────────────────────────────────────────────┘
//! ```
//! Order is everything: the seal is looked for after the marker exists, so a sealer that listed too early is seen.
//! Events of one pack that arrive while a run is under way share the next run, which begins after their arrival.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrel_schemas::ids::{PackId, Revision, TenantId};
use carrel_schemas::registry::Tenant;
use carrel_schemas::timestamp::Timestamp;

use crate::flight::Flight;
use crate::ledger::{Ledger, LedgerError, OpenPack};

/// Packs remembered before idle ones are forgotten; forgetting costs one listing.
const REMEMBERED: usize = 4096;
/// A revision is remembered no longer than this: what is over and old is collected, and the seal that says that it was
/// closed may be gone.
const REMEMBERED_FOR: Duration = Duration::from_secs(60 * 60);

type Slot = Arc<Flight<OpenPack>>;

/// Opens packs, coalescing concurrent events of the same pack.
#[derive(Debug)]
pub struct Opener {
    ledger: Ledger,
    /// What the last run left open is the next one's hint, and checked by it.
    slots: Mutex<HashMap<(TenantId, PackId), Slot>>,
}

impl Opener {
    /// An opener that writes to `ledger`.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, slots: Mutex::new(HashMap::new()) }
    }

    /// Returns once an open revision of the pack is durable that no seal had overtaken after this call began.
    pub async fn open(
        &self,
        tenant: &Tenant,
        pack: &PackId,
        traceparent: Option<String>,
        now: Timestamp,
    ) -> Result<OpenPack, LedgerError> {
        let slot = self.slot(tenant, pack);
        slot.join(|hint| self.run(tenant, pack, hint, traceparent, now)).await
    }

    fn slot(&self, tenant: &Tenant, pack: &PackId) -> Slot {
        let mut slots = self.slots.lock().expect("no code panics while it holds the map");
        if slots.len() >= REMEMBERED {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry((tenant.id.clone(), pack.clone())).or_default().clone()
    }

    async fn run(
        &self,
        tenant: &Tenant,
        pack: &PackId,
        hint: Option<OpenPack>,
        traceparent: Option<String>,
        now: Timestamp,
    ) -> Result<OpenPack, LedgerError> {
        let mut open = match hint.filter(|open| now.since(open.opened_at) < REMEMBERED_FOR) {
            Some(open) => open,
            None => {
                let last = self.ledger.last_seal(&tenant.id, pack).await?;
                let revision = last.map_or(Revision::FIRST, |seal| seal.revision.next());
                self.create(tenant, pack, revision, traceparent.clone(), now).await?
            }
        };
        while self.ledger.is_sealed(&tenant.id, pack, open.revision).await? {
            open = self.create(tenant, pack, open.revision.next(), traceparent.clone(), now).await?;
        }
        Ok(open)
    }

    async fn create(
        &self,
        tenant: &Tenant,
        pack: &PackId,
        revision: Revision,
        traceparent: Option<String>,
        now: Timestamp,
    ) -> Result<OpenPack, LedgerError> {
        let open = OpenPack {
            tenant: tenant.id.clone(),
            pack: pack.clone(),
            revision,
            bucket: tenant.uploads_bucket.clone(),
            opened_at: now,
            traceparent,
        };
        self.ledger.open_pack(&open).await?;
        Ok(open)
    }
}
