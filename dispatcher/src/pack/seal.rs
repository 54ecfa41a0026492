//! Seals packs: list, create the seal if absent, list again; a difference opens the next revision.
//!
//! Owns the way from an open pack to an open review. A revision ends by its seal and by nothing else, even where no file
//! is in it or none is new: an event that came in between finds the seal and opens the next revision. Every step may be
//! repeated: a seal is write-once, a review is opened once per id, and the open marker goes last.

use std::num::NonZeroU64;
use std::sync::Arc;

use carrel_cloud::{CallError, ObjectMeta, Objects};
use carrel_schemas::dead_letter::{DeadLetterClass, DeadLetterSource};
use carrel_schemas::ids::{IdempotencyKey, ObjectRef, PackId, ReviewId, Revision, TenantId};
use carrel_schemas::layout;
use carrel_schemas::registry::{PackPolicy, Registry, Tenant};
use carrel_schemas::seal::{ClosedBy, Member, Seal, review_id};
use carrel_schemas::timestamp::Timestamp;

use super::policy::{Contents, Decision, decide};
use crate::dead_letters;
use crate::ledger::{Ledger, LedgerError, OpenPack, ReviewRecord, fresh_nonce};
use crate::limbo::Limbo;

/// One more than a seal may name: enough to know that there are too many.
const AT_MOST: usize = Seal::MAX_MEMBERS + 1;

/// Seals packs and opens their reviews.
#[derive(Debug, Clone)]
pub struct Sealer {
    ledger: Ledger,
    objects: Objects,
    registry: Arc<Registry>,
    limbo: Arc<Limbo>,
}

/// What became of an open pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Considered {
    /// Not yet: look again then, or when an upload arrives.
    Wait(Timestamp),
    /// Sealed, and its review opened.
    Sealed {
        /// Its tenant.
        tenant: TenantId,
        /// The review.
        review: ReviewId,
    },
    /// Sealed with no file in it, or with too many: nothing to review, and a dead letter says so. Or its tenant leaves.
    Nothing,
}

/// What a request for a review came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// This is its review.
    Review(ReviewId),
    /// The tenant has no file in such a pack.
    NoFile,
    /// The pack has more files than a seal may name.
    Excess,
    /// The key stands for a review of this other pack.
    KeyTaken(PackId),
}

/// Why a pack could not be considered.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The uploads bucket did not answer.
    #[error("seal pack {pack:?} of tenant {tenant}")]
    List {
        /// Whose.
        tenant: TenantId,
        /// Which.
        pack: PackId,
        /// The call that failed.
        #[source]
        source: CallError,
    },
    /// The registry does not know the tenant any more.
    #[error("pack {pack:?}: tenant {tenant} is not in the registry; add it again or delete its open packs")]
    UnknownTenant {
        /// Whose.
        tenant: TenantId,
        /// Which.
        pack: PackId,
    },
}

impl SealError {
    /// Whether trying again would meet it again, until somebody mends the ledger or the registry.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Ledger(error) => error.is_permanent(),
            Self::List { .. } => false,
            Self::UnknownTenant { .. } => true,
        }
    }
}

impl Sealer {
    /// A sealer for the registry's tenants.
    pub fn new(ledger: Ledger, objects: Objects, registry: Arc<Registry>, limbo: Arc<Limbo>) -> Self {
        Self { ledger, objects, registry, limbo }
    }

    /// Looks at an open pack and seals it if its policy says so.
    pub async fn consider(&self, open: &OpenPack, now: Timestamp) -> Result<Considered, SealError> {
        let unknown = || SealError::UnknownTenant { tenant: open.tenant.clone(), pack: open.pack.clone() };
        let tenant = self.registry.tenant(&open.tenant).ok_or_else(unknown)?;
        if tenant.deleting {
            self.ledger.close_pack(open).await?;
            return Ok(Considered::Nothing);
        }
        let former = self.ledger.last_seal(&open.tenant, &open.pack).await?;
        if let Some(last) = former.clone().filter(|seal| seal.revision >= open.revision) {
            // Sealed before, by us or another replica; what was left undone of it, and not of a later one, is done now.
            let own = self.ledger.seal(&open.tenant, &open.pack, open.revision).await?;
            return self.finish(open, own.unwrap_or(last), now).await;
        }
        let contents = self.list(tenant, &open.pack).await?;
        let seal = match former {
            // Late copies of old events: the revision ends as the former did, and names the same review.
            Some(former) if contents.are_of(&former) => {
                Seal { revision: open.revision, marker: contents.marker, sealed_at: now, ..former }
            }
            former => match decide(tenant.policy, open.opened_at, &contents, former.as_ref(), now) {
                Decision::Wait(until) => return Ok(Considered::Wait(until)),
                Decision::Close(by) => draft(tenant, &open.pack, open.revision, contents, by, None, now),
            },
        };
        let seal = self.ledger.write_seal(seal).await?;
        self.finish(open, seal, now).await
    }

    /// Seals a pack of one object at once, without an open marker: the caller's message stays in hand until this
    /// returns. `None` if the object is gone.
    pub async fn seal_single(
        &self,
        tenant: &Tenant,
        pack: &PackId,
        traceparent: Option<String>,
        now: Timestamp,
    ) -> Result<Option<ReviewId>, SealError> {
        let last = self.ledger.last_seal(&tenant.id, pack).await?;
        if let Some(last) = &last {
            // Whoever sealed it may have died before it was a review, and what it held may be gone by now.
            self.open_review(last, traceparent.clone(), now).await?;
        }
        let contents = self.list(tenant, pack).await?;
        if contents.members.is_empty() {
            return Ok(None);
        }
        let mut revision = last.map_or(Revision::FIRST, |seal| seal.revision);
        loop {
            let seal = draft(tenant, pack, revision, contents.clone(), ClosedBy::Each, None, now);
            let held = self.ledger.write_seal(seal).await?;
            if held.members == contents.members {
                self.open_review(&held, traceparent, now).await?;
                return Ok(Some(held.review));
            }
            revision = held.revision.next();
        }
    }

    /// True if the pack's last seal holds this version: it was reviewed, or is about to be.
    pub async fn is_sealed(&self, tenant: &Tenant, pack: &PackId, object: &ObjectRef) -> Result<bool, SealError> {
        let last = self.ledger.last_seal(&tenant.id, pack).await?;
        let is_it = |member: &Member| member.name == object.name && member.generation == object.generation;
        Ok(last.is_some_and(|seal| seal.members.iter().any(is_it)))
    }

    /// Reviews a pack's present files because somebody asked; the same key always names the same review.
    pub async fn seal_request(
        &self,
        tenant: &Tenant,
        pack: &PackId,
        key: &IdempotencyKey,
        deadline_seconds: Option<NonZeroU64>,
        traceparent: Option<String>,
        now: Timestamp,
    ) -> Result<Requested, SealError> {
        let wish = match self.ledger.request(&tenant.id, key).await? {
            Some(seal) => seal,
            None => {
                let contents = self.list(tenant, pack).await?;
                if contents.excess {
                    return Ok(Requested::Excess);
                }
                if contents.is_empty() {
                    return Ok(Requested::NoFile);
                }
                let last = self.ledger.last_seal(&tenant.id, pack).await?;
                let revision = last.map_or(Revision::FIRST, |seal| seal.revision.next());
                let seal = draft(tenant, pack, revision, contents, ClosedBy::Request, Some(key.clone()), now);
                self.ledger.remember_request(key, Seal { deadline_seconds, ..seal }).await?
            }
        };
        if wish.pack != *pack {
            return Ok(Requested::KeyTaken(wish.pack));
        }
        let mut seal = wish.clone();
        loop {
            let held = self.ledger.write_seal(seal.clone()).await?;
            if held.review == wish.review {
                let review = held.review.clone();
                // What its uploads opened is closed with it, as by any other sign. Asked again later there is nothing to
                // close, and what has become of the pack since is no business of this key's.
                match self.ledger.open_revision(&tenant.id, pack, held.revision).await? {
                    Some(open) => drop(self.finish(&OpenPack { traceparent, ..open }, held, now).await?),
                    None => self.open_review(&held, traceparent, now).await?,
                }
                return Ok(Requested::Review(review));
            }
            seal.revision = held.revision.next();
        }
    }

    async fn finish(&self, open: &OpenPack, seal: Seal, now: Timestamp) -> Result<Considered, SealError> {
        let unknown = || SealError::UnknownTenant { tenant: open.tenant.clone(), pack: open.pack.clone() };
        let tenant = self.registry.tenant(&open.tenant).ok_or_else(unknown)?;
        // The second look at the bucket, and meanwhile what the seal itself calls for.
        let (after, considered) = tokio::try_join!(self.list(tenant, &open.pack), self.act_on(&seal, open, now))?;
        if !after.are_of(&seal) && !after.is_empty() {
            // Uploads arrived while we sealed. Their own events say so too; whoever is first opens the revision.
            let next = OpenPack { revision: seal.revision.next(), opened_at: now, ..open.clone() };
            self.ledger.open_pack(&next).await?;
        }
        self.limbo.resolve_pack(open, now).await;
        self.ledger.close_pack(open).await?;
        Ok(considered)
    }

    async fn act_on(&self, seal: &Seal, open: &OpenPack, now: Timestamp) -> Result<Considered, SealError> {
        if seal.members.is_empty() {
            self.file_nothing(seal, now).await?;
            return Ok(Considered::Nothing);
        }
        self.open_review(seal, open.traceparent.clone(), now).await?;
        Ok(Considered::Sealed { tenant: seal.tenant.clone(), review: seal.review.clone() })
    }

    async fn open_review(&self, seal: &Seal, traceparent: Option<String>, now: Timestamp) -> Result<(), SealError> {
        let record = ReviewRecord::open(seal, now, traceparent, fresh_nonce());
        if self.ledger.open_review(seal, &record).await? {
            tracing::info!(
                tenant.id = %seal.tenant, review.id = %seal.review, pack.id = %seal.pack,
                revision = seal.revision.get(), files = seal.members.len(), closed_by = ?seal.closed_by,
                "pack sealed"
            );
        }
        Ok(())
    }

    /// What the pack holds now.
    pub async fn list(&self, tenant: &Tenant, pack: &PackId) -> Result<Contents, SealError> {
        let bucket = tenant.uploads_bucket.as_str();
        let listed = match (tenant.policy, pack.as_str()) {
            (PackPolicy::Each, name) => self.objects.find(bucket, name).await.map(|found| found.into_iter().collect()),
            (_, PackId::ROOT) => self.list_root(bucket).await,
            (_, folder) => self.list_folder(bucket, &format!("{folder}/")).await,
        };
        let source = |source| SealError::List { tenant: tenant.id.clone(), pack: pack.clone(), source };
        let listed = listed.map_err(source)?;
        Ok(if tenant.policy == PackPolicy::Each { Contents::single(pack, listed) } else { Contents::of(pack, listed) })
    }

    /// A folder as far as a seal may name it, and, of a larger one, its signs of completion too.
    async fn list_folder(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectMeta>, CallError> {
        let mut found = self.objects.list_at_most(bucket, prefix, AT_MOST).await?;
        if found.len() == AT_MOST {
            for sign in [layout::MARKER, layout::MANIFEST] {
                found.extend(self.objects.find(bucket, &format!("{prefix}{sign}")).await?);
            }
        }
        Ok(found)
    }

    /// Loose objects, those under a nameless folder, and those of a folder that happens to be called `_root`.
    async fn list_root(&self, bucket: &str) -> Result<Vec<ObjectMeta>, CallError> {
        let mut found = self.objects.list_loose(bucket, AT_MOST).await?;
        found.extend(self.objects.list_at_most(bucket, "/", AT_MOST).await?);
        found.extend(self.list_folder(bucket, &format!("{}/", PackId::ROOT)).await?);
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// A pack that stays without a reviewable file is one letter, however often it is closed.
    async fn file_nothing(&self, seal: &Seal, now: Timestamp) -> Result<(), LedgerError> {
        if let Some(former) = seal.revision.previous() {
            let former = self.ledger.seal(&seal.tenant, &seal.pack, former).await?;
            if former.is_some_and(|former| former.members.is_empty() && former.excess == seal.excess) {
                return Ok(());
            }
        }
        let (pack, closed_by, marker) = (seal.pack.as_str(), seal.closed_by, layout::MARKER);
        let (class, reason) = if seal.excess {
            let most = Seal::MAX_MEMBERS;
            let reason = format!(
                "pack {pack:?} holds more files than a review can name, about {most}; upload it as smaller packs"
            );
            (DeadLetterClass::Refused, reason)
        } else {
            let reason = format!(
                "pack {pack:?} closed ({closed_by:?}) with no file in it; upload its files and then `{marker}` again"
            );
            (DeadLetterClass::EmptyPack, reason)
        };
        let source =
            DeadLetterSource::Pack { pack: seal.pack.clone(), revision: seal.revision, bucket: seal.bucket.clone() };
        let letter = dead_letters::letter(Some(seal.tenant.clone()), class, reason, source, now);
        self.ledger.file(&letter).await?;
        Ok(())
    }
}

/// The seal of what was listed.
pub(crate) fn draft(
    tenant: &Tenant,
    pack: &PackId,
    revision: Revision,
    contents: Contents,
    closed_by: ClosedBy,
    key: Option<IdempotencyKey>,
    now: Timestamp,
) -> Seal {
    Seal {
        schema: Seal::SCHEMA,
        review: review_id(&tenant.id, pack, &contents.members, contents.manifest.as_ref(), key.as_ref()),
        tenant: tenant.id.clone(),
        pack: pack.clone(),
        revision,
        bucket: tenant.uploads_bucket.clone(),
        marker: contents.marker,
        excess: contents.excess,
        members: contents.members,
        manifest: contents.manifest,
        closed_by,
        sealed_at: now,
        idempotency_key: key,
        deadline_seconds: None,
    }
}
