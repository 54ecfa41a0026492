//! Where a reader of the completion log stands, and the rule by which it misses nothing. Pure: takes `now`.
//!
//! An entry's name begins with the instant at which its writer was about to write it, so that a listing is in order of
//! time. An entry may still appear behind a reader: its write takes a while, and replicas' clocks differ. So a reader
//! that has come to the end stands [`OVERLAP`] before now and reads that much again the next time. A reader that is
//! still leafing remembers where that was when it began, and goes back to it at the end: what appeared behind it
//! meanwhile is found then. A completion may therefore be read twice, and is never passed over; readers tell by its
//! event id.
//!
//! ```text
//! passed for good │ read again the next time │ now
//! ────────────────┼──────────────────────────┤
//!               floor ◄──── OVERLAP ────────►
//! ```

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrel_schemas::ids::EventId;
use carrel_schemas::timestamp::Timestamp;

/// How far behind now a reader stands that has read everything. Half of it is for writing an entry, which a writer
/// holds itself to, and half for clocks that differ.
pub const OVERLAP: Duration = Duration::from_secs(120);
/// An entry that took longer to write is written again, under a later name.
pub const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

/// The place of an entry that was about to be written at `at`.
pub fn place(at: Timestamp, event: &EventId) -> String {
    format!("{}-{event}", instant(at))
}

/// True if the entry of this place was about to be written before `at`.
pub fn is_before(place: &str, at: Timestamp) -> bool {
    place < instant(at).as_str()
}

/// Thirteen digits of milliseconds last until the year 2286, and sort as numbers do.
fn instant(at: Timestamp) -> String {
    format!("{:013}", at.unix_millis().max(0))
}

/// Where a reader stands. On the wire it is opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// What was read last; what follows comes next.
    at: String,
    /// While leafing: where to go back to at the end.
    floor: Option<String>,
}

/// Text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither the `next` of an earlier answer nor an instant such as 2026-03-01T12:00:00Z")]
pub struct CursorError(String);

impl Cursor {
    /// Before every entry.
    pub fn start() -> Self {
        Self { at: String::new(), floor: None }
    }

    /// Before everything announced at `since` or later.
    pub fn since(since: Timestamp) -> Self {
        Self { at: instant(since), floor: None }
    }

    /// Reads what [`Cursor::to_string`](std::fmt::Display) wrote, or an instant.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        if let Ok(since) = Timestamp::parse(text) {
            return Ok(Self::since(since));
        }
        let refused = || CursorError(text.chars().take(80).collect());
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused())?;
        let held = String::from_utf8(bytes).map_err(|_| refused())?;
        let (at, floor) = held.strip_prefix("1:").and_then(|held| held.split_once(':')).ok_or_else(refused)?;
        let is_place = |place: &str| place.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !is_place(at) || !is_place(floor) {
            return Err(refused());
        }
        Ok(Self { at: at.to_owned(), floor: Some(floor.to_owned()).filter(|floor| !floor.is_empty()) })
    }

    /// What the last entry read is called; everything named later follows.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// The earliest place that the reader has still to pass.
    pub fn earliest(&self) -> &str {
        self.floor.as_deref().map_or(self.at(), |floor| floor.min(self.at()))
    }

    /// Where the reader stands after it listed at `now` and read up to `last`; `full` where more may follow.
    pub fn after(&self, last: Option<&str>, full: bool, now: Timestamp) -> Self {
        // Never before where this round began: who asked from an instant on is told nothing older.
        let floor = self.floor.clone().unwrap_or_else(|| instant(now.minus(OVERLAP)).max(self.at.clone()));
        let at = last.unwrap_or(&self.at).to_owned();
        if full { Self { at, floor: Some(floor) } } else { Self { at: at.min(floor), floor: None } }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held = format!("1:{}:{}", self.at, self.floor.as_deref().unwrap_or_default());
        f.write_str(&URL_SAFE_NO_PAD.encode(held))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000).expect("an instant").plus(Duration::from_millis(millis))
    }

    fn event(number: u8) -> EventId {
        EventId::parse(format!("ev_{number:032x}")).expect("an event id")
    }

    proptest! {
        /// Entries that appear up to [`OVERLAP`] after the instant in their names, readers that ask whenever they like
        /// for pages of any size, and give their cursor away as text in between.
        #[test]
        fn an_entry_that_appears_late_is_read_all_the_same(
            entries in prop::collection::vec((0_u64..600_000, 0_u64..120_000), 1..40),
            pauses in prop::collection::vec(0_u64..40_000, 1..60),
            limit in 1_usize..5,
        ) {
            let entries: Vec<(String, u64)> = (0..).zip(&entries)
                .map(|(number, (named, late))| (place(at(*named), &event(number)), named + late)).collect();
            let (mut cursor, mut now, mut read) = (Cursor::start(), 0, BTreeSet::new());
            // In the end nobody writes any more, and the reader leafs until it is at the end twice.
            let quiet = std::iter::repeat_n(&200_000, 100);
            for pause in pauses.iter().chain(quiet) {
                now += pause;
                let mut visible: Vec<&String> =
                    entries.iter().filter(|(name, seen)| *seen <= now && name.as_str() > cursor.at()).map(|(name, _)| name).collect();
                visible.sort();
                visible.truncate(limit);
                read.extend(visible.iter().map(|name| (*name).clone()));
                let next = cursor.after(visible.last().map(|name| name.as_str()), visible.len() == limit, at(now));
                cursor = Cursor::parse(&next.to_string()).expect("its own text");
            }
            let all: BTreeSet<String> = entries.into_iter().map(|(name, _)| name).collect();
            prop_assert_eq!(read, all);
        }
    }

    #[test]
    fn a_reader_at_the_end_passes_for_good_what_is_older_than_the_overlap() {
        let (old, young) = (place(at(0), &event(1)), place(at(299_000), &event(2)));
        let end = Cursor::start().after(Some(&young), false, at(300_000));
        assert!(end.at() > old.as_str() && end.at() < young.as_str());
    }

    #[test]
    fn a_reader_that_asks_from_an_instant_on_is_told_nothing_older() {
        let asked = Cursor::since(at(300_000));
        assert_eq!(asked.after(None, false, at(300_500)), asked);
        let young = place(at(300_400), &event(1));
        assert_eq!(asked.after(Some(&young), true, at(300_500)).after(None, false, at(300_600)), asked);
    }

    #[test]
    fn what_is_no_cursor_is_refused_in_words() {
        for text in ["", "nonsense", "MTo", &URL_SAFE_NO_PAD.encode("1:../x:"), &URL_SAFE_NO_PAD.encode("2:a:")] {
            assert!(Cursor::parse(text).is_err(), "{text}");
        }
        assert_eq!(Cursor::parse("2027-01-15T08:00:00Z"), Ok(Cursor::since(at(0))));
    }
}
