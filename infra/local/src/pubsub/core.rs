//! One subscription's deliveries. Pure: ids, leases and deadlines; takes `now`, knows neither bodies nor sockets.
//!
//! ```text
//! add ─► ready ─take─► leased ─ack─► gone
//!          ▲             │
//!          └─nack, expire┘        take with the attempts used up ─► dead (the caller forwards it, then acks)
//! ```

use std::collections::{BTreeSet, HashMap};

/// A message's id: unique and increasing over all topics.
pub(crate) type MessageId = u64;
/// Microseconds since 1970.
pub(crate) type Micros = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    until: Micros,
    holder: u64,
}

/// The deliveries of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Core {
    ready: BTreeSet<(Micros, MessageId)>,
    leases: HashMap<MessageId, Lease>,
    ends: BTreeSet<(Micros, MessageId)>,
    attempts: HashMap<MessageId, u32>,
    held: HashMap<u64, usize>,
    newest: MessageId,
}

/// What [`Core::take`] hands out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// To deliver, each with its attempt from 1.
    pub(crate) deliver: Vec<(MessageId, u32)>,
    /// Deliveries used up; leased like the others until the caller has forwarded and acked them.
    pub(crate) dead: Vec<(MessageId, u32)>,
}

impl Core {
    /// The newest id ever added.
    pub(crate) fn newest(&self) -> MessageId {
        self.newest
    }

    /// A message to deliver, not before `due`.
    pub(crate) fn add(&mut self, id: MessageId, due: Micros) {
        self.newest = self.newest.max(id);
        self.ready.insert((due, id));
    }

    /// Leases up to `max` due messages to `holder` until `until`.
    pub(crate) fn take(
        &mut self,
        now: Micros,
        until: Micros,
        max: usize,
        holder: u64,
        max_attempts: Option<u32>,
    ) -> Taken {
        let mut taken = Taken::default();
        while taken.deliver.len() < max && self.ready.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, id)) = self.ready.pop_first() else { break };
            let attempts = self.attempts.entry(id).or_default();
            let is_dead = max_attempts.is_some_and(|max| *attempts >= max);
            if !is_dead {
                *attempts += 1;
            }
            let attempts = *attempts;
            self.leases.insert(id, Lease { until, holder });
            self.ends.insert((until, id));
            *self.held.entry(holder).or_default() += 1;
            if is_dead { taken.dead.push((id, attempts)) } else { taken.deliver.push((id, attempts)) }
        }
        taken
    }

    fn release(&mut self, id: MessageId) -> bool {
        let Some(lease) = self.leases.remove(&id) else { return false };
        self.ends.remove(&(lease.until, id));
        if let Some(held) = self.held.get_mut(&lease.holder) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&lease.holder);
            }
        }
        true
    }

    /// The message is dealt with; true if it was still known. An expired lease does not matter.
    pub(crate) fn ack(&mut self, id: MessageId) -> bool {
        let leased = self.release(id);
        let known = self.attempts.remove(&id).is_some();
        if !leased && known {
            // Waiting again, with the due time it was given back with.
            let waiting = self.ready.iter().find(|(_, waiting)| *waiting == id).copied();
            if let Some(entry) = waiting {
                self.ready.remove(&entry);
            }
        }
        known
    }

    /// The message is given back.
    pub(crate) fn nack(&mut self, id: MessageId, now: Micros) {
        if self.release(id) {
            self.ready.insert((now, id));
        }
    }

    /// The lease is prolonged, if it still holds.
    pub(crate) fn extend(&mut self, id: MessageId, until: Micros) {
        if let Some(lease) = self.leases.get_mut(&id) {
            self.ends.remove(&(lease.until, id));
            lease.until = until;
            self.ends.insert((until, id));
        }
    }

    /// Gives back what was leased for too long.
    pub(crate) fn expire(&mut self, now: Micros) {
        while let Some((_, id)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.nack(id, now);
        }
    }

    /// How many messages `holder` has in hand.
    pub(crate) fn held_by(&self, holder: u64) -> usize {
        self.held.get(&holder).copied().unwrap_or(0)
    }

    /// How often the message was delivered; `None` if it never was, or is dealt with.
    pub(crate) fn attempts(&self, id: MessageId) -> Option<u32> {
        self.attempts.get(&id).copied()
    }

    /// When something is due next: a message, or the end of a lease.
    pub(crate) fn next_due(&self) -> Option<Micros> {
        let ready = self.ready.first().map(|(due, _)| *due);
        ready.into_iter().chain(self.next_end()).min()
    }

    /// When the next lease ends: all that whoever can take no message waits for.
    pub(crate) fn next_end(&self) -> Option<Micros> {
        self.ends.first().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Add,
        Take(usize),
        Ack(usize),
        Nack(usize),
        Extend(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Add),
            3 => (1usize..4).prop_map(Step::Take),
            2 => any::<usize>().prop_map(Step::Ack),
            1 => any::<usize>().prop_map(Step::Nack),
            1 => any::<usize>().prop_map(Step::Extend),
            2 => (1u64..30).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn nothing_acked_comes_back_and_nothing_unacked_is_lost(steps in proptest::collection::vec(step(), 1..200)) {
            let (mut core, mut now, mut next) = (Core::default(), 0, 1);
            let (mut unacked, mut acked) = (BTreeSet::new(), BTreeSet::new());
            let mut delivered: Vec<MessageId> = Vec::new();
            for step in steps {
                match step {
                    Step::Add => {
                        core.add(next, now);
                        unacked.insert(next);
                        next += 1;
                    }
                    Step::Take(max) => {
                        for (id, _) in core.take(now, now + 10, max, 1, None).deliver {
                            prop_assert!(unacked.contains(&id) && !acked.contains(&id));
                            delivered.push(id);
                        }
                    }
                    Step::Pass(time) => {
                        now += time;
                        core.expire(now);
                    }
                    Step::Ack(pick) | Step::Nack(pick) | Step::Extend(pick) if delivered.is_empty() => { let _: usize = pick; }
                    Step::Ack(pick) => {
                        let id = delivered[pick % delivered.len()];
                        core.ack(id);
                        unacked.remove(&id);
                        acked.insert(id);
                    }
                    Step::Nack(pick) => core.nack(delivered[pick % delivered.len()], now),
                    Step::Extend(pick) => core.extend(delivered[pick % delivered.len()], now + 10),
                }
            }
            core.expire(now + 100);
            let rest: BTreeSet<_> =
                core.take(now + 100, now + 200, usize::MAX, 2, None).deliver.into_iter().map(|(id, _)| id).collect();
            prop_assert_eq!(rest, unacked);
        }
    }

    #[test]
    fn a_message_is_dead_after_its_last_attempt() {
        let mut core = Core::default();
        core.add(1, 0);
        for attempt in 1..=5 {
            assert_eq!(core.take(0, 10, 1, 1, Some(5)).deliver, [(1, attempt)]);
            core.nack(1, 0);
        }
        assert_eq!(core.take(0, 10, 1, 1, Some(5)).dead, [(1, 5)]);
        assert!(core.ack(1));
        assert_eq!(core.next_due(), None);
    }

    #[test]
    fn who_has_no_room_is_not_woken_by_messages_that_wait() {
        let mut core = Core::default();
        (1..=2).for_each(|id| core.add(id, 3));
        core.take(5, 10, 1, 7, None);
        assert_eq!((core.next_due(), core.next_end()), (Some(3), Some(10)));
    }

    #[test]
    fn what_a_holder_has_in_hand_is_counted() {
        let mut core = Core::default();
        (1..=3).for_each(|id| core.add(id, 0));
        core.take(0, 10, 2, 7, None);
        assert_eq!(core.held_by(7), 2);
        core.ack(1);
        core.expire(10);
        assert_eq!(core.held_by(7), 0);
    }
}
