//! Carries campaigns: the leader takes each a turn further, again and again, until nothing of it is left to do.
//!
//! ```text
//! turn: take every letter under way a step further ─► plan ─► mark who begins, then begin ─► halt | finish
//!   ▲                                                   ▲      └─ all of them ended: that campaign, at once ─┐
//!   └─ a while later, where something is waited for     └────────────────────────────────────────────────────┘
//! ```
//! What is marked in a chunk is marked before it is done, by compare-and-swap: a campaign that is killed goes on where it
//! stood, and two that believe they lead cannot begin one letter differently. Refuses letters that were filed after the
//! campaign began: it cannot feed itself.
//!
//! Cloud Storage takes about one overwrite of an object a second, and a chunk is rewritten several times a turn. What
//! is refused as too fast is repeated after a pause by the client: such a campaign goes on as fast as its chunks can be
//! written, and one that is refused for long is read anew a while later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use carrel_schemas::campaign::{Campaign, CampaignChunk, CampaignItem, CampaignState, ItemState};
use carrel_schemas::ids::CampaignId;
use carrel_schemas::timestamp::Timestamp;
use futures::stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::plan::{Plan, plan};
use super::{ReplayError, Replayer};
use crate::leadership::Leadership;
use crate::ledger::{Ledger, LedgerError, Versioned};

/// Letters taken a step further at once.
const STEPS: usize = 16;
/// Steps that one letter is taken in one turn: to take it, and to begin.
const AT_ONCE: usize = 2;

/// A marker without a head is a campaign that is just being opened, for this long; then it never was.
const OPENED_WITHIN: Duration = Duration::from_secs(60 * 60);

/// Carries campaigns while it leads.
#[derive(Debug)]
pub struct Campaigns {
    ledger: Ledger,
    replayer: Arc<Replayer>,
    leadership: Leadership,
}

/// A campaign's chunks as they were last read or written.
type Chunks = Vec<Versioned<CampaignChunk>>;

/// A campaign after a turn.
struct Carried {
    chunks: Chunks,
    /// All that it began in this turn has ended in it.
    goes_on: bool,
}

/// The place of a letter: its chunk, and where in it.
type Place = (usize, usize);

impl Campaigns {
    /// Carries what the ledger holds.
    pub fn new(ledger: Ledger, replayer: Arc<Replayer>, leadership: Leadership) -> Self {
        Self { ledger, replayer, leadership }
    }

    /// Takes turns until `stop`, while this replica leads.
    pub async fn run(self, every: Duration, stop: CancellationToken) {
        let mut turn = tokio::time::interval(every);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut held: HashMap<CampaignId, Chunks> = HashMap::new();
        let mut going = HashSet::new();
        loop {
            // In this order: however long some go on at once, every campaign has its turn when that has come.
            let at_once = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = async { self.leadership.held().await; turn.tick().await; } => None,
                () = self.leadership.held(), if !going.is_empty() => Some(&going),
            };
            // A step in hand is ended: it is short, and the drain waits for it.
            going = self.turn(&mut held, at_once).await.unwrap_or_else(|error| {
                tracing::warn!(error = crate::chain(&error), "campaigns are looked at again later");
                HashSet::new()
            });
        }
    }

    /// One turn of every campaign, or of those alone that go on at once. Returns which of them do after it.
    async fn turn(
        &self,
        held: &mut HashMap<CampaignId, Chunks>,
        at_once: Option<&HashSet<CampaignId>>,
    ) -> Result<HashSet<CampaignId>, LedgerError> {
        let open = self.ledger.open_campaigns().await?;
        held.retain(|id, _| open.iter().any(|(open, _)| open == id));
        let mut going = HashSet::new();
        for (id, since) in open.into_iter().filter(|(id, _)| at_once.is_none_or(|some| some.contains(id))) {
            let chunks = held.remove(&id).unwrap_or_default();
            match self.carry(&id, since, chunks, at_once.is_some()).await {
                Ok(Some(Carried { chunks, goes_on })) => {
                    if goes_on {
                        going.insert(id.clone());
                    }
                    held.insert(id, chunks);
                }
                Ok(None) => {}
                // One campaign that cannot be carried stops no other.
                Err(error) => {
                    tracing::warn!(campaign.id = %id, error = crate::chain(&error), "campaign is carried on later");
                }
            }
        }
        Ok(going)
    }

    /// One turn of one campaign; at once after another, what is under way is left alone: nothing new is known of it.
    /// Returns how the campaign stands, unless its chunks have to be read anew.
    async fn carry(
        &self,
        id: &CampaignId,
        since: Timestamp,
        mut chunks: Chunks,
        at_once: bool,
    ) -> Result<Option<Carried>, LedgerError> {
        let Some(Versioned { value: campaign, generation }) = self.ledger.campaign(id).await? else {
            if crate::now().since(since) > OPENED_WITHIN {
                self.ledger.close_campaign(id).await?;
            }
            return Ok(None);
        };
        if chunks.is_empty() {
            chunks = self.read(&campaign).await?;
        }
        let under_way = places(&chunks, |item| item.state == ItemState::Begun && !at_once);
        if !self.advance(&campaign, &mut chunks, under_way).await? {
            return Ok(None);
        }
        let items: Vec<(Place, &CampaignItem)> = all(&chunks).collect();
        let now = crate::now();
        let mut goes_on = false;
        match plan(&campaign, &items.iter().map(|(_, item)| *item).collect::<Vec<_>>(), now) {
            Plan::Rest => {}
            Plan::Begin(which) => {
                let begun: Vec<Place> = which.into_iter().map(|at| items[at].0).collect();
                let mark = |item: &mut CampaignItem| {
                    (item.begun_at, item.state) = (Some(now), ItemState::Begun);
                };
                if !self.mark(&campaign, &mut chunks, &begun, mark).await?
                    || !self.advance(&campaign, &mut chunks, begun.clone()).await?
                {
                    return Ok(None);
                }
                goes_on = begun.iter().all(|(chunk, at)| chunks[*chunk].value.items[*at].state != ItemState::Begun);
            }
            Plan::Halt(reason) => {
                tracing::warn!(campaign.id = %id, reason, "campaign halted");
                let next = Campaign { state: CampaignState::Halted, reason: Some(reason), ..campaign };
                self.ledger.move_campaign(generation, &next).await?;
            }
            Plan::Finish => {
                tracing::info!(campaign.id = %id, "campaign finished");
                let next = Campaign { state: CampaignState::Finished, reason: None, ..campaign };
                self.ledger.move_campaign(generation, &next).await?;
            }
            Plan::Close => {
                self.ledger.close_campaign(id).await?;
                return Ok(None);
            }
        }
        Ok(Some(Carried { chunks, goes_on }))
    }

    async fn read(&self, campaign: &Campaign) -> Result<Chunks, LedgerError> {
        let mut chunks = Chunks::new();
        for at in 0..campaign.chunks as usize {
            chunks.push(self.ledger.chunk(campaign, at).await?);
        }
        Ok(chunks)
    }

    /// Takes letters a step further and notes how those that ended did. False if somebody else moved a chunk.
    async fn advance(
        &self,
        campaign: &Campaign,
        chunks: &mut Chunks,
        mut places: Vec<Place>,
    ) -> Result<bool, LedgerError> {
        for _ in 0..AT_ONCE {
            let items: Vec<(Place, CampaignItem)> =
                places.drain(..).map(|place @ (chunk, at)| (place, chunks[chunk].value.items[at].clone())).collect();
            let steps = items.into_iter().map(|(place, item)| async move {
                (place, self.replayer.advance(&campaign.id, campaign.state, item.tenant.as_ref(), &item.letter).await)
            });
            let taken: Vec<(Place, Result<_, ReplayError>)> =
                futures::stream::iter(steps).buffer_unordered(STEPS).collect().await;
            let mut ended = HashMap::new();
            for (place, step) in taken {
                match step {
                    Ok(Some(state)) => drop(ended.insert(place, state)),
                    Ok(None) => places.push(place),
                    Err(error) => {
                        let error = crate::chain(&error);
                        tracing::warn!(campaign.id = %campaign.id, error, "letter is replayed on later");
                    }
                }
            }
            for chunk in 0..chunks.len() {
                let of_it: Vec<Place> = ended.keys().filter(|place| place.0 == chunk).copied().collect();
                let mut states = of_it.iter().filter_map(|place| ended.remove(place)).collect::<Vec<_>>().into_iter();
                let note = |item: &mut CampaignItem| {
                    if let Some(state) = states.next() {
                        tracing::info!(campaign.id = %campaign.id, dead_letter.id = %item.letter, ?state, "replayed");
                        item.state = state;
                    }
                };
                if !of_it.is_empty() && !self.mark(campaign, chunks, &of_it, note).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Changes letters and writes their chunks. False if somebody else moved one of them.
    async fn mark(
        &self,
        campaign: &Campaign,
        chunks: &mut Chunks,
        places: &[Place],
        mut change: impl FnMut(&mut CampaignItem),
    ) -> Result<bool, LedgerError> {
        let mut moved: Vec<usize> = places.iter().map(|(chunk, _)| *chunk).collect();
        moved.sort_unstable();
        moved.dedup();
        for (chunk, at) in places {
            change(&mut chunks[*chunk].value.items[*at]);
        }
        for at in moved {
            let Versioned { value, generation } = &chunks[at];
            match self.ledger.move_chunk(campaign, at, *generation, value).await? {
                Some(generation) => chunks[at].generation = generation,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

fn all(chunks: &Chunks) -> impl Iterator<Item = (Place, &CampaignItem)> {
    let of = |(chunk, held): (usize, _)| {
        let held: &Versioned<CampaignChunk> = held;
        held.value.items.iter().enumerate().map(move |(at, item)| ((chunk, at), item))
    };
    chunks.iter().enumerate().flat_map(of)
}

fn places(chunks: &Chunks, wanted: impl Fn(&CampaignItem) -> bool) -> Vec<Place> {
    all(chunks).filter(|(_, item)| wanted(item)).map(|(place, _)| place).collect()
}
