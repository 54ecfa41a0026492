//! Why a call of a reader failed, and which number the reader is told.

use std::sync::Arc;
use std::time::Duration;

use carrel_cloud::{CallError, RangeError};
use fuser::Errno;

/// Why a call failed; several readers may be told of one failure.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fail {
    /// The generation that the inode stands for was replaced or deleted.
    #[error("open generation is gone")]
    Gone(#[source] Arc<RangeError>),
    /// The cloud answered with an error, or not at all.
    #[error("ask the cloud")]
    Cloud(#[source] Arc<CallError>),
    /// The reader has waited long enough.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The server closed its answer too early.
    #[error("gs://{bucket}/{name}: {got} bytes came where {wanted} were asked for")]
    Length { bucket: Arc<str>, name: Arc<str>, got: u64, wanted: u64 },
    /// The bytes are not those of the listing.
    #[error("gs://{bucket}/{name}: the bytes have checksum {got:08x}, the object {wanted:08x}")]
    Checksum { bucket: Arc<str>, name: Arc<str>, got: u32, wanted: u32 },
    /// A directory that does not fit into memory.
    #[error("gs://{bucket}/{prefix} has more than {most} entries; read its objects by name")]
    TooMany { bucket: Arc<str>, prefix: Arc<str>, most: usize },
    /// The stream was given up for another place of the file; the bytes have to be asked for again.
    #[error("stream given up")]
    GivenUp,
}

impl Fail {
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Gone(_) => Errno::ESTALE,
            Self::TooMany { .. } => Errno::EFBIG,
            Self::Cloud(_) | Self::Late(_) | Self::Length { .. } | Self::Checksum { .. } | Self::GivenUp => Errno::EIO,
        }
    }
}

impl From<RangeError> for Fail {
    fn from(error: RangeError) -> Self {
        match error {
            RangeError::Gone { .. } => Self::Gone(Arc::new(error)),
            RangeError::Call(error) => error.into(),
        }
    }
}

impl From<CallError> for Fail {
    fn from(error: CallError) -> Self {
        Self::Cloud(Arc::new(error))
    }
}
