//! The log of completions in the control bucket: one entry for each announcement, named so that a listing is in order.
//!
//! Owns writing and leafing. What order means, and why a reader misses nothing, is [`crate::completion_log`]'s.

use carrel_schemas::completion::Completion;
use carrel_schemas::ids::TenantId;

use super::{Ledger, LedgerError, MAX_BYTES, Versioned, names};
use crate::completion_log::{WRITTEN_WITHIN, place};

/// Some entries of a tenant's log, in its order.
#[derive(Debug)]
pub struct LogPage {
    /// Each with its place.
    pub entries: Vec<(String, Completion)>,
    /// The place of the last, readable or not.
    pub last: Option<String>,
    /// Whether more may follow.
    pub more: bool,
}

impl Ledger {
    /// Writes a completion to the log of its tenant. Whoever announces calls this first; doing it again writes another
    /// entry of the same event. An entry that was long on its way may lie behind readers that have passed: it is
    /// written again.
    pub async fn log_completion(&self, completion: &Completion) -> Result<(), LedgerError> {
        loop {
            let began = crate::now();
            let name = names::completion(&completion.tenant, &place(began, &completion.event));
            self.create(&name, completion).await?;
            if crate::now().since(began) < WRITTEN_WITHIN {
                return Ok(());
            }
        }
    }

    /// The first `most` entries of a tenant's log after a place.
    pub async fn completions_after(&self, tenant: &TenantId, after: &str, most: usize) -> Result<LogPage, LedgerError> {
        let prefix = names::completion_prefix(tenant);
        // The entry of that very place, if there is one, is the first of the listing.
        let mut found = self.objects.list_from(&self.bucket, &prefix, &format!("{prefix}{after}"), most + 1).await?;
        let more = found.len() > most;
        found.retain(|meta| names::stem(&meta.name) > after);
        found.truncate(most);
        let last = found.last().map(|meta| names::stem(&meta.name).to_owned());
        let keep = |name: String, held: Versioned<Completion>| (names::stem(&name).to_owned(), held.value);
        Ok(LogPage { entries: self.read_each(found, MAX_BYTES, keep).await?, last, more })
    }
}
