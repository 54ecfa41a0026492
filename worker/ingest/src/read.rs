//! The way in: a path or bytes, a format, limits.
//!
//! A parser that panics on hostile bytes becomes a refusal of that file; one that exhausts memory ends its process,
//! which is why this runs in a child.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::document::Document;
use crate::error::IngestError;
use crate::limits::Limits;

/// The formats this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Delimited text.
    Csv,
    /// Office Open XML workbook.
    Xlsx,
    /// Portable Document Format.
    Pdf,
}

/// Reads the file at `path`. Its stem names the table of delimited text.
///
/// # Errors
/// A file that cannot be read, is damaged, encrypted, or larger than `limits`; see [`IngestError`].
pub fn read(path: &Path, format: Format, limits: &Limits) -> Result<Document, IngestError> {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let io = |source| IngestError::Io { name: name.clone(), source };
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    dispatch(file, bytes, &Names { file: &name, stem: &stem }, format, limits)
}

/// Reads bytes in memory, as [`read`] does a file called `stem`.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: &[u8], stem: &str, format: Format, limits: &Limits) -> Result<Document, IngestError> {
    dispatch(Cursor::new(bytes), bytes.len() as u64, &Names { file: stem, stem }, format, limits)
}

/// What the file is called in messages, and what its table is called.
pub(crate) struct Names<'a> {
    pub(crate) file: &'a str,
    pub(crate) stem: &'a str,
}

fn dispatch<R: Read + Seek>(
    mut input: R,
    bytes: u64,
    names: &Names<'_>,
    format: Format,
    limits: &Limits,
) -> Result<Document, IngestError> {
    if bytes > limits.max_file_bytes {
        let limit = limits.max_file_bytes;
        return Err(IngestError::TooLarge { thing: names.file.to_owned(), found: bytes, unit: "bytes", limit });
    }
    let name = names.file.to_owned();
    let read = catch_unwind(AssertUnwindSafe(|| match format {
        Format::Csv => crate::csv::read(&mut input, names, limits),
        Format::Xlsx => crate::workbook::read(input, names, limits),
        Format::Pdf => crate::pdf::read(&mut input, names, limits),
    }));
    read.unwrap_or_else(|_panic| {
        let cause = "its structure confuses the reader".to_owned();
        Err(match format {
            Format::Pdf => IngestError::Pdf { name, cause },
            Format::Csv | Format::Xlsx => IngestError::Workbook { name, cause },
        })
    })
}
