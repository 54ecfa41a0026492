//! One row on its way from a parser to a column: text in one reused buffer, so that a million rows allocate little.

use crate::error::IngestError;

/// A table that can be read from its beginning, again and again: types are decided before values are kept.
pub(crate) trait Rows {
    /// Gives every row that holds anything to `each`, until it stops.
    fn scan(&mut self, each: &mut dyn FnMut(&Row) -> Result<Flow, IngestError>) -> Result<(), IngestError>;
}

/// Whether a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    More,
    Stop,
}

/// A cell as its parser saw it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'a> {
    Empty,
    Text(&'a str),
    Number(f64),
    Bool(bool),
    /// Microseconds since 1970-01-01, no zone.
    Time(i64),
    Error(&'a str),
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Empty,
    Text(usize, usize),
    Number(f64),
    Bool(bool),
    Time(i64),
    Error(usize, usize),
}

/// A row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// Spreadsheet row.
    pub(crate) number: u64,
    text: String,
    slots: Vec<Slot>,
}

impl Row {
    pub(crate) fn clear(&mut self, number: u64) {
        self.number = number;
        self.text.clear();
        self.slots.clear();
    }

    /// Becomes a copy of `other` in the memory it has.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.number = other.number;
        self.text.clone_from(&other.text);
        self.slots.clone_from(&other.slots);
    }

    /// Puts a cell at `column`, whatever order cells come in.
    pub(crate) fn set(&mut self, column: usize, cell: Cell<'_>) {
        while self.slots.len() <= column {
            self.slots.push(Slot::Empty);
        }
        self.slots[column] = match cell {
            Cell::Empty => Slot::Empty,
            Cell::Text(text) => self.keep(text).map_or(Slot::Empty, |(from, to)| Slot::Text(from, to)),
            Cell::Error(text) => self.keep(text).map_or(Slot::Empty, |(from, to)| Slot::Error(from, to)),
            Cell::Number(number) => Slot::Number(number),
            Cell::Bool(value) => Slot::Bool(value),
            Cell::Time(micros) => Slot::Time(micros),
        };
    }

    fn keep(&mut self, text: &str) -> Option<(usize, usize)> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let from = self.text.len();
        self.text.push_str(text);
        Some((from, self.text.len()))
    }

    /// Cells up to the last one given, empty ones included.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Cells up to the last one that holds something.
    pub(crate) fn width(&self) -> usize {
        self.slots.iter().rposition(|slot| !matches!(slot, Slot::Empty)).map_or(0, |at| at + 1)
    }

    pub(crate) fn cell(&self, column: usize) -> Cell<'_> {
        match self.slots.get(column) {
            None | Some(Slot::Empty) => Cell::Empty,
            Some(Slot::Text(from, to)) => Cell::Text(&self.text[*from..*to]),
            Some(Slot::Error(from, to)) => Cell::Error(&self.text[*from..*to]),
            Some(Slot::Number(number)) => Cell::Number(*number),
            Some(Slot::Bool(value)) => Cell::Bool(*value),
            Some(Slot::Time(micros)) => Cell::Time(*micros),
        }
    }

    pub(crate) fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        (0..self.slots.len()).map(|column| self.cell(column))
    }

    /// Cells that hold something.
    pub(crate) fn filled(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(slot, Slot::Empty)).count()
    }

    /// The row as a person reads it, at most `max` characters.
    pub(crate) fn line(&self, max: usize) -> String {
        let mut line = String::new();
        for cell in self.cells().filter(|cell| *cell != Cell::Empty) {
            if !line.is_empty() {
                line.push_str(" | ");
            }
            cell.write(&mut line);
            if line.len() > max * 4 {
                break;
            }
        }
        cut(&line, max)
    }
}

impl Cell<'_> {
    /// Appends the cell as text: what a text column keeps of it.
    pub(crate) fn write(&self, to: &mut String) {
        use std::fmt::Write as _;
        let written = match self {
            Cell::Empty => Ok(()),
            Cell::Text(text) | Cell::Error(text) => to.write_str(text),
            Cell::Number(number) => write!(to, "{number}"),
            Cell::Bool(value) => write!(to, "{value}"),
            Cell::Time(micros) => to.write_str(&crate::date::show(*micros)),
        };
        written.expect("a String takes everything");
    }

    pub(crate) fn show(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        cut(&text, 120)
    }
}

/// At most `max` characters, with an ellipsis where something is missing.
pub(crate) fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
