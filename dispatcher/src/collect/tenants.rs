//! A tenant that leaves: once nothing of it is under way, all that the ledger holds of it goes, and a tombstone stays that
//! keeps its id from being used again.
//!
//! ```text
//! deleting: true ─► nothing is taken in, reviews are cancelled (drive) ─► nothing open ─► records, letters, log … ─► tombstone
//! ```

use std::collections::BTreeSet;

use carrel_schemas::ids::TenantId;
use carrel_schemas::registry::Tenant;

use futures::StreamExt as _;

use super::{BATCH, CollectError, Collector, LOOKS};

impl Collector {
    /// A batch of every tenant that leaves and is not `gone` yet; true if one of them has more.
    pub(super) async fn erase_who_leaves(&self, gone: &mut BTreeSet<TenantId>) -> bool {
        let mut more = false;
        for tenant in self.registry.tenants().filter(|tenant| tenant.deleting) {
            if gone.contains(&tenant.id) {
                continue;
            }
            match self.erase(tenant).await {
                Ok(Erased::All) => {
                    tracing::info!(tenant.id = %tenant.id, "tenant deleted; take it out of the registry, and its buckets away");
                    gone.insert(tenant.id.clone());
                }
                Ok(Erased::Some) => more = true,
                Ok(Erased::Nothing) => {}
                Err(error) => {
                    let error = crate::chain(&error);
                    tracing::warn!(tenant.id = %tenant.id, error, "the tenant is deleted later");
                }
            }
        }
        more
    }

    async fn erase(&self, tenant: &Tenant) -> Result<Erased, CollectError> {
        if self.ledger.has_open(&tenant.id).await? {
            return Ok(Erased::Nothing);
        }
        let found = self.ledger.objects_of(&tenant.id, BATCH).await?;
        if found.is_empty() {
            self.ledger.clear_sweep_mark(&tenant.id).await?;
            self.ledger.bury(&tenant.id, crate::now()).await?;
            return Ok(Erased::All);
        }
        let removals: Vec<_> = found.iter().map(|object| self.ledger.remove(&object.name, object.generation)).collect();
        // Each is tried, whichever fails.
        let removed: Vec<_> = futures::stream::iter(removals).buffer_unordered(LOOKS).collect().await;
        removed.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(Erased::Some)
    }
}

/// How far one batch came.
enum Erased {
    /// Something of the tenant's is under way.
    Nothing,
    /// There may be more.
    Some,
    /// Its tombstone stands.
    All,
}
