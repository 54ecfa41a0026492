//! Listings that stop at the next `/`, as directories are shown.

use crate::error::CallError;
use crate::objects::{ObjectMeta, meta, resource, url};
use crate::{Call, Objects};

/// One page of what lies directly under a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Objects whose names hold no further `/`, in order of names; the placeholder named like the prefix is among them.
    pub objects: Vec<ObjectMeta>,
    /// Prefixes that go on, each with its last `/`, in order.
    pub folders: Vec<String>,
    /// Where the next page begins; `None` after the last.
    pub next_page_token: Option<String>,
}

impl Objects {
    /// One page of what begins with `prefix` and ends at the next `/`; an empty token begins. Entries come in one order
    /// across objects and folders: whatever sorts before the last entry of a page is in it or in one before.
    pub fn list_folder<'a>(
        &'a self,
        bucket: &'a str,
        prefix: &'a str,
        page_size: u32,
        page_token: &'a str,
    ) -> Call<'a, Result<Folder, CallError>> {
        Box::pin(async move {
            let request = self
                .control
                .list_objects()
                .set_parent(resource(bucket))
                .set_prefix(prefix)
                .set_delimiter("/")
                .set_page_size(i32::try_from(page_size).unwrap_or(1000))
                .set_page_token(page_token);
            let page = self.in_time(request.send()).await;
            let page = page.map_err(|error| CallError::new("list objects", url(bucket, prefix), error))?;
            Ok(Folder {
                objects: page.objects.into_iter().map(meta).collect(),
                folders: page.prefixes,
                next_page_token: Some(page.next_page_token).filter(|token| !token.is_empty()),
            })
        })
    }
}
