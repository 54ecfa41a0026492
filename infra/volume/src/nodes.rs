//! Inodes: one for each directory, one for each generation of an object, as long as the kernel remembers it.
//!
//! Pure. The kernel counts how often it was told of an inode and takes the count back when it forgets; at zero the
//! inode is gone here too. Numbers are never used twice, so a late request meets nothing rather than another file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::entry::{Facts, Kind};

/// The root's number, by FUSE's definition.
pub(crate) const ROOT: u64 = 1;
/// The key of a directory carries no generation; Cloud Storage counts from 1.
const NO_GENERATION: i64 = 0;

/// Prefix with its last `/`, or full name of the object, and generation.
type Key = (Arc<str>, i64);

/// One generation of an object, known to the kernel.
#[derive(Debug)]
pub(crate) struct FileNode {
    pub(crate) ino: u64,
    pub(crate) name: Arc<str>,
    pub(crate) facts: Facts,
    /// When the server last gave bytes of this generation.
    pub(crate) proven: std::sync::Mutex<Option<Instant>>,
    /// Held by whoever fetches the whole content, so that it is fetched once.
    pub(crate) filling: tokio::sync::Mutex<()>,
    /// The whole content was put into the kernel's page cache.
    pub(crate) stored: AtomicBool,
}

/// What an inode number stands for.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Directory(Arc<str>),
    File(Arc<FileNode>),
}

#[derive(Debug)]
struct Slot {
    node: Node,
    told: u64,
}

#[derive(Debug)]
pub(crate) struct Nodes {
    by_number: BTreeMap<u64, Slot>,
    by_key: HashMap<Key, u64>,
    next: u64,
}

impl Nodes {
    /// The root alone.
    pub(crate) fn new() -> Self {
        let prefix: Arc<str> = "".into();
        let root = Slot { node: Node::Directory(prefix.clone()), told: 1 };
        let by_key = HashMap::from([((prefix, NO_GENERATION), ROOT)]);
        Self { by_number: BTreeMap::from([(ROOT, root)]), by_key, next: ROOT + 1 }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(crate) fn get(&self, ino: u64) -> Option<&Node> {
        self.by_number.get(&ino).map(|slot| &slot.node)
    }

    /// The file of this name and generation, if the kernel knows it.
    pub(crate) fn file(&self, name: &str, generation: i64) -> Option<Arc<FileNode>> {
        let ino = self.by_key.get(&(Arc::from(name), generation))?;
        match self.get(*ino)? {
            Node::File(file) => Some(file.clone()),
            Node::Directory(_) => None,
        }
    }

    /// The inode of an entry of the directory `prefix`, about to be told to the kernel once more.
    pub(crate) fn tell(&mut self, prefix: &str, leaf: &str, kind: Kind) -> u64 {
        let (name, generation): (Arc<str>, i64) = match kind {
            Kind::Directory => (format!("{prefix}{leaf}/").into(), NO_GENERATION),
            Kind::File(facts) => (format!("{prefix}{leaf}").into(), facts.generation),
        };
        let ino = *self.by_key.entry((name.clone(), generation)).or_insert(self.next);
        if ino == self.next {
            self.next += 1;
            let node = match kind {
                Kind::Directory => Node::Directory(name),
                Kind::File(facts) => Node::File(Arc::new(FileNode {
                    ino,
                    name,
                    facts,
                    proven: std::sync::Mutex::new(None),
                    filling: tokio::sync::Mutex::new(()),
                    stored: AtomicBool::new(false),
                })),
            };
            self.by_number.insert(ino, Slot { node, told: 0 });
        }
        if let Some(slot) = self.by_number.get_mut(&ino) {
            slot.told += 1;
        }
        ino
    }

    /// The kernel takes `count` tellings back.
    pub(crate) fn forget(&mut self, ino: u64, count: u64) {
        let Some(slot) = self.by_number.get_mut(&ino).filter(|_| ino != ROOT) else { return };
        slot.told = slot.told.saturating_sub(count);
        if slot.told == 0
            && let Some(slot) = self.by_number.remove(&ino)
        {
            let key = match slot.node {
                Node::Directory(prefix) => (prefix, NO_GENERATION),
                Node::File(file) => (file.name.clone(), file.facts.generation),
            };
            self.by_key.remove(&key);
        }
    }

    /// Files from number `from` on, at most `most`, each with its directory's number: `(ino, parent, leaf)`.
    pub(crate) fn files_from(&self, from: u64, most: usize) -> Vec<(u64, u64, String)> {
        let files = self.by_number.range(from..).filter_map(|(ino, slot)| {
            let Node::File(file) = &slot.node else { return None };
            let at = file.name.rfind('/').map_or(0, |at| at + 1);
            let (prefix, leaf) = file.name.split_at(at);
            let parent = self.by_key.get(&(Arc::from(prefix), NO_GENERATION))?;
            Some((*ino, *parent, leaf.to_owned()))
        });
        files.take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn file(generation: i64) -> Kind {
        Kind::File(Facts { generation, size: 1, crc32c: None, created: SystemTime::UNIX_EPOCH })
    }

    #[test]
    fn each_generation_has_an_inode_of_its_own() {
        let mut nodes = Nodes::new();
        let first = nodes.tell("d/", "a", file(1));
        assert_eq!(nodes.tell("d/", "a", file(1)), first);
        assert_ne!(nodes.tell("d/", "a", file(2)), first);
        assert_ne!(nodes.tell("d/", "a", Kind::Directory), first);
    }

    #[test]
    fn an_inode_lives_until_the_kernel_has_taken_every_telling_back() {
        let mut nodes = Nodes::new();
        let ino = nodes.tell("", "a", file(1));
        nodes.tell("", "a", file(1));
        nodes.forget(ino, 1);
        assert!(nodes.get(ino).is_some());
        nodes.forget(ino, 1);
        assert!(nodes.get(ino).is_none());
        assert_ne!(nodes.tell("", "a", file(1)), ino, "a number is used once");
        nodes.forget(ROOT, u64::MAX);
        assert!(nodes.get(ROOT).is_some());
    }

    #[test]
    fn files_are_found_with_their_directories() {
        let mut nodes = Nodes::new();
        let directory = nodes.tell("", "d", Kind::Directory);
        let top = nodes.tell("", "t", file(1));
        let inner = nodes.tell("d/", "a", file(1));
        let found = nodes.files_from(0, 10);
        assert_eq!(found, [(top, ROOT, "t".to_owned()), (inner, directory, "a".to_owned())]);
        assert_eq!(nodes.files_from(top + 1, 10).len(), 1);
    }
}
