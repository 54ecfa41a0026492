//! The shelf against a small model: whatever the order of writes, copies, patches and deletions, both agree.

use super::generation::{Preconditions, Version};
use super::listing::{self, Query};
use super::record::{Placement, Settings};
use super::shelf::{self, Content, NewObject, Refused};
use bytes::Bytes;
use proptest::prelude::*;
use redb::{Database, ReadableDatabase, backends::InMemoryBackend};
use std::collections::BTreeMap;

const NAMES: [&str; 5] = ["a", "a/b", "a//c", "../d", "\u{202e}e"];

/// How an operation's precondition relates to the object as the model knows it.
#[derive(Clone, Copy, Debug)]
enum Condition {
    Free,
    Absent,
    Current,
    Stale,
    OtherThanCurrent,
    CurrentMeta,
    WrongMeta,
}

#[derive(Clone, Debug)]
enum Step {
    Write { name: usize, bytes: Vec<u8>, condition: Condition, may_overwrite: bool },
    Delete { name: usize, condition: Condition },
    Patch { name: usize, condition: Condition },
    ClockBack,
}

fn condition() -> impl Strategy<Value = Condition> {
    use Condition::*;
    prop::sample::select(vec![Free, Free, Absent, Current, Stale, OtherThanCurrent, CurrentMeta, WrongMeta])
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    prop_oneof![
        4 => (name(), prop::collection::vec(any::<u8>(), 0..8), condition(), prop::bool::weighted(0.9))
            .prop_map(|(name, bytes, condition, may_overwrite)| Step::Write { name, bytes, condition, may_overwrite }),
        2 => (name(), condition()).prop_map(|(name, condition)| Step::Delete { name, condition }),
        2 => (name(), condition()).prop_map(|(name, condition)| Step::Patch { name, condition }),
        1 => Just(Step::ClockBack),
    ]
}

/// The preconditions to send and whether the model says that they hold.
fn conditions(condition: Condition, live: Option<Version>) -> (Preconditions, bool) {
    let mut p = Preconditions::default();
    let known = live.unwrap_or(Version { generation: 77, metageneration: 1 });
    let holds = match condition {
        Condition::Free => true,
        Condition::Absent => {
            p.generation_match = Some(0);
            live.is_none()
        }
        Condition::Current => {
            p.generation_match = Some(known.generation);
            live.is_some()
        }
        Condition::Stale => {
            p.generation_match = Some(known.generation - 1);
            false
        }
        Condition::OtherThanCurrent => {
            p.generation_not_match = Some(known.generation);
            false
        }
        Condition::CurrentMeta => {
            p.metageneration_match = Some(known.metageneration);
            live.is_some()
        }
        Condition::WrongMeta => {
            p.metageneration_not_match = Some(known.metageneration);
            false
        }
    };
    (p, holds)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_shelf_does_what_a_map_would(steps in prop::collection::vec(step(), 1..60)) {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).expect("creates");
        let mut model: BTreeMap<&str, (Version, Vec<u8>)> = BTreeMap::new();
        let (mut now, mut newest) = (1_000_000, 0);
        let txn = db.begin_write().expect("begins");
        shelf::create_tables(&txn).expect("creates");
        txn.commit().expect("commits");
        for step in steps {
            now += 10;
            let txn = db.begin_write().expect("begins");
            match step {
                Step::ClockBack => now -= 500,
                Step::Write { name, bytes, condition, may_overwrite } => {
                    let live = model.get(NAMES[name]).map(|(version, _)| *version);
                    let (p, holds) = conditions(condition, live);
                    let new = NewObject {
                        bucket: "bucket".to_owned(),
                        name: NAMES[name].to_owned(),
                        settings: Settings::default(),
                        size: bytes.len() as u64,
                        crc32c: crc32c::crc32c(&bytes),
                        content: Content::Inline(Bytes::from(bytes.clone())),
                    };
                    match shelf::insert(&txn, &new, &p, may_overwrite, now).expect("no database error") {
                        Ok(stored) => {
                            prop_assert!(holds && (may_overwrite || live.is_none()));
                            prop_assert!(stored.record.generation > newest, "generations grow");
                            prop_assert_eq!(stored.record.metageneration, 1);
                            prop_assert_eq!(stored.replaced.map(|r| r.version()), live);
                            newest = stored.record.generation;
                            model.insert(NAMES[name], (stored.record.version(), bytes));
                        }
                        Err(Refused::OverwriteDenied) => prop_assert!(holds && live.is_some() && !may_overwrite),
                        Err(Refused::Violated(_)) => prop_assert!(!holds),
                        Err(Refused::NotFound) => prop_assert!(false, "a write finds no object missing"),
                    }
                }
                Step::Delete { name, condition } => {
                    let live = model.get(NAMES[name]).map(|(version, _)| *version);
                    let (p, holds) = conditions(condition, live);
                    let got = shelf::delete(&txn, ("bucket", NAMES[name]), None, &p).expect("no database error");
                    prop_assert_eq!(got.is_ok(), holds && live.is_some());
                    if got.is_ok() {
                        model.remove(NAMES[name]);
                    }
                }
                Step::Patch { name, condition } => {
                    let live = model.get(NAMES[name]).map(|(version, _)| *version);
                    let (p, holds) = conditions(condition, live);
                    let edit = |settings: &mut Settings| settings.content_type = "text/csv".to_owned();
                    let got = shelf::patch(&txn, ("bucket", NAMES[name]), None, &p, now, &edit).expect("no database error");
                    prop_assert_eq!(got.is_ok(), holds && live.is_some());
                    if let Ok(record) = got {
                        let entry = model.get_mut(NAMES[name]).expect("the model has it");
                        entry.0.metageneration += 1;
                        prop_assert_eq!(record.version(), entry.0);
                    }
                }
            }
            txn.commit().expect("commits");
        }
        let txn = db.begin_read().expect("begins");
        let page = listing::list(&txn, "bucket", &Query::default()).expect("reads").expect("lists");
        let got: Vec<_> = page.objects.iter().map(|r| (r.name.as_str(), r.version())).collect();
        let wanted: Vec<_> = model.iter().map(|(name, (version, _))| (*name, *version)).collect();
        prop_assert_eq!(got, wanted);
        for record in &page.objects {
            prop_assert_eq!(&record.placement, &Placement::Inline);
            let bytes = shelf::payload(&txn, record.generation).expect("reads").expect("has content");
            prop_assert_eq!(&bytes[..], &model[record.name.as_str()].1[..]);
        }
    }

    #[test]
    fn pages_together_are_the_whole_listing(
        names in prop::collection::btree_set("[ab/\u{10FFFF}]{1,6}", 0..30),
        prefix in "[ab/]{0,2}",
        delimiter in prop::sample::select(vec!["", "/", "ab"]),
        page_size in 1usize..5,
    ) {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).expect("creates");
        let txn = db.begin_write().expect("begins");
        shelf::create_tables(&txn).expect("creates");
        for bucket in ["bucket", "bucket-next"] {
            for name in &names {
                let new = NewObject {
                    bucket: bucket.to_owned(),
                    name: name.clone(),
                    settings: Settings::default(),
                    size: 0,
                    crc32c: 0,
                    content: Content::Inline(Bytes::new()),
                };
                shelf::insert(&txn, &new, &Preconditions::default(), true, 1).expect("writes").expect("is stored");
            }
        }
        txn.commit().expect("commits");
        let mut wanted: Vec<String> = Vec::new();
        for name in names.iter().filter(|name| name.starts_with(&prefix)) {
            let rest = &name[prefix.len()..];
            let cut = if delimiter.is_empty() { None } else { rest.find(delimiter) };
            let entry = cut.map_or(name.clone(), |at| name[..prefix.len() + at + delimiter.len()].to_owned());
            if wanted.last() != Some(&entry) || cut.is_none() {
                wanted.push(entry);
            }
        }
        let txn = db.begin_read().expect("begins");
        let mut query = Query { prefix, delimiter: delimiter.to_owned(), page_size, ..Default::default() };
        let mut got = Vec::new();
        loop {
            let page = listing::list(&txn, "bucket", &query).expect("reads").expect("lists");
            let mut entries: Vec<_> = page.objects.into_iter().map(|r| r.name).chain(page.prefixes).collect();
            prop_assert!(entries.len() <= page_size);
            entries.sort();
            got.extend(entries);
            if page.next_page_token.is_empty() {
                break;
            }
            query.page_token = page.next_page_token;
        }
        prop_assert_eq!(got, wanted);
    }
}
