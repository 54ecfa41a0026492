//! From a subscription to its dead-letter topic: what a buried message says about where it came from.
//!
//! The attributes are Google's: <https://cloud.google.com/pubsub/docs/handling-failures>.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::core::{Handed, MessageId};
use super::shelf::Loaded;
use super::{NewMessage, PubSub, Subscription, json, shelf};
use crate::store::StoreError;

impl PubSub {
    /// Moves messages to the dead-letter topic: their copies and their settlement are one commit.
    pub(super) async fn bury(&self, subscription: &Arc<Subscription>, dead: &[Handed]) -> Result<(), StoreError> {
        let Some((topic, _)) = subscription.record().dead_letter.clone() else { return Ok(()) };
        let loaded = self.0.store.read(|txn| shelf::load(txn, dead, usize::MAX, true))?;
        let Loaded { found: messages, lost, .. } = loaded;
        if !lost.is_empty() {
            self.give_up(subscription, lost).await?;
        }
        let ids: Vec<MessageId> = messages.iter().map(|(handed, _)| handed.id).collect();
        let messages: Vec<(MessageId, NewMessage)> = messages
            .into_iter()
            .map(|(handed, message)| {
                let mut attributes: BTreeMap<String, String> = message.attributes.into_iter().collect();
                let (project, short) = subscription.name.split_once("/subscriptions/").unwrap_or(("", ""));
                let project = project.trim_start_matches("projects/");
                let published = message.publish_time.as_ref().map(json::instant).unwrap_or_default();
                for (name, value) in [
                    ("DeliveryCount", handed.attempt.to_string()),
                    ("Subscription", short.to_owned()),
                    ("SubscriptionProject", project.to_owned()),
                    ("TopicPublishTime", published),
                ] {
                    attributes.insert(format!("CloudPubSubDeadLetterSource{name}"), value);
                }
                (handed.id, NewMessage { data: message.data, attributes, ordering_key: message.ordering_key })
            })
            .collect();
        let (service, source, target) = (self.clone(), subscription.name.clone(), topic.clone());
        self.0
            .store
            .write(move |txn| {
                // What was settled while this waited, by whoever held it before or buried it first, is no letter any more.
                let held = shelf::still_held(txn, &source, messages.iter().map(|(id, _)| *id))?;
                let (ids, messages): (Vec<_>, Vec<_>) =
                    messages.iter().filter(|(id, _)| held.contains(id)).cloned().unzip();
                service.publish_in(txn, &target, &messages)?;
                shelf::settle(txn, &source, None, &ids)
            })
            .await?;
        let terms = self.terms(&subscription.record());
        let mut core = subscription.core();
        for id in ids {
            core.ack(id, terms);
        }
        drop(core);
        subscription.changed.notify_waiters();
        self.committed(&topic);
        Ok(())
    }
}
