//! What a room asked for and what came of it: one line in the log each, and a report at the end.
//!
//! Owns the counting. Bounded, since a room may ask without end: so many different decisions are listed, the rest are
//! counted; so many lines are logged, the rest are counted too. Allowed and other decisions are bounded apart, so that
//! a room cannot bury the hosts it reached under names it made up.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

use crate::reason::{Reason, Verdict};

/// How many different decisions are listed: half for what was allowed, half for the rest.
const LISTED: usize = 200;

/// How many connections of a room are logged one by one.
const LOGGED: u64 = 1_000;

/// One host and how connections to it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The host as the room asked for it, escaped and cut; empty where it asked for none.
    pub host: String,
    /// The port that the room asked for, if it came to that.
    pub port: Option<u16>,
    /// What was decided.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// How many connections ended like this.
    pub count: u64,
    /// Bytes from the room to the host.
    pub bytes_up: u64,
    /// Bytes from the host to the room.
    pub bytes_down: u64,
}

/// Everything that a room's proxy decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Different decisions, allowed ones first, then by host; 100 of each kind at most.
    pub decisions: Vec<Decision>,
    /// Connections beyond the listed decisions.
    pub truncated: u64,
    /// Bytes from the room, listed or not.
    pub bytes_up: u64,
    /// Bytes to the room, listed or not.
    pub bytes_down: u64,
    /// Questions to the resolver: what the room could say through names alone.
    pub lookups: u64,
}

/// One connection, for the ledger.
pub(crate) struct Entry {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) reason: Reason,
    pub(crate) up: u64,
    pub(crate) down: u64,
}

type Key = (Verdict, String, Option<u16>, Reason);

#[derive(Default)]
struct Book {
    listed: BTreeMap<Key, (u64, u64, u64)>,
    truncated: u64,
    up: u64,
    down: u64,
    logged: u64,
}

/// The open ledger of one room.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

impl Ledger {
    pub(crate) fn record(&self, entry: Entry) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.log(&entry);
        book.up += entry.up;
        book.down += entry.down;
        let allowed = |verdict: Verdict| verdict == Verdict::Allowed;
        let verdict = entry.reason.verdict();
        let key = (verdict, entry.host, entry.port, entry.reason);
        let alike = book.listed.keys().filter(|(listed, ..)| allowed(*listed) == allowed(verdict)).count();
        if alike >= LISTED / 2 && !book.listed.contains_key(&key) {
            book.truncated += 1;
            return;
        }
        let (count, up, down) = book.listed.entry(key).or_default();
        *count += 1;
        *up += entry.up;
        *down += entry.down;
    }

    pub(crate) fn report(&self, lookups: u64) -> Report {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let decisions = book.listed.iter().map(|((verdict, host, port, reason), (count, up, down))| Decision {
            host: host.clone(),
            port: *port,
            verdict: *verdict,
            reason: *reason,
            count: *count,
            bytes_up: *up,
            bytes_down: *down,
        });
        Report {
            decisions: decisions.collect(),
            truncated: book.truncated,
            bytes_up: book.up,
            bytes_down: book.down,
            lookups,
        }
    }
}

impl Book {
    fn log(&mut self, entry: &Entry) {
        let Entry { host, port, reason, up, down } = entry;
        let who = if host.is_empty() { "a connection" } else { host };
        self.logged += 1;
        match self.logged {
            ..=LOGGED if reason.verdict() == Verdict::Allowed => info!(
                egress.host = host, egress.port = port, egress.verdict = "allowed", egress.reason = %reason,
                egress.bytes_up = up, egress.bytes_down = down, "egress: let {who} through",
            ),
            ..=LOGGED => warn!(
                egress.host = host, egress.port = port, egress.verdict = reason.verdict().as_str(),
                egress.reason = %reason, egress.bytes_up = up, egress.bytes_down = down,
                "egress: {who} did not get through: {reason}",
            ),
            after if after == LOGGED + 1 => {
                warn!(
                    egress.logged = LOGGED,
                    "egress: the room has opened {LOGGED} connections; later ones are only counted"
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::thread::ThreadId;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::head::HeadFault;
    use crate::tunnel::End;

    fn entry(host: &str, reason: Reason, up: u64) -> Entry {
        Entry { host: host.to_owned(), port: Some(443), reason, up, down: 1 }
    }

    #[test]
    fn made_up_names_do_not_bury_what_was_reached() {
        let ledger = Ledger::default();
        for number in 0..5_000 {
            ledger.record(entry(&format!("{number}.example"), Reason::NotListed, 0));
        }
        ledger.record(entry("api.example.com", Reason::Ended(End::Closed), 7));
        ledger.record(entry("api.example.com", Reason::Ended(End::Closed), 5));
        let report = ledger.report(2);
        assert_eq!(report.decisions.len(), 101);
        assert_eq!(report.truncated, 4_900);
        let Decision { host, verdict, count, bytes_up, bytes_down, .. } = &report.decisions[0];
        assert_eq!((host.as_str(), *verdict, *count), ("api.example.com", Verdict::Allowed, 2));
        assert_eq!((*bytes_up, *bytes_down, report.bytes_up, report.lookups), (12, 2, 12, 2));
    }

    #[test]
    fn a_decision_that_is_listed_goes_on_being_counted() {
        let ledger = Ledger::default();
        for number in 0..300 {
            ledger.record(entry(&format!("{}.example", number % 150), Reason::NotListed, 0));
        }
        let report = ledger.report(0);
        assert!(report.decisions.iter().all(|decision| decision.count == 2));
        assert_eq!((report.decisions.len(), report.truncated), (100, 100));
    }

    /// Log lines of one thread, in memory.
    #[derive(Clone)]
    struct Lines(Arc<Mutex<Vec<u8>>>, ThreadId);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if std::thread::current().id() != self.1 {
                return Ok(bytes.len());
            }
            self.0.lock().expect("whole").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn every_decision_is_a_line_until_they_would_be_a_flood() {
        let lines = Lines(Arc::default(), std::thread::current().id());
        let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
        // For the whole program, with what was decided before it decided again: tracing keeps whether anybody listens for
        // each line of code, and a test on another thread may have asked first.
        tracing::subscriber::set_global_default(subscriber).expect("the only test that listens");
        tracing::callsite::rebuild_interest_cache();
        let ledger = Ledger::default();
        ledger.record(entry("api.example.com", Reason::Ended(End::Closed), 7));
        ledger.record(Entry { port: None, ..entry("", Reason::Head(HeadFault::NotConnect), 0) });
        for _ in 0..2_000 {
            ledger.record(entry("evil.example", Reason::NotListed, 0));
        }
        assert_eq!(ledger.report(0).decisions.iter().map(|decision| decision.count).sum::<u64>(), 2_002);
        let text = String::from_utf8(lines.0.lock().expect("whole").clone()).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1_001, "a thousand decisions and one line that says so");
        assert!(
            lines[0].contains("egress.host=\"api.example.com\" egress.port=443 egress.verdict=\"allowed\""),
            "{}",
            lines[0]
        );
        assert!(lines[1].contains("a connection did not get through: the method is not CONNECT"), "{}", lines[1]);
        assert!(lines[1_000].contains("later ones are only counted"), "{}", lines[1_000]);
    }
}
