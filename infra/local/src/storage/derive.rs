//! Objects made of objects: copies and compositions, each in one call, whatever the size.
//!
//! A copy takes a second name for the same bytes and costs nothing; a composition writes its sources one behind another.
//! Sources are held open from the moment their preconditions held, so the result is of those generations alone.

use super::blobs;
use super::checksum::Sums;
use super::generation::Preconditions;
use super::name::ObjectName;
use super::operations::{Source, Storage, Target};
use super::record::{ObjectRecord, Placement, Settings};
use super::refusal::Refusal;
use super::shelf::{Content, NewObject};
use crate::iam::Principal;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::io;

/// Google's greatest number of sources in one composition.
const MAX_SOURCES: usize = 32;

/// One source of a composition.
#[derive(Clone, Debug)]
pub(super) struct Component {
    /// An object of the same bucket.
    pub(super) name: String,
    /// Its generation, if not the live one.
    pub(super) generation: Option<i64>,
    /// The live generation must be this.
    pub(super) generation_match: Option<i64>,
}

impl Storage {
    /// Copies an object; `settings` replace the source's metadata if given.
    pub(super) async fn copy(
        &self,
        who: Principal,
        source: Target,
        target: Target,
        settings: Option<Settings>,
    ) -> Result<ObjectRecord, Refusal> {
        self.0.bucket(&who, "storage.objects.create", &target.bucket)?;
        let (record, opened) = self.fetch(&who, &source, false)?;
        let content = match (&record.placement, opened) {
            (_, Source::Inline(bytes)) => Content::Inline(bytes),
            (Placement::Blob(id), Source::File(_)) => Content::Blob(self.0.blobs.link(id).map_err(|error| {
                // Replaced since it was opened: the generation that was asked for is gone.
                if error.kind() == io::ErrorKind::NotFound { source.not_found() } else { error.into() }
            })?),
            (Placement::Inline, Source::File(_)) => unreachable!("inline content is never opened as a file"),
        };
        let new = NewObject {
            bucket: target.bucket.to_string(),
            name: target.name.to_string(),
            settings: settings.unwrap_or(record.settings),
            size: record.size,
            sums: Sums { crc32c: record.crc32c, md5: record.md5 },
            components: record.components,
            content,
        };
        self.finalize(who, target, new, None).await
    }

    /// Writes the sources one behind another as one object.
    pub(super) async fn compose(
        &self,
        who: Principal,
        target: Target,
        components: Vec<Component>,
        settings: Settings,
    ) -> Result<ObjectRecord, Refusal> {
        self.0.bucket(&who, "storage.objects.create", &target.bucket)?;
        if !(1..=MAX_SOURCES).contains(&components.len()) {
            let number = components.len();
            return Err(Refusal::Invalid(format!(
                "{number} source objects were given: 1 to {MAX_SOURCES} can be composed"
            )));
        }
        self.check_upload(&target)?;
        let (mut parts, mut made_of): (Vec<BoxStream<'static, io::Result<Bytes>>>, i32) = (Vec::new(), 0);
        for Component { name, generation, generation_match } in components {
            let source = Target {
                bucket: target.bucket.clone(),
                name: ObjectName::parse(&name)?,
                generation,
                conditions: Preconditions { generation_match, ..Preconditions::default() },
            };
            let (record, opened) = self.fetch(&who, &source, false)?;
            made_of = made_of.saturating_add(record.components.unwrap_or(1));
            parts.push(match opened {
                Source::Inline(bytes) => stream::iter([Ok(bytes)]).boxed(),
                Source::File(file) => blobs::pieces(file, 0..record.size).boxed(),
            });
        }
        let received = self.0.blobs.receive(stream::iter(parts).flatten()).await?;
        let new = NewObject {
            bucket: target.bucket.to_string(),
            name: target.name.to_string(),
            settings,
            size: received.size,
            sums: Sums { md5: None, ..received.sums },
            components: Some(made_of),
            content: received.content,
        };
        self.finalize(who, target, new, None).await
    }
}
