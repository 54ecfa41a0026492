//! From the request's files to frames: reads with carrel-ingest and turns Arrow batches into typed columns.
//!
//! A file that cannot be read is named with the reason; the others are reviewed without it.

use std::collections::HashMap;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use carrel_ingest::{Format, Kind, Limits, NoteCode, Table, Unit, Why, labelled_numbers, read};
use carrel_schemas::agent::{AgentInput, AgentRequest, FileFormat};

use crate::frame::{Failing, Frame, FrameSource, NO_DAY, NULL, Total, Values};
use crate::pack::{Line, Pack, Page};
use crate::state::many;

const DAY_MICROS: i64 = 86_400_000_000;
/// From here on a float no longer counts in ones: two ids would become one.
const EXACT: u64 = 1 << 53;

pub(crate) fn load(request: &AgentRequest) -> Pack {
    let mut pack = Pack { name: request.pack.as_str().to_owned(), ..Pack::default() };
    for input in &request.inputs {
        file(&mut pack, Path::new(&request.input_dir), input);
    }
    for refused in &request.refused {
        pack.refused.push((refused.name.clone(), refused.message.clone()));
    }
    pack
}

fn file(pack: &mut Pack, dir: &Path, input: &AgentInput) {
    let format = match input.format {
        FileFormat::Csv => Format::Csv,
        FileFormat::Xlsx => Format::Xlsx,
        FileFormat::Pdf => Format::Pdf,
    };
    let source = FrameSource { file_id: input.file_id.clone(), name: input.name.clone(), sha256: input.sha256.clone() };
    let document = match read(&dir.join(&input.path), format, &Limits::default()) {
        Ok(document) => document,
        Err(error) => return pack.refused.push((input.name.clone(), error.to_string())),
    };
    if !input.flags.is_empty() {
        pack.flagged.push((source.clone(), input.flags.iter().map(|flag| flag.message.clone()).collect()));
    }
    let parts = [(document.tables.len(), "table"), (document.texts.len(), "page")];
    let read: Vec<String> = parts.iter().filter(|(count, _)| *count > 0).map(|(count, of)| many(*count, of)).collect();
    pack.files.push((input.name.clone(), if read.is_empty() { "nothing".to_owned() } else { read.join(", ") }));
    pack.notes.extend(document.notes.iter().map(|n| format!("{}: {}", input.name, n.message)));
    for page in &document.texts {
        let mut lines: Vec<Line> = page.lines.iter().map(|t| Line { text: t.clone(), numbers: vec![] }).collect();
        let mut from = 0;
        for number in labelled_numbers(page) {
            // Numbers come in the order of the lines, each with its line's text.
            if let Some(at) = (from..lines.len()).find(|at| lines[*at].text.trim() == number.text.trim()) {
                from = at;
                lines[at].numbers.push(number.value);
            }
        }
        pack.pages.push(Page { source: source.clone(), page: page.page, lines });
    }
    for table in document.tables {
        pack.notes.extend(table.notes.iter().map(|n| format!("{}: {}", input.name, n.message)));
        let kinds: Vec<Kind> = table.columns.iter().map(|c| c.kind).collect();
        let frame = frame(table, &source);
        for (column, _) in frame.columns.iter().zip(kinds).filter(|(c, k)| *k == Kind::Integer && c.numbers().is_none())
        {
            let long = "holds whole numbers of 16 digits or more: read as codes, not added up";
            pack.notes.push(format!("{}: column {} {long}", frame.title(), column.name));
        }
        pack.frames.push(frame);
    }
}

fn frame(table: Table, source: &FrameSource) -> Frame {
    let sheet = matches!(table.source, carrel_ingest::Source::Sheet { .. });
    let columns = (0..table.columns.len()).map(|at| (table.columns[at].name.clone(), values(&table, at))).collect();
    let mut frame = Frame::new(source.clone(), &table.name, sheet, columns);
    frame.jumps.clear();
    let mut expected = 0;
    for index in 0..table.rows {
        let row = table.row_number(index);
        if index == 0 || row != expected {
            frame.jumps.push((index as usize, row));
        }
        expected = row + 1;
    }
    for (at, (column, read)) in frame.columns.iter_mut().zip(&table.columns).enumerate() {
        column.timed = timed(&table, at);
        column.letter.clone_from(&read.letter);
        column.percent = read.unit == Some(Unit::Percent);
        column.currency = match &read.unit {
            Some(Unit::Currency(sign)) => Some(sign.clone()),
            Some(Unit::Percent) | None => None,
        };
    }
    let total = |t: &carrel_ingest::TotalsRow| Total { row: t.row, label: t.label.clone(), values: t.values.clone() };
    frame.totals = table.totals.iter().map(total).collect();
    frame.subtotals = table.notes.iter().any(|note| note.code == NoteCode::Subtotals);
    frame.failing_total = table.problems.total;
    frame.failing = table
        .problems
        .listed
        .into_iter()
        .map(|p| {
            let why = match p.why {
                Why::ShortRow { cells, expected } => format!("{cells} cells where the header has {expected}"),
                Why::LongRow { cells, expected } => format!("{cells} cells where the header has {expected}"),
                Why::NotA(kind) => format!("not a {kind}"),
                Why::ErrorValue => "a spreadsheet error".to_owned(),
            };
            Failing { row: p.row, column: p.column, value: p.value, why }
        })
        .collect();
    frame
}

/// True if a cell of the column holds more than a date.
fn timed(table: &Table, at: usize) -> bool {
    let columns = table.batches.iter().map(|batch| batch.column(at));
    let mut times = columns.filter_map(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    times.any(|cells| cells.iter().flatten().any(|micros| micros % DAY_MICROS != 0))
}

fn values(table: &Table, at: usize) -> Values {
    let arrays = || table.batches.iter().map(move |b| b.column(at));
    match table.batches.first().map(|b| b.column(at).data_type().clone()) {
        Some(DataType::Int64) => {
            let cells = || arrays().flat_map(|a| a.as_primitive::<Int64Type>().iter());
            if cells().flatten().any(|v| v.unsigned_abs() >= EXACT) {
                let texts: Vec<Option<String>> = cells().map(|v| v.map(|v| v.to_string())).collect();
                return words(texts.iter().map(Option::as_deref));
            }
            Values::Number { values: cells().map(|v| v.map_or(f64::NAN, |v| v as f64)).collect(), whole: true }
        }
        Some(DataType::Float64) => {
            let cells = arrays().flat_map(|a| a.as_primitive::<Float64Type>().iter().map(|v| v.unwrap_or(f64::NAN)));
            Values::Number { values: cells.collect(), whole: false }
        }
        Some(DataType::Date32) => Values::Day(
            arrays().flat_map(|a| a.as_primitive::<Date32Type>().iter().map(|v| v.unwrap_or(NO_DAY))).collect(),
        ),
        Some(DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            let day = |v: Option<i64>| v.and_then(|v| i32::try_from(v.div_euclid(DAY_MICROS)).ok()).unwrap_or(NO_DAY);
            Values::Day(arrays().flat_map(|a| a.as_primitive::<TimestampMicrosecondType>().iter().map(day)).collect())
        }
        Some(DataType::Boolean) => {
            words(arrays().flat_map(|a| a.as_boolean().iter().map(|v| v.map(|v| if v { "yes" } else { "no" }))))
        }
        Some(DataType::Utf8) => words(arrays().flat_map(|a| a.as_string::<i32>().iter())),
        _ => Values::Text { words: vec![], codes: vec![NULL; table.rows as usize] },
    }
}

fn words<'a>(cells: impl Iterator<Item = Option<&'a str>>) -> Values {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let mut words = Vec::new();
    let mut codes = Vec::new();
    for cell in cells {
        codes.push(cell.map_or(NULL, |cell| {
            *seen.entry(cell).or_insert_with(|| {
                words.push(cell.to_owned());
                (words.len() - 1) as u32
            })
        }));
    }
    Values::Text { words, codes }
}
