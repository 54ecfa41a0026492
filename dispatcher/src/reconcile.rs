//! Takes no input: walks the ledger and the buckets, and rings for whatever is not where it should be.
//!
//! The hot loop lists open packs and reviews every few seconds. The cold sweep walks every uploads bucket page by page
//! within a day, and finds uploads whose notification was lost. Both only ring; the arrows are the same as ever.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use carrel_cloud::{CallError, ObjectMeta, Objects};
use carrel_schemas::ids::{ObjectName, PackId};
use carrel_schemas::layout::{self, UploadKind};
use carrel_schemas::registry::{PackPolicy, Registry, Tenant};
use carrel_schemas::seal::Seal;
use tokio_util::sync::CancellationToken;

use crate::desk::{Bell, Wake};
use crate::leadership::Leadership;
use crate::ledger::{Ledger, LedgerError, SweepCursor};
use crate::pack::open::Opener;

const PAGE: u32 = 1000;

/// How often the ledger and the buckets are walked.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    /// Between two hot loops.
    pub hot: Duration,
    /// Between two pages of the cold sweep.
    pub cold: Duration,
    /// A whole cycle of the cold sweep is begun this often.
    pub cycle: Duration,
}

/// Walks the ledger and the buckets.
#[derive(Debug)]
pub struct Reconciler {
    /// The ledger.
    pub ledger: Ledger,
    /// The uploads buckets.
    pub objects: Objects,
    /// The tenants.
    pub registry: Arc<Registry>,
    /// Opens packs whose notification was lost.
    pub opener: Arc<Opener>,
    /// Where it rings.
    pub bell: Bell,
    /// Only the leader reconciles.
    pub leadership: Leadership,
}

/// Why one walk was broken off; the next begins anew.
#[derive(Debug, thiserror::Error)]
enum WalkError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Reconciler {
    /// Walks until `stop`.
    pub async fn run(&self, rhythm: Rhythm, stop: CancellationToken) {
        let mut hot = tokio::time::interval(rhythm.hot);
        let mut cold = tokio::time::interval(rhythm.cold);
        hot.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        cold.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let walked = tokio::select! {
                () = stop.cancelled() => return,
                _ = hot.tick(), if self.leadership.is_held() => self.hot().await,
                _ = cold.tick(), if self.leadership.is_held() => self.cold(rhythm.cycle).await,
                // Not leading: look again whether we do.
                () = tokio::time::sleep(rhythm.hot.min(Duration::from_millis(200))) => continue,
            };
            if let Err(error) = walked {
                tracing::warn!(error = crate::chain(&error), "reconciliation is tried again");
            }
        }
    }

    async fn hot(&self) -> Result<(), WalkError> {
        for open in self.ledger.open_packs().await? {
            self.bell.ring(Wake::OpenPack(open)).await;
        }
        for (tenant, review) in self.ledger.open_review_ids().await? {
            self.bell.ring(Wake::Open(tenant, review)).await;
        }
        self.bell.ring(Wake::Tick).await;
        Ok(())
    }

    async fn cold(&self, cycle: Duration) -> Result<(), WalkError> {
        for tenant in self.registry.tenants() {
            let cursor = self.ledger.sweep_cursor(&tenant.id).await?;
            let fresh = cursor.cycle_ended.is_some_and(|ended| crate::now().since(ended) < cycle);
            if cursor.page_token.is_empty() && fresh {
                continue;
            }
            self.sweep_page(tenant, cursor).await?;
        }
        Ok(())
    }

    async fn sweep_page(&self, tenant: &Tenant, cursor: SweepCursor) -> Result<(), WalkError> {
        let bucket = tenant.uploads_bucket.as_str();
        let (page, next) = self.objects.list_page(bucket, PAGE, &cursor.page_token).await?;
        for pack in packs_of(tenant.policy, &page) {
            if self.is_unsealed(tenant, &pack, &page).await? {
                tracing::info!(tenant.id = %tenant.id, pack.id = %pack, "upload without a seal found by the sweep");
                let open = self.opener.open(tenant, &pack, None, crate::now()).await?;
                self.bell.ring(Wake::OpenPack(open)).await;
            }
        }
        let cursor = match next {
            Some(page_token) => SweepCursor { page_token, ..cursor },
            None => SweepCursor { page_token: String::new(), cycle_ended: Some(crate::now()) },
        };
        self.ledger.keep_sweep_cursor(&tenant.id, &cursor).await?;
        Ok(())
    }

    /// True if the page holds a file or manifest of the pack that its last seal does not, and no open marker waits for it.
    async fn is_unsealed(&self, tenant: &Tenant, pack: &PackId, page: &[ObjectMeta]) -> Result<bool, WalkError> {
        let sealed: BTreeSet<(String, i64)> = match self.ledger.last_seal(&tenant.id, pack).await? {
            Some(Seal { members, manifest, .. }) => {
                members.into_iter().chain(manifest).map(|m| (m.name.as_str().to_owned(), m.generation.get())).collect()
            }
            None => BTreeSet::new(),
        };
        let missing = page
            .iter()
            .filter(|object| pack_of(tenant.policy, object).as_ref() == Some(pack))
            .any(|object| !sealed.contains(&(object.name.clone(), object.generation)));
        Ok(missing && self.ledger.find_open_pack(&tenant.id, pack).await?.is_none())
    }
}

fn packs_of(policy: PackPolicy, page: &[ObjectMeta]) -> BTreeSet<PackId> {
    page.iter().filter_map(|object| pack_of(policy, object)).collect()
}

fn pack_of(policy: PackPolicy, object: &ObjectMeta) -> Option<PackId> {
    let name = ObjectName::parse(object.name.clone()).ok()?;
    let (folder, kind) = layout::classify(&name);
    match (kind, policy) {
        (UploadKind::File, PackPolicy::Each) => PackId::parse(name.as_str()).ok(),
        (UploadKind::Manifest, PackPolicy::Each) | (UploadKind::Marker | UploadKind::Ignored, _) => None,
        (UploadKind::File | UploadKind::Manifest, PackPolicy::Marker { .. } | PackPolicy::Quiet { .. }) => Some(folder),
    }
}
