//! Part of one generation, handed on as it arrives.
//!
//! For readers that seek: the range is what is asked of the server, a broken connection is taken up where it broke, and
//! the generation never changes in the middle. Refuses checksums: the server's are of whole objects.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use google_cloud_storage::model_ext::ReadRange;
use google_cloud_storage::read_object::ReadObjectResponse;

use crate::error::{CallError, in_time, is};
use crate::objects::{resource, url};
use crate::{Call, Objects};

/// Why a range could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The object was replaced or deleted.
    #[error("gs://{bucket}/{name} has no generation {generation} any more")]
    Gone {
        /// Its bucket.
        bucket: String,
        /// Its name.
        name: String,
        /// The generation asked for.
        generation: i64,
    },
    /// The cloud did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A range that is arriving.
#[derive(Debug)]
pub struct Arriving {
    response: ReadObjectResponse,
    url: String,
    answer_within: Duration,
}

impl Objects {
    /// Asks for `range`, which must not be empty, of one generation.
    pub fn read_range<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a str,
        generation: i64,
        range: Range<u64>,
    ) -> Call<'a, Result<Arriving, RangeError>> {
        Box::pin(async move {
            let part = ReadRange::segment(range.start, range.end.saturating_sub(range.start));
            let read = self.data.read_object(resource(bucket), name).set_generation(generation).set_read_range(part);
            match self.in_time(read.send()).await {
                Ok(response) => Ok(Arriving { response, url: url(bucket, name), answer_within: self.answer_within }),
                Err(error) if is(&error, 404) => {
                    Err(RangeError::Gone { bucket: bucket.to_owned(), name: name.to_owned(), generation })
                }
                Err(error) => Err(CallError::new("read object", url(bucket, name), error).into()),
            }
        })
    }
}

impl Arriving {
    /// The bytes that come next; `None` after the last.
    pub fn chunk(&mut self) -> Call<'_, Result<Option<Bytes>, CallError>> {
        Box::pin(async move {
            let next = in_time(self.answer_within, async { self.response.next().await.transpose() }).await;
            next.map_err(|error| CallError::new("read object", self.url.clone(), error))
        })
    }
}
