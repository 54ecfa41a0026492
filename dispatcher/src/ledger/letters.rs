//! Dead letters in the control bucket: filed once, moved by compare-and-swap, listed with what is needed to look.

use std::collections::BTreeSet;

use carrel_cloud::{Created, ObjectMeta};
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterState};
use carrel_schemas::ids::{DeadLetterId, TenantId};

use super::{JSON, Ledger, LedgerError, Versioned, encode, names};

/// A letter holds the message it is about: up to 10 MB, a third more in Base64, and its attributes escaped.
pub(super) const MAX_LETTER_BYTES: u64 = 20 << 20;

impl Ledger {
    /// Files a letter; false if the same letter was filed before.
    pub async fn file(&self, letter: &DeadLetter) -> Result<bool, LedgerError> {
        let name = names::dead_letter(letter.tenant.as_ref(), &letter.id);
        Ok(matches!(self.objects.create(&self.bucket, &name, encode(letter), JSON).await?, Created::New(_)))
    }

    /// Opens a letter again that a replay had dealt with, since the same has been refused once more; false if it is open
    /// or an operator put it aside.
    pub async fn reopen(&self, letter: &DeadLetter) -> Result<bool, LedgerError> {
        while let Some(held) = self.dead_letter(letter.tenant.as_ref(), &letter.id).await? {
            if held.value.state != DeadLetterState::Resolved {
                return Ok(false);
            }
            let again = DeadLetter {
                state: DeadLetterState::Open,
                reason: letter.reason.clone(),
                fingerprint: letter.fingerprint.clone(),
                campaign: None,
                resolution: None,
                ..held.value
            };
            if self.move_letter(held.generation, &again).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One letter.
    pub async fn dead_letter(
        &self,
        tenant: Option<&TenantId>,
        id: &DeadLetterId,
    ) -> Result<Option<Versioned<DeadLetter>>, LedgerError> {
        self.read_up_to(&names::dead_letter(tenant, id), MAX_LETTER_BYTES).await
    }

    /// Writes `next` if the letter is still the one read; false if somebody else moved it.
    pub async fn move_letter(&self, generation: i64, next: &DeadLetter) -> Result<bool, LedgerError> {
        let name = names::dead_letter(next.tenant.as_ref(), &next.id);
        Ok(self.replace(&name, generation, next).await?.is_some())
    }

    /// The names and generations of the letters of one tenant, or of nobody.
    pub async fn letters_of(&self, tenant: Option<&TenantId>) -> Result<Vec<ObjectMeta>, LedgerError> {
        Ok(self.objects.list(&self.bucket, &names::dead_letter_prefix(tenant)).await?)
    }

    /// Everybody for whom something is kept, whether or not the registry still knows them.
    pub async fn owners(&self) -> Result<BTreeSet<TenantId>, LedgerError> {
        let (mut owners, mut token) = (BTreeSet::new(), String::new());
        loop {
            let page = self.objects.list_folder(&self.bucket, names::TENANTS, 1000, &token).await?;
            let parse = |folder: &String| {
                let id = folder.strip_prefix(names::TENANTS)?.strip_suffix('/')?;
                TenantId::parse(id).ok()
            };
            owners.extend(page.folders.iter().filter_map(parse));
            match page.next_page_token {
                Some(next) => token = next,
                None => return Ok(owners),
            }
        }
    }

    /// Reads listed letters, each without the bytes of its message, under its name and the generation read.
    pub async fn read_letters(
        &self,
        found: Vec<ObjectMeta>,
    ) -> Result<Vec<(String, Versioned<DeadLetter>)>, LedgerError> {
        let keep = |name, held: Versioned<DeadLetter>| {
            (name, Versioned { value: held.value.without_data(), generation: held.generation })
        };
        self.read_each(found, MAX_LETTER_BYTES, keep).await
    }
}
