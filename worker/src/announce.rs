//! The wake-up after an outcome: a message that says "look there". Nothing in it is believed, nothing depends on it.
//!
//! Refuses to fail the attempt: the outcome is durable, and the reconciler finds what nobody announced.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use carrel_cloud::Connector;
use carrel_schemas::cloud_event::EventContext;
use carrel_schemas::completion::{OUTCOME_WRITTEN, OutcomeWritten};
use carrel_schemas::ids::EventId;

use crate::config::Config;

/// A wake-up later than this wakes nobody that the reconciler has not woken.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn announce(connector: &Connector, config: &Config) {
    let published = match tokio::time::timeout(PATIENCE, publish(connector, config)).await {
        Ok(published) => published,
        Err(late) => Err(late).context("publish the wake-up"),
    };
    match published {
        Ok(message) => tracing::info!(message.id = message, "outcome announced"),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "outcome was not announced; the reconciler will find it");
        }
    }
}

async fn publish(connector: &Connector, config: &Config) -> anyhow::Result<String> {
    let topic = connector.topic(&config.outcomes_topic).await?;
    let data = OutcomeWritten {
        outputs_bucket: config.outputs.clone(),
        review: config.review.clone(),
        epoch: config.epoch,
        attempt: config.attempt,
    };
    let context = EventContext {
        id: EventId::of(&config.review, config.epoch).to_string(),
        source: format!("//carrel/tenants/{}/worker", config.tenant),
        kind: OUTCOME_WRITTEN.to_owned(),
        subject: Some(config.review.to_string()),
        time: Some(SystemTime::now().into()),
    };
    let mut attributes = context.to_attributes();
    if let Some(traceparent) = carrel_telemetry::inject() {
        attributes.insert(carrel_telemetry::ATTRIBUTE.to_owned(), traceparent);
    }
    Ok(topic.publish(serde_json::to_vec(&data)?.into(), attributes).await?)
}
