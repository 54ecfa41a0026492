//! The itinerary of one attempt, every step in order.
//!
//! ```text
//! probe ─► claim ─► check ─► scan ─► review ─► confirm ─► deliver ─► decide ─► announce
//!            └─ stand down   └───────┴─ refused, failed, inputs changed ─┘
//! ```
//! Data never walks back up: each stage consumes what the one before it made. A fault of the cloud leaves no outcome.

use std::sync::Arc;

use carrel_cloud::{Connector, Objects};

use crate::case::{Decision, Stop};
use crate::config::Config;
use crate::deliver::Decided;
use crate::progress::Progress;
use crate::{announce, check, claim, deliver, review, room, scan};

/// How an attempt ended that may not be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// This attempt decided the epoch; the word is [`carrel_schemas::outcome::Verdict::state`].
    Decided(&'static str),
    /// Another decided it first.
    Deferred(&'static str),
    /// There was nothing to do for this execution.
    StoodDown(String),
}

/// Makes one attempt. An error may be retried: no outcome was written, or it cannot be known.
///
/// Dropping the future ends the agent and leaves no outcome.
pub async fn run(config: Config, connector: &Connector) -> anyhow::Result<End> {
    let config = Arc::new(config);
    let objects = connector.objects().await?;
    let progress = Progress::new(&config);
    // Boxed: what the compiler lays out as one future has a depth limit, and the stages nest.
    let journey = Box::pin(decide(Arc::clone(&config), objects.clone(), progress.clone()));
    let end = progress.beside(&objects, &config, journey).await;
    if let Err(why) = &end {
        progress.end(&objects, &config, why).await;
    }
    let end = end?;
    if let End::Decided(_) = end {
        announce::announce(connector, &config).await;
    }
    Ok(end)
}

async fn decide(config: Arc<Config>, objects: Objects, progress: Progress) -> anyhow::Result<End> {
    let decision = match journey(config, objects, progress).await {
        Ok(decision) => decision,
        Err(Stop::Decide(decision)) => *decision,
        Err(Stop::StandDown(why)) => return Ok(End::StoodDown(why)),
        Err(Stop::Retry(error)) => return Err(error),
    };
    match deliver::decide(decision).await? {
        Decided::Ours(state) => Ok(End::Decided(state)),
        Decided::Others(state) => Ok(End::Deferred(state)),
    }
}

async fn journey(config: Arc<Config>, objects: Objects, progress: Progress) -> Result<Decision, Stop> {
    // Before anything is claimed: what a machine without such rooms leaves undone is another's to do.
    let room = room::probe(&config).await?;
    let claimed = claim::claim(config, objects, progress, room).await?;
    let hydrated = check::hydrate(claimed).await?;
    let scanned = scan::scan(hydrated).await?;
    let reviewed = review::review(scanned).await?;
    let confirmed = check::confirm(reviewed).await?;
    deliver::deliver(confirmed).await
}
