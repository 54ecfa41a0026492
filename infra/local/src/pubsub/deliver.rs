//! What happens to a subscription's messages: taken up from the tables, handed out, acknowledged, given back.
//!
//! The core decides under its lock; the tables follow. Nothing waits while it holds the lock but reading a page.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ack_id::AckId;
use super::core::{Handed, MessageId, Room, Terms};
use super::proto::PubsubMessage;
use super::record::SubscriptionRecord;
use super::shelf::Loaded;
use super::{PubSub, Subscription, micros, now_us, shelf};
use crate::faults::Fault;
use crate::store::StoreError;

/// Ids of the backlog that are read at once.
const PAGE: usize = 4_000;
/// Bytes of messages in one answer at most; what a message may hold is less.
pub(super) const BATCH_BYTES: usize = 10 << 20;

/// One delivery.
pub(super) struct Delivered {
    pub(super) id: AckId,
    pub(super) attempt: u32,
    pub(super) message: PubsubMessage,
}

impl PubSub {
    /// Adds committed messages that the core has not seen, as far as its window has room. The lock is held over the
    /// look, so none is added twice.
    pub(super) fn take_up(&self, subscription: &Subscription) -> Result<(), StoreError> {
        let now = now_us();
        let mut core = subscription.core();
        while core.is_hungry(now) && subscription.more.swap(false, Ordering::AcqRel) {
            let (newest, ordered) = (core.newest(), subscription.record().ordered);
            let page = self.0.store.read(|txn| shelf::page(txn, &subscription.name, newest, PAGE, ordered));
            let page = page.inspect_err(|_| subscription.more.store(true, Ordering::Release))?;
            if page.len() == PAGE {
                subscription.more.store(true, Ordering::Release);
            }
            for (id, key) in page {
                let delayed = self.0.faults.roll(Fault::Delay);
                core.add(id, if delayed { now + micros(self.0.faults.delay()) } else { now }, key.as_deref());
            }
        }
        Ok(())
    }

    /// What the deliveries of a subscription keep to now. A topic that is gone would swallow what is dead: then it keeps
    /// coming, as at Google.
    pub(super) fn terms(&self, record: &SubscriptionRecord) -> Terms {
        record.terms(record.dead_letter.as_ref().is_some_and(|(topic, _)| self.has_topic(topic)))
    }

    /// Leases messages to `holder`, as many as there is room for; those whose deliveries are used up go to the dead-letter
    /// topic.
    pub(super) async fn deliver(
        &self,
        subscription: &Arc<Subscription>,
        room: Room,
        deadline: Duration,
        holder: u64,
    ) -> Result<Vec<Delivered>, StoreError> {
        let now = now_us();
        let terms = self.terms(&subscription.record());
        if subscription.more.load(Ordering::Acquire) {
            self.take_up(subscription)?;
        }
        let deadline = self.0.faults.lease(deadline);
        let (alone, taken) = {
            let mut core = subscription.core();
            core.expire(now, terms);
            let alone = core.held_by(holder).messages == 0;
            (alone, core.take(now, now + micros(deadline), room, holder, terms))
        };
        if !taken.dead.is_empty() {
            let (service, of, dead) = (self.clone(), subscription.clone(), taken.dead);
            self.to_its_end(async move { service.bury(&of, &dead).await }).await?;
        }
        if taken.deliver.is_empty() {
            return Ok(Vec::new());
        }
        let loaded = self.0.store.read(|txn| shelf::load(txn, &taken.deliver, room.bytes, alone))?;
        let Loaded { found, sizes, rest, lost } = loaded;
        {
            let mut core = subscription.core();
            sizes.iter().for_each(|(id, bytes)| core.weigh(*id, *bytes));
            rest.iter().for_each(|handed| core.give_back(*handed));
        }
        if !rest.is_empty() {
            subscription.changed.notify_waiters();
        }
        if !lost.is_empty() {
            let (service, of) = (self.clone(), subscription.clone());
            self.to_its_end(async move { service.give_up(&of, lost).await }).await?;
        }
        let delivered = |(handed, message): (Handed, PubsubMessage)| Delivered {
            id: AckId {
                message: handed.id,
                delivery: handed.delivery,
                life: subscription.life,
                of: subscription.mark(),
            },
            attempt: handed.attempt,
            message,
        };
        Ok(found.into_iter().map(delivered).collect())
    }

    /// Acknowledges; resolves once that is durable. Gives back what was no delivery that holds its message, of a
    /// subscription that delivers exactly once; any other takes an acknowledgement however late it is.
    pub(super) async fn acknowledge(
        &self,
        subscription: &Arc<Subscription>,
        ids: Vec<String>,
    ) -> Result<Vec<String>, StoreError> {
        let terms = self.terms(&subscription.record());
        let (mut settled, mut invalid) = (Vec::with_capacity(ids.len()), Vec::new());
        {
            let now = now_us();
            let mut core = subscription.core();
            for text in ids {
                let id = AckId::parse(&text);
                if terms.exactly_once && !id.is_some_and(|id| subscription.is_held(&core, id, now)) {
                    invalid.push(text);
                    continue;
                }
                let Some(id) = id.filter(|id| id.of == subscription.mark()).map(|id| id.message) else { continue };
                if core.deliveries(id) == Some(1) && !terms.exactly_once && self.0.faults.roll(Fault::Redeliver) {
                    core.nack(id, now, terms);
                } else {
                    settled.extend(core.ack(id, terms));
                }
            }
        }
        subscription.changed.notify_waiters();
        if settled.is_empty() {
            return Ok(invalid);
        }
        if let Err(error) = self.settle(subscription, settled).await {
            // The core has let them go and the tables have not: it begins anew from those.
            if self.subscription(&subscription.name).is_some_and(|live| Arc::ptr_eq(&live, subscription)) {
                self.attach(subscription.name.clone(), (*subscription.record()).clone())?;
            }
            return Err(error);
        }
        Ok(invalid)
    }

    /// Writes down what was acknowledged.
    pub(super) async fn settle(&self, subscription: &Subscription, gone: Vec<MessageId>) -> Result<(), StoreError> {
        let name = subscription.name.clone();
        let keeper = subscription.record().retain_acked.then(|| shelf::acked(&name));
        self.0.store.write(move |txn| shelf::settle(txn, &name, keeper.as_deref(), &gone)).await
    }

    /// Prolongs leases, or gives messages back where the deadline is zero. Gives back what was no delivery that holds
    /// its message.
    pub(super) fn modify(
        &self,
        subscription: &Subscription,
        changes: impl IntoIterator<Item = (String, Duration)>,
    ) -> Vec<String> {
        let now = now_us();
        let terms = self.terms(&subscription.record());
        let mut invalid = Vec::new();
        let mut core = subscription.core();
        for (text, deadline) in changes {
            match AckId::parse(&text).filter(|id| subscription.is_held(&core, *id, now)) {
                None => invalid.push(text),
                Some(id) if deadline.is_zero() => core.nack(id.message, now, terms),
                Some(id) => core.extend(id.message, now + micros(deadline)),
            }
        }
        drop(core);
        subscription.changed.notify_waiters();
        invalid
    }
}
