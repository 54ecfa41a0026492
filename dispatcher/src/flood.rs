//! What happens to a tenant's uploads above its rate of events: they are found by listing instead of one by one.
//!
//! ```text
//! event ─► within the rate? ─yes─► intake, as ever
//!                 └─no─► the tenant is marked (one object, if absent) ─► ack
//!                          └─ the leader begins a sweep of its bucket, then clears the mark
//! ```
//! A mark is looked for after the event has arrived, and cleared before the listing begins: whatever was acknowledged
//! for its sake lies in the bucket by then. So a flood costs the ledger a few writes and intake none of its time, and
//! what it delays is its own tenant. An object that its owner deletes before the sweep is forgotten, as by any listing.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use carrel_schemas::ids::TenantId;
use carrel_schemas::layout::UploadKind;
use carrel_schemas::registry::Tenant;
use carrel_schemas::timestamp::Timestamp;

use crate::flight::Flight;
use crate::ledger::{Ledger, LedgerError};
use crate::pace::Pace;
use crate::validate::Upload;

/// The tenants' rates, and the marks of those that exceed them.
#[derive(Debug)]
pub struct Floods {
    ledger: Ledger,
    paces: Mutex<HashMap<TenantId, Pace>>,
    marks: Mutex<HashMap<TenantId, Arc<Flight<()>>>>,
}

impl Floods {
    /// Rates as of now, marks in `ledger`.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, paces: Mutex::default(), marks: Mutex::default() }
    }

    /// True if a sweep will find this upload, durably, and nothing else is to be done about it. A marker or manifest is
    /// never left to a sweep: it is one event for its pack, and it says that the pack is complete.
    pub async fn is_left_to_sweep(&self, upload: &Upload, now: Timestamp) -> Result<bool, LedgerError> {
        if upload.kind != UploadKind::File || self.is_within_rate(&upload.tenant, now) {
            return Ok(false);
        }
        let tenant = &upload.tenant.id;
        let flight = self
            .marks
            .lock()
            .expect("no code panics while it holds the map")
            .entry(tenant.clone())
            .or_default()
            .clone();
        flight
            .join(|_| async move {
                if self.ledger.mark_for_sweep(tenant).await? {
                    tracing::warn!(tenant.id = %tenant, "more uploads than the tenant's rate; its bucket is swept");
                }
                Ok::<_, LedgerError>(())
            })
            .await?;
        Ok(true)
    }

    fn is_within_rate(&self, tenant: &Tenant, now: Timestamp) -> bool {
        let mut paces = self.paces.lock().expect("no code panics while it holds the map");
        let rate = NonZeroU32::new(tenant.limits.max_events_per_minute).unwrap_or(NonZeroU32::MIN);
        let pace = paces.entry(tenant.id.clone()).or_insert_with(|| Pace::new(rate));
        let within = pace.wait(now).is_none();
        if within {
            pace.spend(now);
        }
        within
    }
}
