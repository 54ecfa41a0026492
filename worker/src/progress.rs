//! `progress/<review>/<epoch>-<attempt>.json`: the stage a claimed attempt is in, for people who wait. A hint, nothing
//! more.
//!
//! Owns the pace: one write a second at most, the latest state wins. A write that fails is dropped; nothing waits for it
//! but the last, of an attempt that ends without an outcome: it says why, where a dead letter finds it. Before the claim
//! nothing is written, and why an attempt ended there stands in its log alone.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carrel_cloud::Objects;
use carrel_schemas::ids::{Attempt, Epoch, ReviewId};
use carrel_schemas::layout;
use carrel_schemas::timestamp::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::config::Config;

/// Time between two writes: an object takes one overwrite a second.
const PACE: Duration = Duration::from_millis(1100);

/// The last write is given up after this long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Characters of the reason in it.
const MAX_REASON: usize = 1000;

/// What is written.
#[derive(Debug, Clone, Serialize)]
struct Record {
    schema: u32,
    review: ReviewId,
    epoch: Epoch,
    attempt: Attempt,
    stage: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pct: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    at: Timestamp,
}

impl Record {
    /// Before the claim nothing is ours to write.
    fn is_ours(&self) -> bool {
        !matches!(self.stage.as_str(), "start" | "claim")
    }

    async fn put(&self, objects: &Objects, config: &Config) -> anyhow::Result<()> {
        let name = layout::progress(&config.review, config.epoch, config.attempt);
        let body = serde_json::to_vec(self)?;
        objects.put(config.outputs.as_str(), name.as_str(), body.into(), "application/json").await?;
        Ok(())
    }
}

/// Where stages say how far they are.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<watch::Sender<Record>>);

impl Progress {
    pub(crate) fn new(config: &Config) -> Self {
        Self::of(config.review.clone(), config.epoch, config.attempt)
    }

    pub(crate) fn of(review: ReviewId, epoch: Epoch, attempt: Attempt) -> Self {
        let record = Record {
            schema: 1,
            review,
            epoch,
            attempt,
            stage: "start".to_owned(),
            pct: None,
            message: None,
            at: SystemTime::now().into(),
        };
        Self(Arc::new(watch::Sender::new(record)))
    }

    /// The stage it is in, as it or the agent called it: at most 200 characters.
    pub(crate) fn current(&self) -> String {
        self.0.borrow().stage.chars().take(200).collect()
    }

    /// Enters a stage.
    pub(crate) fn stage(&self, stage: &str) {
        tracing::info!(stage, "stage");
        self.update(stage.to_owned(), None, None);
    }

    /// Says how far a stage is.
    pub(crate) fn update(&self, stage: String, pct: Option<f64>, message: Option<String>) {
        self.0.send_modify(|record| {
            record.stage = stage;
            record.pct = pct;
            record.message = message;
            record.at = SystemTime::now().into();
        });
    }

    /// Runs `journey` to its end and writes what it says meanwhile.
    pub(crate) async fn beside<T>(&self, objects: &Objects, config: &Config, journey: impl Future<Output = T>) -> T {
        tokio::select! {
            done = journey => done,
            () = self.write(objects, config) => unreachable!("the writer never ends"),
        }
    }

    async fn write(&self, objects: &Objects, config: &Config) {
        let mut states = self.0.subscribe();
        loop {
            // Self holds the sender, so this cannot fail while the loop runs.
            if states.changed().await.is_err() {
                return std::future::pending().await;
            }
            let record = states.borrow_and_update().clone();
            if !record.is_ours() {
                continue;
            }
            if let Err(error) = record.put(objects, config).await {
                tracing::debug!(error = format!("{error:#}"), "progress was not written");
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Says why there is no outcome, if the attempt was claimed, and nothing more after that.
    pub(crate) async fn end(&self, objects: &Objects, config: &Config, why: &anyhow::Error) {
        let mut record = self.0.borrow().clone();
        if !record.is_ours() {
            return;
        }
        record.message = Some(format!("{why:#}").chars().take(MAX_REASON).collect());
        record.at = SystemTime::now().into();
        let written = async {
            tokio::time::sleep(PACE).await;
            record.put(objects, config).await
        };
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = format!("{error:#}"), "the last progress was not written"),
            Err(_) => tracing::debug!("the last progress was not written in time"),
        }
    }
}
