//! A small in-memory view of one table: typed columns and the spreadsheet row of each data row.
//!
//! Text is dictionary-coded, so that a million rows cost four bytes a cell. Owns access by row and by key; refuses to
//! parse: what a cell is, ingest has decided.

use std::collections::HashMap;

use carrel_ingest::{letter, show_day};
use carrel_schemas::ids::FileId;

use crate::role::{Role, detect};
use crate::state::examples;

/// No value, in dictionary codes.
pub(crate) const NULL: u32 = u32::MAX;
/// No value, in days.
pub(crate) const NO_DAY: i32 = i32::MIN;

/// The file a frame came from.
#[derive(Debug, Clone)]
pub struct FrameSource {
    /// The id in evidence.
    pub file_id: FileId,
    /// The customer's name for it.
    pub name: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// The cells of one column.
#[derive(Debug, Clone)]
pub enum Values {
    /// Text or codes: distinct values and, for each row, an index into them (`u32::MAX` is null).
    Text {
        /// Distinct values in order of appearance.
        words: Vec<String>,
        /// One for each row.
        codes: Vec<u32>,
    },
    /// Numbers; NaN is null.
    Number {
        /// One for each row.
        values: Vec<f64>,
        /// Integers throughout.
        whole: bool,
    },
    /// Days since 1970-01-01; `i32::MIN` is null.
    Day(Vec<i32>),
}

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name, unique within the frame.
    pub name: String,
    /// Its spreadsheet letter.
    pub letter: String,
    /// Fractions shown as percentages.
    pub percent: bool,
    /// The currency its cells are written with, if they are.
    pub currency: Option<String>,
    /// Days that carry a time of day too, which [`Values::Day`] leaves out.
    pub timed: bool,
    /// Its cells.
    pub values: Values,
    /// What it means, and why that is assumed.
    pub role: Option<(Role, String)>,
}

/// A totals row, kept out of the data.
#[derive(Debug, Clone)]
pub(crate) struct Total {
    pub(crate) row: u64,
    pub(crate) label: String,
    pub(crate) values: Vec<Option<f64>>,
}

/// A cell or row that did not fit.
#[derive(Debug, Clone)]
pub(crate) struct Failing {
    pub(crate) row: u64,
    pub(crate) column: Option<String>,
    pub(crate) value: String,
    pub(crate) why: String,
}

/// One table.
#[derive(Debug, Clone)]
pub struct Frame {
    pub(crate) source: FrameSource,
    pub(crate) name: String,
    pub(crate) sheet: bool,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: usize,
    /// (first index, its spreadsheet row) wherever the numbering jumps.
    pub(crate) jumps: Vec<(usize, u64)>,
    pub(crate) totals: Vec<Total>,
    /// Rows that look like subtotals are among the data.
    pub(crate) subtotals: bool,
    pub(crate) failing: Vec<Failing>,
    pub(crate) failing_total: u64,
}

/// Groups of equal keys: for each row its group, for each group its label.
pub(crate) struct Keys {
    pub(crate) codes: Vec<u32>,
    pub(crate) labels: Vec<String>,
}

impl Frame {
    /// A frame over columns of equal length whose first data row stands in spreadsheet row 2.
    pub fn new(source: FrameSource, name: &str, sheet: bool, columns: Vec<(String, Values)>) -> Self {
        let rows = columns.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        let columns = columns
            .into_iter()
            .enumerate()
            .map(|(at, (name, values))| Column {
                name,
                letter: letter(at),
                percent: false,
                currency: None,
                timed: false,
                values,
                role: None,
            })
            .collect();
        let mut frame = Self {
            source,
            name: name.to_owned(),
            sheet,
            columns,
            rows,
            jumps: vec![(0, 2)],
            totals: vec![],
            subtotals: false,
            failing: vec![],
            failing_total: 0,
        };
        detect(&mut frame);
        frame
    }

    pub(crate) fn row_number(&self, index: usize) -> u64 {
        let at = self.jumps.partition_point(|(first, _)| *first <= index);
        self.jumps[..at].last().map_or(index as u64 + 1, |(first, row)| row + (index - first) as u64)
    }

    /// The column that plays this role.
    pub(crate) fn role(&self, role: Role) -> Option<&Column> {
        self.columns.iter().find(|column| column.role.as_ref().is_some_and(|(r, _)| *r == role))
    }

    pub(crate) fn numbers(&self, role: Role) -> Option<(&Column, &[f64])> {
        let column = self.role(role)?;
        Some((column, column.numbers()?))
    }

    /// Why a sum over `column` may lack values that its file holds; `None` if every cell was read.
    pub(crate) fn unread(&self, column: &Column) -> Option<String> {
        if self.failing_total > self.failing.len() as u64 {
            return Some(format!("{} cells or rows of its table could not be read", self.failing_total));
        }
        let concerns = |f: &&Failing| f.column.as_ref().is_none_or(|name| *name == column.name);
        let rows: Vec<String> = self.failing.iter().filter(concerns).map(|f| f.row.to_string()).collect();
        (!rows.is_empty()).then(|| format!("not all of it could be read: see row {}", examples(&rows)))
    }

    /// Why something said to be absent from these columns may stand in a cell or row that could not be read.
    pub(crate) fn unread_any(&self, columns: &[&Column]) -> Option<String> {
        columns.iter().find_map(|column| self.unread(column)).map(|why| format!("{}: {why}", self.title()))
    }

    /// The title a reader knows it by.
    pub(crate) fn title(&self) -> String {
        if self.sheet { format!("{}, sheet {}", self.source.name, self.name) } else { self.source.name.clone() }
    }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Text { codes, .. } => codes.len(),
            Self::Number { values, .. } => values.len(),
            Self::Day(days) => days.len(),
        }
    }
}

impl Column {
    pub(crate) fn numbers(&self) -> Option<&[f64]> {
        match &self.values {
            Values::Number { values, .. } => Some(values),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        match &self.values {
            Values::Text { codes, .. } => codes[row] == NULL,
            Values::Number { values, .. } => values[row].is_nan(),
            Values::Day(days) => days[row] == NO_DAY,
        }
    }

    /// Numbers that are whole and dates can be keys too.
    pub(crate) fn keys(&self) -> Keys {
        match &self.values {
            Values::Text { words, codes } => Keys { codes: codes.clone(), labels: words.clone() },
            Values::Number { values, .. } => {
                let code = |v: &f64| (!v.is_nan()).then(|| if *v == 0.0 { 0 } else { v.to_bits() });
                group(values.iter().map(code), |bits| number(f64::from_bits(bits)))
            }
            Values::Day(days) => {
                let code = |d: &i32| (*d != NO_DAY).then_some(i64::from(*d) as u64);
                group(days.iter().map(code), |d| show_day(d as i64 as i32))
            }
        }
    }

    /// Whether two rows hold the same here; of a [`timed`](Self::timed) column, the same day.
    pub(crate) fn same(&self, one: usize, two: usize) -> bool {
        match &self.values {
            Values::Text { words, codes } => words.get(codes[one] as usize) == words.get(codes[two] as usize),
            Values::Number { values, .. } => {
                values[one] == values[two] || (values[one].is_nan() && values[two].is_nan())
            }
            Values::Day(days) => days[one] == days[two],
        }
    }

    pub(crate) fn show(&self, row: usize) -> String {
        match &self.values {
            Values::Text { words, codes } => words.get(codes[row] as usize).cloned().unwrap_or_default(),
            Values::Number { values, .. } if values[row].is_nan() => String::new(),
            Values::Number { values, .. } => number(values[row]),
            Values::Day(days) if days[row] == NO_DAY => String::new(),
            Values::Day(days) => show_day(days[row]),
        }
    }
}

fn group(cells: impl Iterator<Item = Option<u64>>, label: impl Fn(u64) -> String) -> Keys {
    let mut seen = HashMap::new();
    let mut keys = Keys { codes: Vec::new(), labels: Vec::new() };
    for cell in cells {
        let code = match cell {
            None => NULL,
            Some(cell) => *seen.entry(cell).or_insert_with(|| {
                keys.labels.push(label(cell));
                (keys.labels.len() - 1) as u32
            }),
        };
        keys.codes.push(code);
    }
    keys
}

/// A number as a person writes it, without trailing zeros.
pub(crate) fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{}", value as i64)
    } else {
        let text = format!("{value:.4}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        if text.trim_start_matches('-') == "0" { format!("{value:e}") } else { text.to_owned() }
    }
}
