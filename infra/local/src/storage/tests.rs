//! The shelf against a slow reference: whatever the order of writes, patches and deletions, with versioning or without,
//! both agree on every generation, every refusal and every page.

use super::bucket::{self, BucketRecord};
use super::checksum::Sums;
use super::generation::{Preconditions, Version};
use super::listing::{self, Query};
use super::record::Settings;
use super::shelf::{self, Content, NewObject, Refused};
use bytes::Bytes;
use proptest::prelude::*;
use redb::{Database, ReadableDatabase, ReadableTableMetadata, WriteTransaction, backends::InMemoryBackend};
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

/// Which generation an operation names.
#[derive(Clone, Copy, Debug)]
enum Which {
    /// None: the live one.
    Live,
    /// The one that is this far back from the newest, live or not.
    Back(usize),
    /// One that never was.
    Unknown,
}

#[derive(Clone, Debug)]
enum Step {
    Write { name: usize, bytes: Vec<u8>, condition: Condition, may_overwrite: bool },
    Delete { name: usize, which: Which, condition: Condition },
    Patch { name: usize, which: Which, condition: Condition },
    Versioning(bool),
    ClockBack,
}

fn condition() -> impl Strategy<Value = Condition> {
    use Condition::*;
    prop::sample::select(vec![Free, Free, Absent, Current, Stale, OtherThanCurrent, CurrentMeta, WrongMeta])
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    let which =
        || prop_oneof![4 => Just(Which::Live), 3 => (0..3usize).prop_map(Which::Back), 1 => Just(Which::Unknown)];
    prop_oneof![
        5 => (name(), prop::collection::vec(any::<u8>(), 0..8), condition(), prop::bool::weighted(0.9))
            .prop_map(|(name, bytes, condition, may_overwrite)| Step::Write { name, bytes, condition, may_overwrite }),
        2 => (name(), which(), condition())
            .prop_map(|(name, which, condition)| Step::Delete { name, which, condition }),
        2 => (name(), which(), condition()).prop_map(|(name, which, condition)| Step::Patch { name, which, condition }),
        1 => any::<bool>().prop_map(Step::Versioning),
        1 => Just(Step::ClockBack),
    ]
}

/// One generation as the reference knows it.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    version: Version,
    live: bool,
    content_type: &'static str,
    bytes: Vec<u8>,
}

/// Every generation of every name, oldest first.
#[derive(Default)]
struct Reference {
    versioning: bool,
    names: BTreeMap<&'static str, Vec<Known>>,
}

impl Reference {
    fn live(&self, name: &str) -> Option<Version> {
        self.names.get(name)?.iter().find(|known| known.live).map(|known| known.version)
    }

    /// The generation to ask for, and where it lies if it is there.
    fn pick(&self, name: &str, which: Which) -> (Option<i64>, Option<usize>) {
        let known = self.names.get(name).map_or(&[][..], Vec::as_slice);
        match which {
            Which::Live => (None, known.iter().position(|known| known.live)),
            Which::Back(steps) => {
                let place = known.len().checked_sub(steps + 1);
                (Some(place.map_or(55, |at| known[at].version.generation)), place)
            }
            Which::Unknown => (Some(66), None),
        }
    }

    fn write(&mut self, name: &'static str, version: Version, bytes: Vec<u8>) {
        let versioning = self.versioning;
        let known = self.names.entry(name).or_default();
        known.retain(|known| !known.live || versioning);
        known.iter_mut().for_each(|known| known.live = false);
        known.push(Known { version, live: true, content_type: "", bytes });
    }

    fn delete(&mut self, name: &str, at: usize, for_good: bool) {
        let known = self.names.get_mut(name).expect("it has generations");
        if self.versioning && !for_good { known[at].live = false } else { drop(known.remove(at)) }
    }
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

fn create(txn: &WriteTransaction, buckets: &[&str]) {
    bucket::create_table(txn, "p", "l").expect("creates");
    shelf::create_tables(txn).expect("creates");
    for name in buckets {
        bucket::save(txn, &BucketRecord::new(name, "p", "l", 1)).expect("saves");
    }
}

fn object(bucket: &str, name: &str, bytes: &[u8]) -> NewObject {
    NewObject {
        bucket: bucket.to_owned(),
        name: name.to_owned(),
        settings: Settings::default(),
        size: bytes.len() as u64,
        sums: Sums::of(bytes),
        components: None,
        content: Content::Inline(Bytes::copy_from_slice(bytes)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_shelf_does_what_a_slow_reference_would(steps in prop::collection::vec(step(), 1..60)) {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).expect("creates");
        let mut model = Reference::default();
        let (mut now, mut newest) = (1_000_000, 0);
        let txn = db.begin_write().expect("begins");
        create(&txn, &["bucket"]);
        txn.commit().expect("commits");
        for step in steps {
            now += 10;
            let txn = db.begin_write().expect("begins");
            match step {
                Step::ClockBack => now -= 500,
                Step::Versioning(versioning) => {
                    model.versioning = versioning;
                    let bucket = BucketRecord { versioning, ..BucketRecord::new("bucket", "p", "l", 1) };
                    bucket::save(&txn, &bucket).expect("saves");
                }
                Step::Write { name, bytes, condition, may_overwrite } => {
                    let live = model.live(NAMES[name]);
                    let (p, holds) = conditions(condition, live);
                    let new = object("bucket", NAMES[name], &bytes);
                    match shelf::insert(&txn, &new, &p, may_overwrite, now).expect("no database error") {
                        Ok(stored) => {
                            prop_assert!(holds && (may_overwrite || live.is_none()));
                            prop_assert!(stored.record.generation > newest, "generations grow");
                            prop_assert_eq!(stored.record.metageneration, 1);
                            let replaced = stored.replaced.map(|former| (former.record.version(), former.kept));
                            prop_assert_eq!(replaced, live.map(|live| (live, model.versioning)));
                            newest = stored.record.generation;
                            model.write(NAMES[name], stored.record.version(), bytes);
                        }
                        Err(Refused::OverwriteDenied) => prop_assert!(holds && live.is_some() && !may_overwrite),
                        Err(Refused::Violated(_)) => prop_assert!(!holds),
                        Err(refused) => prop_assert!(false, "{refused:?} is no answer to a write"),
                    }
                }
                Step::Delete { name, which, condition } => {
                    let (generation, at) = model.pick(NAMES[name], which);
                    let meant = at.map(|at| model.names[NAMES[name]][at].version);
                    let (p, holds) = conditions(condition, meant);
                    let got = shelf::delete(&txn, ("bucket", NAMES[name]), generation, &p, now).expect("no database error");
                    prop_assert_eq!(got.is_ok(), holds && meant.is_some());
                    if let Ok((former, _)) = got {
                        prop_assert_eq!(former.kept, model.versioning && generation.is_none());
                        prop_assert_eq!(Some(former.record.version()), meant);
                        model.delete(NAMES[name], at.expect("it is there"), generation.is_some());
                    }
                }
                Step::Patch { name, which, condition } => {
                    let (generation, at) = model.pick(NAMES[name], which);
                    let meant = at.map(|at| model.names[NAMES[name]][at].version);
                    let (p, holds) = conditions(condition, meant);
                    let edit = |settings: &mut Settings| settings.content_type = "text/csv".to_owned();
                    let got = shelf::patch(&txn, ("bucket", NAMES[name]), generation, &p, now, &edit);
                    let got = got.expect("no database error");
                    prop_assert_eq!(got.is_ok(), holds && meant.is_some());
                    if let Ok((record, _)) = got {
                        let known = &mut model.names.get_mut(NAMES[name]).expect("it is there")[at.expect("it is there")];
                        (known.version.metageneration, known.content_type) = (known.version.metageneration + 1, "text/csv");
                        prop_assert_eq!(record.version(), known.version);
                    }
                }
            }
            let empty = shelf::is_empty(&txn, "bucket").expect("looks");
            prop_assert_eq!(empty, model.names.values().all(Vec::is_empty));
            txn.commit().expect("commits");
        }
        let txn = db.begin_read().expect("begins");
        for versions in [false, true] {
            let mut got = Vec::new();
            let mut query = Query { versions, page_size: 2, ..Query::default() };
            loop {
                let page = listing::list(&txn, "bucket", &query).expect("reads").expect("lists");
                got.extend(page.objects);
                query.page_token = page.next_page_token;
                if query.page_token.is_empty() {
                    break;
                }
            }
            let all = model.names.iter().flat_map(|(name, known)| known.iter().map(move |known| (*name, known)));
            let wanted: Vec<_> = all.filter(|(_, known)| versions || known.live).collect();
            prop_assert_eq!(got.len(), wanted.len());
            for (record, (name, known)) in got.iter().zip(wanted) {
                let bytes = shelf::payload(&txn, record.generation).expect("reads").expect("has content").to_vec();
                prop_assert_eq!(record.name.as_str(), name);
                prop_assert_eq!(record.settings.content_type.as_str(), known.content_type);
                prop_assert_eq!((record.version(), record.deleted_us.is_none(), bytes), (known.version, known.live, known.bytes.clone()));
                let found = shelf::version(&txn, ("bucket", name), Some(record.generation)).expect("reads");
                prop_assert_eq!(found.as_ref(), Some(record));
            }
        }
        let payloads = txn.open_table(shelf::PAYLOADS).expect("opens").len().expect("counts");
        prop_assert_eq!(payloads, model.names.values().map(Vec::len).sum::<usize>() as u64, "no content is left over");
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
        create(&txn, &["bucket", "bucket-next"]);
        for bucket in ["bucket", "bucket-next"] {
            for name in &names {
                let new = object(bucket, name, &[]);
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

#[test]
fn pages_stay_right_while_objects_change() {
    let db = Database::builder().create_with_backend(InMemoryBackend::new()).expect("creates");
    let txn = db.begin_write().expect("begins");
    create(&txn, &["bucket"]);
    let bucket = BucketRecord { versioning: true, ..BucketRecord::new("bucket", "p", "l", 1) };
    bucket::save(&txn, &bucket).expect("saves");
    let write = |txn: &WriteTransaction, name: &str| {
        let free = Preconditions::default();
        let stored = shelf::insert(txn, &object("bucket", name, b"x"), &free, true, 1).expect("writes");
        (name.to_owned(), stored.expect("is stored").record.generation)
    };
    let mut there: Vec<_> = ["a", "a", "b", "c", "c", "d"].map(|name| write(&txn, name)).into();
    txn.commit().expect("commits");
    let mut query = Query { versions: true, page_size: 1, ..Query::default() };
    let mut listed = Vec::new();
    loop {
        let page = listing::list(&db.begin_read().expect("begins"), "bucket", &query).expect("reads").expect("lists");
        let entry = page.objects.into_iter().map(|r| (r.name, r.generation)).next().expect("a page has an entry");
        query.page_token = page.next_page_token;
        let txn = db.begin_write().expect("begins");
        // What was just listed is replaced, so that the live one becomes one that is not; the last is deleted for good.
        if listed.len() < 3 {
            write(&txn, &entry.0);
        }
        if entry.0 == "b" {
            let last = there.pop().expect("it is there");
            let free = Preconditions::default();
            shelf::delete(&txn, ("bucket", &last.0), Some(last.1), &free, 1).expect("writes").expect("is deleted");
        }
        txn.commit().expect("commits");
        listed.push(entry);
        if query.page_token.is_empty() {
            break;
        }
    }
    assert!(listed.is_sorted_by(|one, next| one < next), "nothing comes twice: {listed:?}");
    assert!(there.iter().all(|entry| listed.contains(entry)), "{there:?} in {listed:?}");
}
