//! What a file turned out to hold: tables as Arrow batches, pages of text, and what a reader must know beside them.
//!
//! Rows are counted from 1 as a spreadsheet shows them, header and preamble included, so that a reader finds them.
//! Nothing is dropped in silence: what is not in `batches` stands in preamble, footer, totals or problems.

use std::fmt;

use arrow::record_batch::RecordBatch;

/// Everything read from one file.
#[derive(Debug, Clone, Default)]
pub struct Document {
    /// Tables, in file order. Sheets without any table are notes.
    pub tables: Vec<Table>,
    /// Pages of text (PDF).
    pub texts: Vec<PageText>,
    /// About the file as a whole.
    pub notes: Vec<Note>,
}

/// One table.
#[derive(Debug, Clone)]
pub struct Table {
    /// The sheet's name, or the file's stem.
    pub name: String,
    /// Where it came from.
    pub source: Source,
    /// In file order.
    pub columns: Vec<Column>,
    /// The data, 8,192 rows each; fields are named by [`Column::name`].
    pub batches: Vec<RecordBatch>,
    /// Rows of data.
    pub rows: u64,
    /// The header's spreadsheet row; without one, columns are called `column_1`, `column_2`, …
    pub header_row: Option<u64>,
    /// Lines before the header.
    pub preamble: Vec<PreambleLine>,
    /// Lines after the data that are no data: sources, remarks.
    pub footer: Vec<PreambleLine>,
    /// Totals at the end, kept out of the data.
    pub totals: Vec<TotalsRow>,
    /// Cells and rows that did not fit.
    pub problems: Problems,
    /// About this table.
    pub notes: Vec<Note>,
    /// (index of a row in the data, its spreadsheet row) wherever the numbering jumps; begins with the first row.
    pub(crate) row_jumps: Vec<(u64, u64)>,
}

impl Table {
    /// The spreadsheet row of the data row at `index` (from 0, across batches).
    pub fn row_number(&self, index: u64) -> u64 {
        let at = self.row_jumps.partition_point(|(first, _)| *first <= index);
        match at.checked_sub(1).and_then(|at| self.row_jumps.get(at)) {
            Some((first, row)) => row + (index - first),
            None => index + 1,
        }
    }

    /// The place of the column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// Where a table came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Delimited text.
    Delimited {
        /// How its characters were encoded.
        encoding: Encoding,
        /// What separates its cells.
        delimiter: char,
    },
    /// A worksheet.
    Sheet {
        /// Hidden from a person who opens the workbook.
        hidden: bool,
        /// Cells computed by a formula; the values are those that were saved.
        formulas: u64,
    },
}

/// A character encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// UTF-16, little-endian.
    Utf16Le,
    /// UTF-16, big-endian.
    Utf16Be,
    /// Windows-1252: what is assumed of text that is no valid UTF-8.
    Windows1252,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16Le => "UTF-16 LE",
            Self::Utf16Be => "UTF-16 BE",
            Self::Windows1252 => "Windows-1252",
        })
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Unique within the table: the header, trimmed; repeated or empty ones are numbered.
    pub name: String,
    /// The header cell as it stands in the file.
    pub original_header: String,
    /// `A` … `XFD`, for ranges.
    pub letter: String,
    /// Decided over all of its cells.
    pub kind: Kind,
    /// What its numbers measure, if the cells say so.
    pub unit: Option<Unit>,
    /// Cells without a value, failing cells included.
    pub nulls: u64,
}

/// What a column holds, and as which Arrow type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Text (`Utf8`).
    Text,
    /// Digits whose leading zeros carry meaning, or too many to be a number (`Utf8`).
    Code,
    /// Whole numbers (`Int64`).
    Integer,
    /// Numbers (`Float64`).
    Decimal,
    /// Days (`Date32`).
    Date,
    /// Days with a time (`Timestamp(Microsecond)`, no zone).
    Timestamp,
    /// Yes and no (`Boolean`).
    Boolean,
    /// No value at all (`Utf8`, null).
    Empty,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Code => "code",
            Self::Integer => "whole number",
            Self::Decimal => "number",
            Self::Date => "date",
            Self::Timestamp => "date with time",
            Self::Boolean => "yes or no",
            Self::Empty => "nothing",
        })
    }
}

/// What the numbers of a column measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// Money, by the sign found: `$`, `€`, `EUR`.
    Currency(String),
    /// Fractions: `12.5%` is 0.125.
    Percent,
}

/// A line that is no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreambleLine {
    /// Spreadsheet row.
    pub row: u64,
    /// Its cells, joined by ` | `.
    pub text: String,
}

/// A totals row at the end of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TotalsRow {
    /// Spreadsheet row.
    pub row: u64,
    /// `Total`, `Grand total`.
    pub label: String,
    /// One for each column; `None` where the cell is no number.
    pub values: Vec<Option<f64>>,
}

/// What did not fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    /// The first ones, up to [`crate::Limits::max_listed`].
    pub listed: Vec<Problem>,
    /// All of them.
    pub total: u64,
}

impl Problems {
    pub(crate) fn add(&mut self, cap: usize, problem: impl FnOnce() -> Problem) {
        self.total += 1;
        if self.listed.len() < cap {
            self.listed.push(problem());
        }
    }
}

/// One cell or row that did not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Spreadsheet row.
    pub row: u64,
    /// The column, if one cell is meant.
    pub column: Option<String>,
    /// The text found, cut after 120 characters.
    pub value: String,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a cell or row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Fewer cells than the header: the rest are null.
    ShortRow {
        /// Cells found.
        cells: usize,
        /// Cells of the header.
        expected: usize,
    },
    /// More cells than the header. In delimited text its cells may be shifted, so the row is not in the data; in a
    /// sheet the row is in the data and the cells beyond are not.
    LongRow {
        /// Cells found.
        cells: usize,
        /// Cells of the header.
        expected: usize,
    },
    /// Not what the rest of its column is: null in the data.
    NotA(Kind),
    /// A spreadsheet error such as `#N/A`: null in the data.
    ErrorValue,
}

/// Something a reader must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// For programs.
    pub code: NoteCode,
    /// For people; reads alone.
    pub message: String,
}

impl Note {
    pub(crate) fn new(code: NoteCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NoteCode {
    /// The encoding had to be assumed, or characters could not be decoded.
    Encoding,
    /// No row looks like a header.
    NoHeader,
    /// Two columns share a header, or one has none.
    HeaderNames,
    /// Dates that read as day/month and as month/day alike: kept as text.
    AmbiguousDates,
    /// Numbers such as `1,234` that no other cell explains.
    AmbiguousNumbers,
    /// Amounts in several currencies in one column.
    MixedCurrencies,
    /// Percentages and plain numbers in one column.
    MixedPercent,
    /// Rows within the data that look like subtotals; they are in the data.
    Subtotals,
    /// A sheet hidden from people.
    HiddenSheet,
    /// Cells computed by formulas.
    Formulas,
    /// A sheet or file without a table.
    NoTable,
    /// A page without text, or one that could not be read.
    Page,
}

/// The text of one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageText {
    /// From 1.
    pub page: u32,
    /// Top to bottom, without empty lines.
    pub lines: Vec<String>,
}
