//! `progress/<review>/<epoch>-<attempt>.json`: the stage an attempt is in, for people who wait. A hint, nothing more.
//!
//! Owns the pace: one write a second at most, the latest state wins. A write that fails is dropped; nothing waits for it.

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
        let name = layout::progress(&config.review, config.epoch, config.attempt);
        loop {
            // Self holds the sender, so this cannot fail while the loop runs.
            if states.changed().await.is_err() {
                return std::future::pending().await;
            }
            let record = states.borrow_and_update().clone();
            // Before the claim nothing is ours to write.
            if record.stage == "claim" {
                continue;
            }
            let written = match serde_json::to_vec(&record) {
                Ok(body) => objects.put(config.outputs.as_str(), name.as_str(), body.into(), "application/json").await,
                Err(error) => {
                    tracing::debug!(%error, "progress does not serialize");
                    continue;
                }
            };
            if let Err(error) = written {
                tracing::debug!(error = &error as &dyn std::error::Error, "progress was not written");
            }
            tokio::time::sleep(PACE).await;
        }
    }
}
