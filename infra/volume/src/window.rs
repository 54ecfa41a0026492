//! What to fetch ahead of one reader: pure, knows neither bytes nor time.
//!
//! ```text
//!            BEHIND │ reader          reach │
//!   ────────────────┼───▼───────────────────┼──────────────►  offset
//!        forgotten  │ held: asked for, gapless │  not asked for
//! ```
//! A read that goes on where the stream was last read may ask for more: the reach quadruples while the reader keeps
//! coming, since behind a link of 20 ms only bytes in flight make speed. A read elsewhere takes what happens to be held,
//! or stands alone and costs its own bytes only; where either ended the next one goes on. So reads at random never
//! make anybody fetch ahead, however much of the file they have met by chance.

use std::ops::Range;

const MIB: u64 = 1 << 20;
/// The first request of a stream: file type, header and most small tables are in it.
pub(crate) const FIRST: u64 = MIB;
/// The most that is asked for in one request, so that a stream of 32 MiB has eight in flight.
const PART: u64 = 4 * MIB;
/// The farthest ahead: 20 ms at 1.5 GB/s.
const REACH: u64 = 32 * MIB;
/// Kept behind the reader: the kernel's own read-ahead asks out of order.
const BEHIND: u64 = MIB;
/// A gap that is fetched rather than jumped over.
const SKIP: u64 = MIB;
/// How far from the end of a lone read the next one still follows it: the kernel's read-ahead of 128 KiB.
const FOLLOWS: u64 = 128 * 1024;

/// Reads that go on before any asks for more: one alone may be chance.
const SURE: u32 = 2;
/// As far as a streak is counted: so many reads elsewhere end it, fewer in between do not.
const STREAK: u32 = 8;

/// How to serve a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// From the stream, once these have been asked for too; nothing before `keep_from` is needed any more.
    Stream { ask: Vec<Range<u64>>, keep_from: u64 },
    /// From a new stream; the old one is of no use any more.
    Restart { ask: Vec<Range<u64>> },
    /// By a request for just these bytes.
    Alone,
}

/// One reader's place in a file.
#[derive(Debug)]
pub(crate) struct Window {
    size: u64,
    held: Range<u64>,
    /// Where the last read that the stream served ended.
    next: u64,
    /// Reads that went on, less those that did not; between 0 and `STREAK`.
    streak: u32,
    reach: u64,
    /// Where the last read that stood alone ended.
    lone_end: Option<u64>,
}

impl Window {
    /// Nothing held of a file of `size` bytes.
    pub(crate) fn new(size: u64) -> Self {
        Self { size, held: 0..0, next: 0, streak: 0, reach: FIRST, lone_end: None }
    }

    /// Plans a read of `range`, which is not empty and lies within the file.
    pub(crate) fn read(&mut self, range: &Range<u64>) -> Plan {
        let goes_on = (self.next.saturating_sub(BEHIND)..=self.next + SKIP).contains(&range.start)
            && (self.held.start..=self.held.end + SKIP).contains(&range.start);
        let goes_on = goes_on && !self.held.is_empty();
        self.streak = if goes_on { (self.streak + 1).min(STREAK) } else { self.streak.saturating_sub(1) };
        if goes_on && self.streak >= SURE {
            let ask = self.advance(range);
            self.next = self.next.max(range.end);
            self.held.start = self.held.start.max(range.start.saturating_sub(BEHIND));
            return Plan::Stream { ask, keep_from: self.held.start };
        }
        if self.held.start <= range.start && range.end <= self.held.end {
            self.next = range.end;
            return Plan::Stream { ask: Vec::new(), keep_from: self.held.start };
        }
        let follows = self.lone_end.is_some_and(|end| (end..=end + FOLLOWS).contains(&range.start));
        if follows || range.start == 0 {
            self.held = range.start..range.start;
            (self.next, self.streak, self.reach, self.lone_end) = (range.end, 1, FIRST, None);
            return Plan::Restart { ask: self.ask_until(range.end.max(range.start + FIRST)) };
        }
        self.lone_end = Some(range.end);
        Plan::Alone
    }

    fn advance(&mut self, range: &Range<u64>) -> Vec<Range<u64>> {
        let ahead = self.held.end.saturating_sub(range.start);
        let enough = if self.reach < REACH { self.reach / 2 } else { REACH - PART };
        if ahead > enough && self.held.end >= range.end {
            return Vec::new();
        }
        self.reach = (self.reach * 4).min(REACH);
        self.ask_until(range.end.max(range.start + self.reach))
    }

    fn ask_until(&mut self, end: u64) -> Vec<Range<u64>> {
        let end = end.min(self.size);
        let mut ask = Vec::new();
        while self.held.end < end {
            let part = self.held.end..(self.held.end + PART).min(end);
            self.held.end = part.end;
            ask.push(part);
        }
        ask
    }

    /// What was to be asked for from `start` on was not: there is no room for it.
    pub(crate) fn cut(&mut self, start: u64) {
        self.held.end = self.held.end.min(start).max(self.held.start);
    }

    /// The stream broke: nothing is held any more.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.size);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 512 * MIB;
    const KERNEL: u64 = 128 * 1024;

    fn asked(plan: &Plan) -> &[Range<u64>] {
        match plan {
            Plan::Stream { ask, .. } | Plan::Restart { ask } => ask,
            Plan::Alone => &[],
        }
    }

    fn restart(ask: Range<u64>) -> Plan {
        Plan::Restart { ask: std::iter::once(ask).collect() }
    }

    #[test]
    fn a_file_read_from_end_to_end_is_asked_for_exactly_once_and_ever_farther_ahead() {
        let mut window = Window::new(SIZE);
        let (mut until, mut farthest, mut requests) = (0, 0, 0);
        for at in (0..SIZE).step_by(KERNEL as usize) {
            let plan = window.read(&(at..at + KERNEL));
            assert_ne!(plan, Plan::Alone);
            for part in asked(&plan) {
                assert_eq!(part.start, until);
                assert!(part.end - part.start <= PART);
                until = part.end;
                requests += 1;
            }
            assert!(until >= at + KERNEL);
            farthest = farthest.max(until - at);
        }
        assert_eq!((until, farthest), (SIZE, REACH));
        assert!(requests <= SIZE / PART + 8, "{requests} requests");
    }

    #[test]
    fn the_first_bytes_cost_one_request_of_a_mebibyte() {
        let mut window = Window::new(SIZE);
        assert_eq!(window.read(&(0..4096)), restart(0..FIRST));
        assert_eq!(window.read(&(4096..8192)), Plan::Stream { ask: vec![], keep_from: 0 });
        assert_eq!(Window::new(10).read(&(0..10)), restart(0..10));
    }

    #[test]
    fn a_read_elsewhere_stands_alone_and_leaves_the_stream_as_it_was() {
        let mut window = Window::new(SIZE);
        window.read(&(0..KERNEL));
        assert_eq!(window.read(&(SIZE - 4096..SIZE)), Plan::Alone, "the footer of a table");
        assert_eq!(window.read(&(KERNEL..2 * KERNEL)), Plan::Stream { ask: vec![], keep_from: 0 });
    }

    #[test]
    fn reads_at_random_make_nobody_fetch_ahead() {
        let (mut window, mut place, mut bytes) = (Window::new(SIZE), 1_u64, 0);
        window.read(&(0..1));
        for _ in 0..10_000 {
            place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (place >> 33) % (SIZE / 4096) * 4096;
            bytes += asked(&window.read(&(at..at + 4096))).iter().map(|part| part.end - part.start).sum::<u64>();
        }
        assert!(bytes < 64 * MIB, "{bytes} bytes for 40 MB of reads");
    }

    #[test]
    fn where_a_lone_read_ended_the_next_begins_a_stream() {
        let mut window = Window::new(SIZE);
        let at = SIZE / 2;
        assert_eq!(window.read(&(at..at + 4096)), Plan::Alone);
        let next = at + 4096;
        assert_eq!(window.read(&(next..next + KERNEL)), restart(next..next + FIRST));
        assert!(matches!(window.read(&(next + KERNEL..next + 2 * KERNEL)), Plan::Stream { .. }));
    }

    #[test]
    fn what_found_no_room_is_asked_for_again() {
        let mut window = Window::new(SIZE);
        window.read(&(0..FIRST / 2));
        let late = FIRST - 4096..FIRST;
        let plan = window.read(&late);
        assert_eq!(asked(&plan).first().map(|part| part.start), Some(FIRST));
        window.cut(FIRST);
        let plan = window.read(&late);
        assert_eq!(asked(&plan).first().map(|part| part.start), Some(FIRST));
    }

    proptest! {
        #[test]
        fn whatever_is_read_the_stream_is_gapless_within_the_file_and_bounded(
            size in 1..64 * MIB,
            reads in proptest::collection::vec((0.0..1.0f64, 1..MIB, any::<bool>()), 1..64),
        ) {
            let (mut window, mut held, mut next) = (Window::new(size), 0..0, 0);
            for (place, length, sequential) in reads {
                let start = if sequential { next } else { (place * size as f64) as u64 }.min(size - 1);
                let range = start..(start + length).min(size);
                next = range.end;
                let plan = window.read(&range);
                match &plan {
                    Plan::Restart { .. } => held = start..start,
                    Plan::Stream { keep_from, .. } => {
                        prop_assert!(*keep_from <= start);
                        held.start = *keep_from;
                    }
                    Plan::Alone => continue,
                }
                for part in asked(&plan) {
                    prop_assert!(part.start == held.end && part.start < part.end && part.end <= size);
                    held.end = part.end;
                }
                prop_assert!(held.start <= start && range.end <= held.end, "the read is covered");
                prop_assert!(held.end - held.start <= BEHIND + REACH + MIB);
            }
        }
    }
}
