//! What is found torn: named and put aside, never silently dropped.
//!
//! | found | what becomes of it |
//! |---|---|
//! | a topic, a subscription or a snapshot that cannot be read | moves to a table of its own; the cloud does not start |
//! | one that is configured, at every later start | none is made anew in its place, and the cloud does not start |
//! | one that is not, at the next start | it is not there, and the cloud starts: only so can it be created again |
//! | what is held for such a one | stays until one of its name is created, which has it again unless it is a snapshot |
//! | a message that cannot be read | moves too, once it is to be delivered; what comes with it is delivered |
//! | a message that is not there, and is still owed | is named, once it is to be delivered, and owed no more |
//!
//! What was configured is created over the API after a start without it in the configuration. Of anything else one start
//! tells, and no later one. Messages are too many for a look at all of them before the first is delivered.

use std::sync::Arc;

use redb::{ReadableTable as _, WriteTransaction};

use super::core::MessageId;
use super::record::{SnapshotRecord, SubscriptionRecord, TopicRecord};
use super::shelf::{self, MESSAGES, Records, SNAPSHOTS, SUBSCRIPTIONS, TOPICS};
use super::{PubSub, Subscription};
use crate::aside::{Aside, is_json, put, set_unreadable_aside};
use crate::store::StoreError;

pub(super) const ASIDE: Aside = Aside::new("pubsub.aside");

/// Puts aside every record that cannot be read; the names of those.
pub(super) fn records(txn: &WriteTransaction) -> Result<Vec<String>, StoreError> {
    let named = |name: &str| name.to_owned();
    let is_topic = |bytes: &[u8]| if bytes.is_empty() { Ok(()) } else { is_json::<TopicRecord>(bytes) };
    let mut torn = set_unreadable_aside(txn, ASIDE, TOPICS, is_topic, named)?;
    torn.extend(set_unreadable_aside(txn, ASIDE, SUBSCRIPTIONS, is_json::<SubscriptionRecord>, named)?);
    torn.extend(set_unreadable_aside(txn, ASIDE, SNAPSHOTS, is_json::<SnapshotRecord>, named)?);
    Ok(torn)
}

/// The first of these that is there no more because its record lies aside.
pub(super) fn lost<'a>(
    txn: &WriteTransaction,
    table: Records,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<Option<String>, StoreError> {
    let (aside, records) = (txn.open_table(ASIDE)?, txn.open_table(table)?);
    let table_name = redb::TableHandle::name(&table);
    for name in names {
        let lies_aside = aside.get(format!("{table_name}/{name}").as_str())?.is_some();
        if lies_aside && records.get(name.as_str())?.is_none() {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}

/// `holder` is owed these no more, since they cannot be delivered.
fn settle_lost(txn: &WriteTransaction, holder: &str, ids: &[MessageId]) -> Result<(), StoreError> {
    // What was settled since it was handed out is not lost.
    let lost = shelf::still_held(txn, holder, ids.iter().copied())?;
    {
        let (mut aside, mut messages) = (txn.open_table(ASIDE)?, txn.open_table(MESSAGES)?);
        let definition = MESSAGES;
        let table_name = redb::TableHandle::name(&definition);
        for id in &lost {
            let place = format!("{table_name}/{id}");
            let torn = messages.remove(*id)?.map(|bytes| bytes.value().to_vec());
            // Another that was owed it may have found it torn before.
            let lies_aside = aside.get(place.as_str())?.is_some();
            match torn {
                Some(bytes) => put(&mut aside, &place, &bytes, "it is no message")?,
                None if lies_aside => {}
                None => tracing::error!(pubsub.message = id, holder, "a message is owed that is not there any more"),
            }
        }
    }
    shelf::settle(txn, holder, None, ids)
}

impl PubSub {
    /// Lets go of what cannot be delivered, and of what waited for it.
    pub(super) async fn give_up(
        &self,
        subscription: &Arc<Subscription>,
        lost: Vec<MessageId>,
    ) -> Result<(), StoreError> {
        let (name, ids) = (subscription.name.clone(), lost.clone());
        self.0.store.write(move |txn| settle_lost(txn, &name, &ids)).await?;
        let terms = self.terms(&subscription.record());
        let gone: Vec<MessageId> = {
            let mut core = subscription.core();
            lost.into_iter().flat_map(|id| core.ack(id, terms)).collect()
        };
        subscription.changed.notify_waiters();
        self.settle(subscription, gone).await
    }
}
