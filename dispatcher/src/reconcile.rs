//! Takes no input: walks the ledger and the buckets, and rings for whatever is not where it should be.
//!
//! The hot loop lists open packs and reviews every few seconds. The cold sweep walks every uploads bucket page by page
//! within a day, and finds uploads whose notification was lost; where a tenant is marked, it begins at once, at the same
//! pace as any other. Both only ring; the arrows are the same as ever.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use carrel_cloud::{CallError, ObjectMeta, Objects};
use carrel_schemas::ids::{ObjectName, PackId, TenantId};
use carrel_schemas::layout::{self, UploadKind};
use carrel_schemas::registry::{PackPolicy, Registry, Tenant};
use carrel_schemas::seal::Seal;
use futures::future::FutureExt as _;
use futures::stream::StreamExt as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::desk::{Bell, Wake};
use crate::leadership::Leadership;
use crate::ledger::{Ledger, LedgerError, SweepCursor};
use crate::pack::open::Opener;

const PAGE: u32 = 1000;
/// A whole cycle of the cold sweep is begun this often.
const CYCLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Buckets swept at once.
const TENANTS_AT_ONCE: usize = 8;

/// What is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Open packs and reviews: the hot loop.
    Ledger,
    /// The next page of every uploads bucket: the cold sweep.
    Buckets,
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

/// Why a walk or a page was broken off; the next begins anew.
#[derive(Debug, thiserror::Error)]
enum WalkError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Reconciler {
    /// Walks until `stop`, while this replica leads. The two walks run beside each other: a bucket of many packs takes
    /// its time.
    pub async fn run(&self, walk: Walk, every: Duration, stop: CancellationToken) {
        let mut turn = tokio::time::interval(every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let walks = async {
            loop {
                self.leadership.held().await;
                match walk {
                    Walk::Ledger => self.hot().await,
                    Walk::Buckets => self.cold().await,
                }
                turn.tick().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = walks => {}
        }
    }

    async fn hot(&self) {
        if let Err(error) = self.ring_for_all().await {
            tracing::warn!(error = crate::chain(&error), "the ledger is walked again later");
        }
    }

    async fn ring_for_all(&self) -> Result<(), WalkError> {
        for open in self.ledger.open_packs().await? {
            self.bell.ring(Wake::OpenPack(open)).await;
        }
        for (tenant, review) in self.ledger.open_review_ids().await? {
            self.bell.ring(Wake::Open(tenant, review)).await;
        }
        self.bell.ring(Wake::Walked).await;
        Ok(())
    }

    /// One page of every tenant; what stops one tenant's sweep stops no other's.
    async fn cold(&self) {
        let marked = self.ledger.marked_for_sweep().await.unwrap_or_else(|error| {
            tracing::warn!(error = crate::chain(&error), "tenants are looked for later that are to be swept at once");
            BTreeSet::new()
        });
        let sweep = |tenant| self.sweep(tenant, &marked).boxed();
        let pages: Vec<_> = self.registry.tenants().filter(|tenant| !tenant.deleting).map(sweep).collect();
        futures::stream::iter(pages).buffer_unordered(TENANTS_AT_ONCE).collect::<()>().await;
    }

    async fn sweep(&self, tenant: &Tenant, marked: &BTreeSet<TenantId>) {
        let begun = async {
            if marked.contains(&tenant.id) {
                self.begin_anew(tenant).await?;
            }
            self.sweep_page(tenant).await
        };
        if let Err(error) = begun.await {
            let error = crate::chain(&error);
            tracing::warn!(tenant.id = %tenant.id, error, "the bucket is swept again later");
        }
    }

    /// A marked tenant's next cycle begins, once the one under way has ended. The order is everything: that it begins is
    /// durable before the mark goes, and the mark goes before the listing.
    async fn begin_anew(&self, tenant: &Tenant) -> Result<(), WalkError> {
        let (cursor, read) = self.cursor(tenant).await?;
        // A former leader may still be at its last page: whose note holds is decided by the ledger.
        if cursor.page_token.is_empty()
            && self.ledger.keep_sweep_cursor(&tenant.id, read, &SweepCursor::default()).await?
        {
            self.ledger.clear_sweep_mark(&tenant.id).await?;
        }
        Ok(())
    }

    async fn cursor(&self, tenant: &Tenant) -> Result<(SweepCursor, Option<i64>), WalkError> {
        let held = self.ledger.sweep_cursor(&tenant.id).await?;
        Ok(held.map_or_else(Default::default, |held| (held.value, Some(held.generation))))
    }

    async fn sweep_page(&self, tenant: &Tenant) -> Result<(), WalkError> {
        let (cursor, read) = self.cursor(tenant).await?;
        let fresh = cursor.cycle_ended.is_some_and(|ended| crate::now().since(ended) < CYCLE);
        if cursor.page_token.is_empty() && fresh {
            return Ok(());
        }
        let bucket = tenant.uploads_bucket.as_str();
        let page = self.objects.list_page(bucket, PAGE, &cursor.page_token).await?;
        for pack in packs_of(tenant.policy, &page.objects) {
            if let Err(error) = self.sweep_pack(tenant, &pack, &page.objects).await {
                // The cursor goes on: one pack that cannot be looked at must not hide those behind it.
                let error = crate::chain(&error);
                tracing::warn!(tenant.id = %tenant.id, pack.id = %pack, error, "the pack is swept again in the next cycle");
            }
        }
        let cursor = match page.next_page_token {
            Some(page_token) => SweepCursor { page_token, ..cursor },
            None => SweepCursor { page_token: String::new(), cycle_ended: Some(crate::now()) },
        };
        if !self.ledger.keep_sweep_cursor(&tenant.id, read, &cursor).await? {
            tracing::debug!(tenant.id = %tenant.id, "another has moved the sweep on");
        }
        Ok(())
    }

    async fn sweep_pack(&self, tenant: &Tenant, pack: &PackId, page: &[ObjectMeta]) -> Result<(), WalkError> {
        if self.is_unsealed(tenant, pack, page).await? {
            tracing::info!(tenant.id = %tenant.id, pack.id = %pack, "upload without a seal found by the sweep");
            let open = self.opener.open(tenant, pack, None, crate::now()).await?;
            self.bell.ring(Wake::OpenPack(open)).await;
        }
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
