//! Takes no input: walks the ledger and the buckets, and rings for whatever is not where it should be.
//!
//! The hot loop lists open packs and reviews every few seconds. The cold sweep walks every uploads bucket page by page
//! within a day, and finds uploads whose notification was lost; where a tenant is marked, it begins at once, at the same
//! pace as any other. A tenant whose page takes its time holds its own place among those swept at once, and no other's;
//! one with a pack that could not be looked at is marked, so that its bucket is swept anew. Both only ring; the arrows
//! are the same as ever.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use carrel_cloud::{CallError, ObjectMeta, Objects};
use carrel_schemas::ids::{ObjectName, PackId, Revision, TenantId};
use carrel_schemas::layout::{self, UploadKind};
use carrel_schemas::registry::{PackPolicy, Registry, Tenant};
use carrel_schemas::timestamp::Timestamp;
use futures::future::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::desk::{Bell, Wake};
use crate::leadership::Leadership;
use crate::ledger::{Ledger, LedgerError, OpenPack, SweepCursor};
use crate::limbo::Limbo;
use crate::pack::open::Opener;
use crate::pack::seal::{Considered, SealError};

const PAGE: u32 = 1000;
/// A whole cycle of the cold sweep is begun this often.
const CYCLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Buckets swept at once.
const TENANTS_AT_ONCE: usize = 8;
/// Packs of one page looked at at once: each costs the ledger two or three calls.
const PACKS_AT_ONCE: usize = 8;

/// Markers of open packs read at once.
const MARKERS_AT_ONCE: usize = 32;

/// What the markers of open packs say, by name and generation.
type OpenPacks = HashMap<(String, i64), OpenPack>;

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
    /// Files what a sweep lastingly cannot look at.
    pub limbo: Arc<Limbo>,
    /// What the sweeps of this process could not look at, and since when.
    pub troubled: Troubled,
}

/// Packs that a sweep could not look at, as `Limbo` is told of them.
#[derive(Debug, Default)]
pub struct Troubled(Mutex<HashMap<(TenantId, PackId), OpenPack>>);

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
            match walk {
                Walk::Ledger => self.walk_ledger(&mut turn).await,
                Walk::Buckets => self.walk_buckets(&mut turn).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = walks => {}
        }
    }

    async fn walk_ledger(&self, turn: &mut Interval) {
        let mut known = OpenPacks::new();
        loop {
            turn.tick().await;
            self.leadership.held().await;
            self.hot(&mut known).await;
        }
    }

    /// In each turn, one page of every tenant whose last one is done; what stops one tenant's sweep stops no other's.
    async fn walk_buckets(&self, turn: &mut Interval) {
        let places = Semaphore::new(TENANTS_AT_ONCE);
        let (mut pages, mut under_way) = (FuturesUnordered::new(), HashSet::new());
        loop {
            tokio::select! {
                Some(tenant) = pages.next(), if !pages.is_empty() => {
                    under_way.remove(tenant);
                    continue;
                }
                _ = turn.tick() => {}
            }
            if !self.leadership.is_held() {
                // Dropped, not put off: a mark that is cleared long after it was looked for may be another's.
                pages.clear();
                under_way.clear();
                self.leadership.held().await;
            }
            let marked = self.marked().await;
            for tenant in self.registry.tenants().filter(|tenant| !tenant.deleting) {
                if !under_way.insert(&tenant.id) {
                    continue;
                }
                let (places, is_marked) = (&places, marked.contains(&tenant.id));
                let page = async move {
                    let _place = places.acquire().await.expect("nobody closes it");
                    self.sweep(tenant, is_marked).await;
                    &tenant.id
                };
                pages.push(page.boxed());
            }
        }
    }

    async fn marked(&self) -> BTreeSet<TenantId> {
        self.ledger.marked_for_sweep().await.unwrap_or_else(|error| {
            tracing::warn!(error = crate::chain(&error), "tenants are looked for later that are to be swept at once");
            BTreeSet::new()
        })
    }

    /// Reviews first: they are rung for by name alone. What cannot be read of packs stops neither them nor other packs.
    async fn hot(&self, known: &mut OpenPacks) {
        let reviews = match self.ledger.open_review_ids().await {
            Ok(reviews) => {
                let found = reviews.len();
                for (tenant, review) in reviews {
                    self.bell.ring(Wake::Open(tenant, review)).await;
                }
                // A new leader grants slots after this alone, so it tells of a whole list of reviews or is not rung.
                self.bell.ring(Wake::Walked).await;
                Some(found)
            }
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "open reviews are listed again later");
                None
            }
        };
        match self.ledger.open_pack_names().await {
            Ok(found) => {
                tracing::debug!(reviews, packs = found.len(), "walked");
                self.ring_for_packs(found, known).await;
            }
            Err(error) => tracing::warn!(error = crate::chain(&error), "open packs are listed again later"),
        }
    }

    /// Rings for each pack as soon as it is known what its marker says, which is read once.
    async fn ring_for_packs(&self, found: Vec<ObjectMeta>, known: &mut OpenPacks) {
        let mut former = std::mem::take(known);
        let of = |meta: ObjectMeta| (former.remove(&(meta.name.clone(), meta.generation)), meta);
        let (read, unread): (Vec<_>, Vec<_>) = found.into_iter().map(of).partition(|(open, _)| open.is_some());
        let read = read.into_iter().filter_map(|(open, meta)| Some((meta, open?)));
        let reads = unread.into_iter().map(|(_, meta)| {
            async move {
                match self.ledger.open_pack_named(&meta.name).await {
                    Ok(open) => open.map(|open| (meta, open)),
                    // One that cannot be read hides no other.
                    Err(error) => {
                        tracing::warn!(error = crate::chain(&error), "the open pack is read again later");
                        None
                    }
                }
            }
            .boxed()
        });
        let reads: Vec<_> = reads.collect();
        let reads = futures::stream::iter(reads).buffer_unordered(MARKERS_AT_ONCE).filter_map(std::future::ready);
        let mut packs = futures::stream::iter(read).chain(reads);
        while let Some((meta, open)) = packs.next().await {
            known.insert((meta.name, meta.generation), open.clone());
            self.bell.ring(Wake::OpenPack(open)).await;
        }
    }

    async fn sweep(&self, tenant: &Tenant, is_marked: bool) {
        let begun = async {
            if is_marked {
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
        let page = match self.objects.list_page(bucket, PAGE, &cursor.page_token).await {
            // No later turn would be given that page either.
            Err(error) if !cursor.page_token.is_empty() && error.is_malformed() => {
                let error = crate::chain(&error);
                tracing::warn!(tenant.id = %tenant.id, error, "the bucket refuses the sweep's page; its cycle begins anew");
                self.ledger.keep_sweep_cursor(&tenant.id, read, &SweepCursor::default()).await?;
                return Ok(());
            }
            page => page?,
        };
        if !self.sweep_packs(tenant, packs_of(tenant.policy, &page.objects)).await {
            // The cursor goes on: one pack that cannot be looked at must not hide those behind it. What was acknowledged
            // for a sweep's sake waits for no cycle of a day, so the mark is there before the cursor moves.
            self.ledger.mark_for_sweep(&tenant.id).await?;
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

    /// False if one of them could not be looked at.
    async fn sweep_packs(&self, tenant: &Tenant, packs: BTreeMap<PackId, Vec<&ObjectMeta>>) -> bool {
        let look = |(pack, objects): (PackId, Vec<_>)| {
            async move {
                let swept = self.sweep_pack(tenant, &pack, &objects).await;
                let is_looked_at = swept.is_ok();
                self.swept(tenant, pack, swept).await;
                is_looked_at
            }
            .boxed()
        };
        let looks: Vec<_> = packs.into_iter().map(look).collect();
        let is_looked_at = |all, one| std::future::ready(all && one);
        futures::stream::iter(looks).buffer_unordered(PACKS_AT_ONCE).fold(true, is_looked_at).await
    }

    async fn sweep_pack(&self, tenant: &Tenant, pack: &PackId, objects: &[&ObjectMeta]) -> Result<(), LedgerError> {
        if self.is_unsealed(tenant, pack, objects).await? {
            tracing::info!(tenant.id = %tenant.id, pack.id = %pack, "upload without a seal found by the sweep");
            let open = self.opener.open(tenant, pack, None, crate::now()).await?;
            self.bell.ring(Wake::OpenPack(open)).await;
        }
        Ok(())
    }

    /// What lasts is filed as of a pack that could not be closed: no sweep can tell its revision, so the first stands
    /// for it. It is resolved by a sweep that gets through.
    async fn swept(&self, tenant: &Tenant, pack: PackId, swept: Result<(), LedgerError>) {
        let (key, now) = ((tenant.id.clone(), pack), crate::now());
        match swept {
            Ok(()) => {
                let Some(open) = self.troubled.held().remove(&key) else { return };
                self.limbo.pack_looked(&open, &Ok(Considered::Nothing), now).await;
                self.limbo.resolve_pack(&open, now).await;
            }
            Err(error) => {
                let chain = crate::chain(&error);
                tracing::warn!(tenant.id = %tenant.id, pack.id = %key.1, error = chain, "the pack is swept again later");
                let first = || OpenPack {
                    tenant: tenant.id.clone(),
                    pack: key.1.clone(),
                    revision: Revision::FIRST,
                    bucket: tenant.uploads_bucket.clone(),
                    opened_at: now,
                    traceparent: None,
                };
                let open = self.troubled.held().entry(key.clone()).or_insert_with(first).clone();
                self.limbo.pack_looked(&open, &Err(SealError::Ledger(error)), now).await;
            }
        }
    }

    /// True if the page holds a file or manifest of the pack that its last seal does not, and no open marker waits for it.
    async fn is_unsealed(&self, tenant: &Tenant, pack: &PackId, objects: &[&ObjectMeta]) -> Result<bool, LedgerError> {
        let seal = self.ledger.last_seal(&tenant.id, pack).await?;
        let named = seal.iter().flat_map(|seal| seal.members.iter().chain(&seal.manifest));
        let named: BTreeSet<_> = named.map(|member| (member.name.as_str(), member.generation.get())).collect();
        // Of more than a pack may have a seal names none.
        let excess = seal.as_ref().filter(|seal| seal.excess).map(|seal| seal.sealed_at);
        let is_sealed = |object: &ObjectMeta| match (excess, object.created) {
            (Some(sealed_at), Some(created)) => Timestamp::from(created) <= sealed_at,
            _ => named.contains(&(object.name.as_str(), object.generation)),
        };
        let missing = !objects.iter().all(|object| is_sealed(object));
        Ok(missing && self.ledger.find_open_pack(&tenant.id, pack).await?.is_none())
    }
}

impl Troubled {
    fn held(&self) -> MutexGuard<'_, HashMap<(TenantId, PackId), OpenPack>> {
        self.0.lock().expect("no code panics while it holds the map")
    }
}

/// The page's files and manifests by pack.
fn packs_of(policy: PackPolicy, page: &[ObjectMeta]) -> BTreeMap<PackId, Vec<&ObjectMeta>> {
    let mut packs = BTreeMap::<_, Vec<_>>::new();
    for object in page {
        if let Some(pack) = pack_of(policy, object) {
            packs.entry(pack).or_default().push(object);
        }
    }
    packs
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
