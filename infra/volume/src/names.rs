//! What is known of names and since when: pure, the time is an argument.
//!
//! Two memories: whole directories, and names that were looked up one by one. The younger of the two answers. A name
//! that is known not to exist is believed for a shorter time than one that does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Limits;
use crate::entry::{Entry, Kind, find};
use crate::lru::Lru;

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It stands for this, and that may be believed so long.
    Present(Kind, Duration),
    /// There is no such name, and that may be believed so long.
    Absent(Duration),
    /// Somebody has to ask.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Names {
    directories: Lru<Arc<str>, (Arc<[Entry]>, Instant)>,
    single: Lru<Arc<str>, (Option<Kind>, Instant)>,
    present: Duration,
    absent: Duration,
}

impl Names {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            directories: Lru::new(limits.remembered),
            single: Lru::new(limits.remembered),
            present: limits.believe_present,
            absent: limits.believe_absent,
        }
    }

    /// What is known of `leaf` in the directory `prefix`.
    pub(crate) fn find(&mut self, prefix: &str, leaf: &str, now: Instant) -> Known {
        let path = format!("{prefix}{leaf}");
        let single = self.single.peek(path.as_str()).copied();
        let listed = self.directories.peek(prefix);
        let listed = listed.map(|(entries, at)| (find(entries, leaf).map(|entry| entry.kind), *at));
        let by_listing = match (&single, &listed) {
            (Some((_, asked)), Some((_, listed))) => listed >= asked,
            (None, _) => true,
            (Some(_), None) => false,
        };
        let Some((kind, at)) = (if by_listing { listed } else { single }) else { return Known::Unknown };
        if by_listing {
            self.directories.touch(prefix);
        } else {
            self.single.touch(path.as_str());
        }
        let age = now.saturating_duration_since(at);
        match kind {
            Some(kind) if age < self.present => Known::Present(kind, self.present - age),
            None if age < self.absent => Known::Absent(self.absent - age),
            Some(_) | None => Known::Unknown,
        }
    }

    /// The directory `prefix` as it was last listed, if that may still be believed.
    pub(crate) fn directory(&self, prefix: &str, now: Instant) -> Option<Arc<[Entry]>> {
        let (entries, at) = self.directories.peek(prefix)?;
        (now.saturating_duration_since(*at) < self.present).then(|| entries.clone())
    }

    /// Remembers what one question about one name answered at `now`.
    pub(crate) fn asked(&mut self, prefix: &str, leaf: &str, kind: Option<Kind>, now: Instant) {
        self.single.insert(format!("{prefix}{leaf}").into(), (kind, now), 1);
    }

    /// Remembers a whole directory as it was at `now`.
    pub(crate) fn listed(&mut self, prefix: &str, entries: Arc<[Entry]>, now: Instant) {
        let weight = entries.len() + 1;
        self.directories.insert(prefix.into(), (entries, now), weight);
    }

    /// Forgets what is known of an object that turned out to be another: its path, and the directory it is listed in.
    pub(crate) fn doubt(&mut self, object: &str) {
        self.single.remove(object);
        let prefix = object.rfind('/').map_or("", |at| &object[..=at]);
        self.directories.remove(prefix);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::entry::Facts;

    const SECOND: Duration = Duration::from_secs(1);

    fn file(generation: i64) -> Kind {
        Kind::File(Facts { generation, size: 1, crc32c: None, created: SystemTime::UNIX_EPOCH })
    }

    fn directory(leaf: &str, generation: i64) -> Arc<[Entry]> {
        [Entry { leaf: leaf.into(), kind: file(generation) }].into()
    }

    #[test]
    fn presence_is_believed_for_a_minute_and_absence_for_five_seconds() {
        let (mut names, start) = (Names::new(&Limits::default()), Instant::now());
        names.listed("d/", directory("a", 1), start);
        assert_eq!(names.find("d/", "a", start + 59 * SECOND), Known::Present(file(1), SECOND));
        assert_eq!(names.find("d/", "a", start + 60 * SECOND), Known::Unknown);
        assert_eq!(names.find("d/", "b", start + 4 * SECOND), Known::Absent(SECOND));
        assert_eq!(names.find("d/", "b", start + 5 * SECOND), Known::Unknown);
        assert_eq!(names.find("e/", "a", start), Known::Unknown);
    }

    #[test]
    fn the_younger_memory_answers() {
        let (mut names, start) = (Names::new(&Limits::default()), Instant::now());
        names.listed("", directory("a", 1), start);
        names.asked("", "a", Some(file(2)), start + SECOND);
        assert_eq!(names.find("", "a", start + SECOND), Known::Present(file(2), 60 * SECOND));
        names.asked("", "a", None, start + 2 * SECOND);
        assert_eq!(names.find("", "a", start + 2 * SECOND), Known::Absent(5 * SECOND));
        names.listed("", directory("a", 3), start + 3 * SECOND);
        assert_eq!(names.find("", "a", start + 3 * SECOND), Known::Present(file(3), 60 * SECOND));
    }

    #[test]
    fn a_name_that_turned_out_wrong_is_asked_for_anew() {
        let (mut names, start) = (Names::new(&Limits::default()), Instant::now());
        names.listed("d/", directory("a", 1), start);
        names.asked("d/", "a", Some(file(1)), start);
        names.doubt("d/a");
        assert_eq!(names.find("d/", "a", start), Known::Unknown);
    }

    #[test]
    fn no_more_is_remembered_than_allowed() {
        let limits = Limits { remembered: 10, ..Limits::default() };
        let (mut names, start) = (Names::new(&limits), Instant::now());
        for number in 0..100 {
            names.listed(&format!("{number}/"), directory("a", 1), start);
            names.asked("", &format!("{number}"), None, start);
        }
        let known = (0..100).filter(|number| names.find(&format!("{number}/"), "a", start) != Known::Unknown).count();
        assert_eq!(known, 5, "a directory of one entry weighs two");
        let known = (0..100).filter(|number| names.find("", &format!("{number}"), start) != Known::Unknown).count();
        assert_eq!(known, 10);
    }
}
