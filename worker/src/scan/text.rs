//! Delimited text: bytes that a person can have meant as text, and the cells that a spreadsheet would run.
//!
//! UTF-16 with a byte order mark counts. Cells are told apart by commas, semicolons and tabs alike, since which of them
//! separates is known only to who opens the file. Refuses nothing for its formulas: that is the policy's.

use std::io::Read;

use carrel_schemas::outcome::RefusalCode;
use carrel_schemas::scan::FlagCode;

use super::found::Found;
use super::{Inspection, formula, refuse, windows};

/// One control character among this many bytes is a scar of an export; more is a binary file.
const ODD_ONE_IN: u64 = 100;
/// What is kept of a cell that may be a formula.
const MAX_CELL: usize = 4 << 10;

/// How characters lie in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    /// One byte or, above ASCII, several.
    Bytes,
    /// UTF-16, the lower half first.
    Little,
    /// UTF-16, the higher half first.
    Big,
}

impl Width {
    fn of(head: &[u8]) -> Self {
        match head {
            [0xff, 0xfe, ..] => Self::Little,
            [0xfe, 0xff, ..] => Self::Big,
            _ => Self::Bytes,
        }
    }
}

/// Counts what text does not hold, and looks at every cell.
pub(super) fn inspect(file: &mut impl Read) -> Inspection {
    let (mut seen, mut odd, mut blank, mut nul) = (0_u64, 0_u64, 0_u64, false);
    let (mut width, mut half) = (None, None);
    let mut cells = Cells::default();
    windows(file, 0, |window| {
        let width = *width.get_or_insert_with(|| Width::of(window));
        seen += window.len() as u64;
        for byte in window {
            match byte {
                0 => nul = true,
                b' ' | b'\t' | b'\r' | b'\n' => blank += 1,
                0x01..=0x08 | 0x0b | 0x0e..=0x19 | 0x1b..=0x1f => odd += 1,
                _ => {}
            }
            match (width, half.take()) {
                (Width::Bytes, _) => cells.byte(*byte),
                (_, None) => half = Some(*byte),
                (Width::Little, Some(low)) => cells.byte(if *byte == 0 { low } else { 0xff }),
                (Width::Big, Some(high)) => cells.byte(if high == 0 { *byte } else { 0xff }),
            }
        }
        // Half the bytes of UTF-16 are zero; elsewhere one is enough to stop at.
        width != Width::Bytes || !nul
    })?;
    let wide = width.is_some_and(|width| width != Width::Bytes);
    if !wide && (nul || odd.saturating_mul(ODD_ONE_IN) > seen) {
        return Ok(refuse(RefusalCode::TypeMismatch, "is named as CSV and is no text; export it as CSV in UTF-8"));
    }
    if blank == seen || (wide && seen <= 2) {
        return Ok(refuse(RefusalCode::Empty, "holds nothing but blanks; upload it again"));
    }
    cells.end();
    Ok(Ok(cells.found.flags()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Cell,
    Quotes,
    /// After a quote that ends them, or is the first of two that stand for one.
    Quote,
}

/// Where in the table the next byte stands, and what is kept of the cell.
struct Cells {
    found: Found,
    row: u64,
    cell: u64,
    within: Within,
    /// Nothing but blanks, or a byte order mark, so far.
    blank: bool,
    /// Empty unless the cell begins as a formula does.
    kept: Vec<u8>,
    returned: bool,
}

impl Default for Cells {
    fn default() -> Self {
        let (found, kept) = (Found::default(), Vec::new());
        Self { found, row: 1, cell: 1, within: Within::Cell, blank: true, kept, returned: false }
    }
}

impl Cells {
    fn byte(&mut self, byte: u8) {
        let alone = std::mem::replace(&mut self.returned, byte == b'\r') && byte != b'\n';
        if alone && self.within == Within::Cell {
            self.next_row();
        }
        match (self.within, byte) {
            (Within::Quotes, b'"') => self.within = Within::Quote,
            (Within::Quotes, _) => self.keep(byte),
            (Within::Quote, b'"') => {
                self.within = Within::Quotes;
                self.keep(byte);
            }
            (Within::Cell, b'"') if self.blank => self.within = Within::Quotes,
            (_, b',' | b';' | b'\t') => {
                self.end();
                self.cell += 1;
            }
            (_, b'\r') => self.end(),
            (_, b'\n') => {
                self.end();
                self.next_row();
            }
            _ => {
                self.within = Within::Cell;
                self.keep(byte);
            }
        }
    }

    fn next_row(&mut self) {
        self.row += 1;
        self.cell = 1;
    }

    fn keep(&mut self, byte: u8) {
        if self.blank {
            let mark = self.row == 1 && self.cell == 1 && matches!(byte, 0xef | 0xbb | 0xbf | 0xff);
            self.blank = mark || byte.is_ascii_whitespace();
            if matches!(byte, b'=' | b'+' | b'-' | b'@') {
                self.kept.push(byte);
            }
        } else if !self.kept.is_empty() && self.kept.len() < MAX_CELL {
            self.kept.push(byte);
        }
    }

    fn end(&mut self) {
        if formula::is_formula(&self.kept) {
            let (row, cell) = (self.row, self.cell);
            let mut note = |code| self.found.note(code, || format!("row {row}, cell {cell}"));
            note(FlagCode::FormulaCells);
            formula::look(&self.kept, note);
        }
        self.kept.clear();
        self.blank = true;
        self.within = Within::Cell;
    }
}
