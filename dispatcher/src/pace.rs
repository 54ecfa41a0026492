//! How fast something may happen: a token bucket. Pure, takes `now`.
//!
//! Owns the arithmetic alone: what is paced, and what waits meanwhile, is the caller's. It is kept as one instant, the
//! one at which the bucket is full again, so there is nothing to refill.

use std::num::NonZeroU32;
use std::time::Duration;

use carrel_schemas::timestamp::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);
/// What was not spent is kept for this long: of a rate per minute, no minute sees more than a sixth above it, and a
/// handful may always go at once.
const KEPT: Duration = Duration::from_secs(10);

/// A rate, and what of it is spent.
#[derive(Debug, Clone)]
pub struct Pace {
    interval: Duration,
    /// When nothing is spent any more.
    full_at: Option<Timestamp>,
}

impl Pace {
    /// So many in a minute, on average.
    pub fn new(per_minute: NonZeroU32) -> Self {
        Self { interval: MINUTE / per_minute.get(), full_at: None }
    }

    /// How long until one more may go; `None` if it may go now.
    pub fn wait(&mut self, now: Timestamp) -> Option<Duration> {
        // Never later than a bucket spent at this instant: a clock that was set back stops nothing for long.
        self.full_at = self.full_at.map(|full| full.min(now.plus(self.room() + self.interval)));
        Some(self.spent(now).saturating_sub(self.room())).filter(|wait| !wait.is_zero())
    }

    /// One goes.
    pub fn spend(&mut self, now: Timestamp) {
        self.full_at = Some(now.plus(self.spent(now) + self.interval));
    }

    /// What is spent, as the time it takes to come back.
    fn spent(&self, now: Timestamp) -> Duration {
        self.full_at.map_or(Duration::ZERO, |full| full.since(now))
    }

    /// What may be spent while one more may still go: slow rates have room for that one alone.
    fn room(&self) -> Duration {
        KEPT.saturating_sub(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_seconds(1_000_000).expect("in range").plus(Duration::from_millis(ms))
    }

    fn pace(per_minute: u32) -> Pace {
        Pace::new(NonZeroU32::new(per_minute).expect("not zero"))
    }

    #[test]
    fn a_pace_of_50_stays_within_60_in_any_minute_and_loses_nothing() {
        let (mut pace, mut went) = (pace(50), Vec::new());
        for ms in (0..300_000).step_by(10) {
            while pace.wait(at(ms)).is_none() {
                pace.spend(at(ms));
                went.push(ms);
            }
        }
        for first in &went {
            let minute = went.iter().filter(|ms| (*first..first + 60_000).contains(*ms)).count();
            assert!(minute <= 60, "{minute} in the minute from {first} ms");
        }
        assert!((250..=260).contains(&went.len()), "{} in five minutes", went.len());
    }

    #[test]
    fn after_the_wait_it_may_go_and_not_before() {
        for per_minute in [1, 6, 150, 60_000] {
            let mut pace = pace(per_minute);
            while pace.wait(at(0)).is_none() {
                pace.spend(at(0));
            }
            let wait = pace.wait(at(0)).expect("spent");
            let then = at(0).plus(wait);
            assert_eq!(pace.wait(then), None, "{per_minute} per minute");
            pace.spend(then);
            assert!(pace.wait(then).is_some(), "{per_minute} per minute: one came back, and one alone");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing_for_long() {
        let mut pace = pace(60);
        for _ in 0..10 {
            pace.spend(at(3_600_000));
        }
        let wait = pace.wait(at(0)).expect("as if spent just now");
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(pace.wait(at(0).plus(wait)), None);
    }

    proptest! {
        #[test]
        fn no_span_sees_more_than_its_rate_and_what_was_kept(
            per_minute in 1u32..600,
            steps in proptest::collection::vec(0u64..3000, 1..40),
        ) {
            let (mut pace, mut now, mut went) = (pace(per_minute), 0, Vec::new());
            for step in steps {
                now += step;
                while pace.wait(at(now)).is_none() {
                    pace.spend(at(now));
                    went.push(now);
                }
            }
            for (index, first) in went.iter().enumerate() {
                for (count, last) in (1u64..).zip(&went[index..]) {
                    let earned = (last - first) * u64::from(per_minute) / 60_000;
                    let kept = u64::from(per_minute) / 6;
                    prop_assert!(count <= earned + kept.max(1) + 1, "{count} within {} ms", last - first);
                }
            }
        }
    }
}
