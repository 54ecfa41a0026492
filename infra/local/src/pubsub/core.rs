//! One subscription's deliveries. Pure: ids, leases and deadlines; takes `now`, knows neither bodies nor sockets.
//!
//! ```text
//! add ─► waiting ─take─► leased ─ack─► gone
//!          ▲               │
//!          ├──nack, expire─┤      take with the attempts used up ─► dead (the caller forwards it, then acks)
//!          └───give_back───┘      as if it had not been taken
//! ```
//!
//! Of a key one batch is out at a time. What is given back takes all later ones of its key back with it, acknowledged or
//! not, so an acknowledgement counts once nothing earlier of the key is out; exactly-once delivery takes none back.
//! It holds a window of the backlog: [`Core::is_hungry`] says when the next page is wanted. A window full of one key's
//! messages hides what lies behind it until that key moves on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// A message's id: unique and increasing over all topics.
pub(crate) type MessageId = u64;
/// Microseconds since 1970.
pub(crate) type Micros = u64;

/// Messages that can be delivered now, below which the next page is wanted.
const LOW: usize = 1_000;
/// Messages that are held at most, those in somebody's hands among them.
const MOST: usize = 100_000;

/// How long what was given back waits: doubled with each failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backoff {
    /// After the first failure.
    pub(crate) minimum: Micros,
    /// After any number of them.
    pub(crate) maximum: Micros,
}

/// What a subscription promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Terms {
    /// Deliveries before a message is dead.
    pub(crate) max_attempts: Option<u32>,
    /// Without one nothing waits.
    pub(crate) backoff: Option<Backoff>,
    /// What is acknowledged never comes back.
    pub(crate) exactly_once: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Leased {
        until: Micros,
        holder: u64,
    },
    /// Something earlier of its key is still out.
    Acked,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Not to be delivered before.
    due: Micros,
    /// How often it was handed out, whatever for.
    deliveries: u32,
    /// How often it was itself given back or forgotten.
    failures: u32,
    /// 0 until it was read for the first time.
    bytes: usize,
    key: Option<Arc<str>>,
}

/// The messages of one ordering key; all that are out come before all that wait.
#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeSet<MessageId>,
    out: BTreeSet<MessageId>,
}

/// The deliveries of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Core {
    entries: HashMap<MessageId, Entry>,
    /// What may be delivered once it is due: of a key only the first, and only if none is out.
    ready: BTreeSet<(Micros, MessageId)>,
    ends: BTreeSet<(Micros, MessageId)>,
    lanes: HashMap<Arc<str>, Lane>,
    held: HashMap<u64, Held>,
    newest: MessageId,
}

/// What somebody has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    /// So many.
    pub(crate) messages: usize,
    /// Of those that were weighed.
    pub(crate) bytes: usize,
}

/// What somebody may be handed. Who has nothing in hand gets a message however large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// So many.
    pub(crate) messages: usize,
    /// As far as it is known how large they are.
    pub(crate) bytes: usize,
}

/// One delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handed {
    /// Which message.
    pub(crate) id: MessageId,
    /// Which delivery of it, from 1.
    pub(crate) delivery: u32,
    /// One more than its failures; of a dead one, its failures.
    pub(crate) attempt: u32,
}

/// What [`Core::take`] hands out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// To deliver.
    pub(crate) deliver: Vec<Handed>,
    /// Deliveries used up; leased like the others until the caller has forwarded and acked them.
    pub(crate) dead: Vec<Handed>,
}

impl Backoff {
    fn after(self, failures: u32) -> Micros {
        let doubled = self.minimum.saturating_mul(1 << failures.saturating_sub(1).min(32));
        doubled.min(self.maximum)
    }
}

impl Core {
    /// The newest id that was ever added, or that is too old to be.
    pub(crate) fn newest(&self) -> MessageId {
        self.newest
    }

    /// Whether there is room for the next page, and need.
    pub(crate) fn is_hungry(&self, now: Micros) -> bool {
        self.entries.len() < MOST && self.ready.range(..=(now, MessageId::MAX)).nth(LOW).is_none()
    }

    /// A message to deliver, not before `due`.
    pub(crate) fn add(&mut self, id: MessageId, due: Micros, key: Option<&str>) {
        self.newest = self.newest.max(id);
        let key: Option<Arc<str>> = key.map(Into::into);
        let entry = Entry { state: State::Waiting, due, deliveries: 0, failures: 0, bytes: 0, key: key.clone() };
        self.entries.insert(id, entry);
        match key {
            None => drop(self.ready.insert((due, id))),
            Some(key) => {
                let lane = self.lanes.entry(key.clone()).or_default();
                lane.waiting.insert(id);
                if lane.waiting.len() == 1 {
                    self.offer(&key);
                }
            }
        }
    }

    /// Whether `holder` may be handed this one too, with so many bytes left.
    fn fits(&self, id: MessageId, left: usize, holder: u64) -> bool {
        self.entries[&id].bytes <= left || self.held_by(holder).messages == 0
    }

    /// Whether `holder` may be handed what is to be delivered next.
    pub(crate) fn has_room(&self, room: Room, holder: u64) -> bool {
        room.messages > 0 && self.ready.first().is_none_or(|(_, id)| self.fits(*id, room.bytes, holder))
    }

    /// Leases due messages to `holder` until `until`, in order, as far as there is room.
    pub(crate) fn take(&mut self, now: Micros, until: Micros, room: Room, holder: u64, terms: Terms) -> Taken {
        let mut taken = Taken::default();
        let mut left = room.bytes;
        while taken.deliver.len() < room.messages
            && let Some((due, id)) = self.ready.first().copied()
            && due <= now
            && self.fits(id, left, holder)
        {
            self.ready.pop_first();
            let Some(key) = self.entries[&id].key.clone() else {
                left = left.saturating_sub(self.entries[&id].bytes);
                self.lease(id, until, holder, terms, &mut taken);
                continue;
            };
            let mut next = Some(id);
            while let Some(id) = next.filter(|id| taken.deliver.len() < room.messages && self.fits(*id, left, holder)) {
                left = left.saturating_sub(self.entries[&id].bytes);
                let lane = self.lanes.get_mut(&key).expect("a message with a key has a lane");
                lane.waiting.remove(&id);
                lane.out.insert(id);
                next = lane.waiting.first().copied();
                if !self.lease(id, until, holder, terms, &mut taken) {
                    // What follows a dead message waits until that is forwarded.
                    break;
                }
                let is_dead = |entry: &Entry| terms.max_attempts.is_some_and(|max| entry.failures >= max);
                next = next.filter(|next| {
                    let entry = &self.entries[next];
                    entry.due <= now && !is_dead(entry)
                });
            }
        }
        taken
    }

    /// False if its deliveries are used up.
    fn lease(&mut self, id: MessageId, until: Micros, holder: u64, terms: Terms, taken: &mut Taken) -> bool {
        let entry = self.entries.get_mut(&id).expect("what is ready is known");
        let is_dead = terms.max_attempts.is_some_and(|max| entry.failures >= max);
        entry.deliveries += 1;
        entry.state = State::Leased { until, holder };
        self.ends.insert((until, id));
        let held = self.held.entry(holder).or_default();
        held.messages += 1;
        held.bytes += entry.bytes;
        let handed = Handed { id, delivery: entry.deliveries, attempt: entry.failures + u32::from(!is_dead) };
        if is_dead {
            taken.dead.push(handed)
        } else {
            taken.deliver.push(handed)
        }
        !is_dead
    }

    /// Ends a lease; `false` if there is none.
    fn release(&mut self, id: MessageId, state: State) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let State::Leased { until, holder } = entry.state else { return false };
        entry.state = state;
        self.ends.remove(&(until, id));
        if let Some(held) = self.held.get_mut(&holder) {
            held.messages -= 1;
            held.bytes -= entry.bytes;
            if held.messages == 0 {
                self.held.remove(&holder);
            }
        }
        true
    }

    /// A message was read and is so large.
    pub(crate) fn weigh(&mut self, id: MessageId, bytes: usize) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let State::Leased { holder, .. } = entry.state
            && let Some(held) = self.held.get_mut(&holder)
        {
            held.bytes = held.bytes - entry.bytes + bytes;
        }
        entry.bytes = bytes;
    }

    /// A delivery that nobody was told of ends as if it had not been. What was taken of its key after it is to go back with
    /// it.
    pub(crate) fn give_back(&mut self, handed: Handed) {
        let Some(entry) = self.entries.get(&handed.id).filter(|entry| entry.deliveries == handed.delivery) else {
            return;
        };
        let (due, key) = (entry.due, entry.key.clone());
        if !self.release(handed.id, State::Waiting) {
            return;
        }
        self.entries.get_mut(&handed.id).expect("it was leased").deliveries -= 1;
        let Some(key) = key else {
            self.ready.insert((due, handed.id));
            return;
        };
        let lane = self.lanes.get_mut(&key).expect("a message with a key has a lane");
        lane.out.remove(&handed.id);
        lane.waiting.insert(handed.id);
        self.offer(&key);
    }

    /// The first of a key may be delivered if none of it is out; a key without messages is forgotten.
    fn offer(&mut self, key: &Arc<str>) {
        let Some(lane) = self.lanes.get(key) else { return };
        match lane.waiting.first() {
            _ if !lane.out.is_empty() => {}
            Some(id) => drop(self.ready.insert((self.entries[id].due, *id))),
            None => drop(self.lanes.remove(key)),
        }
    }

    /// Takes a message out, whatever becomes of it.
    fn remove(&mut self, id: MessageId) {
        self.release(id, State::Waiting);
        let Some(entry) = self.entries.remove(&id) else { return };
        self.ready.remove(&(entry.due, id));
        if let Some(key) = entry.key {
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.waiting.remove(&id);
                lane.out.remove(&id);
            }
            self.offer(&key);
        }
    }

    /// The message is dealt with; those that are gone with that. Whether its lease has expired does not matter, but what
    /// was never delivered, or waits behind another of its key, comes all the same.
    pub(crate) fn ack(&mut self, id: MessageId, terms: Terms) -> Vec<MessageId> {
        let Some(entry) = self.entries.get(&id).filter(|entry| entry.deliveries > 0) else { return Vec::new() };
        let key = entry.key.clone();
        let lane = key.as_ref().and_then(|key| self.lanes.get(key));
        let first = |lane: &Lane| lane.out.first().or(lane.waiting.first()).copied();
        let is_first = lane.is_none_or(|lane| first(lane) == Some(id));
        if !is_first && !terms.exactly_once {
            self.release(id, State::Acked);
            return Vec::new();
        }
        let mut gone = vec![id];
        self.remove(id);
        if let Some(key) = key {
            self.settle(&key, &mut gone);
        }
        gone
    }

    /// What is acknowledged and has nothing earlier of its key out is gone.
    fn settle(&mut self, key: &Arc<str>, gone: &mut Vec<MessageId>) {
        while let Some(next) = self.lanes.get(key).and_then(|lane| lane.out.first().copied())
            && self.entries[&next].state == State::Acked
        {
            gone.push(next);
            self.remove(next);
        }
    }

    /// The message is given back, and with it what is out of its key after it.
    pub(crate) fn nack(&mut self, id: MessageId, now: Micros, terms: Terms) {
        if !self.release(id, State::Waiting) {
            return;
        }
        let entry = self.entries.get_mut(&id).expect("it was leased");
        entry.failures += 1;
        entry.due = now + terms.backoff.map_or(0, |backoff| backoff.after(entry.failures));
        let due = entry.due;
        let Some(key) = entry.key.clone() else {
            self.ready.insert((due, id));
            return;
        };
        let back = self.lanes.get_mut(&key).expect("a message with a key has a lane").out.split_off(&id);
        for later in &back {
            self.release(*later, State::Waiting);
            self.entries.get_mut(later).expect("what is out is known").state = State::Waiting;
        }
        self.lanes.get_mut(&key).expect("as above").waiting.extend(back);
        self.offer(&key);
    }

    /// The lease is prolonged, if it still holds.
    pub(crate) fn extend(&mut self, id: MessageId, to: Micros) {
        if let Some(Entry { state: State::Leased { until, .. }, .. }) = self.entries.get_mut(&id) {
            self.ends.remove(&(*until, id));
            *until = to;
            self.ends.insert((to, id));
        }
    }

    /// Gives back what was leased for too long.
    pub(crate) fn expire(&mut self, now: Micros, terms: Terms) {
        while let Some((_, id)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.nack(id, now, terms);
        }
    }

    /// Forgets everything older than this id, and looks for none of it again; those that are gone because only it held
    /// them up.
    pub(crate) fn forget_before(&mut self, id: MessageId) -> Vec<MessageId> {
        self.newest = self.newest.max(id.saturating_sub(1));
        let old: Vec<MessageId> = self.entries.keys().copied().filter(|known| *known < id).collect();
        let keys: BTreeSet<Arc<str>> = old.iter().filter_map(|id| self.entries[id].key.clone()).collect();
        old.into_iter().for_each(|id| self.remove(id));
        let mut gone = Vec::new();
        keys.iter().for_each(|key| self.settle(key, &mut gone));
        gone
    }

    /// What `holder` has in hand.
    pub(crate) fn held_by(&self, holder: u64) -> Held {
        self.held.get(&holder).copied().unwrap_or_default()
    }

    /// Whether this delivery of the message is the one that holds it.
    pub(crate) fn is_held(&self, id: MessageId, delivery: u32, now: Micros) -> bool {
        self.entries.get(&id).is_some_and(|entry| {
            entry.deliveries == delivery && matches!(entry.state, State::Leased { until, .. } if until > now)
        })
    }

    /// How often the message was delivered; `None` if it never was, or is dealt with.
    pub(crate) fn deliveries(&self, id: MessageId) -> Option<u32> {
        self.entries.get(&id).map(|entry| entry.deliveries).filter(|deliveries| *deliveries > 0)
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
