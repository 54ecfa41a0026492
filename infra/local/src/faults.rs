//! A seeded plan of misbehaviour: what real services do now and then, done on demand.
//!
//! Owns the dice. Each fault has a probability, 0 by default; the services ask before they act. Each has dice of its own,
//! so the same seed gives a fault the same rolls however often the others are asked about.

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
    /// The work is done, the answer is 503: of a publish, of a change of an object, a bucket, a notification or a policy, of
    /// a launch, of a change of a job, and of the deletion of an execution.
    LoseReply,
    /// One launch starts two executions.
    DoubleLaunch,
    /// A task is killed after a while.
    KillTask,
    /// An object changes and nobody is told, as if the event had waited longer than a message is kept.
    DropNotification,
    /// Requests in a row are refused with 429 or 503 before anything is done.
    Refuse,
    /// An answer or an open stream holds still before its next piece.
    Stall,
    /// The content of an object breaks off before its end.
    Truncate,
    /// A message is taken back long before its deadline.
    Expire,
}

const KINDS: usize = Fault::Expire as usize + 1;

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
    /// See [`Fault::DropNotification`].
    pub drop_notification: f64,
    /// See [`Fault::Refuse`]: how likely a request begins a burst.
    pub refuse: f64,
    /// Requests of the longest burst; 0 and 1 are the one that began it.
    pub refuse_burst: u32,
    /// See [`Fault::Stall`]: how likely a piece of an answer waits.
    pub stall: f64,
    /// The longest stillness, milliseconds.
    pub stall_ms: u64,
    /// See [`Fault::Truncate`].
    pub truncate: f64,
    /// See [`Fault::Expire`].
    pub expire: f64,
    /// The longest that a message is held which is taken back early, milliseconds.
    pub expire_ms: u64,
}

/// How a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// 429, `RESOURCE_EXHAUSTED`.
    TooMany,
    /// 503, `UNAVAILABLE`.
    Unavailable,
}

/// The dice; clones share them.
#[derive(Debug, Clone)]
pub struct Faults {
    plan: FaultPlan,
    dice: Arc<[Mutex<StdRng>; KINDS]>,
    /// What is left of a burst.
    burst: Arc<Mutex<(u32, Refused)>>,
}

impl FaultPlan {
    fn probability(&self, fault: Fault) -> f64 {
        match fault {
            Fault::Duplicate => self.duplicate,
            Fault::Delay => self.delay,
            Fault::Redeliver => self.redeliver,
            Fault::LoseReply => self.lose_reply,
            Fault::DoubleLaunch => self.double_launch,
            Fault::KillTask => self.kill_task,
            Fault::DropNotification => self.drop_notification,
            Fault::Refuse => self.refuse,
            Fault::Stall => self.stall,
            Fault::Truncate => self.truncate,
            Fault::Expire => self.expire,
        }
    }

    /// What no dice can roll.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let named = [
            ("duplicate", self.duplicate),
            ("delay", self.delay),
            ("redeliver", self.redeliver),
            ("lose_reply", self.lose_reply),
            ("double_launch", self.double_launch),
            ("kill_task", self.kill_task),
            ("drop_notification", self.drop_notification),
            ("refuse", self.refuse),
            ("stall", self.stall),
            ("truncate", self.truncate),
            ("expire", self.expire),
        ];
        let wrong = named.iter().filter(|(_, value)| !(0.0..=1.0).contains(value));
        wrong.map(|(name, value)| format!("faults: {name} {value} is no probability from 0 to 1")).collect()
    }
}

impl Faults {
    /// Dice for a plan.
    pub fn new(plan: FaultPlan) -> Self {
        // Neighbours among seeds are as different as any two.
        let dice = |kind: usize| Mutex::new(StdRng::seed_from_u64(plan.seed.rotate_left(32) ^ kind as u64));
        let burst = Arc::new(Mutex::new((0, Refused::Unavailable)));
        Self { plan, dice: Arc::new(std::array::from_fn(dice)), burst }
    }

    /// No faults at all.
    pub fn none() -> Self {
        Self::new(FaultPlan::default())
    }

    /// True if the fault happens now.
    pub fn roll(&self, fault: Fault) -> bool {
        let probability = self.plan.probability(fault);
        probability > 0.0 && self.dice(fault).random_bool(probability)
    }

    /// How long a delayed message is held back.
    pub fn delay(&self) -> Duration {
        self.up_to(Fault::Delay, self.plan.delay_ms)
    }

    /// How long a task that is killed lives.
    pub fn lifetime(&self) -> Duration {
        self.up_to(Fault::KillTask, self.plan.kill_after_ms)
    }

    /// How long a message that was to be held so long is held.
    pub fn lease(&self, asked: Duration) -> Duration {
        if self.roll(Fault::Expire) { self.up_to(Fault::Expire, self.plan.expire_ms).min(asked) } else { asked }
    }

    /// Whether any fault befalls requests and answers whatever they are about.
    pub fn on_the_wire(&self) -> bool {
        let FaultPlan { refuse, stall, truncate, .. } = self.plan;
        refuse > 0.0 || stall > 0.0 || truncate > 0.0
    }

    /// How this request is refused, if it is.
    pub fn refusal(&self) -> Option<Refused> {
        let mut burst = self.burst.lock().expect("no code panics while it holds the burst");
        if burst.0 == 0 {
            if !self.roll(Fault::Refuse) {
                return None;
            }
            let mut dice = self.dice(Fault::Refuse);
            let how = if dice.random_bool(0.5) { Refused::TooMany } else { Refused::Unavailable };
            *burst = (dice.random_range(1..=self.plan.refuse_burst.max(1)), how);
        }
        burst.0 -= 1;
        Some(burst.1)
    }

    /// How long the next piece of an answer waits, if it does.
    pub fn stall(&self) -> Option<Duration> {
        self.roll(Fault::Stall).then(|| self.up_to(Fault::Stall, self.plan.stall_ms))
    }

    /// After how many of so many bytes a read breaks off, if it does.
    pub fn truncation(&self, bytes: u64) -> Option<u64> {
        (bytes > 0 && self.roll(Fault::Truncate)).then(|| self.dice(Fault::Truncate).random_range(0..bytes))
    }

    fn up_to(&self, fault: Fault, longest_ms: u64) -> Duration {
        Duration::from_millis(self.dice(fault).random_range(0..=longest_ms))
    }

    fn dice(&self, fault: Fault) -> std::sync::MutexGuard<'_, StdRng> {
        self.dice[fault as usize].lock().expect("no code panics while it holds the dice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_misfortunes_whatever_else_is_asked() {
        let plan = FaultPlan { seed: 7, lose_reply: 0.5, duplicate: 0.5, ..FaultPlan::default() };
        let rolls = |others: usize| {
            let faults = Faults::new(plan);
            let one = || {
                (0..others).for_each(|_| assert!(faults.roll(Fault::Duplicate) || !faults.roll(Fault::KillTask)));
                faults.roll(Fault::LoseReply)
            };
            std::iter::repeat_with(one).take(64).collect::<Vec<_>>()
        };
        assert_eq!(rolls(0), rolls(3));
        assert!(rolls(0).contains(&true) && rolls(0).contains(&false));
        assert!((0..64).all(|_| !Faults::none().roll(Fault::KillTask)));
    }

    #[test]
    fn refusals_come_in_bursts_of_one_kind_and_end() {
        let faults = Faults::new(FaultPlan { seed: 3, refuse: 0.05, refuse_burst: 6, ..FaultPlan::default() });
        let told: Vec<_> = std::iter::repeat_with(|| faults.refusal()).take(2_000).collect();
        let refused = told.iter().flatten().count();
        assert!((150..700).contains(&refused), "{refused} of 2,000");
        assert!(told.contains(&Some(Refused::TooMany)) && told.contains(&Some(Refused::Unavailable)));
        let longest =
            told.chunk_by(|a, b| a.is_some() == b.is_some()).filter(|run| run[0].is_some()).map(<[_]>::len).max();
        assert!(longest.is_some_and(|longest| longest >= 3), "{longest:?}: no burst");
        assert_eq!(Faults::none().refusal(), None);
    }

    #[test]
    fn a_plan_that_no_dice_can_roll_is_told_by_its_field() {
        let wrong = FaultPlan { stall: 1.5, expire: -0.1, truncate: f64::NAN, ..FaultPlan::default() };
        let told = wrong.mistakes().join("; ");
        assert!(["stall 1.5", "expire -0.1", "truncate NaN"].iter().all(|part| told.contains(part)), "{told}");
        assert!(FaultPlan { delay: 1.0, ..FaultPlan::default() }.mistakes().is_empty());
    }
}
