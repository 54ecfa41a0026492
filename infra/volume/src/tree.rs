//! Names asked of the bucket: whole directories, and single names with one listing each.

use std::sync::Arc;
use std::time::Instant;

use crate::entry::{Directory, Entry, Kind, OBJECT_NAME_MAX, facts, holdable};
use crate::fail::Fail;
use crate::shared::Shared;

/// Cloud Storage's greatest page.
const PAGE: u32 = 1000;
/// Enough to see past the names that sort between an object `a` and the folder `a/`: `a-1`, `a.csv`.
const GLANCE: u32 = 16;
/// A directory that has more entries cannot be listed: they would take 100 MiB.
const MOST_ENTRIES: usize = 1_000_000;

impl Shared {
    /// Lists the directory `prefix` as it is now, and remembers it.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Arc<[Entry]>, Fail> {
        let (asked, mut directory, mut token) = (Instant::now(), Directory::default(), String::new());
        loop {
            let page = self.objects.list_folder(&self.bucket, prefix, PAGE, &token).await?;
            directory.page(prefix, &page.objects, &page.folders);
            if directory.len() > MOST_ENTRIES {
                let (bucket, prefix) = (self.bucket.clone(), prefix.into());
                return Err(Fail::TooMany { bucket, prefix, most: MOST_ENTRIES });
            }
            match page.next_page_token {
                Some(next) => token = next,
                None => break,
            }
        }
        let entries: Arc<[Entry]> = directory.finish().into();
        self.names().listed(prefix, entries.clone(), asked);
        Ok(entries)
    }

    /// Asks what `leaf` in the directory `prefix` is now, and remembers it. One request, but for an object beside so
    /// many that begin with its name that the folder of its name could come after them.
    pub(crate) async fn look(&self, prefix: &str, leaf: &str) -> Result<Option<Kind>, Fail> {
        let name = format!("{prefix}{leaf}");
        if !holdable(leaf) || name.len() > OBJECT_NAME_MAX {
            return Ok(None);
        }
        let (asked, folder) = (Instant::now(), format!("{name}/"));
        let page = self.objects.list_folder(&self.bucket, &name, GLANCE, "").await?;
        let mut is_folder = page.folders.contains(&folder);
        let seen_to = page.objects.last().map(|object| &object.name).max(page.folders.last());
        let could_follow = page.next_page_token.is_some() && seen_to.is_none_or(|last| *last < folder);
        if !is_folder && could_follow {
            let page = self.objects.list_folder(&self.bucket, &folder, 1, "").await?;
            is_folder = !page.objects.is_empty() || !page.folders.is_empty();
        }
        let object = page.objects.first().filter(|object| object.name == name);
        let kind = if is_folder { Some(Kind::Directory) } else { object.map(|object| Kind::File(facts(object))) };
        self.names().asked(prefix, leaf, kind, asked);
        Ok(kind)
    }
}
