//! A room held to its limits by whoever opened it, where the kernel does not hold them: looked at often, killed at a limit.
//!
//! A room that cannot be looked at is ended: what is not seen is not taken for nothing.

use std::time::Duration;

use rustix::process::Pid;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::ended::LimitHit;
use crate::room::Limits;
use crate::running::{Ending, Running, StartError};
use crate::sample::{Sample, sample};

/// Between two looks at what a room uses. A process that takes all the memory it can get takes a few hundred megabytes
/// in this time; looking costs tens of microseconds a process.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running room and its limits; dropping it kills the room, as dropping the [`Running`] in it does.
#[derive(Debug)]
pub struct Watched {
    running: Running,
    limits: Limits,
    seen: Most,
    /// Absent where the kernel holds every limit.
    look: Option<Interval>,
    hit: Option<LimitHit>,
}

/// The most that was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Most {
    pub(crate) peak_bytes: u64,
    pub(crate) cpu: Duration,
}

impl Watched {
    /// Holds a room to its memory, processes and processor time. Needs a tokio runtime with time.
    pub fn new(running: Running, limits: Limits) -> Self {
        let held = running.memory_guarantee() && running.counts_processes() && limits.cpu_seconds == Limits::UNLIMITED;
        let look = (!held).then(|| {
            let mut look = interval(LOOK_EVERY);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            look
        });
        Self { running, limits, seen: Most::default(), look, hit: None }
    }

    /// The room.
    pub fn running(&self) -> &Running {
        &self.running
    }

    pub(crate) fn seen(&self) -> Most {
        self.seen
    }

    /// Returns once the last process of the room is gone, with the limit that it was ended at, if it was. Safe to drop
    /// and call again.
    pub async fn wait(&mut self) -> Result<(Ending, Option<LimitHit>), StartError> {
        loop {
            let looks = self.look.is_some();
            let due = async {
                match &mut self.look {
                    Some(look) => look.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = self.running.wait() => {
                    let ending = ended?;
                    return Ok((ending, self.hit.or_else(|| ending.out_of_memory.then_some(LimitHit::Memory))));
                }
                _ = due, if looks => self.look(self.running.pid())?,
            }
        }
    }

    fn look(&mut self, first: Pid) -> Result<(), StartError> {
        match sample(first) {
            Ok(seen) => {
                if let Some(hit) = self.seen.over(&self.limits, seen, self.running.memory_guarantee()) {
                    self.hit = self.hit.or(Some(hit));
                    self.running.kill();
                }
                Ok(())
            }
            // Its end is on the way.
            Err(_) if self.running.is_gone() => Ok(()),
            Err(source) => {
                self.running.kill();
                Err(StartError::Unseen(source))
            }
        }
    }
}

impl Most {
    /// Which limit a room is over.
    fn over(&mut self, limits: &Limits, seen: Sample, guaranteed: bool) -> Option<LimitHit> {
        self.peak_bytes = self.peak_bytes.max(seen.resident_bytes);
        self.cpu = self.cpu.max(seen.cpu);
        if !guaranteed && seen.resident_bytes > limits.memory_bytes {
            return Some(LimitHit::Memory);
        }
        // The kernel holds this limit where the room has users of its own.
        if seen.processes > limits.processes {
            return Some(LimitHit::Processes);
        }
        (seen.cpu.as_secs() > limits.cpu_seconds).then_some(LimitHit::Cpu)
    }
}
