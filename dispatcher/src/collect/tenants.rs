//! A tenant that leaves: once nothing of it is under way, all that the ledger holds of it goes, and a tombstone stays that
//! keeps its id from being used again.
//!
//! ```text
//! deleting: true ─► nothing is taken in, reviews are cancelled (drive) ─► nothing open ─► records, letters, log … ─► tombstone
//! ```

use std::collections::BTreeSet;

use carrel_schemas::ids::TenantId;
use carrel_schemas::registry::Tenant;

use super::{BATCH, CollectError, Collector};

impl Collector {
    /// A batch of every tenant that leaves and is not `gone` yet.
    pub(super) async fn erase_who_leaves(&self, gone: &mut BTreeSet<TenantId>) {
        for tenant in self.registry.tenants().filter(|tenant| tenant.deleting) {
            if gone.contains(&tenant.id) {
                continue;
            }
            match self.erase(tenant).await {
                Ok(true) => {
                    tracing::info!(tenant.id = %tenant.id, "tenant deleted; take it out of the registry, and its buckets away");
                    gone.insert(tenant.id.clone());
                }
                Ok(false) => {}
                Err(error) => {
                    let error = crate::chain(&error);
                    tracing::warn!(tenant.id = %tenant.id, error, "the tenant is deleted later");
                }
            }
        }
    }

    async fn erase(&self, tenant: &Tenant) -> Result<bool, CollectError> {
        if self.ledger.has_open(&tenant.id).await? {
            return Ok(false);
        }
        let found = self.ledger.objects_of(&tenant.id, BATCH).await?;
        for object in &found {
            self.ledger.remove(&object.name, object.generation).await?;
        }
        if found.is_empty() {
            self.ledger.clear_sweep_mark(&tenant.id).await?;
            self.ledger.bury(&tenant.id, crate::now()).await?;
        }
        Ok(found.is_empty())
    }
}
