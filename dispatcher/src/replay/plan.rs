//! What a campaign does next. Pure: takes the campaign, its letters in order, and `now`.
//!
//! ```text
//! Running ─► begin what pace and canaries allow ─► all dealt with: Finished
//!    │  ▲ resume
//!    ▼  │
//! Halted (a canary failed, or a failure came back as it was) · Paused · Cancelled: nothing begins, what is under way ends
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use carrel_schemas::campaign::{Campaign, CampaignItem, CampaignState, ItemState};
use carrel_schemas::ids::TenantId;
use carrel_schemas::timestamp::Timestamp;

/// Replays of one campaign under way at once; tenants' own limits hold beside this.
pub(super) const AT_ONCE: usize = 32;
/// Of these, of one tenant: one that is slow or suspended keeps no other waiting. Nobody's are messages, which end as
/// they are taken: they are held to as many only where so many did not, and always leave as many to a tenant.
pub(super) const OF_ONE_TENANT: usize = 8;
const MINUTE: Duration = Duration::from_secs(60);

/// A campaign's next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Begin these, by their places.
    Begin(Vec<usize>),
    /// Nothing now.
    Rest,
    /// Stop by itself, for this reason.
    Halt(String),
    /// Every letter has been dealt with.
    Finish,
    /// It was cancelled, and nothing is under way any more.
    Close,
}

/// What an operator wishes of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Begin nothing more for now.
    Pause,
    /// Go on, whatever failed before.
    Resume,
    /// Begin nothing more, ever.
    Cancel,
}

/// The campaign as the operator wishes it; none where it is past that.
pub fn steer(campaign: Campaign, wish: Wish, now: Timestamp) -> Option<Campaign> {
    use CampaignState::{Cancelled, Finished, Halted, Paused, Running};
    let said = |state, reason: &str| Campaign { state, reason: Some(reason.to_owned()), ..campaign.clone() };
    match (wish, campaign.state) {
        (_, Finished) | (Wish::Pause | Wish::Resume, Cancelled) => None,
        (Wish::Pause, Paused | Halted) | (Wish::Resume, Running) | (Wish::Cancel, Cancelled) => Some(campaign),
        (Wish::Pause, Running) => Some(said(Paused, "an operator paused it")),
        (Wish::Resume, Paused | Halted) => {
            Some(Campaign { state: Running, reason: None, going_since: now, ..campaign })
        }
        (Wish::Cancel, Running | Paused | Halted) => Some(said(Cancelled, "an operator cancelled it")),
    }
}

/// What to do with a campaign of these letters now.
pub fn plan(campaign: &Campaign, items: &[&CampaignItem], now: Timestamp) -> Plan {
    let is_under_way = |item: &&&CampaignItem| item.state == ItemState::Begun;
    let under_way = items.iter().filter(is_under_way).count();
    let waits = items.iter().any(|item| item.state == ItemState::Pending);
    match campaign.state {
        CampaignState::Cancelled | CampaignState::Finished if under_way == 0 => return Plan::Close,
        CampaignState::Cancelled | CampaignState::Finished => return Plan::Rest,
        CampaignState::Running | CampaignState::Paused | CampaignState::Halted => {}
    }
    if !waits && under_way == 0 {
        return Plan::Finish;
    }
    if campaign.state != CampaignState::Running {
        return Plan::Rest;
    }
    let canaries = canaries(campaign, items);
    if let Some(reason) = halted_by(campaign, items, &canaries) {
        return Plan::Halt(reason);
    }
    let is_recent = |item: &&&CampaignItem| {
        let was_replayed = !matches!(item.state, ItemState::Skipped { .. });
        was_replayed && item.begun_at.is_some_and(|at| now.since(at) < MINUTE && at <= now)
    };
    let recent = items.iter().filter(is_recent).count();
    let may = (campaign.per_minute as usize).saturating_sub(recent).min(AT_ONCE.saturating_sub(under_way));
    let all_sang = canaries.iter().all(|at| matches!(items[*at].state, ItemState::Passed | ItemState::Failed { .. }));
    let mut held: BTreeMap<Option<&TenantId>, usize> = BTreeMap::new();
    for item in items.iter().filter(is_under_way) {
        *held.entry(item.tenant.as_ref()).or_default() += 1;
    }
    let do_end = held.get(&None::<&TenantId>).is_none_or(|nobodys| *nobodys < OF_ONE_TENANT);
    let of_nobody = if do_end { AT_ONCE - OF_ONE_TENANT } else { OF_ONE_TENANT };
    let may_begin = |at: &usize| {
        let tenant = items[*at].tenant.as_ref();
        let held = held.entry(tenant).or_default();
        let most = if tenant.is_some() { OF_ONE_TENANT } else { of_nobody };
        let begins = items[*at].state == ItemState::Pending && *held < most;
        *held += usize::from(begins);
        begins
    };
    let begin: Vec<usize> = if all_sang {
        (0..items.len()).filter(may_begin).take(may).collect()
    } else {
        canaries.into_iter().filter(may_begin).take(may).collect()
    };
    if begin.is_empty() { Plan::Rest } else { Plan::Begin(begin) }
}

/// The first letters that are replayed at all, as many as must pass before the rest.
fn canaries(campaign: &Campaign, items: &[&CampaignItem]) -> Vec<usize> {
    let replayed = |at: &usize| !matches!(items[*at].state, ItemState::Skipped { .. });
    (0..items.len()).filter(replayed).take(campaign.canary as usize).collect()
}

/// Why the campaign must stop, if what failed since it was set going says so.
fn halted_by(campaign: &Campaign, items: &[&CampaignItem], canaries: &[usize]) -> Option<String> {
    items.iter().enumerate().find_map(|(place, item)| {
        let ItemState::Failed { at, reason, fingerprint } = &item.state else { return None };
        if *at < campaign.going_since {
            return None;
        }
        if *fingerprint == item.fingerprint {
            return Some(format!("letter {} failed again as it had: {reason}", item.letter));
        }
        canaries.contains(&place).then(|| format!("letter {}, a canary, failed: {reason}", item.letter))
    })
}

#[cfg(test)]
mod tests {
    use carrel_schemas::campaign::LetterFilter;
    use carrel_schemas::ids::{CampaignId, DeadLetterId, IdempotencyKey};
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds).expect("in range")
    }

    fn campaign(per_minute: u32, canary: u32) -> Campaign {
        Campaign {
            schema: Campaign::SCHEMA,
            id: CampaignId::of(&IdempotencyKey::parse("k").expect("a key")),
            created_at: at(0),
            filter: LetterFilter::default(),
            asked_sha256: String::new(),
            per_minute,
            canary,
            state: CampaignState::Running,
            reason: None,
            going_since: at(0),
            items: String::new(),
            chunks: 1,
            letters: 0,
            unknown: BTreeMap::new(),
        }
    }

    fn items(count: u8) -> Vec<CampaignItem> {
        let item = |number: u8| CampaignItem {
            letter: DeadLetterId::derive(&[&[number]]),
            tenant: None,
            fingerprint: "it broke".to_owned(),
            begun_at: None,
            state: ItemState::Pending,
            unknown: BTreeMap::new(),
        };
        (0..count).map(item).collect()
    }

    fn next(campaign: &Campaign, items: &[CampaignItem], now: i64) -> Plan {
        plan(campaign, &items.iter().collect::<Vec<_>>(), at(now))
    }

    fn fail(item: &mut CampaignItem, now: i64, fingerprint: &str) {
        item.state = ItemState::Failed { at: at(now), reason: "why".to_owned(), fingerprint: fingerprint.to_owned() };
    }

    #[test]
    fn the_rest_begins_once_the_canaries_have_passed() {
        let (campaign, mut items) = (campaign(60, 2), items(5));
        items[0].state = ItemState::Skipped { reason: "gone".to_owned() };
        assert_eq!(next(&campaign, &items, 0), Plan::Begin(vec![1, 2]));
        for item in &mut items[1..3] {
            item.state = ItemState::Begun;
        }
        assert_eq!(next(&campaign, &items, 1), Plan::Rest);
        items[1].state = ItemState::Passed;
        assert_eq!(next(&campaign, &items, 1), Plan::Rest);
        items[2].state = ItemState::Passed;
        assert_eq!(next(&campaign, &items, 1), Plan::Begin(vec![3, 4]));
    }

    #[test]
    fn a_failed_canary_halts_until_somebody_sets_it_going_again() {
        let (mut campaign, mut items) = (campaign(60, 1), items(3));
        fail(&mut items[0], 5, "something else");
        assert!(matches!(next(&campaign, &items, 6), Plan::Halt(why) if why.contains("a canary")));
        campaign.state = CampaignState::Halted;
        assert_eq!(next(&campaign, &items, 7), Plan::Rest);
        (campaign.state, campaign.going_since) = (CampaignState::Running, at(8));
        assert_eq!(next(&campaign, &items, 8), Plan::Begin(vec![1, 2]));
    }

    #[test]
    fn a_failure_that_comes_back_as_it_was_halts_and_another_does_not() {
        let (campaign, mut items) = (campaign(60, 0), items(3));
        fail(&mut items[0], 5, "something else");
        assert_eq!(next(&campaign, &items, 6), Plan::Begin(vec![1, 2]));
        fail(&mut items[1], 6, "it broke");
        assert!(matches!(next(&campaign, &items, 7), Plan::Halt(why) if why.contains("again as it had")));
    }

    #[test]
    fn a_cancelled_campaign_is_closed_once_nothing_is_under_way() {
        let (mut campaign, mut items) = (campaign(60, 0), items(2));
        campaign.state = CampaignState::Cancelled;
        items[0].state = ItemState::Begun;
        assert_eq!(next(&campaign, &items, 1), Plan::Rest);
        items[0].state = ItemState::Passed;
        assert_eq!(next(&campaign, &items, 1), Plan::Close);
    }

    #[test]
    fn a_tenant_that_is_slow_keeps_no_other_waiting() {
        let (campaign, mut items) = (campaign(1000, 0), items(60));
        for (at, item) in items.iter_mut().enumerate() {
            item.tenant = Some(TenantId::parse(if at < 50 { "slow" } else { "small" }).expect("id"));
        }
        let Plan::Begin(first) = next(&campaign, &items, 0) else { panic!("nothing began") };
        assert_eq!(first.iter().filter(|at| **at < 50).count(), OF_ONE_TENANT);
        assert_eq!(first.iter().filter(|at| **at >= 50).count(), OF_ONE_TENANT);
        for at in first {
            items[at].state = ItemState::Begun;
        }
        items[55].state = ItemState::Passed;
        assert_eq!(next(&campaign, &items, 1), Plan::Begin(vec![58]));
    }

    #[test]
    fn nobodys_messages_are_held_to_the_pace_and_leave_room_for_a_tenant() {
        let mut items = items(60);
        assert_eq!(next(&campaign(5, 0), &items, 0), Plan::Begin((0..5).collect()));
        let campaign = campaign(1000, 0);
        assert_eq!(next(&campaign, &items, 0), Plan::Begin((0..AT_ONCE - OF_ONE_TENANT).collect()));
        items[59].tenant = Some(TenantId::parse("acme").expect("id"));
        let Plan::Begin(first) = next(&campaign, &items, 0) else { panic!("nothing began") };
        assert_eq!(first.last(), Some(&59));
    }

    #[test]
    fn nobodys_messages_that_do_not_end_keep_no_tenant_waiting() {
        let (campaign, mut items) = (campaign(1000, 0), items(60));
        for item in &mut items[..OF_ONE_TENANT] {
            item.state = ItemState::Begun;
        }
        assert_eq!(next(&campaign, &items, 0), Plan::Rest);
        items[59].tenant = Some(TenantId::parse("acme").expect("id"));
        assert_eq!(next(&campaign, &items, 0), Plan::Begin(vec![59]));
        items[0].state = ItemState::Passed;
        let Plan::Begin(more) = next(&campaign, &items, 1) else { panic!("nothing began") };
        assert_eq!(more.len(), AT_ONCE - OF_ONE_TENANT - (OF_ONE_TENANT - 1) + 1, "once one ends, the rest goes on");
    }

    #[test]
    fn an_operator_steers_a_campaign_until_it_is_over() {
        let stands = |state| Campaign { state, ..campaign(60, 0) };
        let steered = |state, wish| steer(stands(state), wish, at(9)).map(|campaign| campaign.state);
        use CampaignState::{Cancelled, Finished, Halted, Paused, Running};
        let table = [
            (Running, Some(Paused), Some(Running), Some(Cancelled)),
            (Paused, Some(Paused), Some(Running), Some(Cancelled)),
            (Halted, Some(Halted), Some(Running), Some(Cancelled)),
            (Cancelled, None, None, Some(Cancelled)),
            (Finished, None, None, None),
        ];
        for (state, paused, resumed, cancelled) in table {
            assert_eq!(steered(state, Wish::Pause), paused, "{state:?}");
            assert_eq!(steered(state, Wish::Resume), resumed, "{state:?}");
            assert_eq!(steered(state, Wish::Cancel), cancelled, "{state:?}");
        }
        assert_eq!(steer(stands(Halted), Wish::Resume, at(9)).map(|campaign| campaign.going_since), Some(at(9)));
    }

    proptest! {
        /// Whatever passes, fails in another way or is skipped meanwhile: the pace holds in every minute, and each
        /// letter is begun exactly once.
        #[test]
        fn the_pace_holds_and_each_letter_is_begun_once(
            per_minute in 1u32..8, canary in 0u32..4, ends in proptest::collection::vec(0u8..4, 400), step in 1i64..20,
        ) {
            let (campaign, mut items) = (campaign(per_minute, canary), items(20));
            let (mut begun, mut now, mut ends) = (Vec::new(), 0, ends.into_iter().cycle());
            loop {
                for item in items.iter_mut().filter(|item| item.state == ItemState::Begun) {
                    match ends.next() {
                        Some(0) => {}
                        Some(1) => item.state = ItemState::Skipped { reason: "gone".to_owned() },
                        _ => item.state = ItemState::Passed,
                    }
                }
                match next(&campaign, &items, now) {
                    Plan::Begin(which) => for place in which {
                        prop_assert_eq!(&items[place].state, &ItemState::Pending);
                        begun.push((place, now));
                        items[place].begun_at = Some(at(now));
                        items[place].state = ItemState::Begun;
                    },
                    Plan::Rest => {}
                    Plan::Finish => break,
                    other => prop_assert!(false, "{:?}", other),
                }
                let is_replayed = |place: &usize| !matches!(items[*place].state, ItemState::Skipped { .. });
                let minute = begun.iter().filter(|(place, then)| now - then < 60 && is_replayed(place)).count();
                prop_assert!(minute <= per_minute as usize, "{} in a minute", minute);
                now += step;
                prop_assert!(now < 100_000, "it never ends");
            }
            prop_assert_eq!(begun.len(), items.len());
        }
    }
}
