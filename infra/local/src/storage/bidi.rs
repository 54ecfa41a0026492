//! BidiReadObject: many ranges of one generation over one stream, as the clients' `open_object` reads them.
//!
//! The first request names the object; the answer to it is its metadata. Ranges are served one after another, in the order
//! they came, in pieces that carry their own checksums. The file is held open from the first request on, so what is read is
//! one generation whatever happens to the object. A range that cannot be served ends the stream, as at Google.

use super::blobs::{self, INLINE_BYTES};
use super::generation::Preconditions;
use super::grpc::{object, preconditions, target};
use super::operations::{Source, Storage};
use super::proto;
use super::refusal::Refusal;
use crate::iam::Principal;
use bytes::Bytes;
use futures::Stream;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tonic::{Status, Streaming};

/// Bytes of a piece: well below the 4 MiB that clients take as one message.
const PIECE_BYTES: u64 = 16 * INLINE_BYTES as u64;

/// The answers of one stream.
pub(super) type Reading = Pin<Box<dyn Stream<Item = Result<proto::BidiReadObjectResponse, Status>> + Send>>;

/// What is left of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    id: i64,
    at: u64,
    end: u64,
}

struct Open {
    requests: Streaming<proto::BidiReadObjectRequest>,
    content: Content,
    size: u64,
    ranges: VecDeque<Range>,
    /// Sent first.
    metadata: Option<proto::Object>,
}

#[derive(Clone)]
enum Content {
    Inline(Bytes),
    File(Arc<File>),
}

/// Answers the ranges of a stream of requests.
pub(super) async fn read(
    storage: &Storage,
    who: &Principal,
    mut requests: Streaming<proto::BidiReadObjectRequest>,
) -> Result<Reading, Status> {
    let missing = || Status::invalid_argument("the first request of a stream names the object");
    let first = requests.message().await?.ok_or_else(missing)?;
    let spec = first.read_object_spec.ok_or_else(missing)?;
    let target = target(&spec.bucket, &spec.object, spec.generation, preconditions!(spec))?;
    let (record, source) = storage.fetch(who, &target, true)?;
    let size = record.size;
    let content = match source {
        Source::Inline(bytes) => Content::Inline(bytes),
        Source::File(file) => Content::File(Arc::new(file)),
    };
    let mut open = Open { requests, content, size, ranges: VecDeque::new(), metadata: Some(object(record)) };
    open.take(first.read_ranges)?;
    Ok(Box::pin(futures::stream::try_unfold(open, |mut open| async move {
        Ok(open.next().await?.map(|response| (response, open)))
    })))
}

/// The bytes that a range means.
fn resolve(range: proto::ReadRange, size: u64) -> Result<Range, Refusal> {
    let proto::ReadRange { read_offset, read_length, read_id: id } = range;
    let length =
        u64::try_from(read_length).map_err(|_| Refusal::Invalid(format!("read_length {read_length} is negative")))?;
    let at = match u64::try_from(read_offset) {
        Ok(offset) => offset,
        // That many bytes from the end.
        Err(_) => size.saturating_sub(read_offset.unsigned_abs()),
    };
    if at > size {
        return Err(Refusal::Range(size));
    }
    let end = if length == 0 { size } else { size.min(at.saturating_add(length)) };
    Ok(Range { id, at, end })
}

impl Open {
    fn take(&mut self, ranges: Vec<proto::ReadRange>) -> Result<(), Status> {
        for range in ranges {
            self.ranges.push_back(resolve(range, self.size)?);
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<proto::BidiReadObjectResponse>, Status> {
        if let Some(metadata) = self.metadata.take() {
            return Ok(Some(proto::BidiReadObjectResponse { metadata: Some(metadata), ..Default::default() }));
        }
        while self.ranges.is_empty() {
            match self.requests.message().await? {
                None => return Ok(None),
                Some(request) => self.take(request.read_ranges)?,
            }
        }
        let Some(range) = self.ranges.front_mut() else { return Ok(None) };
        let Range { id, at, end } = *range;
        let behind = end.min(at + PIECE_BYTES);
        range.at = behind;
        if behind == end {
            self.ranges.pop_front();
        }
        let content =
            piece(self.content.clone(), at, behind).await.map_err(|error| Status::from(Refusal::Io(error)))?;
        let signed = |number: u64| i64::try_from(number).expect("objects are smaller than 8 EiB");
        let read_range = proto::ReadRange { read_offset: signed(at), read_length: signed(behind - at), read_id: id };
        let crc32c = Some(crc32c::crc32c(&content));
        let data = proto::ObjectRangeData {
            checksummed_data: Some(proto::ChecksummedData { content, crc32c }),
            read_range: Some(read_range),
            range_end: behind == end,
        };
        Ok(Some(proto::BidiReadObjectResponse { object_data_ranges: vec![data], ..Default::default() }))
    }
}

async fn piece(content: Content, at: u64, behind: u64) -> io::Result<Bytes> {
    let index = |offset: u64| usize::try_from(offset).map_err(io::Error::other);
    match content {
        Content::Inline(bytes) => Ok(bytes.slice(index(at)?..index(behind)?)),
        Content::File(file) => blobs::piece(file, at..behind).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_start_at_either_end_and_stay_within() {
        let range = |read_offset, read_length| resolve(proto::ReadRange { read_offset, read_length, read_id: 7 }, 100);
        for (offset, length, at, end) in [
            (0, 0, 0, 100),
            (10, 5, 10, 15),
            (90, 50, 90, 100),
            (-10, 0, 90, 100),
            (-500, 0, 0, 100),
            (100, 0, 100, 100),
        ] {
            let got = range(offset, length).expect("is within");
            assert_eq!(got, Range { id: 7, at, end }, "{offset} {length}");
        }
        assert!(matches!(range(101, 0), Err(Refusal::Range(100))));
        assert!(matches!(range(0, -1), Err(Refusal::Invalid(_))));
        assert!(range(5, i64::MAX).is_ok());
    }
}
