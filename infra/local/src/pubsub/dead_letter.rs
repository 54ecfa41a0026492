//! From a subscription to its dead-letter topic: what a buried message says about where it came from.
//!
//! The attributes are Google's: <https://cloud.google.com/pubsub/docs/handling-failures>.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::core::MessageId;
use super::{NewMessage, PubSub, Subscription, shelf};
use crate::store::StoreError;

impl PubSub {
    /// Moves messages to the dead-letter topic: their copies and their settlement are one commit.
    pub(super) async fn bury(
        &self,
        subscription: &Arc<Subscription>,
        dead: &[(MessageId, u32)],
    ) -> Result<(), StoreError> {
        let Some((topic, _)) = subscription.record.dead_letter.clone() else { return Ok(()) };
        let messages = self.0.store.read(|txn| shelf::load(txn, dead))?;
        let ids: Vec<MessageId> = messages.iter().map(|(id, ..)| *id).collect();
        let messages: Vec<NewMessage> = messages
            .into_iter()
            .map(|(_, attempts, message)| {
                let mut attributes: BTreeMap<String, String> = message.attributes.into_iter().collect();
                let (project, short) = subscription.name.split_once("/subscriptions/").unwrap_or(("", ""));
                let project = project.trim_start_matches("projects/");
                let published = message.publish_time.map(|time| rfc3339(&time)).unwrap_or_default();
                for (name, value) in [
                    ("DeliveryCount", attempts.to_string()),
                    ("Subscription", short.to_owned()),
                    ("SubscriptionProject", project.to_owned()),
                    ("TopicPublishTime", published),
                ] {
                    attributes.insert(format!("CloudPubSubDeadLetterSource{name}"), value);
                }
                NewMessage { data: message.data, attributes, ordering_key: message.ordering_key }
            })
            .collect();
        let (service, source, target) = (self.clone(), subscription.name.clone(), topic.clone());
        let settled = ids.clone();
        self.0
            .store
            .write(move |txn| {
                service.publish_in(txn, &target, &messages)?;
                shelf::settle(txn, &source, &settled)
            })
            .await?;
        let mut core = subscription.core();
        for id in ids {
            core.ack(id);
        }
        drop(core);
        self.committed(&topic);
        Ok(())
    }
}

fn rfc3339(time: &prost_types::Timestamp) -> String {
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let instant = time::OffsetDateTime::from_unix_timestamp_nanos(nanos);
    let text = instant.ok().and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_default()
}
