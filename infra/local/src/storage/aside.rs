//! The look over all objects kept, at the start: what is torn or foreign is named and put aside, never silently dropped.
//! What becomes of a torn record of Pub/Sub or of Cloud Run is said by their own rooms.
//!
//! | found | what becomes of it |
//! |---|---|
//! | a record that cannot be read | moves to a table of its own, under table and key; its object is not there any more |
//! | that of a configured bucket | moves too, and its settings with it: none is made anew, and the cloud does not start |
//! | content that is shorter than its record says, or missing | is named; the record stays, and each read names it again |
//! | a file that cannot be a blob, or no file at all | moves to the directory `blobs.aside` beside the blobs |
//! | a blob that no record refers to | a crash came before its commit: removed |
//!
//! While records lie aside, a blob that no record refers to may be theirs: it is put aside instead of removed.

use super::blobs::{BlobId, Blobs};
use super::record::{ObjectRecord, Placement};
use super::sessions::{self, Session};
use super::{bucket, shelf};
use crate::aside::{Aside, is_json, set_unreadable_aside};
use crate::store::StoreError;
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};
use std::collections::HashMap;
use std::io;

const ASIDE: Aside = Aside::new("storage.aside");

/// What the tables refer to.
#[derive(Debug)]
pub(super) struct Referred {
    /// Each blob: of what it is the content, and how many bytes it has at least.
    blobs: HashMap<BlobId, (String, u64)>,
    /// Records lie aside, now or since before.
    records_aside: bool,
}

/// Reads every record, puts aside what cannot be read, and forgets uploads that have been over for long.
pub(super) fn read_all(txn: &WriteTransaction, now_us: i64) -> Result<Referred, StoreError> {
    let is_object = is_json::<ObjectRecord>;
    set_unreadable_aside(txn, ASIDE, bucket::BUCKETS, is_json::<bucket::BucketRecord>, |name| name.to_owned())?;
    set_unreadable_aside(txn, ASIDE, shelf::OBJECTS, is_object, |(bucket, name)| format!("{bucket}/{name}"))?;
    set_unreadable_aside(txn, ASIDE, shelf::NONCURRENT, is_object, |(bucket, name, generation)| {
        format!("{bucket}/{name}#{generation}")
    })?;
    set_unreadable_aside(txn, ASIDE, sessions::SESSIONS, is_json::<Session>, |id| id.to_owned())?;
    let mut blobs = HashMap::new();
    let payloads = txn.open_table(shelf::PAYLOADS)?;
    let mut seen = |record: ObjectRecord| {
        let what = format!("{}/{}#{}", record.bucket, record.name, record.generation);
        match record.placement {
            Placement::Blob(id) => drop(blobs.insert(id, (what, record.size))),
            Placement::Inline => {
                let there = payloads.get(record.generation)?.map_or(0, |bytes| bytes.value().len() as u64);
                if there < record.size {
                    tracing::error!(object = what, there, size = record.size, "the database has lost content");
                }
            }
        }
        Ok::<_, StoreError>(())
    };
    for entry in txn.open_table(shelf::OBJECTS)?.iter()? {
        seen(shelf::decode(entry?.1.value())?)?;
    }
    for entry in txn.open_table(shelf::NONCURRENT)?.iter()? {
        seen(shelf::decode(entry?.1.value())?)?;
    }
    for (blob, id, size) in sessions::expire(txn, now_us)? {
        blobs.insert(blob, (format!("upload {id}"), size));
    }
    let records_aside = !txn.open_table(ASIDE)?.is_empty()?;
    Ok(Referred { blobs, records_aside })
}

/// The first of these buckets that is there no more because its record lies aside.
pub(super) fn lost_bucket<'a>(
    txn: &WriteTransaction,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<Option<String>, StoreError> {
    let (aside, buckets) = (txn.open_table(ASIDE)?, txn.open_table(bucket::BUCKETS)?);
    let definition = bucket::BUCKETS;
    let table_name = redb::TableHandle::name(&definition);
    for name in names {
        let lies_aside = aside.get(format!("{table_name}/{name}").as_str())?.is_some();
        if lies_aside && bucket::find(&buckets, name)?.is_none() {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}

/// Holds the blob directory against what the tables refer to.
pub(super) fn tidy(blobs: &Blobs, referred: &Referred) -> io::Result<()> {
    let mut missing = referred.blobs.clone();
    let mut removed = 0_usize;
    for (name, length) in blobs.entries()? {
        let id = BlobId::of_file(&name).filter(|_| length.is_some());
        let known = id.as_ref().and_then(|id| missing.remove(id));
        match (id, known) {
            (Some(_), Some((what, size))) => {
                let there = length.unwrap_or_default();
                if there < size {
                    tracing::error!(object = what, there, size, file = ?name, "a blob has lost content");
                }
            }
            (Some(id), None) if !referred.records_aside => {
                blobs.remove(&id);
                removed += 1;
            }
            _ => {
                let place = blobs.put_aside(&name)?;
                tracing::warn!(file = ?name, place = %place.display(), "what is no blob of any object is put aside");
            }
        }
    }
    // An upload that has sent nothing yet has no file.
    for (what, size) in missing.into_values().filter(|(_, size)| *size > 0) {
        tracing::error!(object = what, size, "a blob is missing");
    }
    if removed > 0 {
        tracing::info!(storage.blobs_removed = removed, "collected blobs that no object refers to");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Faults;
    use crate::iam::Iam;
    use crate::pubsub::PubSub;
    use crate::storage::checksum::Sums;
    use crate::storage::generation::Preconditions;
    use crate::storage::record::Settings;
    use crate::storage::shelf::{Content, NewObject};
    use crate::storage::{OpenError, Parts, Storage};
    use crate::store::Store;
    use redb::{Database, backends::InMemoryBackend};
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    fn names(dir: &Path) -> BTreeSet<String> {
        let Ok(entries) = std::fs::read_dir(dir) else { return BTreeSet::new() };
        entries.map(|entry| entry.expect("is listed").file_name().into_string().expect("is text")).collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_foreign_or_torn_is_put_aside_and_everything_else_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let (place, aside) = (dir.path().join("blobs"), dir.path().join("blobs.aside"));
        let blobs = Blobs::open(place.clone()).expect("opens");
        let (live, orphan) = ("a".repeat(32), "b".repeat(32));
        let write = |name: &str| std::fs::write(place.join(name), "content").expect("is written");
        write(&live);
        write(&orphan);
        write("notes.txt");
        std::fs::create_dir(place.join("c".repeat(32))).expect("is made");
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).expect("creates");
        let txn = db.begin_write().expect("begins");
        bucket::create_table(&txn, "p", "l").expect("creates");
        shelf::create_tables(&txn).expect("creates");
        sessions::create_table(&txn).expect("creates");
        bucket::save(&txn, &bucket::BucketRecord::new("bucket", "p", "l", 1)).expect("saves");
        let new = NewObject {
            bucket: "bucket".to_owned(),
            name: "sound".to_owned(),
            settings: Settings::default(),
            size: 7,
            sums: Sums::of(b"content"),
            components: None,
            content: Content::Blob(BlobId::of_file(live.as_ref()).expect("is one")),
        };
        shelf::insert(&txn, &new, &Preconditions::default(), true, 1).expect("writes").expect("is stored");
        tidy(&blobs, &read_all(&txn, 1).expect("reads")).expect("tidies");
        assert_eq!(names(&place), set(&[&live]), "what a crash has left is removed");
        assert_eq!(names(&aside), set(&["notes.txt", &"c".repeat(32)]), "what is foreign is kept");

        txn.open_table(shelf::OBJECTS).expect("opens").insert(("bucket", "torn"), &b"{\"bucket"[..]).expect("writes");
        write(&orphan);
        write("notes.txt");
        tidy(&blobs, &read_all(&txn, 1).expect("a torn record stops nothing")).expect("tidies");
        assert_eq!(names(&place), set(&[&live]));
        let kept = set(&["notes.txt", "notes.txt.1", &orphan, &"c".repeat(32)]);
        assert_eq!(names(&aside), kept, "a blob of the torn record is not removed");
        let torn = txn.open_table(ASIDE).expect("opens");
        let torn = torn.get("storage.objects/bucket/torn").expect("reads").expect("is kept");
        assert_eq!(torn.value(), b"{\"bucket");
        assert!(txn.open_table(shelf::OBJECTS).expect("opens").get(("bucket", "torn")).expect("reads").is_none());
    }

    #[test]
    fn a_record_that_is_torn_again_does_not_take_the_place_of_the_first() {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).expect("creates");
        let txn = db.begin_write().expect("begins");
        bucket::create_table(&txn, "p", "l").expect("creates");
        shelf::create_tables(&txn).expect("creates");
        sessions::create_table(&txn).expect("creates");
        for torn in [&b"{\"first"[..], b"{\"second", b"{\"third"] {
            txn.open_table(shelf::OBJECTS).expect("opens").insert(("bucket", "torn"), torn).expect("writes");
            read_all(&txn, 1).expect("a torn record stops nothing");
        }
        let aside = txn.open_table(ASIDE).expect("opens");
        let kept = |name: &str| aside.get(name).expect("reads").expect("is kept").value().to_vec();
        assert_eq!(kept("storage.objects/bucket/torn"), b"{\"first");
        assert_eq!(kept("storage.objects/bucket/torn#1"), b"{\"second");
        assert_eq!(kept("storage.objects/bucket/torn#2"), b"{\"third");
    }

    #[tokio::test]
    async fn a_bucket_whose_record_is_torn_is_not_made_anew_as_if_it_had_never_been_set() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("db")).expect("opens");
        let iam = Iam::open(dir.path(), &BTreeMap::new(), &[]).expect("a policy");
        let pubsub = PubSub::open(store.clone(), iam.clone(), Faults::none(), "p", &[], &[]).await.expect("opens");
        let open = async |names: &[&str]| {
            let parts = Parts {
                store: store.clone(),
                iam: iam.clone(),
                faults: Faults::none(),
                pubsub: pubsub.clone(),
                blob_dir: dir.path().join("blobs"),
                endpoint: "http://127.0.0.1:1".to_owned(),
                project: "p".to_owned(),
                location: "l".to_owned(),
            };
            Storage::open(parts, names.iter().map(|name| ((*name).to_owned(), Vec::new())).collect()).await
        };
        open(&["first", "torn"]).await.expect("opens");
        let torn = store.write(|txn| {
            txn.open_table(bucket::BUCKETS)?.insert("torn", &b"{\"name"[..])?;
            Ok(())
        });
        torn.await.expect("writes");
        for _ in 0..2 {
            let refused = open(&["another", "first", "torn"]).await.err().expect("it was set somehow");
            assert!(matches!(&refused, OpenError::LostBucket(name) if name == "torn"), "{refused:?}");
            let says = refused.to_string();
            assert!(says.contains("bucket torn") && says.contains("backup"), "{says}");
        }
        open(&["first"]).await.expect("it opens without");
        // As whoever creates it over the API says.
        let created = store.write(|txn| bucket::save(txn, &bucket::BucketRecord::new("torn", "p", "l", 1)));
        created.await.expect("writes");
        open(&["first", "torn"]).await.expect("somebody has said how it is set");
    }
}
