//! Pub/Sub's tables: a message once, a row for each subscription that has still to acknowledge it.

use bytes::Bytes;
use prost::Message as _;
use redb::{ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::core::MessageId;
use super::proto::PubsubMessage;
use crate::store::StoreError;

const TOPICS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pubsub.topics");
const SUBSCRIPTIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pubsub.subscriptions");
/// Id → message, encoded.
const MESSAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("pubsub.messages");
/// Id → subscriptions that have not acknowledged it.
const OWED: TableDefinition<'_, u64, u32> = TableDefinition::new("pubsub.owed");
/// (Subscription, id) of every unacknowledged delivery.
const PENDING: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("pubsub.pending");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("pubsub.counters");

/// A subscription as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubscriptionRecord {
    /// `projects/P/topics/T`.
    pub(crate) topic: String,
    /// Seconds.
    pub(crate) ack_deadline: u32,
    /// `projects/P/topics/T` and the number of deliveries before that.
    pub(crate) dead_letter: Option<(String, u32)>,
}

pub(crate) fn create_tables(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(TOPICS)?;
    txn.open_table(SUBSCRIPTIONS)?;
    txn.open_table(MESSAGES)?;
    txn.open_table(OWED)?;
    txn.open_table(PENDING)?;
    txn.open_table(COUNTERS)?;
    Ok(())
}

pub(crate) fn topics(txn: &WriteTransaction) -> Result<Vec<String>, StoreError> {
    txn.open_table(TOPICS)?.iter()?.map(|row| Ok(row?.0.value().to_owned())).collect()
}

pub(crate) fn put_topic(txn: &WriteTransaction, name: &str) -> Result<(), StoreError> {
    txn.open_table(TOPICS)?.insert(name, [].as_slice())?;
    Ok(())
}

pub(crate) fn remove_topic(txn: &WriteTransaction, name: &str) -> Result<(), StoreError> {
    txn.open_table(TOPICS)?.remove(name)?;
    Ok(())
}

pub(crate) fn subscriptions(txn: &WriteTransaction) -> Result<Vec<(String, SubscriptionRecord)>, StoreError> {
    let table = txn.open_table(SUBSCRIPTIONS)?;
    let mut found = Vec::new();
    for row in table.iter()? {
        let (name, record) = row?;
        let corrupt = |_| StoreError::Corrupt(format!("subscription {}", name.value()));
        found.push((name.value().to_owned(), serde_json::from_slice(record.value()).map_err(corrupt)?));
    }
    Ok(found)
}

pub(crate) fn put_subscription(
    txn: &WriteTransaction,
    name: &str,
    record: &SubscriptionRecord,
) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(record).expect("a record is plain JSON");
    txn.open_table(SUBSCRIPTIONS)?.insert(name, bytes.as_slice())?;
    Ok(())
}

pub(crate) fn remove_subscription(txn: &WriteTransaction, name: &str) -> Result<(), StoreError> {
    txn.open_table(SUBSCRIPTIONS)?.remove(name)?;
    let rows: Vec<u64> = {
        let pending = txn.open_table(PENDING)?;
        let range = pending.range((name, 0)..=(name, u64::MAX))?;
        range.map(|row| Ok(row?.0.value().1)).collect::<Result<_, StoreError>>()?
    };
    settle(txn, name, &rows)
}

/// Appends one message for the given subscriptions and returns its id; without any it is not kept.
pub(crate) fn append(
    txn: &WriteTransaction,
    subscriptions: &[String],
    message: &PubsubMessage,
) -> Result<MessageId, StoreError> {
    let id = {
        let mut counters = txn.open_table(COUNTERS)?;
        let id = counters.get("message")?.map_or(0, |last| last.value()) + 1;
        counters.insert("message", id)?;
        id
    };
    if subscriptions.is_empty() {
        return Ok(id);
    }
    let message = PubsubMessage { message_id: id.to_string(), ..message.clone() };
    txn.open_table(MESSAGES)?.insert(id, message.encode_to_vec().as_slice())?;
    txn.open_table(OWED)?.insert(id, u32::try_from(subscriptions.len()).unwrap_or(u32::MAX))?;
    let mut pending = txn.open_table(PENDING)?;
    for subscription in subscriptions {
        pending.insert((subscription.as_str(), id), ())?;
    }
    Ok(id)
}

/// The subscription has acknowledged these; a message that nobody owes any more is deleted.
pub(crate) fn settle(txn: &WriteTransaction, subscription: &str, ids: &[MessageId]) -> Result<(), StoreError> {
    let mut pending = txn.open_table(PENDING)?;
    let mut owed = txn.open_table(OWED)?;
    let mut messages = txn.open_table(MESSAGES)?;
    for id in ids {
        if pending.remove((subscription, *id))?.is_none() {
            continue;
        }
        let left = owed.get(*id)?.map_or(0, |count| count.value()).saturating_sub(1);
        if left == 0 {
            owed.remove(*id)?;
            messages.remove(*id)?;
        } else {
            owed.insert(*id, left)?;
        }
    }
    Ok(())
}

/// Ids of unacknowledged deliveries newer than `after`.
pub(crate) fn pending_after(
    txn: &ReadTransaction,
    subscription: &str,
    after: MessageId,
) -> Result<Vec<MessageId>, StoreError> {
    let pending = txn.open_table(PENDING)?;
    let range = pending.range((subscription, after + 1)..=(subscription, u64::MAX))?;
    range.map(|row| Ok(row?.0.value().1)).collect()
}

/// The messages with these ids; one that was settled meanwhile is left out.
pub(crate) fn load(
    txn: &ReadTransaction,
    ids: &[(MessageId, u32)],
) -> Result<Vec<(MessageId, u32, PubsubMessage)>, StoreError> {
    let messages = txn.open_table(MESSAGES)?;
    let mut found = Vec::with_capacity(ids.len());
    for (id, attempt) in ids {
        if let Some(bytes) = messages.get(*id)? {
            let message = PubsubMessage::decode(Bytes::copy_from_slice(bytes.value()))
                .map_err(|_| StoreError::Corrupt(format!("message {id}")))?;
            found.push((*id, *attempt, message));
        }
    }
    Ok(found)
}
