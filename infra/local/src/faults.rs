//! A seeded plan of misbehaviour: what real services do now and then, done on demand.
//!
//! Owns the dice. Each fault has a probability, 0 by default; the services ask before they act. The same seed gives
//! the same rolls in the same order of questions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// One kind of misbehaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A message is enqueued a second time under another id.
    Duplicate,
    /// A message is held back a while, so that later ones overtake it.
    Delay,
    /// An acknowledged message is delivered once more.
    Redeliver,
    /// The work is done, the answer is 503.
    LoseReply,
    /// One launch starts two executions.
    DoubleLaunch,
    /// A task is killed after a while.
    KillTask,
}

/// Probabilities from 0 to 1, and the seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// Where the dice start.
    pub seed: u64,
    /// See [`Fault::Duplicate`].
    pub duplicate: f64,
    /// See [`Fault::Delay`].
    pub delay: f64,
    /// The longest delay, milliseconds.
    pub delay_ms: u64,
    /// See [`Fault::Redeliver`].
    pub redeliver: f64,
    /// See [`Fault::LoseReply`].
    pub lose_reply: f64,
    /// See [`Fault::DoubleLaunch`].
    pub double_launch: f64,
    /// See [`Fault::KillTask`].
    pub kill_task: f64,
    /// The longest life of a task that is killed, milliseconds.
    pub kill_after_ms: u64,
}

/// The dice; clones share them.
#[derive(Debug, Clone)]
pub struct Faults {
    plan: FaultPlan,
    dice: Arc<Mutex<StdRng>>,
}

impl Faults {
    /// Dice for a plan.
    pub fn new(plan: FaultPlan) -> Self {
        Self { plan, dice: Arc::new(Mutex::new(StdRng::seed_from_u64(plan.seed))) }
    }

    /// No faults at all.
    pub fn none() -> Self {
        Self::new(FaultPlan::default())
    }

    /// True if the fault happens now.
    pub fn roll(&self, fault: Fault) -> bool {
        let probability = match fault {
            Fault::Duplicate => self.plan.duplicate,
            Fault::Delay => self.plan.delay,
            Fault::Redeliver => self.plan.redeliver,
            Fault::LoseReply => self.plan.lose_reply,
            Fault::DoubleLaunch => self.plan.double_launch,
            Fault::KillTask => self.plan.kill_task,
        };
        probability > 0.0 && self.dice().random_bool(probability.min(1.0))
    }

    /// How long a delayed message is held back.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.dice().random_range(0..=self.plan.delay_ms))
    }

    /// How long a task that is killed lives.
    pub fn lifetime(&self) -> Duration {
        Duration::from_millis(self.dice().random_range(0..=self.plan.kill_after_ms))
    }

    fn dice(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.dice.lock().expect("no code panics while it holds the dice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_misfortunes() {
        let plan = FaultPlan { seed: 7, lose_reply: 0.5, ..FaultPlan::default() };
        let rolls = || {
            let faults = Faults::new(plan);
            (0..64).map(|_| faults.roll(Fault::LoseReply)).collect::<Vec<_>>()
        };
        assert_eq!(rolls(), rolls());
        assert!(rolls().contains(&true) && rolls().contains(&false));
        assert!((0..64).all(|_| !Faults::none().roll(Fault::KillTask)));
    }
}
