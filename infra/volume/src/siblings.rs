//! Small files of a directory that are opened one after another: the next ones are fetched before they are opened.
//!
//! One request for each file and round trip is what makes many small files slow; their order is known from the
//! listing. What is fetched goes into the kernel's page cache, so that a wrong guess costs requests but no memory here.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::runtime::Handle;

use crate::entry::Kind;
use crate::file::{SMALL, fill};
use crate::nodes::FileNode;
use crate::shared::Shared;

/// Files in flight: at 20 ms away, 1,600 a second.
const MOST: usize = 32;
/// An open this little after the last one still follows it: readers skip what is not theirs.
const FOLLOWS: usize = 4;
/// Opens in a row before the next are guessed: a reader of two or three files pays for nothing else.
const SURE: u32 = 3;
/// Directories that are watched at once.
const WATCHED: usize = 16;

/// How far one directory is read: pure.
#[derive(Debug, Default)]
struct Run {
    last: Option<usize>,
    streak: u32,
    until: usize,
}

impl Run {
    /// Entry `at` is opened; these are worth fetching now.
    fn opened(&mut self, at: usize) -> Range<usize> {
        let follows = self.last.is_some_and(|last| (last + 1..=last + FOLLOWS).contains(&at));
        if !follows {
            (self.streak, self.until) = (0, at + 1);
        }
        (self.last, self.streak) = (Some(at), self.streak.saturating_add(1));
        if self.streak < SURE {
            return 0..0;
        }
        let ahead = 1_usize.checked_shl(self.streak - SURE + 2).unwrap_or(MOST).min(MOST);
        let ask = self.until.max(at + 1)..(at + 1 + ahead).max(self.until);
        self.until = ask.end;
        ask
    }
}

/// The directories that are being read, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Siblings(Mutex<Vec<(Arc<str>, Run)>>);

impl Siblings {
    fn opened(&self, prefix: &str, at: usize) -> Range<usize> {
        let mut watched = self.0.lock().expect("no code panics while it holds the lock");
        let (prefix, mut run) = match watched.iter().position(|(known, _)| **known == *prefix) {
            Some(place) => watched.remove(place),
            None => (prefix.into(), Run::default()),
        };
        let ask = run.opened(at);
        if watched.len() >= WATCHED {
            watched.remove(0);
        }
        watched.push((prefix, run));
        ask
    }
}

/// `file` is opened: fetches those that are likely to be opened next.
pub(crate) fn fetch_siblings(shared: &Arc<Shared>, file: &FileNode, on: &Handle) {
    if file.facts.size > SMALL {
        return;
    }
    let (prefix, leaf) = file.name.split_at(file.name.rfind('/').map_or(0, |at| at + 1));
    let Some(entries) = shared.names().directory(prefix, Instant::now()) else { return };
    let Ok(at) = entries.binary_search_by(|entry| (*entry.leaf).cmp(leaf)) else { return };
    let next = shared.siblings.opened(prefix, at);
    for entry in entries.iter().take(next.end).skip(next.start) {
        let Kind::File(facts) = entry.kind else { continue };
        if facts.size == 0 || facts.size > SMALL {
            continue;
        }
        let known = shared.nodes().file(&format!("{prefix}{}", entry.leaf), facts.generation);
        let Some(file) = known.filter(|file| !shared.is_proven(file)) else { continue };
        let Some(room) = shared.budget.ahead(facts.size) else { return };
        let shared = shared.clone();
        on.spawn(async move {
            // Whoever opens the file meets the same failure and is told.
            if let Err(fail) = shared.in_time(fill(&shared, &file)).await {
                tracing::debug!(name = &*file.name, error = %fail, "a guess failed");
            }
            drop(room);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_opens_one_file_after_another_finds_the_next_ones_asked_for_once() {
        let mut run = Run::default();
        let mut asked = vec![0; 200 + MOST];
        for at in 0..200 {
            let ask = run.opened(at);
            assert!(ask.is_empty() || (ask.start > at && ask.end <= at + 1 + MOST), "{ask:?} at {at}");
            ask.for_each(|entry| asked[entry] += 1);
        }
        assert!(asked[SURE as usize..].iter().all(|count| *count == 1), "{asked:?}");
    }

    #[test]
    fn a_file_here_and_a_file_there_make_nobody_guess() {
        let mut run = Run::default();
        for at in [5, 100, 3, 50, 51, 52 + FOLLOWS, 10] {
            assert!(run.opened(at).is_empty(), "{at}");
        }
    }

    #[test]
    fn a_reader_that_skips_some_is_followed_and_one_that_jumps_begins_anew() {
        let mut run = Run::default();
        run.opened(0);
        run.opened(2);
        assert_eq!(run.opened(4), 5..9);
        assert_eq!(run.opened(6), 9..15);
        assert!(run.opened(1000).is_empty());
        assert!(run.opened(1001).is_empty());
        assert_eq!(run.opened(1002), 1003..1007);
    }
}
