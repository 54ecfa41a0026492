//! Takes away what is over and old: terminal records, letters and campaigns, the log of completions, and what they leave
//! behind; and all that the ledger holds of a tenant that leaves (`tenants`).
//!
//! ```text
//! a page of the control bucket, in order of names ─► old? ─► terminal? ─► its leftovers, then the object itself ─► cursor
//! ```
//! Carried by the leader, a page at a time; each pass begins once a day. An object goes only in the version that was
//! looked at. Refuses what is open, however old, and the record that an open letter tells of; the outcomes and deliveries
//! in the tenants' buckets; and the last seal of a pack with the record of its review, which tell an upload that was
//! reviewed from a new one.

mod leftovers;
mod tenants;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use carrel_cloud::{CallError, ObjectMeta, Objects, ReadError};
use carrel_schemas::campaign::{Campaign, CampaignState};
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterState};
use carrel_schemas::ids::TenantId;
use carrel_schemas::registry::Registry;
use carrel_schemas::seal::Seal;
use carrel_schemas::timestamp::Timestamp;
use futures::StreamExt as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::completion_log;
use crate::dead_letters;
use crate::leadership::Leadership;
use crate::ledger::{CollectCursor, Kept, Ledger, LedgerError, ReviewRecord, State};

/// Objects on a page.
const BATCH: usize = 500;
/// Objects of a page looked at at once.
const LOOKS: usize = 8;
/// A pass is begun this often, or as often as things grow old where that is sooner.
const PASS: Duration = Duration::from_secs(24 * 60 * 60);

/// Collects while it leads.
#[derive(Debug)]
pub struct Collector {
    ledger: Ledger,
    objects: Objects,
    registry: Arc<Registry>,
    leadership: Leadership,
    retention: Duration,
}

/// Why something was left for the next pass.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Collector {
    /// Takes away what has been over for as long as `retention`.
    pub fn new(
        ledger: Ledger,
        objects: Objects,
        registry: Arc<Registry>,
        leadership: Leadership,
        retention: Duration,
    ) -> Self {
        Self { ledger, objects, registry, leadership, retention }
    }

    /// Takes turns until `stop`, while this replica leads.
    pub async fn run(self, every: Duration, stop: CancellationToken) {
        let mut turn = tokio::time::interval(every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gone = BTreeSet::new();
        let turns = async {
            loop {
                self.leadership.held().await;
                turn.tick().await;
                // One turn is one page of a pass, and a page of each tenant that leaves: neither waits for the other's end.
                let (more, leaving) = tokio::join!(self.turn(crate::now()), self.erase_who_leaves(&mut gone));
                match more {
                    Ok(more) if more || leaving => turn.reset_immediately(),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(error = crate::chain(&error), "what is old is collected later"),
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = turns => {}
        }
    }

    /// Looks at the next page of the pass, if one is due; true if more follow.
    async fn turn(&self, now: Timestamp) -> Result<bool, CollectError> {
        let mut cursor = self.ledger.collect_cursor().await?;
        let is_fresh = cursor.pass_ended.is_some_and(|ended| now.since(ended) < PASS.min(self.retention));
        if cursor.after.is_empty() && is_fresh {
            return Ok(false);
        }
        // One more, to know whether the last seal of the page is that of its pack.
        let page = self.ledger.objects_after(&cursor.after, BATCH + 1).await?;
        let horizon = now.minus(self.retention);
        self.collect(&page, horizon).await;
        cursor = match page.get(BATCH - 1).filter(|_| page.len() > BATCH) {
            Some(last) => CollectCursor { after: last.name.clone(), ..cursor },
            None => CollectCursor { after: String::new(), pass_ended: Some(now) },
        };
        self.ledger.keep_collect_cursor(&cursor).await?;
        Ok(!cursor.after.is_empty())
    }

    /// Takes away what is over on a page. What cannot be is left for the next pass: it must not hold up what comes after.
    async fn collect(&self, page: &[ObjectMeta], horizon: Timestamp) {
        let is_old = |meta: &&(usize, &ObjectMeta)| meta.1.created.is_some_and(|made| Timestamp::from(made) < horizon);
        let listed: Vec<(usize, &ObjectMeta)> = page.iter().enumerate().take(BATCH).collect();
        let old: Vec<_> = listed.iter().filter(is_old).collect();
        // Where a log begins is durable before anything of it is gone, so that no reader passes over a gap unaware.
        let mut begins: BTreeMap<TenantId, &str> = BTreeMap::new();
        for (_, meta) in &old {
            if let Some(Kept::Completion { tenant, place }) = Kept::of(&meta.name)
                && completion_log::is_before(place, horizon)
            {
                begins.insert(tenant, place);
            }
        }
        let mut unnoted = BTreeSet::new();
        for (tenant, place) in begins {
            if let Err(error) = self.ledger.begin_log_after(&tenant, place).await {
                tracing::warn!(tenant.id = %tenant, error = crate::chain(&error), "its log is left for the next pass");
                unnoted.insert(tenant);
            }
        }
        let mut looks = Vec::new();
        for (at, meta) in old {
            match Kept::of(&meta.name) {
                Some(Kept::Completion { tenant, .. }) if unnoted.contains(&tenant) => {}
                _ => looks.push(self.look(meta, page.get(at + 1), horizon)),
            }
        }
        futures::stream::iter(looks).buffer_unordered(LOOKS).collect::<()>().await;
    }

    async fn look(&self, meta: &ObjectMeta, next: Option<&ObjectMeta>, horizon: Timestamp) {
        if let Err(error) = self.consider(meta, next, horizon).await {
            tracing::warn!(object.name = meta.name, error = crate::chain(&error), "left for the next pass");
        }
    }

    /// Takes an old object away if it is over. `next` is the one after it in order of names.
    async fn consider(
        &self,
        meta: &ObjectMeta,
        next: Option<&ObjectMeta>,
        horizon: Timestamp,
    ) -> Result<(), CollectError> {
        let Some(kept) = Kept::of(&meta.name) else { return Ok(()) };
        let is_over = match kept {
            Kept::Completion { place, .. } => completion_log::is_before(place, horizon),
            Kept::Request => true,
            Kept::Letter => self.ledger.letter_at(&meta.name).await?.is_some_and(|held| is_dealt_with(&held.value)),
            Kept::Record => return self.record(meta, horizon).await,
            Kept::Seal { folder } => {
                let is_last = next.is_none_or(|next| !next.name.starts_with(folder));
                !is_last && self.is_of_no_review(&meta.name).await?
            }
            Kept::Campaign => match self.ledger.read::<Campaign>(&meta.name).await? {
                Some(held) => is_done(&held.value) && !self.ledger.is_campaign_open(&held.value.id).await?,
                None => false,
            },
            Kept::Chunk { campaign, items } => {
                let head = self.ledger.campaign(&campaign).await?;
                head.is_none_or(|head| head.value.items != items)
            }
        };
        if is_over {
            self.ledger.remove(&meta.name, meta.generation).await?;
        }
        Ok(())
    }

    async fn record(&self, meta: &ObjectMeta, horizon: Timestamp) -> Result<(), CollectError> {
        let Some(held) = self.ledger.read::<ReviewRecord>(&meta.name).await? else { return Ok(()) };
        let record = held.value;
        let State::Settled { announced_at: Some(told), .. } = record.state else { return Ok(()) };
        if told >= horizon || self.ledger.open_review_generation(&record.tenant, &record.review).await?.is_some() {
            return Ok(());
        }
        // Whoever deals with its letter may want it replayed.
        let letter = dead_letters::of_epoch(&record.review, record.epoch);
        let letter = self.ledger.dead_letter(Some(&record.tenant), &letter).await?;
        if letter.is_some_and(|held| !is_dealt_with(&held.value)) {
            return Ok(());
        }
        // Whatever comes of the pack again looks at its last seal, and would open a review that has no record anew.
        let last = self.ledger.last_filled_seal(&record.tenant, &record.pack).await?;
        if last.is_some_and(|seal| seal.review == record.review) {
            return Ok(());
        }
        // First what only the record leads to.
        if let Some(tenant) = self.registry.tenant(&record.tenant) {
            self.take_leftovers(tenant, &record).await?;
        }
        self.ledger.remove(&meta.name, held.generation).await?;
        tracing::info!(tenant.id = %record.tenant, review.id = %record.review, "record collected");
        Ok(())
    }

    async fn is_of_no_review(&self, name: &str) -> Result<bool, CollectError> {
        let Some(seal) = self.ledger.read::<Seal>(name).await? else { return Ok(false) };
        let seal = seal.value;
        Ok(seal.members.is_empty() || self.ledger.review(&seal.tenant, &seal.review).await?.is_none())
    }
}

fn is_dealt_with(letter: &DeadLetter) -> bool {
    match letter.state {
        DeadLetterState::Resolved | DeadLetterState::Discarded => true,
        DeadLetterState::Open | DeadLetterState::Replaying => false,
    }
}

fn is_done(campaign: &Campaign) -> bool {
    match campaign.state {
        CampaignState::Finished | CampaignState::Cancelled => true,
        CampaignState::Running | CampaignState::Paused | CampaignState::Halted => false,
    }
}
