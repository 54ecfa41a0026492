//! Where a table begins and ends within its rows: lines before the header, the header, totals and remarks after the data.
//!
//! Judges by the shape of rows, never by names of columns. What it cuts off is reported, not dropped.

use crate::date::{self, Order};
use crate::number::{self, Style};
use crate::row::{Cell, Row};

/// Rows looked at to find the header, and rows held back at the end to find totals.
pub(crate) const HEAD_ROWS: usize = 64;
pub(crate) const TAIL_ROWS: usize = 16;

/// The beginning of a table.
#[derive(Debug)]
pub(crate) struct Head {
    /// Rows before the header.
    pub(crate) preamble: usize,
    /// The row after the preamble is a header.
    pub(crate) header: bool,
    /// Columns; rows that reach further are long.
    pub(crate) width: usize,
}

/// Finds the header among the first rows.
pub(crate) fn head(rows: &[Row]) -> Head {
    let typical = typical_width(rows);
    let least = if typical <= 1 { 1 } else { (typical * 3).div_ceil(5).max(2) };
    let first = rows.iter().position(|row| row.filled() >= least).unwrap_or(0);
    let header = rows.get(first).is_some_and(|row| is_header(row, &rows[first + 1..]));
    let data = &rows[(first + usize::from(header)).min(rows.len())..];
    let mut width = if header { rows[first].width() } else { typical.max(1) };
    let longer = data.iter().filter(|row| row.width() > width).count();
    if longer * 10 > data.len() {
        width = data.iter().map(Row::width).max().unwrap_or(width);
    }
    Head { preamble: first, header, width }
}

fn typical_width(rows: &[Row]) -> usize {
    let mut widths: Vec<usize> = rows.iter().map(Row::width).collect();
    widths.sort_unstable();
    let modes = widths.chunk_by(|a, b| a == b).map(|same| (same.len(), same[0]));
    modes.max().map_or(0, |(_, width)| width)
}

/// Mostly words, and no number where the next rows have numbers. Years and dates may head columns.
fn is_header(row: &Row, next: &[Row]) -> bool {
    let filled = row.filled();
    let words = row.cells().filter(|cell| is_word(*cell)).count();
    if words * 2 < filled || words == 0 {
        return false;
    }
    let next = &next[..next.len().min(10)];
    let clash = (0..row.width()).any(|column| {
        let cell = row.cell(column);
        let below = next.iter().filter(|row| as_number(row.cell(column)).is_some()).count();
        as_number(cell).is_some_and(|value| !is_year(value)) && below * 2 > next.len()
    });
    !clash
}

fn is_year(value: f64) -> bool {
    value.fract() == 0.0 && (1900.0..=2100.0).contains(&value)
}

fn is_word(cell: Cell<'_>) -> bool {
    match cell {
        Cell::Text(text) => as_number(cell).is_none() && date::parse(text, Order::DayFirst).is_none(),
        Cell::Empty | Cell::Number(_) | Cell::Bool(_) | Cell::Time(_) | Cell::Error(_) => false,
    }
}

fn as_number(cell: Cell<'_>) -> Option<f64> {
    match cell {
        Cell::Number(value) => Some(value),
        Cell::Text(text) => {
            number::parse(text, Style::Point).or_else(|| number::parse(text, Style::Comma)).map(|found| found.value)
        }
        Cell::Empty | Cell::Bool(_) | Cell::Time(_) | Cell::Error(_) => None,
    }
}

/// What a row at the end of a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    Data,
    Totals,
    Remark,
}

/// Judges one of the last rows; `after_gap` if blank rows stand before it.
pub(crate) fn tail(row: &Row, width: usize, after_gap: bool) -> Tail {
    if is_totals(row) {
        return Tail::Totals;
    }
    if width >= 3
        && row.filled() == 1
        && let Some(Cell::Text(text)) = row.cells().find(|cell| *cell != Cell::Empty)
        && is_word(Cell::Text(text))
        && (after_gap || text.chars().count() > 24 || text.contains([':', '*', '©']))
    {
        return Tail::Remark;
    }
    Tail::Data
}

/// The first filled cell says so, and numbers follow. `Total 0% yogurt` is a product: more text follows it.
pub(crate) fn is_totals(row: &Row) -> bool {
    let mut filled = row.cells().filter(|cell| *cell != Cell::Empty);
    let Some(Cell::Text(label)) = filled.next() else { return false };
    let Some(exact) = totals_label(label) else { return false };
    let (mut numbers, mut others) = (0, 0);
    for cell in filled {
        if as_number(cell).is_some() {
            numbers += 1;
        } else {
            others += 1;
        }
    }
    numbers > 0 && (others == 0 || (exact && others <= numbers))
}

/// `Some(true)`: nothing but a word for totals.
fn totals_label(text: &str) -> Option<bool> {
    const WORDS: [&str; 12] = [
        "total",
        "totals",
        "grand total",
        "grand totals",
        "overall total",
        "subtotal",
        "sub-total",
        "sub total",
        "sum",
        "summe",
        "gesamt",
        "total general",
    ];
    if text.len() > 60 || !text.starts_with(['t', 'T', 'g', 'G', 'o', 'O', 's', 'S']) {
        return None;
    }
    let lower = text.trim().trim_end_matches(':').trim_end().to_lowercase();
    if WORDS.contains(&lower.as_str()) {
        return Some(true);
    }
    WORDS
        .iter()
        .any(|word| lower.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', ':', '-'])))
        .then_some(false)
}
