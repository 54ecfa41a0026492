//! One active review per pack: each waits until the review of an earlier revision has an outcome.

use carrel_schemas::ids::ReviewId;

use crate::ledger::{Ledger, LedgerError, ReviewRecord, State};

/// The review of an earlier revision that is not decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// Which.
    pub review: ReviewId,
    /// True if it is queued, and can make way.
    pub waits: bool,
}

impl Former {
    /// What this review comes after, if anything of its pack is still to be decided before it.
    pub async fn of(ledger: &Ledger, record: &ReviewRecord) -> Result<Option<Self>, LedgerError> {
        let mut revision = record.revision;
        // One that a later revision named again comes after what was sealed in between.
        if record.replayed_at.is_some()
            && let Some(last) = ledger.last_filled_seal(&record.tenant, &record.pack).await?
            && last.review == record.review
        {
            revision = last.revision;
        }
        while let Some(former) = revision.previous() {
            let Some(seal) = ledger.seal(&record.tenant, &record.pack, former).await? else { return Ok(None) };
            if seal.review != record.review && !seal.members.is_empty() {
                let state = ledger.review(&record.tenant, &seal.review).await?.map(|held| held.value.state);
                let waits = match state {
                    Some(State::Settled { .. }) => return Ok(None),
                    Some(State::Queued { .. }) => true,
                    Some(State::Launching { .. } | State::Running { .. }) => false,
                    // Sealed a moment ago: its record is about to be opened.
                    None if ledger.is_open(&record.tenant, &record.pack, former).await? => false,
                    None => return Ok(None),
                };
                return Ok(Some(Self { review: seal.review, waits }));
            }
            revision = former;
        }
        Ok(None)
    }
}
