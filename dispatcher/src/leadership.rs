//! Who schedules and reconciles: the holder of one object in the control bucket.
//!
//! For efficiency only: two leaders would compete for the same compare-and-swaps and launch nothing twice. So a
//! clock is good enough here, and nowhere else.

use std::time::Duration;

use carrel_schemas::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ledger::{LEADER, Ledger, LedgerError, Stored};

/// A leader that has not renewed for this long is deposed.
const TERM: Duration = Duration::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// Whether this replica leads.
#[derive(Debug, Clone, Default)]
pub struct Leadership(watch::Sender<bool>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Term {
    holder: String,
    until: Timestamp,
}

impl Stored for Term {}

impl Leadership {
    /// True while this replica leads.
    pub fn is_held(&self) -> bool {
        *self.0.borrow()
    }

    /// Tells of each change.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// Returns once this replica leads.
    pub async fn held(&self) {
        self.watch().wait_for(|held| *held).await.expect("the sender is `self`'s");
    }

    /// Stands for election and renews until `stop`; then resigns, so that the next leader need not wait.
    pub async fn run(&self, ledger: &Ledger, holder: &str, stop: CancellationToken) {
        let mut renew = tokio::time::interval(RENEW_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = renew.tick() => {}
            }
            let won = stand(ledger, holder, crate::now(), TERM).await.unwrap_or_else(|error| {
                tracing::warn!(error = crate::chain(&error), "leadership is not known");
                false
            });
            if self.become_leader(won) {
                tracing::info!(holder, leading = won, "leadership");
            }
        }
        if self.become_leader(false)
            && let Err(error) = stand(ledger, holder, crate::now(), Duration::ZERO).await
        {
            tracing::warn!(error = crate::chain(&error), "resignation was not heard; the term runs out by itself");
        }
    }

    /// True if that is a change.
    fn become_leader(&self, held: bool) -> bool {
        self.0.send_if_modified(|was| std::mem::replace(was, held) != held)
    }
}

async fn stand(ledger: &Ledger, holder: &str, now: Timestamp, term: Duration) -> Result<bool, LedgerError> {
    let own = Term { holder: holder.to_owned(), until: now.plus(term) };
    match ledger.read::<Term>(LEADER).await? {
        None => Ok(ledger.create(LEADER, &own).await?.is_some()),
        Some(held) if held.value.holder == holder || held.value.until <= now => {
            Ok(ledger.replace(LEADER, held.generation, &own).await?.is_some())
        }
        Some(_) => Ok(false),
    }
}
