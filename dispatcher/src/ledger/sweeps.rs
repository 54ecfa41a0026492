//! Marks of tenants whose uploads buckets are to be swept at once.

use std::collections::BTreeSet;

use carrel_cloud::Created;
use carrel_schemas::ids::TenantId;
use serde_json::json;

use super::{JSON, Ledger, LedgerError, encode, names};

impl Ledger {
    /// Marks a tenant's bucket to be swept; false if it was marked already. Looking first keeps a flood from writing
    /// one object more often than Cloud Storage allows, which is once in a second.
    pub async fn mark_for_sweep(&self, tenant: &TenantId) -> Result<bool, LedgerError> {
        if self.is_marked_for_sweep(tenant).await? {
            return Ok(false);
        }
        let name = names::sweep_mark(tenant);
        let mark = json!({ "tenant": tenant });
        Ok(matches!(self.objects.create(&self.bucket, &name, encode(&mark), JSON).await?, Created::New(_)))
    }

    /// True if the tenant's bucket is marked, and the sweep that the mark asks for has not begun.
    pub async fn is_marked_for_sweep(&self, tenant: &TenantId) -> Result<bool, LedgerError> {
        Ok(self.objects.find(&self.bucket, &names::sweep_mark(tenant)).await?.is_some())
    }

    /// The tenants whose buckets are marked.
    pub async fn marked_for_sweep(&self) -> Result<BTreeSet<TenantId>, LedgerError> {
        let found = self.objects.list(&self.bucket, names::SWEEP_MARKS).await?;
        Ok(found.iter().filter_map(|meta| TenantId::parse(names::stem(&meta.name)).ok()).collect())
    }

    /// A sweep is about to begin. Whoever saw the mark before this knows that the sweep will see its object.
    pub async fn clear_sweep_mark(&self, tenant: &TenantId) -> Result<(), LedgerError> {
        self.objects.delete(&self.bucket, &names::sweep_mark(tenant), None).await?;
        Ok(())
    }
}
