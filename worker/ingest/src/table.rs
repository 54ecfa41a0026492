//! Rows to a table, in three scans of bounded memory: the head, the counts, the values.
//!
//! ```text
//! scan 1  first rows           ─► shape: preamble, header, width
//! scan 2  every row            ─► profiles; the last rows are held back until it is known whether they are totals
//!                              ─► verdicts
//! scan 3  every row but totals ─► record batches, problems
//! ```

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::build::{ColumnBuilder, as_number, data_type};
use crate::document::{Column, Kind, Note, NoteCode, PreambleLine, Problem, Problems, Source, Table, TotalsRow, Why};
use crate::error::IngestError;
use crate::limits::Limits;
use crate::number::Style;
use crate::profile::{Profile, Verdict};
use crate::row::{Cell, Flow, Row, Rows, cut};
use crate::shape::{self, HEAD_ROWS, Head, TAIL_ROWS, Tail};

const BATCH_ROWS: u64 = 8_192;
const LINE_CHARACTERS: usize = 240;

/// Where rows come from, in words, and how they behave.
pub(crate) struct Placement<'a> {
    /// The table's name.
    pub(crate) name: &'a str,
    /// The file or sheet in messages.
    pub(crate) thing: &'a str,
    /// A row with too many cells has its cells in the wrong columns (delimited text, not sheets).
    pub(crate) shifts: bool,
    /// Without proof, commas separate fractions.
    pub(crate) comma_first: bool,
}

/// Cells left for the tables of a file.
pub(crate) struct Budget {
    left: u64,
    limit: u64,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { left: limits.max_cells, limit: limits.max_cells }
    }

    fn take(&mut self, cells: u64, thing: &str) -> Result<(), IngestError> {
        match self.left.checked_sub(cells) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                let found = self.limit - self.left + cells;
                Err(IngestError::TooLarge { thing: thing.to_owned(), found, unit: "cells", limit: self.limit })
            }
        }
    }
}

/// Reads one table. `None`: there are no rows. The caller sets the source.
pub(crate) fn read(
    rows: &mut dyn Rows,
    placement: &Placement<'_>,
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Option<Table>, IngestError> {
    let mut first = Vec::new();
    rows.scan(&mut |row| {
        first.push(row.clone());
        Ok(if first.len() < HEAD_ROWS { Flow::More } else { Flow::Stop })
    })?;
    if first.is_empty() {
        return Ok(None);
    }
    let head = shape::head(&first);
    let mut table = Table {
        name: placement.name.to_owned(),
        source: Source::Sheet { hidden: false, formulas: 0 },
        columns: Vec::new(),
        batches: Vec::new(),
        rows: 0,
        header_row: head.header.then(|| first[head.preamble].number),
        preamble: first[..head.preamble].iter().map(line).collect(),
        footer: Vec::new(),
        totals: Vec::new(),
        problems: Problems::default(),
        notes: Vec::new(),
        row_jumps: Vec::new(),
    };
    let data_from = first.get(head.preamble + usize::from(head.header)).map_or(u64::MAX, |row| row.number);
    let survey = survey(rows, placement, limits, budget, head.width, data_from)?;
    survey.describe(&mut table, placement);

    let header = head.header.then(|| &first[head.preamble]);
    let verdicts = decide(&survey.profiles, header, placement);
    let plan = name_columns(&mut table, &head, header, verdicts, placement);
    for row in &survey.tail {
        match row {
            (row, Tail::Totals) => table.totals.push(totals_row(row, &plan)),
            (row, Tail::Remark | Tail::Data) => table.footer.push(line(row)),
        }
    }
    let data_to = survey.tail.first().map_or(u64::MAX, |(row, _)| row.number);
    collect(rows, &mut table, plan, placement, limits, head.width, data_from..data_to)?;
    Ok(Some(table))
}

fn line(row: &Row) -> PreambleLine {
    PreambleLine { row: row.number, text: row.line(LINE_CHARACTERS) }
}

/// What the second scan found.
struct Survey {
    profiles: Vec<Profile>,
    /// Rows at the end that are no data.
    tail: Vec<(Row, Tail)>,
    /// The first rows within the data that look like subtotals, and how many there are.
    subtotals: (Vec<u64>, u64),
}

impl Survey {
    fn observe(&mut self, row: &Row, width: usize, shifts: bool) {
        if row.width() > width && shifts {
            return;
        }
        if shape::is_totals(row) {
            self.subtotals.1 += 1;
            if self.subtotals.0.len() < 5 {
                self.subtotals.0.push(row.number);
            }
        }
        for (column, profile) in self.profiles.iter_mut().enumerate() {
            profile.add(row.cell(column));
        }
    }

    fn describe(&self, table: &mut Table, placement: &Placement<'_>) {
        if table.header_row.is_none() {
            let message = format!("{} has no row that looks like a header; columns are numbered", placement.thing);
            table.notes.push(Note::new(NoteCode::NoHeader, message));
        }
        let (rows, count) = &self.subtotals;
        if *count > 0 {
            let rows: Vec<String> = rows.iter().map(u64::to_string).collect();
            let more = if *count > rows.len() as u64 { ", …" } else { "" };
            let message = format!(
                "{count} rows within {} look like subtotals and are in the data: rows {}{more}",
                placement.thing,
                rows.join(", ")
            );
            table.notes.push(Note::new(NoteCode::Subtotals, message));
        }
    }
}

fn survey(
    rows: &mut dyn Rows,
    placement: &Placement<'_>,
    limits: &Limits,
    budget: &mut Budget,
    width: usize,
    data_from: u64,
) -> Result<Survey, IngestError> {
    let profiles = vec![Profile::default(); width];
    let mut survey = Survey { profiles, tail: Vec::new(), subtotals: (Vec::new(), 0) };
    let mut held: VecDeque<Row> = VecDeque::with_capacity(TAIL_ROWS + 1);
    let mut count = 0u64;
    let mut before = 0;
    rows.scan(&mut |row| {
        if row.number < data_from {
            return Ok(Flow::More);
        }
        count += 1;
        if count > limits.max_rows {
            let limit = limits.max_rows;
            return Err(IngestError::TooLarge { thing: placement.thing.to_owned(), found: count, unit: "rows", limit });
        }
        budget.take(width as u64, placement.thing)?;
        let mut kept = Row::default();
        if held.len() == TAIL_ROWS
            && let Some(oldest) = held.pop_front()
        {
            survey.observe(&oldest, width, placement.shifts);
            before = oldest.number;
            kept = oldest;
        }
        kept.copy_from(row);
        held.push_back(kept);
        Ok(Flow::More)
    })?;
    while let Some(last) = held.pop_back() {
        let former = held.back().map_or(before, |row| row.number);
        match shape::tail(&last, width, last.number > former + 1) {
            Tail::Data => {
                held.push_back(last);
                break;
            }
            what => survey.tail.push((last, what)),
        }
    }
    survey.tail.reverse();
    for row in &held {
        survey.observe(row, width, placement.shifts);
    }
    Ok(survey)
}

fn decide(profiles: &[Profile], header: Option<&Row>, placement: &Placement<'_>) -> Vec<Verdict> {
    let votes = profiles.iter().map(Profile::style_votes);
    let (point, comma) = votes.fold((0, 0), |sum, votes| (sum.0 + votes.0, sum.1 + votes.1));
    let file_style = match point.cmp(&comma) {
        std::cmp::Ordering::Greater => Some(Style::Point),
        std::cmp::Ordering::Less => Some(Style::Comma),
        std::cmp::Ordering::Equal => None,
    };
    let guess = if placement.comma_first { Style::Comma } else { Style::Point };
    let verdict = |(column, profile): (usize, &Profile)| {
        let name = header.map_or_else(String::new, |row| row.cell(column).show());
        profile.decide(&name, file_style, guess)
    };
    profiles.iter().enumerate().map(verdict).collect()
}

/// A kept column: where its cells stand, and what they are.
struct Planned {
    at: usize,
    verdict: Verdict,
}

fn name_columns(
    table: &mut Table,
    head: &Head,
    header: Option<&Row>,
    verdicts: Vec<Verdict>,
    placement: &Placement<'_>,
) -> Vec<Planned> {
    let mut taken = HashSet::new();
    let mut plan = Vec::new();
    let mut renamed = Vec::new();
    debug_assert_eq!(verdicts.len(), head.width);
    for (at, verdict) in verdicts.into_iter().enumerate() {
        let original = header.map_or_else(String::new, |row| row.cell(at).show());
        if original.is_empty() && verdict.kind == Kind::Empty {
            continue;
        }
        let wanted = if original.is_empty() { format!("column_{}", at + 1) } else { one_line(&original) };
        let mut name = wanted.clone();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        if header.is_some() && (name != wanted || original.is_empty()) {
            renamed.push(format!("{} is called {name:?}", letter(at)));
        }
        if let Some((code, message)) = verdict.note {
            table.notes.push(Note::new(code, format!("column {name:?} of {}: {message}", placement.thing)));
        }
        let (kind, unit) = (verdict.kind, verdict.unit.clone());
        table.columns.push(Column { name, original_header: original, letter: letter(at), kind, unit, nulls: 0 });
        plan.push(Planned { at, verdict });
    }
    if !renamed.is_empty() {
        let message =
            format!("{} has empty or repeated headers: column {}", placement.thing, renamed.join(", column "));
        table.notes.push(Note::new(NoteCode::HeaderNames, cut(&message, 1_000)));
    }
    plan
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The spreadsheet letters of a column counted from 0: `A`, `B`, … `Z`, `AA`.
pub fn letter(column: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = column + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'A' + u8::try_from(rest % 26).expect("below 26")));
        rest /= 26;
    }
    letters.iter().rev().collect()
}

fn totals_row(row: &Row, plan: &[Planned]) -> TotalsRow {
    let label = row.cells().find(|cell| *cell != Cell::Empty).map_or_else(String::new, |cell| cell.show());
    let values = plan.iter().map(|column| as_number(row.cell(column.at), &column.verdict)).collect();
    TotalsRow { row: row.number, label, values }
}

fn collect(
    rows: &mut dyn Rows,
    table: &mut Table,
    plan: Vec<Planned>,
    placement: &Placement<'_>,
    limits: &Limits,
    width: usize,
    data: std::ops::Range<u64>,
) -> Result<(), IngestError> {
    let fields = table.columns.iter().map(|column| Field::new(&column.name, data_type(column.kind), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mut builders: Vec<(usize, ColumnBuilder)> =
        plan.into_iter().map(|column| (column.at, ColumnBuilder::new(column.verdict))).collect();
    if builders.is_empty() {
        return Ok(());
    }
    let (mut count, mut pending, mut expected) = (0u64, 0u64, 0u64);
    let Table { columns, batches, problems, row_jumps, .. } = table;
    rows.scan(&mut |row| {
        if row.number >= data.end {
            return Ok(Flow::Stop);
        }
        if row.number < data.start {
            return Ok(Flow::More);
        }
        if let Some(why) = ragged(row, width, placement.shifts) {
            let dropped = placement.shifts && matches!(why, Why::LongRow { .. });
            problems.add(limits.max_listed, || whole_row(row, why));
            if dropped {
                return Ok(Flow::More);
            }
        }
        if row.number != expected {
            row_jumps.push((count, row.number));
        }
        expected = row.number + 1;
        for ((at, builder), column) in builders.iter_mut().zip(columns.iter()) {
            let cell = row.cell(*at);
            if let Some(why) = builder.push(cell) {
                let column = Some(column.name.clone());
                problems.add(limits.max_listed, || Problem { row: row.number, column, value: cell.show(), why });
            }
        }
        count += 1;
        pending += 1;
        if pending == BATCH_ROWS {
            batches.push(batch(&schema, &mut builders));
            pending = 0;
        }
        Ok(Flow::More)
    })?;
    if pending > 0 {
        batches.push(batch(&schema, &mut builders));
    }
    for ((_, builder), column) in builders.iter().zip(columns.iter_mut()) {
        column.nulls = builder.nulls;
    }
    table.rows = count;
    Ok(())
}

/// Why a row has not as many cells as the table; where cells do not shift, empty ones at its end are no fault.
fn ragged(row: &Row, width: usize, shifts: bool) -> Option<Why> {
    if row.width() > width {
        return Some(Why::LongRow { cells: row.width(), expected: width });
    }
    (shifts && row.len() < width).then(|| Why::ShortRow { cells: row.len(), expected: width })
}

fn whole_row(row: &Row, why: Why) -> Problem {
    Problem { row: row.number, column: None, value: row.line(120), why }
}

fn batch(schema: &Arc<Schema>, builders: &mut [(usize, ColumnBuilder)]) -> RecordBatch {
    let arrays = builders.iter_mut().map(|(_, builder)| builder.finish()).collect();
    RecordBatch::try_new(Arc::clone(schema), arrays).expect("every builder got every row and follows the schema")
}
