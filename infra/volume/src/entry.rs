//! What a directory shows of a listing: pure.
//!
//! Refuses what a directory cannot hold, so that whatever is shown can be opened and nothing is shown twice.

use std::time::SystemTime;

use carrel_cloud::ObjectMeta;

/// The longest component: Linux's `NAME_MAX`.
const NAME_MAX: usize = 255;
/// The longest object name, in bytes.
pub(crate) const OBJECT_NAME_MAX: usize = 1024;

/// One generation of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) generation: i64,
    pub(crate) size: u64,
    pub(crate) crc32c: Option<u32>,
    pub(crate) created: SystemTime,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File(Facts),
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) leaf: Box<str>,
    pub(crate) kind: Kind,
}

/// True for what one component of a path can be.
pub(crate) fn holdable(leaf: &str) -> bool {
    !leaf.is_empty() && leaf != "." && leaf != ".." && leaf.len() <= NAME_MAX && !leaf.contains(['/', '\0'])
}

/// What is known of an object from a listing.
pub(crate) fn facts(object: &ObjectMeta) -> Facts {
    Facts {
        generation: object.generation,
        size: object.size,
        crc32c: object.crc32c,
        created: object.created.map_or(SystemTime::UNIX_EPOCH, SystemTime::from),
    }
}

/// The directory `prefix`, in order of names, from the pages of its listing.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    entries: Vec<Entry>,
}

impl Directory {
    /// Takes one page in.
    pub(crate) fn page(&mut self, prefix: &str, objects: &[ObjectMeta], folders: &[String]) {
        let folders = folders.iter().filter_map(|folder| {
            let leaf = folder.strip_prefix(prefix)?.strip_suffix('/')?;
            Some((leaf, Kind::Directory))
        });
        // The placeholder of the directory itself has an empty rest, which no directory can hold.
        let files = objects.iter().filter_map(|object| {
            let leaf = object.name.strip_prefix(prefix)?;
            Some((leaf, Kind::File(facts(object))))
        });
        let shown = folders.chain(files).filter(|(leaf, _)| holdable(leaf));
        self.entries.extend(shown.map(|(leaf, kind)| Entry { leaf: leaf.into(), kind }));
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every entry once, in order of names; a directory hides the object of its name.
    pub(crate) fn finish(mut self) -> Vec<Entry> {
        let rank = |entry: &Entry| !matches!(entry.kind, Kind::Directory);
        self.entries.sort_unstable_by(|a, b| a.leaf.cmp(&b.leaf).then_with(|| rank(a).cmp(&rank(b))));
        self.entries.dedup_by(|later, first| later.leaf == first.leaf);
        self.entries.shrink_to_fit();
        self.entries
    }
}

/// The entry of this name in a finished directory.
pub(crate) fn find<'a>(entries: &'a [Entry], leaf: &str) -> Option<&'a Entry> {
    entries.binary_search_by(|entry| (*entry.leaf).cmp(leaf)).ok().map(|at| &entries[at])
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn object(name: &str) -> ObjectMeta {
        let name = name.to_owned();
        ObjectMeta { name, generation: 7, size: 1, crc32c: None, content_type: String::new(), created: None }
    }

    /// What Cloud Storage answers to a listing with the delimiter `/`.
    fn listed(bucket: &BTreeSet<String>, prefix: &str) -> (Vec<ObjectMeta>, Vec<String>) {
        let (mut objects, mut folders) = (Vec::new(), BTreeSet::new());
        for name in bucket {
            match name.strip_prefix(prefix).map(|rest| rest.find('/')) {
                None => {}
                Some(None) => objects.push(object(name)),
                Some(Some(at)) => drop(folders.insert(name[..=prefix.len() + at].to_owned())),
            }
        }
        (objects, folders.into_iter().collect())
    }

    fn shown(bucket: &BTreeSet<String>, prefix: &str) -> Vec<Entry> {
        let (objects, folders) = listed(bucket, prefix);
        let mut directory = Directory::default();
        directory.page(prefix, &objects, &folders);
        directory.finish()
    }

    #[test]
    fn names_that_no_directory_can_hold_are_not_shown() {
        let long = "x".repeat(256);
        let bucket = ["d/", "d//b", "d/.", "d/..", "d/./c", "d/../c", &format!("d/{long}"), "d/ok", "d/é"];
        let entries = shown(&bucket.into_iter().map(str::to_owned).collect(), "d/");
        assert_eq!(entries.iter().map(|entry| &*entry.leaf).collect::<Vec<_>>(), ["ok", "é"]);
    }

    #[test]
    fn a_directory_hides_the_object_of_its_name_even_from_another_page() {
        let mut directory = Directory::default();
        directory.page("", &[object("a"), object("a!")], &[]);
        directory.page("", &[object("b")], &["a/".to_owned()]);
        let entries = directory.finish();
        let kinds: Vec<_> = entries.iter().map(|entry| (&*entry.leaf, entry.kind == Kind::Directory)).collect();
        assert_eq!(kinds, [("a", true), ("a!", false), ("b", false)]);
    }

    /// The tree that walking the directories shows, against one made of the names component by component.
    fn walk(bucket: &BTreeSet<String>, prefix: &str, found: &mut BTreeMap<String, bool>) {
        for entry in shown(bucket, prefix) {
            let path = format!("{prefix}{}", entry.leaf);
            let is_directory = entry.kind == Kind::Directory;
            if is_directory {
                walk(bucket, &format!("{path}/"), found);
            }
            assert_eq!(found.insert(path, is_directory), None, "shown twice");
        }
    }

    proptest! {
        #[test]
        fn every_holdable_object_is_shown_once_at_its_path_and_nothing_else(
            bucket in proptest::collection::btree_set("[ab./]{1,7}", 0..24),
        ) {
            let mut wanted = BTreeMap::new();
            for name in &bucket {
                let parts: Vec<&str> = name.split('/').collect();
                let mut path = String::new();
                for (at, part) in parts.iter().enumerate() {
                    if !holdable(part) {
                        break;
                    }
                    path.push_str(part);
                    let is_directory = at + 1 < parts.len();
                    *wanted.entry(path.clone()).or_insert(is_directory) |= is_directory;
                    path.push('/');
                }
            }
            let mut found = BTreeMap::new();
            walk(&bucket, "", &mut found);
            prop_assert_eq!(found, wanted);
        }
    }
}
