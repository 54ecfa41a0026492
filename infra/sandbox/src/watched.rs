//! A room held to its limits by whoever opened it, where the kernel does not hold them: looked at often, killed at a limit.
//!
//! A room that cannot be looked at is ended: what is not seen is not taken for nothing. Looking is the kernel's work for as
//! many processes as a room has, so it leaves the runtime, and takes no more than a share of one processor for each room.

use std::io;
use std::time::Duration;

use rustix::process::Pid;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use crate::ended::LimitHit;
use crate::room::Limits;
use crate::running::{Ending, Running, StartError};
use crate::sample::{Sample, sample};

/// Between two looks at what a room uses. A process that takes all the memory it can get takes a few hundred megabytes
/// in this time; looking costs tens of microseconds a process.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A look that took long is followed by so many times as long without one.
const REST: u32 = 10;

/// A running room and its limits; dropping it kills the room, as dropping the [`Running`] in it does.
#[derive(Debug)]
pub struct Watched {
    running: Running,
    limits: Limits,
    seen: Most,
    looks: Looks,
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
        let looks = if held { Looks::Never } else { Looks::Due(Instant::now()) };
        Self { running, limits, seen: Most::default(), looks, hit: None }
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
            let first = self.running.pid();
            tokio::select! {
                ended = self.running.wait() => {
                    let ending = ended?;
                    return Ok((ending, self.hit.or_else(|| ending.out_of_memory.then_some(LimitHit::Memory))));
                }
                seen = self.looks.next(first, self.limits.open_files) => self.judge(seen)?,
            }
        }
    }

    fn judge(&mut self, seen: io::Result<Sample>) -> Result<(), StartError> {
        match seen {
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

/// One look after the other.
#[derive(Debug)]
enum Looks {
    /// The kernel holds every limit.
    Never,
    Due(Instant),
    /// With how long it took.
    Underway(JoinHandle<(io::Result<Sample>, Duration)>),
}

impl Looks {
    /// What the next look sees. Safe to drop and call again: a look that is under way is waited for, not doubled.
    async fn next(&mut self, first: Pid, open_files: u64) -> io::Result<Sample> {
        loop {
            match self {
                Self::Never => std::future::pending().await,
                Self::Due(at) => {
                    sleep_until(*at).await;
                    *self = Self::Underway(spawn_blocking(move || {
                        let began = Instant::now();
                        (sample(first, open_files), began.elapsed())
                    }));
                }
                Self::Underway(look) => {
                    let (seen, took) =
                        look.await.unwrap_or_else(|error| (Err(io::Error::other(error)), Duration::ZERO));
                    *self = Self::Due(Instant::now() + rest(took));
                    return seen;
                }
            }
        }
    }
}

fn rest(took: Duration) -> Duration {
    LOOK_EVERY.max(took.saturating_mul(REST))
}

impl Most {
    /// Which limit a room is over.
    fn over(&mut self, limits: &Limits, seen: Sample, guaranteed: bool) -> Option<LimitHit> {
        self.peak_bytes = self.peak_bytes.max(seen.memory_bytes);
        self.cpu = self.cpu.max(seen.cpu);
        if !guaranteed && seen.memory_bytes > limits.memory_bytes {
            return Some(LimitHit::Memory);
        }
        // The kernel holds this limit where the room has users of its own.
        if seen.processes > limits.processes {
            return Some(LimitHit::Processes);
        }
        (seen.cpu.as_secs() > limits.cpu_seconds).then_some(LimitHit::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_over_a_limit_only_beyond_it_and_the_most_is_kept() {
        let limits = Limits {
            wall: Duration::from_secs(1),
            cpu_seconds: 2,
            memory_bytes: 100,
            processes: 3,
            file_bytes: 1,
            open_files: 1,
        };
        let at = Sample { memory_bytes: 100, processes: 3, cpu: Duration::from_millis(2_999) };
        let mut most = Most::default();
        let mut over = |seen, guaranteed| most.over(&limits, seen, guaranteed);
        assert_eq!(over(at, false), None);
        assert_eq!(over(Sample { memory_bytes: 101, ..at }, false), Some(LimitHit::Memory));
        assert_eq!(over(Sample { memory_bytes: 101, ..at }, true), None, "the kernel holds it, and counts otherwise");
        assert_eq!(over(Sample { processes: 4, ..at }, true), Some(LimitHit::Processes));
        assert_eq!(over(Sample { cpu: Duration::from_secs(3), ..at }, true), Some(LimitHit::Cpu));
        assert_eq!(over(Sample::default(), false), None);
        assert_eq!((most.peak_bytes, most.cpu), (101, Duration::from_secs(3)));
    }

    #[test]
    fn a_look_that_takes_long_is_followed_by_ten_times_as_long_without_one() {
        assert_eq!(rest(Duration::from_micros(80)), LOOK_EVERY);
        assert_eq!(rest(Duration::from_millis(300)), Duration::from_secs(3));
    }

    #[tokio::test]
    async fn a_look_under_way_is_waited_for_and_not_doubled_by_whoever_asks_again() {
        let (seen, told) = std::sync::mpsc::channel();
        let look = spawn_blocking(move || (told.recv().map_err(io::Error::other), Duration::from_secs(60)));
        let mut looks = Looks::Underway(look);
        let own = rustix::process::getpid();
        for _ in 0..2 {
            tokio::select! {
                biased;
                seen = looks.next(own, 64) => panic!("nothing was told, and {seen:?} seen"),
                () = std::future::ready(()) => {}
            }
        }
        let memory_bytes = 7;
        seen.send(Sample { memory_bytes, ..Sample::default() }).expect("it listens");
        assert_eq!(looks.next(own, 64).await.expect("seen").memory_bytes, memory_bytes);
        assert!(matches!(looks, Looks::Due(at) if at > Instant::now() + Duration::from_secs(500)));
    }
}
