//! Hostile bytes in, Arrow out: delimited text, workbooks and PDF.
//!
//! Everything is bounded by [`Limits`]; what is left out of the data is reported beside it, with its spreadsheet row.
//! Refuses async, network, clock and environment: a file and limits are the only inputs, so the same bytes always give
//! the same document. Time is capped by whoever runs this in a child process.

mod build;
mod csv;
mod date;
mod document;
mod error;
mod labelled;
mod limits;
mod number;
mod pdf;
mod profile;
mod read;
mod row;
mod shape;
mod table;
mod text;
mod workbook;
mod zip_guard;

pub use date::show_day;
pub use document::{
    Column, Document, Encoding, Kind, Note, NoteCode, PageText, PreambleLine, Problem, Problems, Source, Table,
    TotalsRow, Unit, Why,
};
pub use error::IngestError;
pub use labelled::{LabelledNumber, labelled_numbers};
pub use limits::Limits;
pub use read::{Format, read, read_bytes};
pub use table::letter;
