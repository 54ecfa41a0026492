//! What a campaign would come to, and its beginning: which letters, oldest first, and for how long.
//!
//! Refuses to move a letter: a dry run only looks.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use carrel_schemas::campaign::{
    Campaign, CampaignChunk, CampaignItem, CampaignState, CreateCampaign, Foresight, ItemState, LetterFilter,
};
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterSource, DeadLetterState};
use carrel_schemas::ids::{CampaignId, DeadLetterId, IdempotencyKey, TenantId};
use carrel_schemas::timestamp::Timestamp;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::plan::{AT_ONCE, OF_ONE_TENANT};
use super::{ReplayError, Replayer, Seen};
use crate::dead_letters::Index;
use crate::ledger::LedgerError;

/// Letters looked at at once, each whole: it may have millions of bytes.
const LOOKS: usize = 8;

/// What a campaign would come to.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Forecast {
    /// How many letters meet each fate.
    pub counts: BTreeMap<Foresight, usize>,
    /// Seconds that it should take, if an earlier run of one of the reviews tells how long such runs last.
    pub seconds: Option<u64>,
    /// Letter by letter, in the order of their turns.
    pub letters: Vec<Foreseen>,
}

/// What would become of one letter.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Foreseen {
    /// Which.
    pub letter: DeadLetterId,
    /// Whose; none is nobody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Its fate.
    pub foresight: Foresight,
    /// Why, where that needs words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Milliseconds that its review ran when it last did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ran_ms: Option<u64>,
    /// Whether its replay is a review: a message launches nothing by itself.
    #[serde(skip)]
    is_review: bool,
}

/// The letters that a campaign is for, the oldest first: those that are named, or every open one that fits.
pub async fn chosen(index: &Index, wish: &CreateCampaign) -> Result<Vec<Arc<DeadLetter>>, LedgerError> {
    let named: HashSet<&DeadLetterId> = wish.letters.iter().collect();
    let state = if named.is_empty() { Some(DeadLetterState::Open) } else { wish.filter.state };
    let mut letters = index.find(&LetterFilter { state, ..wish.filter.clone() }).await?;
    letters.retain(|letter| named.is_empty() || named.contains(&letter.id));
    letters.reverse();
    Ok(letters)
}

/// SHA-256 (hex) of everything that a campaign is asked with.
pub fn asked_sha256(wish: &CreateCampaign) -> String {
    hex::encode(Sha256::digest(serde_json::to_vec(wish).expect("a wish is plain JSON")))
}

/// The head and the chunks of a campaign over these letters.
pub fn drawn_up(
    wish: CreateCampaign,
    key: &IdempotencyKey,
    letters: &[Arc<DeadLetter>],
    now: Timestamp,
) -> (Campaign, Vec<CampaignChunk>) {
    let item = |letter: &Arc<DeadLetter>| CampaignItem {
        letter: letter.id.clone(),
        tenant: letter.tenant.clone(),
        fingerprint: letter.fingerprint.clone(),
        begun_at: None,
        state: ItemState::Pending,
        unknown: BTreeMap::new(),
    };
    let chunk = |letters: &[Arc<DeadLetter>]| CampaignChunk {
        schema: Campaign::SCHEMA,
        items: letters.iter().map(item).collect(),
        unknown: BTreeMap::new(),
    };
    let chunks: Vec<_> = letters.chunks(Campaign::CHUNK).map(chunk).collect();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let campaign = Campaign {
        schema: Campaign::SCHEMA,
        id: CampaignId::of(key),
        created_at: now,
        asked_sha256: asked_sha256(&wish),
        filter: wish.filter,
        per_minute: wish.per_minute,
        canary: wish.canary,
        state: CampaignState::Running,
        reason: None,
        going_since: now,
        items: String::new(),
        chunks: count(chunks.len()),
        letters: count(letters.len()),
        unknown: BTreeMap::new(),
    };
    (campaign, chunks)
}

impl Replayer {
    /// What would become of these letters, which were chosen by the wish, if they were replayed now.
    pub async fn forecast(&self, letters: &[Arc<DeadLetter>], wish: &CreateCampaign) -> Result<Forecast, ReplayError> {
        let looks = letters.iter().cloned().map(|letter| async move {
            // An index holds no message bodies, and a message is judged by its body.
            let seen = match self.ledger.dead_letter(letter.tenant.as_ref(), &letter.id).await? {
                Some(whole) => match self.foresee(&whole.value).await {
                    // A replay would meet it as well; it hides no other letter.
                    Err(error) if error.is_permanent() => Seen::that(Foresight::StillInvalid, crate::chain(&error)),
                    seen => seen?,
                },
                None => Seen::that(Foresight::NotOpen, "it is gone"),
            };
            let is_review = !matches!(letter.source, DeadLetterSource::Message { .. });
            let foreseen = Foreseen::of(letter.id.clone(), letter.tenant.clone(), seen);
            Ok::<_, ReplayError>(Foreseen { is_review, ..foreseen })
        });
        let found: HashSet<&DeadLetterId> = letters.iter().map(|letter| &letter.id).collect();
        let missing = wish.letters.iter().filter(|id| !found.contains(id));
        let missing = missing.map(|id| {
            Foreseen::of(id.clone(), None, Seen::that(Foresight::NotOpen, "there is no such letter that fits"))
        });
        let mut letters: Vec<Foreseen> = futures::stream::iter(looks).buffered(LOOKS).try_collect().await?;
        letters.extend(missing);
        let mut counts = BTreeMap::new();
        for letter in &letters {
            *counts.entry(letter.foresight).or_default() += 1;
        }
        let concurrency = |tenant: &TenantId| {
            let own = self.registry.tenant(tenant).map_or(1, |tenant| tenant.limits.max_concurrent).max(1);
            u64::from(own).min(OF_ONE_TENANT as u64)
        };
        let bounds = Bounds {
            at_once: self.capacity.min(AT_ONCE) as u64,
            per_minute: wish.per_minute.into(),
            launches_per_minute: self.launches_per_minute.get().into(),
        };
        let seconds = duration(&letters, concurrency, &bounds).map(|long| long.as_secs());
        Ok(Forecast { counts, seconds, letters })
    }
}

impl Foreseen {
    fn of(letter: DeadLetterId, tenant: Option<TenantId>, seen: Seen) -> Self {
        let Seen { foresight, why, ran_ms, .. } = seen;
        Self { letter, tenant, foresight, why, ran_ms, is_review: false }
    }
}

/// What holds back a campaign beside what each tenant may have at once.
struct Bounds {
    at_once: u64,
    per_minute: u64,
    launches_per_minute: u64,
}

/// How long the letters that would run take: as long as the slowest tenant needs with what it may have at once, as all
/// need together, and as the campaign's pace and that of launches allow. A review that was never measured is taken for
/// an average one; none if no review was.
fn duration(letters: &[Foreseen], concurrency: impl Fn(&TenantId) -> u64, bounds: &Bounds) -> Option<Duration> {
    let would: Vec<&Foreseen> = letters.iter().filter(|letter| letter.foresight == Foresight::WouldRun).collect();
    let measured: Vec<u64> = would.iter().filter_map(|letter| letter.ran_ms).collect();
    let (mut tenants, mut reviews): (BTreeMap<&TenantId, u64>, u64) = (BTreeMap::new(), 0);
    for letter in would.iter().filter(|letter| letter.is_review) {
        let Some(tenant) = &letter.tenant else { continue };
        let average = || measured.iter().sum::<u64>().checked_div(measured.len() as u64);
        *tenants.entry(tenant).or_default() += letter.ran_ms.or_else(average)?;
        reviews += 1;
    }
    let together = tenants.values().sum::<u64>() / bounds.at_once;
    let slowest = tenants.into_iter().map(|(tenant, ms)| ms / concurrency(tenant)).max().unwrap_or(0);
    // A minute's replays begin at once, its launches one after another.
    let begun = (would.len() as u64).saturating_sub(1) / bounds.per_minute * 60_000;
    let launched = reviews.saturating_sub(1) * 60_000 / bounds.launches_per_minute;
    Some(Duration::from_millis(slowest.max(together).max(begun).max(launched)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreseen(tenant: &str, foresight: Foresight, ran_ms: Option<u64>) -> Foreseen {
        let tenant = Some(TenantId::parse(tenant).expect("id"));
        Foreseen { letter: DeadLetterId::derive(&[b"a"]), tenant, foresight, why: None, ran_ms, is_review: true }
    }

    #[test]
    fn a_campaign_takes_as_long_as_its_slowest_tenant_all_together_or_the_slower_pace() {
        let (would, gone) = (Foresight::WouldRun, Foresight::InputsGone);
        let letters = [
            foreseen("acme", would, Some(4_000)),
            foreseen("acme", would, None),
            foreseen("bolt", would, Some(2_000)),
            foreseen("bolt", gone, Some(900_000)),
        ];
        let bounds = |at_once, per_minute, launches_per_minute| Bounds { at_once, per_minute, launches_per_minute };
        let wide = bounds(32, 6_000, 6_000);
        // acme: 4 s, and an unmeasured one of 3 s on average, on two slots.
        assert_eq!(duration(&letters, |_| 2, &wide), Some(Duration::from_millis(3_500)));
        // All three, 9 s, on the only slot there is.
        assert_eq!(duration(&letters, |_| 2, &bounds(1, 6_000, 6_000)), Some(Duration::from_secs(9)));
        // Three replays, which one minute allows, or two minutes, or three; and three launches, one every twenty seconds.
        assert_eq!(duration(&letters, |_| 2, &bounds(32, 3, 6_000)), Some(Duration::from_millis(3_500)));
        assert_eq!(duration(&letters, |_| 2, &bounds(32, 2, 6_000)), Some(Duration::from_secs(60)));
        assert_eq!(duration(&letters, |_| 2, &bounds(32, 1, 6_000)), Some(Duration::from_secs(120)));
        assert_eq!(duration(&letters, |_| 2, &bounds(32, 3, 3)), Some(Duration::from_secs(40)));
        // A message launches nothing by itself, whosever it is.
        let message = Foreseen { is_review: false, ..foreseen("acme", would, None) };
        let two = [foreseen("acme", would, Some(1_000)), message];
        assert_eq!(duration(&two, |_| 2, &bounds(32, 6_000, 1)), Some(Duration::from_millis(500)));
        assert_eq!(duration(&[foreseen("acme", would, None)], |_| 1, &wide), None);
        assert_eq!(duration(&[foreseen("acme", gone, None)], |_| 1, &wide), Some(Duration::ZERO));
    }
}
