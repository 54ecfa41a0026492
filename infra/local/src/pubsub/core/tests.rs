//! The deliveries of a subscription beside a reference that is slow and plain, and the cases that have a name.

use proptest::prelude::*;

use super::*;

/// What a test does to both.
#[derive(Debug, Clone)]
enum Step {
    /// A message of one of a few keys, or of none.
    Add(Option<u8>),
    /// So many at most, of which all but so many go back unseen.
    Take(usize, usize),
    Ack(usize),
    Nack(usize),
    Extend(usize),
    Pass(u64),
    /// Everything older than this one is too old.
    Forget(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::option::of(0u8..3).prop_map(Step::Add),
        5 => (1usize..5, 0usize..8).prop_map(|(max, keep)| Step::Take(max, keep)),
        4 => any::<usize>().prop_map(Step::Ack),
        3 => any::<usize>().prop_map(Step::Nack),
        1 => any::<usize>().prop_map(Step::Extend),
        3 => (1u64..30).prop_map(Step::Pass),
        1 => (0usize..4).prop_map(Step::Forget),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    let backoff = proptest::option::of((0u64..5, 5u64..40))
        .prop_map(|times| times.map(|(minimum, maximum)| Backoff { minimum, maximum }));
    (proptest::option::of(1u32..4), backoff, any::<bool>()).prop_map(|(max_attempts, backoff, exactly_once)| Terms {
        max_attempts,
        backoff,
        exactly_once,
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Where {
    Waiting,
    Out(Micros),
    Acked,
}

#[derive(Debug, Clone)]
struct Plain {
    id: MessageId,
    key: Option<u8>,
    at: Where,
    due: Micros,
    deliveries: u32,
    failures: u32,
}

/// Every message in one list, looked through for each question.
#[derive(Debug, Default)]
struct Reference(Vec<Plain>);

impl Reference {
    fn of(&mut self, id: MessageId) -> Option<&mut Plain> {
        self.0.iter_mut().find(|plain| plain.id == id)
    }

    /// Whether one of the same key, older than `before`, is in somebody's hands.
    fn is_out(&self, key: u8, before: MessageId) -> bool {
        self.0.iter().any(|plain| plain.key == Some(key) && plain.id < before && plain.at != Where::Waiting)
    }

    fn may_go(&self, plain: &Plain) -> bool {
        let is_first = |key| self.0.iter().all(|other| other.key != Some(key) || other.id >= plain.id);
        plain.at == Where::Waiting && plain.key.is_none_or(|key| !self.is_out(key, MessageId::MAX) && is_first(key))
    }

    fn take(&mut self, now: Micros, until: Micros, max: usize, terms: Terms) -> Taken {
        let mut taken = Taken::default();
        let is_dead = |plain: &Plain| terms.max_attempts.is_some_and(|max| plain.failures >= max);
        while taken.deliver.len() < max {
            let ready = self.0.iter().filter(|plain| plain.due <= now && self.may_go(plain));
            let Some(mut next) = ready.min_by_key(|plain| (plain.due, plain.id)).map(|plain| plain.id) else { break };
            loop {
                let plain = self.of(next).expect("it was found");
                let key = plain.key;
                plain.deliveries += 1;
                plain.at = Where::Out(until);
                let (id, delivery) = (plain.id, plain.deliveries);
                if is_dead(plain) {
                    taken.dead.push(Handed { id, delivery, attempt: plain.failures });
                    break;
                }
                taken.deliver.push(Handed { id, delivery, attempt: plain.failures + 1 });
                let of_key = self.0.iter().filter(|plain| key.is_some() && plain.key == key && plain.id > id);
                let follows = of_key.min_by_key(|plain| plain.id);
                match follows.filter(|plain| plain.due <= now && !is_dead(plain) && taken.deliver.len() < max) {
                    Some(plain) => next = plain.id,
                    None => break,
                }
            }
        }
        taken
    }

    fn ack(&mut self, id: MessageId, terms: Terms) -> Vec<MessageId> {
        let Some(plain) = self.of(id).filter(|plain| plain.deliveries > 0).cloned() else { return Vec::new() };
        let is_behind = self.0.iter().any(|other| other.key.is_some() && other.key == plain.key && other.id < id);
        if is_behind && !terms.exactly_once {
            if plain.at != Where::Waiting {
                self.of(id).expect("as above").at = Where::Acked;
            }
            return Vec::new();
        }
        let mut gone = vec![id];
        self.0.retain(|plain| plain.id != id);
        self.settle(&mut gone);
        gone
    }

    /// Of each key, what is acknowledged and has nothing earlier out.
    fn settle(&mut self, gone: &mut Vec<MessageId>) {
        while let Some(next) = self
            .0
            .iter()
            .find(|plain| plain.at == Where::Acked && plain.key.is_some_and(|key| !self.is_out(key, plain.id)))
        {
            let next = next.id;
            gone.push(next);
            self.0.retain(|plain| plain.id != next);
        }
    }

    fn forget_before(&mut self, id: MessageId) -> Vec<MessageId> {
        self.0.retain(|plain| plain.id >= id);
        let mut gone = Vec::new();
        self.settle(&mut gone);
        gone
    }

    fn nack(&mut self, id: MessageId, now: Micros, terms: Terms) {
        let Some(plain) = self.of(id).filter(|plain| matches!(plain.at, Where::Out(_))) else { return };
        plain.at = Where::Waiting;
        plain.failures += 1;
        let wait = |backoff: Backoff| {
            let doublings = (1..plain.failures).fold(backoff.minimum, |wait, _| wait * 2);
            doublings.min(backoff.maximum)
        };
        plain.due = now + terms.backoff.map_or(0, wait);
        let key = plain.key;
        for later in self.0.iter_mut().filter(|plain| key.is_some() && plain.key == key && plain.id > id) {
            later.at = Where::Waiting;
        }
    }

    fn expire(&mut self, now: Micros, terms: Terms) {
        let ended = |reference: &Self| {
            let until = |plain: &Plain| if let Where::Out(until) = plain.at { Some((until, plain.id)) } else { None };
            reference.0.iter().filter_map(until).filter(|(until, _)| *until <= now).min()
        };
        while let Some((_, id)) = ended(self) {
            self.nack(id, now, terms);
        }
    }

    fn give_back(&mut self, handed: Handed) {
        let plain = self.of(handed.id).expect("it was taken");
        plain.at = Where::Waiting;
        plain.deliveries -= 1;
    }

    fn next_due(&self) -> Option<Micros> {
        let due = |plain: &Plain| match plain.at {
            Where::Out(until) => Some(until),
            _ => self.may_go(plain).then_some(plain.due),
        };
        self.0.iter().filter_map(due).min()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn deliveries_are_those_of_a_plain_reference(
        steps in proptest::collection::vec(step(), 1..120),
        terms in terms(),
    ) {
        let (mut core, mut reference, mut now, mut next) = (Core::default(), Reference::default(), 100, 1);
        let mut delivered: Vec<MessageId> = Vec::new();
        for step in steps {
            let pick = |pick: usize| delivered.get(pick % delivered.len().max(1)).copied().unwrap_or(0);
            match step {
                Step::Add(key) => {
                    core.add(next, now, key.map(|key| key.to_string()).as_deref());
                    let (at, due) = (Where::Waiting, now);
                    reference.0.push(Plain { id: next, key, at, due, deliveries: 0, failures: 0 });
                    next += 1;
                }
                Step::Take(max, keep) => {
                    let mut taken = core.take(now, now + 10, room(max), 1, terms);
                    prop_assert_eq!(&taken, &reference.take(now, now + 10, max, terms));
                    for unseen in taken.deliver.split_off(keep.min(taken.deliver.len())) {
                        core.give_back(unseen);
                        reference.give_back(unseen);
                    }
                    delivered.extend(taken.deliver.iter().map(|handed| handed.id));
                    for dead in taken.dead {
                        prop_assert_eq!(core.ack(dead.id, terms), vec![dead.id]);
                        prop_assert_eq!(reference.ack(dead.id, terms), vec![dead.id]);
                    }
                }
                Step::Ack(which) => {
                    let id = pick(which);
                    prop_assert_eq!(core.ack(id, terms), reference.ack(id, terms));
                }
                Step::Nack(which) => {
                    let id = pick(which);
                    core.nack(id, now, terms);
                    reference.nack(id, now, terms);
                }
                Step::Extend(which) => {
                    core.extend(pick(which), now + 20);
                    if let Some(plain) = reference.of(pick(which)).filter(|plain| matches!(plain.at, Where::Out(_))) {
                        plain.at = Where::Out(now + 20);
                    }
                }
                Step::Pass(time) => {
                    now += time;
                    core.expire(now, terms);
                    reference.expire(now, terms);
                }
                Step::Forget(ahead) => {
                    let oldest = reference.0.first().map_or(next, |plain| plain.id) + ahead as u64;
                    let (mut gone, plain) = (core.forget_before(oldest), reference.forget_before(oldest));
                    gone.sort_unstable();
                    prop_assert_eq!(gone, plain);
                }
            }
            prop_assert_eq!(core.next_due(), reference.next_due());
            let out = reference.0.iter().filter(|plain| matches!(plain.at, Where::Out(_))).count();
            prop_assert_eq!(core.held_by(1).messages, out);
        }
        // Whoever goes on acknowledging gets all of it at last, and nothing is left behind.
        let mut left: BTreeSet<MessageId> = reference.0.iter().map(|plain| plain.id).collect();
        for _ in 0..=left.len() * 2 {
            now += 1_000;
            core.expire(now, terms);
            let taken = core.take(now, now + 10, room(usize::MAX), 2, terms);
            for handed in taken.deliver.iter().chain(&taken.dead) {
                for gone in core.ack(handed.id, terms) {
                    prop_assert!(left.remove(&gone));
                }
            }
        }
        prop_assert!(left.is_empty(), "{left:?} never came");
        prop_assert!(core.entries.is_empty() && core.lanes.is_empty() && core.ready.is_empty() && core.ends.is_empty());
    }
}

fn room(messages: usize) -> Room {
    Room { messages, bytes: usize::MAX }
}

fn ids(taken: &Taken) -> Vec<MessageId> {
    taken.deliver.iter().map(|handed| handed.id).collect()
}

const PLAIN: Terms = Terms { max_attempts: None, backoff: None, exactly_once: false };

#[test]
fn a_message_is_dead_after_its_last_attempt() {
    let terms = Terms { max_attempts: Some(5), ..PLAIN };
    let mut core = Core::default();
    core.add(1, 0, None);
    for attempt in 1..=5 {
        assert_eq!(core.take(0, 10, room(1), 1, terms).deliver, [Handed { id: 1, delivery: attempt, attempt }]);
        core.nack(1, 0, terms);
    }
    assert_eq!(core.take(0, 10, room(1), 1, terms).dead, [Handed { id: 1, delivery: 6, attempt: 5 }]);
    assert_eq!(core.ack(1, terms), [1]);
    assert_eq!(core.next_due(), None);
}

#[test]
fn who_has_no_room_is_not_woken_by_messages_that_wait() {
    let mut core = Core::default();
    (1..=2).for_each(|id| core.add(id, 3, None));
    core.take(5, 10, room(1), 7, PLAIN);
    assert_eq!((core.next_due(), core.next_end()), (Some(3), Some(10)));
}

#[test]
fn who_has_little_room_gets_what_fits_and_who_has_nothing_gets_one() {
    let narrow = |bytes: usize| Room { messages: 9, bytes };
    let mut core = Core::default();
    (1..=4).for_each(|id| core.add(id, 0, (id > 2).then_some("a")));
    let taken = core.take(0, 10, room(9), 1, PLAIN);
    (1..=4).for_each(|id| core.weigh(id, 10));
    assert_eq!(core.held_by(1), Held { messages: 4, bytes: 40 });
    taken.deliver[1..].iter().for_each(|unseen| core.give_back(*unseen));
    assert_eq!(core.held_by(1), Held { messages: 1, bytes: 10 });
    let next = core.take(0, 10, narrow(15), 1, PLAIN);
    assert_eq!(next.deliver, [Handed { id: 2, delivery: 1, attempt: 1 }], "as if it had not been taken before");
    assert!(!core.has_room(narrow(9), 1) && core.has_room(narrow(10), 1));
    assert_eq!(core.take(0, 10, narrow(9), 1, PLAIN), Taken::default());
    assert_eq!(ids(&core.take(0, 10, narrow(9), 2, PLAIN)), [3]);
    assert_eq!(core.ack(3, PLAIN), [3]);
    assert_eq!(ids(&core.take(0, 10, narrow(10), 2, PLAIN)), [4]);
}

#[test]
fn what_is_given_back_takes_the_later_ones_of_its_key_back_with_it() {
    let mut core = Core::default();
    (1..=4).for_each(|id| core.add(id, 0, Some("a")));
    core.add(5, 0, Some("b"));
    assert_eq!(ids(&core.take(0, 10, room(3), 1, PLAIN)), [1, 2, 3]);
    assert_eq!(ids(&core.take(0, 10, room(9), 1, PLAIN)), [5], "a batch of a is out");
    assert_eq!(core.ack(3, PLAIN), Vec::<MessageId>::new(), "2 may still come back, and 3 with it");
    assert_eq!(core.ack(1, PLAIN), [1]);
    core.nack(2, 0, PLAIN);
    assert_eq!(ids(&core.take(0, 10, room(9), 1, PLAIN)), [2, 3, 4]);
    assert_eq!(core.ack(3, PLAIN), Vec::<MessageId>::new());
    assert_eq!(core.ack(2, PLAIN), [2, 3]);
}

#[test]
fn what_fails_waits_twice_as_long_each_time_up_to_the_longest() {
    let terms = Terms { backoff: Some(Backoff { minimum: 10, maximum: 35 }), ..PLAIN };
    let (mut core, mut now) = (Core::default(), 0);
    core.add(1, 0, None);
    for wait in [10, 20, 35, 35] {
        assert_eq!(ids(&core.take(now, now + 1_000, room(1), 1, terms)), [1]);
        core.nack(1, now, terms);
        assert_eq!(core.next_due(), Some(now + wait));
        now += wait;
    }
    let longest = Backoff { minimum: 1, maximum: u64::MAX };
    assert_eq!(longest.after(u32::MAX), 1 << 32, "no number of failures overflows");
}

#[test]
fn the_next_page_is_wanted_when_little_can_be_delivered_and_not_when_too_much_is_held() {
    let mut core = Core::default();
    (1..=LOW as u64).for_each(|id| core.add(id, 0, None));
    assert!(core.is_hungry(0), "{LOW} are too few");
    core.add(LOW as u64 + 1, 5, None);
    assert!(core.is_hungry(0), "the last is not due");
    assert!(!core.is_hungry(5));
    (LOW as u64 + 2..=MOST as u64).for_each(|id| core.add(id, 0, None));
    core.take(5, 10, room(MOST), 1, PLAIN);
    assert!(!core.is_hungry(5), "all of {MOST} are held");
}
