//! The desk: everything that is to be looked at now, one look per pack and review at a time.
//!
//! ```text
//! intake, api, reconcile ─► Wake ─► look (sealer or driver) ─► what it found ─► schedule ─► Wake
//! ```
//! Owns the running looks and the schedule. A wake-up for something that is being looked at is remembered and answered
//! by another look, so no wake-up is lost; a lost process loses only wake-ups, which the reconciler makes anew. A new
//! leader grants no slot before it has looked at every review that was open when it began: which of them hold one only
//! the ledger knows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use carrel_schemas::ids::{PackId, ReviewId, TenantId};
use carrel_schemas::registry::Registry;
use carrel_schemas::timestamp::Timestamp;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::backlog::Backlog;
use crate::drive::{DriveError, Driver, Rest};
use crate::leadership::Leadership;
use crate::ledger::OpenPack;
use crate::limbo::Limbo;
use crate::pace::Pace;
use crate::pack::seal::{Considered, SealError, Sealer};
use crate::schedule::{Schedule, Share};

/// Looks under way at once, besides those that a slot was granted for.
const LOOKS: usize = 64;
/// Wake-ups waiting to be heard; senders wait beyond.
const WAKES: usize = 4096;
/// What may wait to be looked at; beyond that, who rings waits. In lanes a tenant waits behind itself alone, so this is
/// far larger; an entry takes some two hundred bytes, and its name may be made up by whoever sends a wake-up.
const BACKLOG: usize = 1 << 16;
/// Beyond so many things of one tenant that wait, hints of it are forgotten: whoever may publish one can make up any
/// number of them, and the reconciler finds what they tell of.
const HINTED: usize = 1000;
/// A pack, or a review of a suspended tenant, is left in peace no longer than this: what was meant to wake it may be
/// lost.
const PEACE: Duration = Duration::from_secs(60);

/// What is to be looked at.
#[derive(Debug, Clone)]
pub enum Wake {
    /// A pack whose sign of completion has arrived.
    Pack(OpenPack),
    /// A pack the reconciler found open: looked at when its policy says so.
    OpenPack(OpenPack),
    /// A review that may have moved.
    Review(TenantId, ReviewId),
    /// A review that somebody says has moved, who is not believed.
    Hint(TenantId, ReviewId),
    /// Every review the reconciler found open: those the schedule already holds are left in peace.
    Open(TenantId, ReviewId),
    /// The reconciler has rung for everything that was open when it began, and time has passed.
    Walked,
}

/// Sends wake-ups to the desk.
#[derive(Debug, Clone)]
pub struct Bell(mpsc::Sender<Wake>);

impl Bell {
    /// Rings for something; waits while the desk has too much to hear. Silent once the desk has closed.
    pub async fn ring(&self, wake: Wake) {
        if self.0.send(wake).await.is_err() {
            tracing::debug!("the desk has closed; the reconciler will find it");
        }
    }
}

/// The desk before it runs.
#[derive(Debug)]
pub struct Desk {
    sealer: Sealer,
    driver: Arc<Driver>,
    limbo: Arc<Limbo>,
    registry: Arc<Registry>,
    leadership: Leadership,
    wakes: mpsc::Receiver<Wake>,
    capacity: usize,
    schedule: Schedule,
    /// How fast the cloud takes launches.
    pace: Pace,
    looks: JoinSet<Looked>,
    looked_at: HashMap<Id, Key>,
    /// What is being looked at, and what is to follow.
    busy: HashMap<Key, Option<Again>>,
    backlog: Backlog<Key, Subject>,
    /// Packs whose policy says when to look again, and reviews that wait for their suspended tenant.
    not_before: HashMap<Key, Timestamp>,
    /// Reviews that wait and have a deadline.
    expires_at: HashMap<Key, Timestamp>,
    /// What this leader has still to look at of what it found open; `None` before the first walk is over.
    unseen: Option<HashSet<Key>>,
}

/// Another look that was asked for during one. A slot once granted stays granted.
#[derive(Debug)]
struct Again {
    subject: Subject,
    granted: bool,
}

/// What a look is at.
#[derive(Debug)]
enum Subject {
    Pack(OpenPack),
    Review(TenantId, ReviewId),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pack(TenantId, PackId),
    Review(TenantId, ReviewId),
}

#[derive(Debug)]
enum Looked {
    Pack(Result<Considered, SealError>),
    Review(Result<Rest, DriveError>),
}

impl Subject {
    fn key(&self) -> Key {
        match self {
            Self::Pack(open) => Key::Pack(open.tenant.clone(), open.pack.clone()),
            Self::Review(tenant, review) => Key::Review(tenant.clone(), review.clone()),
        }
    }
}

impl Key {
    fn tenant(&self) -> &TenantId {
        let (Self::Pack(tenant, _) | Self::Review(tenant, _)) = self;
        tenant
    }
}

/// A desk and the bell that wakes it; `capacity` reviews run at once over all tenants, launched at `pace`.
pub fn desk(
    sealer: Sealer,
    driver: Arc<Driver>,
    limbo: Arc<Limbo>,
    registry: Arc<Registry>,
    leadership: Leadership,
    capacity: usize,
    pace: Pace,
) -> (Desk, Bell) {
    let (sender, wakes) = mpsc::channel(WAKES);
    let desk = Desk {
        sealer,
        driver,
        limbo,
        registry,
        leadership,
        wakes,
        capacity,
        schedule: Schedule::new(capacity),
        pace,
        looks: JoinSet::new(),
        looked_at: HashMap::new(),
        busy: HashMap::new(),
        backlog: Backlog::default(),
        not_before: HashMap::new(),
        expires_at: HashMap::new(),
        unseen: None,
    };
    (desk, Bell(sender))
}

impl Desk {
    /// Runs until `stop`, then lets the looks under way end.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut terms = self.leadership.watch();
        let mut too_fast = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = terms.changed() => self.forget_slots(),
                Some(done) = self.looks.join_next_with_id() => self.done(done),
                Some(wake) = self.wakes.recv(), if !self.backlog.is_full(BACKLOG) => self.wake(wake),
                () = pause(too_fast), if too_fast.is_some() => {}
            }
            too_fast = self.grant();
        }
        while self.looks.join_next().await.is_some() {}
    }

    /// Another term: whatever was known of slots is another leader's to know, or to be learnt anew.
    fn forget_slots(&mut self) {
        self.schedule = Schedule::new(self.capacity);
        self.unseen = None;
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Pack(open) => self.look(Subject::Pack(open), false),
            Wake::Review(tenant, review) => self.look(Subject::Review(tenant, review), false),
            Wake::Open(tenant, review) => {
                let waits = self.schedule.is_waiting(&tenant, &review);
                let subject = Subject::Review(tenant, review);
                let (key, now) = (subject.key(), crate::now());
                let rests = self.not_before.get(&key).is_some_and(|until| now < *until);
                if !(waits || rests) || self.expires_at.get(&key).is_some_and(|at| now >= *at) {
                    self.look(subject, false);
                }
            }
            Wake::Hint(tenant, review) => {
                if is_heard(&self.backlog, &tenant) {
                    self.look(Subject::Review(tenant, review), false);
                }
            }
            Wake::OpenPack(open) => {
                let subject = Subject::Pack(open);
                if self.not_before.get(&subject.key()).is_none_or(|until| crate::now() >= *until) {
                    self.look(subject, false);
                }
            }
            Wake::Walked => {
                let now = crate::now();
                self.not_before.retain(|_, until| *until > now);
                // One that another replica saw to its end is open no more, so nothing rings for it: its slot comes back
                // by looking.
                let holders: Vec<_> =
                    self.schedule.holders().map(|(tenant, review)| (tenant.clone(), review.clone())).collect();
                for (tenant, review) in holders {
                    self.look(Subject::Review(tenant, review), false);
                }
                let in_hand = || self.busy.keys().chain(self.backlog.keys()).cloned().collect();
                self.unseen.get_or_insert_with(in_hand);
            }
        }
    }

    fn look(&mut self, subject: Subject, granted: bool) {
        let key = subject.key();
        if let Some(again) = self.busy.get_mut(&key) {
            let granted = granted || again.as_ref().is_some_and(|again| again.granted);
            *again = Some(Again { subject, granted });
            return;
        }
        if !granted && self.looks.len() >= LOOKS {
            self.backlog.push(key.tenant(), key.clone(), subject);
            return;
        }
        let limbo = self.limbo.clone();
        let look = match subject {
            Subject::Pack(open) => {
                let sealer = self.sealer.clone();
                self.looks.spawn(async move {
                    let found = sealer.consider(&open, crate::now()).await;
                    limbo.pack_looked(&open, &found, crate::now()).await;
                    Looked::Pack(found)
                })
            }
            Subject::Review(tenant, review) => {
                let driver = self.driver.clone();
                self.looks.spawn(async move {
                    let found = driver.drive(&tenant, &review, granted).await;
                    limbo.review_looked(&tenant, &review, &found, crate::now()).await;
                    Looked::Review(found)
                })
            }
        };
        self.looked_at.insert(look.id(), key.clone());
        self.busy.insert(key, None);
    }

    fn done(&mut self, done: Result<(Id, Looked), JoinError>) {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(key) = self.looked_at.remove(&id) else { return };
        let again = self.busy.remove(&key).flatten();
        if let Some(unseen) = &mut self.unseen {
            unseen.remove(&key);
        }
        match done {
            Err(error) => tracing::error!(%error, ?key, "a look was lost; the reconciler looks again"),
            // The schedule gave it a slot meanwhile: what was found without one is out of date.
            Ok(_) if again.as_ref().is_some_and(|again| again.granted) => {}
            Ok((_, Looked::Pack(found))) => self.pack_looked(key, found),
            Ok((_, Looked::Review(found))) => self.review_looked(&key, found),
        }
        if let Some(Again { subject, granted }) = again {
            self.look(subject, granted);
        }
        while self.looks.len() < LOOKS {
            let Some(subject) = self.backlog.pop() else { break };
            self.look(subject, false);
        }
    }

    fn pack_looked(&mut self, key: Key, found: Result<Considered, SealError>) {
        self.not_before.remove(&key);
        match found {
            Ok(Considered::Wait(until)) => {
                self.not_before.insert(key, until.min(crate::now().plus(PEACE)));
            }
            Ok(Considered::Sealed { tenant, review }) => self.look(Subject::Review(tenant, review), false),
            Ok(Considered::Nothing) => {}
            Err(error) => tracing::warn!(error = crate::chain(&error), "pack is looked at again later"),
        }
    }

    fn review_looked(&mut self, key: &Key, found: Result<Rest, DriveError>) {
        let Key::Review(tenant, review) = key else { return };
        self.expires_at.remove(key);
        self.not_before.remove(key);
        match found {
            // Others than the leader grant no slots, and need not know who waits for one.
            Ok(Rest::Waiting { .. } | Rest::Active { .. }) if !self.leadership.is_held() => {}
            Ok(Rest::Waiting { not_before, urgency, expires_at }) => {
                self.expires_at.extend(expires_at.map(|at| (key.clone(), at)));
                let share = self.share(tenant);
                self.schedule.wait(tenant, review, share, urgency, not_before, crate::now());
            }
            Ok(Rest::Active { since }) => self.schedule.activate(tenant, review, self.share(tenant), since),
            Ok(Rest::Unknown) => self.schedule.remove(tenant, review, crate::now()),
            // The registry changes with a restart alone; what else ends such a review is in no hurry.
            Ok(Rest::Behind(None)) if self.is_suspended(tenant) => {
                self.schedule.remove(tenant, review, crate::now());
                self.not_before.insert(key.clone(), crate::now().plus(PEACE));
            }
            // One that makes way is looked at, and so is one that may go now.
            Ok(Rest::Behind(other) | Rest::Finished(other)) => {
                self.schedule.remove(tenant, review, crate::now());
                if let Some(other) = other {
                    self.look(Subject::Review(tenant.clone(), other), false);
                }
            }
            // It keeps the slot it may hold until the ledger can be read again.
            Err(error) => {
                tracing::warn!(review.id = %review, error = crate::chain(&error), "review is looked at again later");
            }
        }
    }

    /// Launches what the schedule and the pace allow, and returns how long to wait where the pace does not. Only the
    /// leader launches: others would only lose the compare-and-swap.
    fn grant(&mut self) -> Option<Duration> {
        let knows_all = self.unseen.as_ref().is_some_and(HashSet::is_empty);
        if !knows_all || !self.leadership.is_held() {
            return None;
        }
        loop {
            let now = crate::now();
            if let Some(wait) = self.pace.wait(now) {
                return Some(wait);
            }
            let (tenant, review) = self.schedule.next(now)?;
            self.pace.spend(now);
            self.look(Subject::Review(tenant, review), true);
        }
    }

    fn is_suspended(&self, tenant: &TenantId) -> bool {
        self.registry.tenant(tenant).is_some_and(|tenant| tenant.suspended)
    }

    /// What the registry grants a tenant. One that it does not know launches nothing.
    fn share(&self, tenant: &TenantId) -> Share {
        let known = self.registry.tenant(tenant);
        Share {
            weight: known.map_or(1, |tenant| tenant.weight),
            concurrent: known.map_or(1, |tenant| tenant.limits.max_concurrent as usize),
            longest: Duration::from_secs(known.map_or(0, |tenant| {
                let larger = tenant.retry_limits.map_or(0, |limits| limits.timeout_seconds);
                tenant.limits.timeout_seconds.max(larger)
            })),
        }
    }
}

/// Whether a hint about something of that tenant's is followed.
fn is_heard(backlog: &Backlog<Key, Subject>, tenant: &TenantId) -> bool {
    backlog.waiting(tenant) < HINTED
}

/// Time until the next launch may go; looks go on meanwhile.
async fn pause(wait: Option<Duration>) {
    tokio::time::sleep(wait.unwrap_or_default()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_hints_fill_a_tenants_lane_no_further_than_a_thousand_and_no_other_lane() {
        let [flood, calm] = ["flood", "calm"].map(|id| TenantId::parse(id).expect("id"));
        let mut backlog = Backlog::default();
        for number in 0..60_000 {
            if is_heard(&backlog, &flood) {
                let review = ReviewId::parse(format!("rv_{number:032x}")).expect("id");
                let subject = Subject::Review(flood.clone(), review);
                backlog.push(&flood, subject.key(), subject);
            }
        }
        assert_eq!(backlog.waiting(&flood), HINTED);
        assert!(is_heard(&backlog, &calm), "another tenant's hints are heard");
        backlog.pop();
        assert!(is_heard(&backlog, &flood), "there is room again");
    }
}
