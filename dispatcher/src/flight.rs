//! One run for many callers: whoever calls while a run is under way shares the next one.
//!
//! What a caller gets is the result of a run that began after it called, never of one that may have looked too early.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Runs of one kind, one after another.
#[derive(Debug)]
pub struct Flight<T> {
    arrivals: AtomicU64,
    last: Mutex<Last<T>>,
}

#[derive(Debug)]
struct Last<T> {
    /// Arrivals up to this one are covered by a finished run.
    covered: u64,
    /// What the last run found.
    found: Option<T>,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self { arrivals: AtomicU64::new(0), last: Mutex::new(Last { covered: 0, found: None }) }
    }
}

impl<T: Clone> Flight<T> {
    /// What a run finds that began after this call; `run` is handed what the one before it found.
    pub async fn join<E, F: Future<Output = Result<T, E>>>(&self, run: impl FnOnce(Option<T>) -> F) -> Result<T, E> {
        let arrival = self.arrivals.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last = self.last.lock().await;
        match &last.found {
            Some(found) if last.covered >= arrival => return Ok(found.clone()),
            _ => {}
        }
        let covers = self.arrivals.load(Ordering::SeqCst);
        let found = run(last.found.take()).await?;
        last.covered = covers;
        last.found = Some(found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn who_calls_during_a_run_shares_the_next_and_nobody_an_earlier_one() {
        let (flight, runs) = (Flight::<u64>::default(), AtomicU64::new(0));
        let (began, go_on) = (Notify::new(), Notify::new());
        let run = |_| async {
            let number = runs.fetch_add(1, Ordering::SeqCst) + 1;
            began.notify_one();
            go_on.notified().await;
            Ok::<_, Infallible>(number)
        };
        let first = flight.join(run);
        let others = async {
            began.notified().await;
            let others = join_all((0..10).map(|_| flight.join(run)));
            let ends = async {
                go_on.notify_one();
                began.notified().await;
                go_on.notify_one();
            };
            tokio::join!(others, ends).0
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!(first, Ok(1));
        assert_eq!(others, vec![Ok(2); 10]);
    }

    #[tokio::test]
    async fn a_run_that_fails_covers_nobody() {
        let flight = Flight::<u64>::default();
        assert_eq!(flight.join(async |_| Err("no answer")).await, Err("no answer"));
        assert_eq!(flight.join(async |_| Ok::<_, &str>(7)).await, Ok(7));
        assert_eq!(flight.join(async |before| Ok::<_, &str>(before.unwrap_or(0) + 1)).await, Ok(8));
    }
}
