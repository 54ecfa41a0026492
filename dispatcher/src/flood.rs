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
    rates: Mutex<Rates>,
    marks: Mutex<HashMap<TenantId, Arc<Flight<()>>>>,
}

impl Floods {
    /// Rates as of now, marks in `ledger`.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, rates: Mutex::default(), marks: Mutex::default() }
    }

    /// True if a sweep will find this upload, durably, and nothing else is to be done about it. Of a marker or manifest
    /// it finds the files: their pack is opened, and whoever looks at it sees the sign. A pack of nothing but a marker
    /// above the rate is not found, and no letter says that it holds no file.
    pub async fn is_left_to_sweep(&self, upload: &Upload, now: Timestamp) -> Result<bool, LedgerError> {
        let is_within = {
            let mut rates = self.rates.lock().expect("no code panics while it holds the map");
            rates.take(&upload.tenant, &upload.kind, now)
        };
        if is_within {
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
}

/// What each tenant has spent of its rate. Signs of completion have a rate of their own, as high as that of files: each
/// stands for a whole pack, so files alone must not delay them, and in as many folders they are a flood like any other.
#[derive(Debug, Default)]
struct Rates {
    files: HashMap<TenantId, Pace>,
    signs: HashMap<TenantId, Pace>,
}

impl Rates {
    /// True if one more is within the tenant's rate; then it is spent.
    fn take(&mut self, tenant: &Tenant, kind: &UploadKind, now: Timestamp) -> bool {
        let paces = match kind {
            UploadKind::File => &mut self.files,
            UploadKind::Marker | UploadKind::Manifest => &mut self.signs,
            UploadKind::Ignored => return true,
        };
        let rate = NonZeroU32::new(tenant.limits.max_events_per_minute).unwrap_or(NonZeroU32::MIN);
        let pace = paces.entry(tenant.id.clone()).or_insert_with(|| Pace::new(rate));
        let within = pace.wait(now).is_none();
        if within {
            pace.spend(now);
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tenant(id: &str) -> Tenant {
        let tenant = json!({
            "id": id, "uploads_bucket": format!("{id}-uploads"), "outputs_bucket": format!("{id}-outputs"),
            "service_account": "t@p.iam.gserviceaccount.com", "job": format!("projects/p/locations/l/jobs/review-{id}"),
            "limits": { "max_events_per_minute": 60 },
        });
        serde_json::from_value(tenant).expect("a tenant")
    }

    fn taken(rates: &mut Rates, tenant: &Tenant, kinds: &[UploadKind]) -> usize {
        let now = Timestamp::from_unix_seconds(1_000_000).expect("in range");
        (0..1000).filter(|at| rates.take(tenant, &kinds[at % kinds.len()], now)).count()
    }

    #[test]
    fn markers_in_as_many_folders_are_a_flood_like_any_other() {
        let (mut rates, flood, calm) = (Rates::default(), tenant("flood"), tenant("calm"));
        let taken_of_flood = taken(&mut rates, &flood, &[UploadKind::Marker, UploadKind::Manifest]);
        assert!((1..=10).contains(&taken_of_flood), "{taken_of_flood} signs at one instant");
        assert!(taken(&mut rates, &calm, &[UploadKind::Marker]) >= 1, "another tenant pays for it");
    }

    #[test]
    fn a_flood_of_files_takes_nothing_from_the_marker_that_closes_their_pack() {
        let (mut rates, flood) = (Rates::default(), tenant("flood"));
        let files = taken(&mut rates, &flood, &[UploadKind::File]);
        assert_eq!(taken(&mut rates, &flood, &[UploadKind::Marker]), files);
    }
}
