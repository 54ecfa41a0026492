//! Generations and preconditions: the pure core that decides whether an operation may go on.
//!
//! A generation is unique in the whole store and grows like a clock in microseconds. Absence counts as generation 0
//! for `ifGenerationMatch` only: every other precondition needs a live object, as Google's JSON API documents.
//! Nothing here reads a clock or a database.

use serde::{Deserialize, Serialize};

/// The generation after `last`, at the time `now_us` (microseconds since 1970).
pub(super) fn next(last: i64, now_us: i64) -> i64 {
    now_us.max(last + 1)
}

/// What an object's preconditions look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Changes with every write of the content.
    pub(super) generation: i64,
    /// Starts at 1 with each generation and grows with every change of metadata.
    pub(super) metageneration: i64,
}

/// The four preconditions of one object in one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Preconditions {
    /// The live generation must be this; 0 means that no live object may exist.
    pub(super) generation_match: Option<i64>,
    /// A live object must exist with another generation.
    pub(super) generation_not_match: Option<i64>,
    /// The live object must have this metageneration.
    pub(super) metageneration_match: Option<i64>,
    /// A live object must exist with another metageneration.
    pub(super) metageneration_not_match: Option<i64>,
}

/// The precondition that did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// A `…Match` that did not: HTTP 412, gRPC `FAILED_PRECONDITION`.
    #[error("at least one of the pre-conditions you specified did not hold: {0}")]
    Match(&'static str),
    /// A `…NotMatch` that matched: HTTP 304 to a read and 412 to a write, gRPC `ABORTED`.
    #[error("at least one of the pre-conditions you specified did not hold: {0}")]
    NotMatch(&'static str),
}

impl Preconditions {
    /// Holds them against the object as it is now.
    pub(super) fn check(&self, live: Option<Version>) -> Result<(), Violation> {
        let generation = live.map_or(0, |v| v.generation);
        if self.generation_match.is_some_and(|wanted| wanted != generation) {
            return Err(Violation::Match("ifGenerationMatch"));
        }
        if self.metageneration_match.is_some_and(|wanted| live.is_none_or(|v| v.metageneration != wanted)) {
            return Err(Violation::Match("ifMetagenerationMatch"));
        }
        if self.generation_not_match.is_some_and(|unwanted| live.is_none_or(|v| v.generation == unwanted)) {
            return Err(Violation::NotMatch("ifGenerationNotMatch"));
        }
        if self.metageneration_not_match.is_some_and(|unwanted| live.is_none_or(|v| v.metageneration == unwanted)) {
            return Err(Violation::NotMatch("ifMetagenerationNotMatch"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Option<Version> = Some(Version { generation: 7, metageneration: 2 });

    #[test]
    fn generations_grow_even_if_the_clock_steps_back() {
        assert_eq!(next(0, 100), 100);
        assert_eq!(next(100, 100), 101);
        assert_eq!(next(100, 3), 101);
    }

    #[test]
    fn absence_is_generation_zero_for_match_only() {
        let absent = Preconditions { generation_match: Some(0), ..Default::default() };
        assert!(absent.check(None).is_ok());
        assert!(absent.check(LIVE).is_err());
        let not_zero = Preconditions { generation_not_match: Some(0), ..Default::default() };
        assert!(not_zero.check(LIVE).is_ok());
        assert_eq!(not_zero.check(None), Err(Violation::NotMatch("ifGenerationNotMatch")));
        let meta = Preconditions { metageneration_match: Some(1), ..Default::default() };
        assert!(meta.check(None).is_err());
    }

    #[test]
    fn each_precondition_is_held_by_itself() {
        for (field, good, bad) in [(0, 7, 8), (1, 8, 7), (2, 2, 1), (3, 1, 2)] {
            let with = |value| {
                let mut p = Preconditions::default();
                *[
                    &mut p.generation_match,
                    &mut p.generation_not_match,
                    &mut p.metageneration_match,
                    &mut p.metageneration_not_match,
                ][field] = Some(value);
                p
            };
            assert!(with(good).check(LIVE).is_ok());
            assert!(with(bad).check(LIVE).is_err());
        }
    }
}
