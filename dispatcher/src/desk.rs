//! The desk: everything that is to be looked at now, one look per pack and review at a time.
//!
//! ```text
//! intake, api, reconcile ─► Wake ─► look (sealer or driver) ─► what it found ─► schedule ─► Wake
//! ```
//! Owns the running looks and the schedule. A wake-up for something that is being looked at is remembered and answered
//! by another look, so no wake-up is lost; a lost process loses only wake-ups, which the reconciler makes anew.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use carrel_schemas::ids::{PackId, ReviewId, TenantId};
use carrel_schemas::registry::Registry;
use carrel_schemas::timestamp::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::drive::{DriveError, Driver, Rest};
use crate::leadership::Leadership;
use crate::ledger::OpenPack;
use crate::pack::seal::{Considered, SealError, Sealer};
use crate::schedule::Schedule;

/// Looks under way at once.
const LOOKS: usize = 64;
/// Wake-ups waiting to be heard; senders wait beyond.
const WAKES: usize = 4096;

/// What is to be looked at.
#[derive(Debug, Clone)]
pub enum Wake {
    /// A pack whose sign of completion has arrived.
    Pack(OpenPack),
    /// A pack the reconciler found open: looked at when its policy says so.
    OpenPack(OpenPack),
    /// A review that may have moved.
    Review(TenantId, ReviewId),
    /// Every review the reconciler found open: those the schedule already holds are left in peace.
    Open(TenantId, ReviewId),
    /// Time has passed: waiting reviews may be due.
    Tick,
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
    registry: Arc<Registry>,
    leadership: Leadership,
    wakes: mpsc::Receiver<Wake>,
    schedule: Schedule,
    looks: JoinSet<Looked>,
    /// What is being looked at, and what is to follow.
    busy: HashMap<Key, Option<Again>>,
    /// Packs whose policy says when to look again.
    not_before: HashMap<Key, Timestamp>,
    waiting: VecDeque<Wake>,
}

/// Another look that was asked for during one. A slot once granted stays granted.
#[derive(Debug)]
struct Again {
    wake: Wake,
    granted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pack(TenantId, PackId),
    Review(TenantId, ReviewId),
}

#[derive(Debug)]
enum Looked {
    Pack(Key, Result<Considered, SealError>),
    Review(Key, Result<Rest, DriveError>),
}

/// A desk and the bell that wakes it; `capacity` reviews run at once over all tenants.
pub fn desk(
    sealer: Sealer,
    driver: Arc<Driver>,
    registry: Arc<Registry>,
    leadership: Leadership,
    capacity: usize,
) -> (Desk, Bell) {
    let (sender, wakes) = mpsc::channel(WAKES);
    let desk = Desk {
        sealer,
        driver,
        registry,
        leadership,
        wakes,
        schedule: Schedule::new(capacity),
        looks: JoinSet::new(),
        busy: HashMap::new(),
        not_before: HashMap::new(),
        waiting: VecDeque::new(),
    };
    (desk, Bell(sender))
}

impl Desk {
    /// Runs until `stop`, then lets the looks under way end.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(looked) = self.looks.join_next() => match looked {
                    Ok(looked) => self.looked(looked),
                    Err(error) => self.lost(&error),
                },
                Some(wake) = self.wakes.recv() => self.wake(wake),
            }
            self.grant();
        }
        while self.looks.join_next().await.is_some() {}
    }

    fn wake(&mut self, wake: Wake) {
        match &wake {
            Wake::Tick => {}
            Wake::Open(tenant, review) => {
                if !self.schedule.is_waiting(tenant, review) {
                    self.look(Wake::Review(tenant.clone(), review.clone()), false);
                }
            }
            Wake::OpenPack(open) => {
                let key = Key::Pack(open.tenant.clone(), open.pack.clone());
                if self.not_before.get(&key).is_none_or(|until| crate::now() >= *until) {
                    self.look(Wake::Pack(open.clone()), false);
                }
            }
            Wake::Pack(_) | Wake::Review(..) => self.look(wake, false),
        }
    }

    fn key(wake: &Wake) -> Option<Key> {
        match wake {
            Wake::Pack(open) | Wake::OpenPack(open) => Some(Key::Pack(open.tenant.clone(), open.pack.clone())),
            Wake::Review(tenant, review) | Wake::Open(tenant, review) => {
                Some(Key::Review(tenant.clone(), review.clone()))
            }
            Wake::Tick => None,
        }
    }

    fn look(&mut self, wake: Wake, granted: bool) {
        let Some(key) = Self::key(&wake) else { return };
        if let Some(again) = self.busy.get_mut(&key) {
            let granted = granted || again.as_ref().is_some_and(|again| again.granted);
            *again = Some(Again { wake, granted });
            return;
        }
        if !granted && self.looks.len() >= LOOKS {
            self.waiting.push_back(wake);
            return;
        }
        self.busy.insert(key.clone(), None);
        match wake {
            Wake::Pack(open) | Wake::OpenPack(open) => {
                let sealer = self.sealer.clone();
                self.looks.spawn(async move { Looked::Pack(key, sealer.consider(&open, crate::now()).await) });
            }
            Wake::Review(tenant, review) | Wake::Open(tenant, review) => {
                let driver = self.driver.clone();
                let span = tracing::info_span!("review", tenant.id = %tenant, review.id = %review);
                let look = async move { Looked::Review(key, driver.drive(&tenant, &review, granted).await) };
                self.looks.spawn(tracing::Instrument::instrument(look, span));
            }
            Wake::Tick => {}
        }
    }

    fn looked(&mut self, looked: Looked) {
        let (Looked::Pack(key, _) | Looked::Review(key, _)) = &looked;
        let again = self.busy.remove(key).flatten();
        if again.as_ref().is_none_or(|again| !again.granted) {
            // Else the schedule gave it a slot meanwhile: what was found without one is out of date.
            match looked {
                Looked::Pack(key, found) => self.pack_looked(&key, found),
                Looked::Review(key, found) => self.review_looked(&key, found),
            }
        }
        if let Some(Again { wake, granted }) = again {
            self.look(wake, granted);
        }
        while self.looks.len() < LOOKS {
            let Some(wake) = self.waiting.pop_front() else { break };
            self.look(wake, false);
        }
    }

    fn pack_looked(&mut self, key: &Key, found: Result<Considered, SealError>) {
        self.not_before.remove(key);
        match found {
            Ok(Considered::Wait(until)) => {
                self.not_before.insert(key.clone(), until);
            }
            Ok(Considered::Sealed { tenant, review }) => self.look(Wake::Review(tenant, review), false),
            Ok(Considered::Empty) => {}
            Err(error) => tracing::warn!(error = crate::chain(&error), "pack is looked at again later"),
        }
    }

    fn review_looked(&mut self, key: &Key, found: Result<Rest, DriveError>) {
        let Key::Review(tenant, review) = key else { return };
        match found {
            Ok(Rest::Waiting(not_before)) => {
                let limit = self.registry.tenant(tenant).map_or(1, |tenant| tenant.limits.max_concurrent as usize);
                self.schedule.wait(tenant, review, not_before, limit, crate::now());
            }
            Ok(Rest::Active) => self.schedule.activate(tenant, review),
            Ok(Rest::Behind | Rest::Unknown) => self.schedule.remove(tenant, review),
            Ok(Rest::Finished(next)) => {
                self.schedule.remove(tenant, review);
                if let Some(next) = next {
                    self.look(Wake::Review(tenant.clone(), next), false);
                }
            }
            Err(error) => {
                // What the ledger says of it is read again by the reconciler; until then it holds no slot.
                self.schedule.remove(tenant, review);
                tracing::warn!(review.id = %review, error = crate::chain(&error), "review is looked at again later");
            }
        }
    }

    /// A look that panicked. Which one is not told, so what is busy is forgotten: at worst something is looked at
    /// twice at once, and the compare-and-swap lets one of them pass.
    fn lost(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(%error, "a look was lost; the reconciler looks again");
        self.busy.clear();
    }

    /// Launches what the schedule allows. Only the leader does: others would only lose the compare-and-swap.
    fn grant(&mut self) {
        if !self.leadership.is_held() {
            return;
        }
        while let Some((tenant, review)) = self.schedule.next(crate::now()) {
            self.look(Wake::Review(tenant, review), true);
        }
    }
}
