//! The tables beside a reference of sets: whatever is published, acknowledged, sought and snapped, each holder holds what
//! it should, and a message is kept exactly as long as somebody holds it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _};

use super::*;

const TOPIC: &str = "projects/p/topics/ttt";
const NAME: &str = "projects/p/subscriptions/sss";
const SNAPSHOT: &str = "projects/p/snapshots/nnn";

#[derive(Debug, Clone)]
enum Step {
    /// With the attribute that the filter wants, or without.
    Publish(bool),
    Ack(usize),
    SeekTo(u64),
    Snap,
    SeekBack,
    Expire(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => any::<bool>().prop_map(Step::Publish),
        4 => any::<usize>().prop_map(Step::Ack),
        2 => (0u64..40).prop_map(Step::SeekTo),
        1 => Just(Step::Snap),
        1 => Just(Step::SeekBack),
        1 => (0u64..20).prop_map(Step::Expire),
    ]
}

/// Each message's publish time by id, and who holds what.
#[derive(Debug, Default)]
struct Reference {
    times: BTreeMap<MessageId, (Micros, bool)>,
    unacked: BTreeSet<MessageId>,
    acked: BTreeSet<MessageId>,
    of_topic: BTreeSet<MessageId>,
    snapped: Option<BTreeSet<MessageId>>,
}

impl Reference {
    fn seek_to(&mut self, at: Micros, retains: bool) {
        let time = |id: &MessageId| self.times[id].0;
        let past: BTreeSet<_> = self.unacked.iter().copied().filter(|id| time(id) < at).collect();
        let back: BTreeSet<_> = self.acked.iter().copied().filter(|id| time(id) >= at).collect();
        let of_topic: BTreeSet<_> =
            self.of_topic.iter().copied().filter(|id| time(id) >= at && self.times[id].1).collect();
        self.unacked = &(&(&self.unacked - &past) | &back) | &of_topic;
        self.acked = &(&self.acked - &back) | &(if retains { past } else { BTreeSet::new() });
    }

    fn seek_back(&mut self, retains: bool) {
        let Some(snapped) = self.snapped.clone() else { return };
        let past = &self.unacked - &snapped;
        self.acked = &(&self.acked - &snapped) | &(if retains { past } else { BTreeSet::new() });
        self.unacked = snapped;
    }

    fn expire(&mut self, at: Micros) {
        let times = &self.times;
        for held in [&mut self.unacked, &mut self.acked, &mut self.of_topic] {
            held.retain(|id| times[id].0 >= at);
        }
    }

    fn kept(&self) -> BTreeSet<MessageId> {
        let of_snapshot = self.snapped.clone().unwrap_or_default();
        &(&self.unacked | &self.acked) | &(&self.of_topic | &of_snapshot)
    }
}

fn message(at: Micros, fits: bool) -> PubsubMessage {
    let time = prost_types::Timestamp {
        seconds: i64::try_from(at / 1_000_000).expect("small"),
        nanos: i32::try_from(at % 1_000_000 * 1_000).expect("small"),
    };
    let attributes = if fits { [("a".to_owned(), "1".to_owned())].into() } else { Default::default() };
    PubsubMessage { publish_time: Some(time), attributes, ..PubsubMessage::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn each_holder_holds_what_a_plain_reference_says(
        steps in proptest::collection::vec(step(), 1..60),
        retains in any::<bool>(),
        topic_keeps in any::<bool>(),
    ) {
        let database = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).expect("memory");
        let filter = Filter::parse("attributes:a").expect("a filter");
        let mut record = SubscriptionRecord::new(TOPIC.to_owned(), 10, None);
        record.retain_acked = retains;
        let mut reference = Reference::default();
        let mut now: Micros = 1_000_000;
        let txn = database.begin_write().expect("begins");
        create_tables(&txn).expect("creates");
        for step in steps {
            match step {
                Step::Publish(fits) => {
                    now += 2;
                    let holds = [(NAME, fits), (TOPIC, topic_keeps), (SNAPSHOT, fits && reference.snapped.is_some())];
                    let holders: Vec<&str> = holds.iter().filter(|(_, holds)| *holds).map(|(name, _)| *name).collect();
                    let mut appender = Appender::open(&txn).expect("opens");
                    let id = appender.append(&holders, message(now, fits)).expect("appends");
                    appender.finish().expect("ends");
                    reference.times.insert(id, (now, fits));
                    reference.unacked.extend(fits.then_some(id));
                    reference.of_topic.extend(topic_keeps.then_some(id));
                    if fits && let Some(snapped) = &mut reference.snapped {
                        snapped.insert(id);
                    }
                }
                Step::Ack(pick) => {
                    let picked = reference.unacked.iter().nth(pick % reference.unacked.len().max(1)).copied();
                    if let Some(id) = picked {
                        let keeper = acked(NAME);
                        settle(&txn, NAME, retains.then_some(keeper.as_str()), &[id]).expect("settles");
                        reference.unacked.remove(&id);
                        reference.acked.extend(retains.then_some(id));
                    }
                }
                Step::SeekTo(ago) => {
                    let at = now.saturating_sub(ago) + 1;
                    seek_to_time(&txn, NAME, &record, filter.as_ref(), at).expect("seeks");
                    reference.seek_to(at, retains);
                }
                Step::Snap if reference.snapped.is_none() => {
                    snap(&txn, NAME, SNAPSHOT, 0).expect("snaps");
                    reference.snapped = Some(reference.unacked.clone());
                }
                Step::SeekBack if reference.snapped.is_some() => {
                    seek_to_snapshot(&txn, NAME, &record, SNAPSHOT).expect("seeks");
                    reference.seek_back(retains);
                }
                Step::Snap | Step::SeekBack => {}
                Step::Expire(ago) => {
                    let at = now.saturating_sub(ago);
                    let before = boundary(&txn.open_table(MESSAGES).expect("opens"), at).expect("finds");
                    for holder in [NAME, TOPIC, &acked(NAME)] {
                        drop_before(&txn, holder, before).expect("drops");
                    }
                    reference.expire(at);
                }
            }
            let holds = |name: &str| -> BTreeSet<_> {
                held(&txn, name, 0..MessageId::MAX).expect("reads").into_iter().collect()
            };
            prop_assert_eq!(&holds(NAME), &reference.unacked);
            prop_assert_eq!(&holds(&acked(NAME)), &reference.acked);
            prop_assert_eq!(&holds(TOPIC), &reference.of_topic);
            let kept: BTreeSet<MessageId> =
                txn.open_table(MESSAGES).expect("opens").iter().expect("reads").map(|row| row.expect("a row").0.value()).collect();
            prop_assert_eq!(&kept, &reference.kept());
        }
        remove_subscription(&txn, NAME).expect("removes");
        remove_topic(&txn, TOPIC).expect("removes");
        remove_snapshot(&txn, SNAPSHOT).expect("removes");
        txn.commit().expect("commits");
        let txn = database.begin_read().expect("begins");
        let empty = txn.open_table(MESSAGES).expect("opens").is_empty().expect("reads")
            && txn.open_table(OWED).expect("opens").is_empty().expect("reads")
            && txn.open_table(PENDING).expect("opens").is_empty().expect("reads");
        prop_assert!(empty, "what nobody holds is deleted");
    }
}
