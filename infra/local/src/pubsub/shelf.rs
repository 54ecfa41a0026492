//! Pub/Sub's tables: a message once, and a row for each holder that still needs it.
//!
//! Holders are subscriptions (`projects/P/subscriptions/S`, what is not acknowledged), snapshots, topics that keep their
//! messages, and what a subscription keeps of the acknowledged ([`acked`]). A message that nobody holds is deleted.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use prost::Message as _;
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::Serialize;

use super::aside::ASIDE;
use super::core::{Handed, MessageId, Micros};
use super::filter::Filter;
use super::proto::PubsubMessage;
use super::record::{SnapshotRecord, SubscriptionRecord, TopicRecord};
use crate::store::StoreError;

pub(super) const TOPICS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("pubsub.topics");
pub(super) const SUBSCRIPTIONS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("pubsub.subscriptions");
pub(super) const SNAPSHOTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("pubsub.snapshots");
/// Id → message, encoded. Publish times rise with the ids.
pub(super) const MESSAGES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("pubsub.messages");
/// Id → number of holders.
const OWED: TableDefinition<'_, u64, u32> = TableDefinition::new("pubsub.owed");
/// (Holder, id).
const PENDING: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("pubsub.pending");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("pubsub.counters");

/// The holder of what a subscription keeps although it was acknowledged.
pub(crate) fn acked(subscription: &str) -> String {
    format!("{subscription}#acked")
}

pub(crate) fn create_tables(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(TOPICS)?;
    txn.open_table(SUBSCRIPTIONS)?;
    txn.open_table(SNAPSHOTS)?;
    txn.open_table(MESSAGES)?;
    txn.open_table(OWED)?;
    txn.open_table(PENDING)?;
    txn.open_table(COUNTERS)?;
    txn.open_table(ASIDE)?;
    Ok(())
}

pub(super) type Records = TableDefinition<'static, &'static str, &'static [u8]>;

/// Every record of a table.
fn records<T>(
    txn: &WriteTransaction,
    table: Records,
    read: impl Fn(&[u8]) -> Result<T, serde_json::Error>,
) -> Result<Vec<(String, T)>, StoreError> {
    let table = txn.open_table(table)?;
    let mut found = Vec::new();
    for row in table.iter()? {
        let (name, record) = row?;
        let corrupt = |_| StoreError::Corrupt(format!("pub/sub's {}", name.value()));
        found.push((name.value().to_owned(), read(record.value()).map_err(corrupt)?));
    }
    Ok(found)
}

fn put<T: Serialize>(txn: &WriteTransaction, table: Records, name: &str, record: &T) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(record).expect("a record is plain JSON");
    txn.open_table(table)?.insert(name, bytes.as_slice())?;
    Ok(())
}

pub(crate) fn topics(txn: &WriteTransaction) -> Result<Vec<(String, TopicRecord)>, StoreError> {
    // One that says nothing is as it is by default.
    records(
        txn,
        TOPICS,
        |bytes| if bytes.is_empty() { Ok(TopicRecord::default()) } else { serde_json::from_slice(bytes) },
    )
}

pub(crate) fn put_topic(txn: &WriteTransaction, name: &str, record: &TopicRecord) -> Result<(), StoreError> {
    put(txn, TOPICS, name, record)
}

/// What it kept is kept no longer.
pub(crate) fn remove_topic(txn: &WriteTransaction, name: &str) -> Result<(), StoreError> {
    txn.open_table(TOPICS)?.remove(name)?;
    drop_before(txn, name, MessageId::MAX)
}

pub(crate) fn subscriptions(txn: &WriteTransaction) -> Result<Vec<(String, SubscriptionRecord)>, StoreError> {
    records(txn, SUBSCRIPTIONS, |bytes| serde_json::from_slice(bytes))
}

pub(crate) fn put_subscription(
    txn: &WriteTransaction,
    name: &str,
    record: &SubscriptionRecord,
) -> Result<(), StoreError> {
    if !record.retain_acked {
        drop_before(txn, &acked(name), MessageId::MAX)?;
    }
    if record.detached {
        drop_before(txn, name, MessageId::MAX)?;
        drop_before(txn, &acked(name), MessageId::MAX)?;
    }
    put(txn, SUBSCRIPTIONS, name, record)
}

pub(crate) fn remove_subscription(txn: &WriteTransaction, name: &str) -> Result<(), StoreError> {
    txn.open_table(SUBSCRIPTIONS)?.remove(name)?;
    drop_before(txn, name, MessageId::MAX)?;
    drop_before(txn, &acked(name), MessageId::MAX)
}

pub(crate) fn snapshots(txn: &WriteTransaction) -> Result<Vec<(String, SnapshotRecord)>, StoreError> {
    records(txn, SNAPSHOTS, |bytes| serde_json::from_slice(bytes))
}

pub(crate) fn put_snapshot(txn: &WriteTransaction, name: &str, record: &SnapshotRecord) -> Result<(), StoreError> {
    put(txn, SNAPSHOTS, name, record)
}

pub(crate) fn remove_snapshot(txn: &WriteTransaction, name: &str) -> Result<(), StoreError> {
    txn.open_table(SNAPSHOTS)?.remove(name)?;
    drop_before(txn, name, MessageId::MAX)
}

/// The end of the tables of messages; opened once for many, which costs as much as appending one.
pub(crate) struct Appender<'txn> {
    counters: Table<'txn, &'static str, u64>,
    messages: Table<'txn, u64, &'static [u8]>,
    owed: Table<'txn, u64, u32>,
    pending: Table<'txn, (&'static str, u64), ()>,
    last: MessageId,
}

impl<'txn> Appender<'txn> {
    pub(crate) fn open(txn: &'txn WriteTransaction) -> Result<Self, StoreError> {
        let counters = txn.open_table(COUNTERS)?;
        let last = counters.get("message")?.map_or(0, |last| last.value());
        let (messages, owed, pending) = (txn.open_table(MESSAGES)?, txn.open_table(OWED)?, txn.open_table(PENDING)?);
        Ok(Self { counters, messages, owed, pending, last })
    }

    /// Appends one message for the given holders and returns its id; without any it is not kept.
    pub(crate) fn append(&mut self, holders: &[&str], message: PubsubMessage) -> Result<MessageId, StoreError> {
        self.last += 1;
        let id = self.last;
        if holders.is_empty() {
            return Ok(id);
        }
        let message = PubsubMessage { message_id: id.to_string(), ..message };
        self.messages.insert(id, message.encode_to_vec().as_slice())?;
        self.owed.insert(id, u32::try_from(holders.len()).unwrap_or(u32::MAX))?;
        for holder in holders {
            self.pending.insert((*holder, id), ())?;
        }
        Ok(id)
    }

    /// Without this the ids are given again.
    pub(crate) fn finish(mut self) -> Result<(), StoreError> {
        self.counters.insert("message", self.last)?;
        Ok(())
    }
}

/// These are held no longer; `keeper` holds them from now on, if there is one.
pub(crate) fn settle(
    txn: &WriteTransaction,
    holder: &str,
    keeper: Option<&str>,
    ids: &[MessageId],
) -> Result<(), StoreError> {
    let mut pending = txn.open_table(PENDING)?;
    let mut owed = txn.open_table(OWED)?;
    let mut messages = txn.open_table(MESSAGES)?;
    for id in ids {
        if pending.remove((holder, *id))?.is_none() {
            continue;
        }
        if let Some(keeper) = keeper
            && pending.insert((keeper, *id), ())?.is_none()
        {
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

/// Which of these `holder` holds.
pub(crate) fn still_held(
    txn: &WriteTransaction,
    holder: &str,
    ids: impl Iterator<Item = MessageId>,
) -> Result<BTreeSet<MessageId>, StoreError> {
    let pending = txn.open_table(PENDING)?;
    let mut held = BTreeSet::new();
    for id in ids {
        if pending.get((holder, id))?.is_some() {
            held.insert(id);
        }
    }
    Ok(held)
}

/// When the newest message of all was published, as far as it is still kept.
pub(crate) fn newest_time(txn: &WriteTransaction) -> Result<Micros, StoreError> {
    let messages = txn.open_table(MESSAGES)?;
    for row in messages.iter()?.rev() {
        if let Some(time) = published(row?.1.value()) {
            return Ok(time);
        }
    }
    Ok(0)
}

/// `holder` holds these too, as far as they are still kept.
fn hold(txn: &WriteTransaction, holder: &str, ids: &[MessageId]) -> Result<(), StoreError> {
    let mut pending = txn.open_table(PENDING)?;
    let mut owed = txn.open_table(OWED)?;
    for id in ids {
        let Some(count) = owed.get(*id)?.map(|count| count.value()) else { continue };
        if pending.insert((holder, *id), ())?.is_none() {
            owed.insert(*id, count + 1)?;
        }
    }
    Ok(())
}

/// The first that `holder` holds, from one id on and up to before another.
fn first_held(
    txn: &WriteTransaction,
    holder: &str,
    range: Range<MessageId>,
    most: usize,
) -> Result<Vec<MessageId>, StoreError> {
    let pending = txn.open_table(PENDING)?;
    let range = pending.range((holder, range.start)..(holder, range.end))?;
    range.take(most).map(|row| Ok(row?.0.value().1)).collect()
}

/// All of them.
fn held(txn: &WriteTransaction, holder: &str, range: Range<MessageId>) -> Result<Vec<MessageId>, StoreError> {
    first_held(txn, holder, range, usize::MAX)
}

/// `holder` holds nothing older than this id any more.
pub(crate) fn drop_before(txn: &WriteTransaction, holder: &str, before: MessageId) -> Result<(), StoreError> {
    let ids = held(txn, holder, 0..before)?;
    settle(txn, holder, None, &ids)
}

/// Settles the first that `holder` holds of a range; whether there may be more.
pub(crate) fn settle_some(
    txn: &WriteTransaction,
    holder: &str,
    keeper: Option<&str>,
    range: Range<MessageId>,
    most: usize,
) -> Result<bool, StoreError> {
    let ids = first_held(txn, holder, range, most)?;
    settle(txn, holder, keeper, &ids)?;
    Ok(ids.len() == most)
}

/// When the oldest message that `holder` holds was published, from one id on.
pub(crate) fn oldest(txn: &WriteTransaction, holder: &str, from: MessageId) -> Result<Option<Micros>, StoreError> {
    let (pending, messages) = (txn.open_table(PENDING)?, txn.open_table(MESSAGES)?);
    for row in pending.range((holder, from)..(holder, MessageId::MAX))? {
        let time = messages.get(row?.0.value().1)?.and_then(|bytes| published(bytes.value()));
        if time.is_some() {
            return Ok(time);
        }
    }
    Ok(None)
}

/// `None` if it is torn: what was appended has an id and a time, which a message cut short may have lost. The ordering key
/// comes after both: one cut right before it is not told from a message that has none.
fn decoded(bytes: &[u8]) -> Option<PubsubMessage> {
    let message = PubsubMessage::decode(Bytes::copy_from_slice(bytes)).ok()?;
    (!message.message_id.is_empty() && message.publish_time.is_some()).then_some(message)
}

fn published(bytes: &[u8]) -> Option<Micros> {
    let time = decoded(bytes)?.publish_time?;
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    Some(seconds * 1_000_000 + u64::try_from(time.nanos / 1_000).unwrap_or(0))
}

/// The first id that is not older than this: whatever is below was published before. What is torn is as old as what
/// follows it.
pub(crate) fn boundary(messages: &impl ReadableTable<u64, &'static [u8]>, at: Micros) -> Result<MessageId, StoreError> {
    let (mut low, mut high) = (0, messages.last()?.map_or(0, |(id, _)| id.value()) + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut found = None;
        for row in messages.range(middle..high)? {
            let (id, bytes) = row?;
            found = published(bytes.value()).map(|time| (id.value(), time));
            if found.is_some() {
                break;
            }
        }
        match found {
            Some((id, time)) if time < at => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// Those of the ids whose messages a filter takes.
fn taken(txn: &WriteTransaction, ids: Vec<MessageId>, filter: Option<&Filter>) -> Result<Vec<MessageId>, StoreError> {
    let Some(filter) = filter else { return Ok(ids) };
    let messages = txn.open_table(MESSAGES)?;
    let mut found = Vec::new();
    for id in ids {
        if let Some(bytes) = messages.get(id)? {
            // One that is torn is put aside once it is to be delivered.
            let takes = |message: PubsubMessage| filter.takes(&|key| message.attributes.get(key).map(String::as_str));
            if decoded(bytes.value()).is_none_or(takes) {
                found.push(id);
            }
        }
    }
    Ok(found)
}

/// What was published before `at` is acknowledged, everything else that is still kept is not.
pub(crate) fn seek_to_time(
    txn: &WriteTransaction,
    name: &str,
    record: &SubscriptionRecord,
    filter: Option<&Filter>,
    at: Micros,
) -> Result<(), StoreError> {
    let from = boundary(&txn.open_table(MESSAGES)?, at)?;
    let keeper = acked(name);
    let past = held(txn, name, 0..from)?;
    settle(txn, name, record.retain_acked.then_some(keeper.as_str()), &past)?;
    let back = held(txn, &keeper, from..MessageId::MAX)?;
    settle(txn, &keeper, Some(name), &back)?;
    let of_topic = held(txn, &record.topic, from..MessageId::MAX)?;
    hold(txn, name, &taken(txn, of_topic, filter)?)
}

/// The subscription holds what the snapshot holds.
pub(crate) fn seek_to_snapshot(
    txn: &WriteTransaction,
    name: &str,
    record: &SubscriptionRecord,
    snapshot: &str,
) -> Result<(), StoreError> {
    let keeper = acked(name);
    let kept = held(txn, snapshot, 0..MessageId::MAX)?;
    hold(txn, name, &kept)?;
    settle(txn, &keeper, None, &kept)?;
    let kept: BTreeSet<MessageId> = kept.into_iter().collect();
    let mut past = held(txn, name, 0..MessageId::MAX)?;
    past.retain(|id| !kept.contains(id));
    settle(txn, name, record.retain_acked.then_some(keeper.as_str()), &past)
}

/// The snapshot holds what the subscription holds, from one id on.
pub(crate) fn snap(
    txn: &WriteTransaction,
    subscription: &str,
    snapshot: &str,
    from: MessageId,
) -> Result<(), StoreError> {
    let ids = held(txn, subscription, from..MessageId::MAX)?;
    hold(txn, snapshot, &ids)
}

/// Up to `most` ids of unacknowledged deliveries newer than `after`, with their ordering keys if those matter.
pub(crate) fn page(
    txn: &ReadTransaction,
    subscription: &str,
    after: MessageId,
    most: usize,
    ordered: bool,
) -> Result<Vec<(MessageId, Option<String>)>, StoreError> {
    let pending = txn.open_table(PENDING)?;
    let messages = txn.open_table(MESSAGES)?;
    let mut found = Vec::new();
    for row in pending.range((subscription, after + 1)..=(subscription, MessageId::MAX))?.take(most) {
        let id = row?.0.value().1;
        let bytes = if ordered { messages.get(id)? } else { None };
        // One that is torn has no key, and is put aside once it is to be delivered.
        let key = bytes.and_then(|bytes| decoded(bytes.value())).map(|message| message.ordering_key);
        found.push((id, key.filter(|key| !key.is_empty())));
    }
    Ok(found)
}

/// What [`load`] has found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// As many as there was room for.
    pub(crate) found: Vec<(Handed, PubsubMessage)>,
    /// How large each is that was looked at.
    pub(crate) sizes: Vec<(MessageId, usize)>,
    /// There was no room for these.
    pub(crate) rest: Vec<Handed>,
    /// Not there, or torn.
    pub(crate) lost: Vec<MessageId>,
}

/// The messages handed out, up to so many bytes; `alone` lets the first be larger than that.
pub(crate) fn load(txn: &ReadTransaction, handed: &[Handed], bytes: usize, alone: bool) -> Result<Loaded, StoreError> {
    let messages = txn.open_table(MESSAGES)?;
    let (mut loaded, mut left) = (Loaded::default(), bytes);
    for (place, one) in handed.iter().enumerate() {
        let Some(bytes) = messages.get(one.id)? else {
            loaded.lost.push(one.id);
            continue;
        };
        let size = bytes.value().len();
        loaded.sizes.push((one.id, size));
        if size > left && !(alone && loaded.found.is_empty()) {
            loaded.rest = handed[place..].to_vec();
            break;
        }
        match decoded(bytes.value()) {
            Some(message) => {
                left = left.saturating_sub(size);
                loaded.found.push((*one, message));
            }
            None => loaded.lost.push(one.id),
        }
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests;
