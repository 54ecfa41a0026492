//! Open packs and seals in the control bucket.

use carrel_cloud::{Created, ObjectMeta};
use carrel_schemas::ids::{PackId, Revision, TenantId};
use carrel_schemas::seal::Seal;

use super::{JSON, Ledger, LedgerError, OpenPack, encode, names};

impl Ledger {
    /// Notes that a pack has unsealed uploads; false if that was noted before.
    pub async fn open_pack(&self, open: &OpenPack) -> Result<bool, LedgerError> {
        let name = names::open_pack(&open.tenant, &open.pack, open.revision);
        Ok(matches!(self.objects.create(&self.bucket, &name, encode(open), JSON).await?, Created::New(_)))
    }

    /// The open revision of one pack, if it has one.
    pub async fn find_open_pack(&self, tenant: &TenantId, pack: &PackId) -> Result<Option<OpenPack>, LedgerError> {
        let found = self.objects.list(&self.bucket, &names::open_pack_prefix(tenant, pack)).await?;
        match found.last() {
            Some(meta) => Ok(self.read(&meta.name).await?.map(|open| open.value)),
            None => Ok(None),
        }
    }

    /// This revision of a pack, if it is open.
    pub async fn open_revision(
        &self,
        tenant: &TenantId,
        pack: &PackId,
        revision: Revision,
    ) -> Result<Option<OpenPack>, LedgerError> {
        Ok(self.read(&names::open_pack(tenant, pack, revision)).await?.map(|open| open.value))
    }

    /// The names alone of every pack with unsealed uploads: one listing, no reads.
    pub async fn open_pack_names(&self) -> Result<Vec<ObjectMeta>, LedgerError> {
        Ok(self.objects.list(&self.bucket, names::OPEN_PACKS).await?)
    }

    /// The open pack of that name; `None` if it was closed meanwhile.
    pub async fn open_pack_named(&self, name: &str) -> Result<Option<OpenPack>, LedgerError> {
        Ok(self.read(name).await?.map(|open| open.value))
    }

    /// The pack's uploads are sealed, or it came to nothing.
    pub async fn close_pack(&self, open: &OpenPack) -> Result<(), LedgerError> {
        let name = names::open_pack(&open.tenant, &open.pack, open.revision);
        self.objects.delete(&self.bucket, &name, None).await?;
        Ok(())
    }

    /// The seal of one revision.
    pub async fn seal(
        &self,
        tenant: &TenantId,
        pack: &PackId,
        revision: Revision,
    ) -> Result<Option<Seal>, LedgerError> {
        Ok(self.read(&names::seal(tenant, pack, revision)).await?.map(|seal| seal.value))
    }

    /// True if that revision is sealed.
    pub async fn is_sealed(&self, tenant: &TenantId, pack: &PackId, revision: Revision) -> Result<bool, LedgerError> {
        Ok(self.seal(tenant, pack, revision).await?.is_some())
    }

    /// The highest sealed revision of a pack.
    pub async fn last_seal(&self, tenant: &TenantId, pack: &PackId) -> Result<Option<Seal>, LedgerError> {
        let found = self.objects.list(&self.bucket, &names::seal_prefix(tenant, pack)).await?;
        match found.last() {
            Some(meta) => Ok(self.read(&meta.name).await?.map(|seal| seal.value)),
            None => Ok(None),
        }
    }

    /// The seal of the highest revision that holds a file.
    pub async fn last_filled_seal(&self, tenant: &TenantId, pack: &PackId) -> Result<Option<Seal>, LedgerError> {
        let found = self.objects.list(&self.bucket, &names::seal_prefix(tenant, pack)).await?;
        for meta in found.iter().rev() {
            if let Some(seal) = self.read::<Seal>(&meta.name).await?.filter(|seal| !seal.value.members.is_empty()) {
                return Ok(Some(seal.value));
            }
        }
        Ok(None)
    }

    /// Writes a seal if its revision has none, and returns the one that holds.
    pub async fn write_seal(&self, seal: Seal) -> Result<Seal, LedgerError> {
        let name = names::seal(&seal.tenant, &seal.pack, seal.revision);
        match self.objects.create(&self.bucket, &name, encode(&seal), JSON).await? {
            Created::New(_) => Ok(seal),
            Created::Exists => Ok(self.read(&name).await?.map_or(seal, |held| held.value)),
        }
    }

    /// True while uploads of that revision are noted and not all dealt with.
    pub async fn is_open(&self, tenant: &TenantId, pack: &PackId, revision: Revision) -> Result<bool, LedgerError> {
        Ok(self.objects.find(&self.bucket, &names::open_pack(tenant, pack, revision)).await?.is_some())
    }
}
