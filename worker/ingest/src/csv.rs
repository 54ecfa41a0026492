//! Delimited text: finds the delimiter, counts rows as a spreadsheet does, and hands rows to [`crate::table`].
//!
//! Quoted line breaks belong to their cell and blank lines count as rows. A quote that never closes is refused at
//! `max_record_bytes` rather than swallowing the rest of the file.

use std::io::{Read, Seek};
use std::rc::Rc;

use csv::{Reader, ReaderBuilder, StringRecord};

use crate::document::{Document, Note, NoteCode, Source};
use crate::error::IngestError;
use crate::limits::Limits;
use crate::read::Names;
use crate::row::{Cell, Flow, Row, Rows};
use crate::table::{self, Budget, Placement};
use crate::text::{Detected, Gauge, Utf8Lines, detect};

const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
const SAMPLE_BYTES: u64 = 64 << 10;
const SAMPLE_RECORDS: usize = 200;

pub(crate) fn read<R: Read + Seek>(input: &mut R, names: &Names<'_>, limits: &Limits) -> Result<Document, IngestError> {
    let mut detected = detect(input, names.file)?;
    let mut document = Document::default();
    document.notes.extend(detected.note.take());
    let gauge = Rc::new(Gauge::default());
    let delimiter = sniff(&mut *input, &detected, names.file)?;
    let mut rows = Delimited { input, detected, gauge, delimiter, name: names.file, limits };
    let mut budget = Budget::new(limits);
    let placement = Placement { name: names.stem, thing: names.file, shifts: true, comma_first: delimiter == b';' };
    match table::read(&mut rows, &placement, limits, &mut budget)? {
        Some(mut table) => {
            table.source =
                Source::Delimited { encoding: rows.detected.encoding, delimiter: char::from(rows.delimiter) };
            document.tables.push(table);
        }
        None => document.notes.push(Note::new(NoteCode::NoTable, format!("{} holds no rows", names.file))),
    }
    if rows.gauge.replaced.get() {
        let message =
            format!("some characters of {} are no valid {}; shown as \u{fffd}", names.file, rows.detected.encoding);
        document.notes.push(Note::new(NoteCode::Encoding, message));
    }
    Ok(document)
}

/// The delimiter under which most rows have the same number of cells; among equals, the one that makes more cells.
fn sniff<R: Read + Seek>(input: &mut R, detected: &Detected, name: &str) -> Result<u8, IngestError> {
    let io = |source| IngestError::Io { name: name.to_owned(), source };
    let mut sample = Vec::new();
    let lines = Utf8Lines::open(input, detected, Rc::new(Gauge::default()), u64::MAX / 2).map_err(io)?;
    lines.take(SAMPLE_BYTES).read_to_end(&mut sample).map_err(io)?;
    if let Some(declared) = sample.strip_prefix(b"sep=")
        && let Some(delimiter) = declared.first().filter(|byte| DELIMITERS.contains(byte))
    {
        return Ok(*delimiter);
    }
    if sample.len() as u64 == SAMPLE_BYTES
        && let Some(end) = sample.iter().rposition(|byte| *byte == b'\n')
    {
        sample.truncate(end + 1);
    }
    let scored = DELIMITERS.iter().filter_map(|delimiter| {
        let (agreeing, width) = agreement(&sample, *delimiter);
        (width > 1).then_some((agreeing, width, *delimiter))
    });
    // The share of agreeing rows; the rows differ between delimiters only where quotes do.
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    Ok(best.map_or(b',', |(_, _, delimiter)| delimiter))
}

/// The share of rows that have the most common number of cells, and that number.
fn agreement(sample: &[u8], delimiter: u8) -> (f64, usize) {
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(sample);
    let mut widths: Vec<usize> = Vec::new();
    for record in reader.byte_records().take(SAMPLE_RECORDS).map_while(Result::ok) {
        widths.push(record.len());
    }
    let total = widths.len();
    widths.sort_unstable();
    let common = widths.chunk_by(|a, b| a == b).map(|same| (same.len(), same[0])).filter(|(_, width)| *width > 1).max();
    common.map_or((0.0, 1), |(count, width)| (count as f64 / total as f64, width))
}

struct Delimited<'a, R> {
    input: &'a mut R,
    detected: Detected,
    gauge: Rc<Gauge>,
    delimiter: u8,
    name: &'a str,
    limits: &'a Limits,
}

impl<R: Read + Seek> Rows for Delimited<'_, R> {
    fn scan(&mut self, each: &mut dyn FnMut(&Row) -> Result<Flow, IngestError>) -> Result<(), IngestError> {
        let io = |source| IngestError::Io { name: self.name.to_owned(), source };
        let limit = self.limits.max_record_bytes;
        let text = Utf8Lines::open(&mut *self.input, &self.detected, Rc::clone(&self.gauge), limit).map_err(io)?;
        let mut reader =
            ReaderBuilder::new().has_headers(false).flexible(true).delimiter(self.delimiter).from_reader(text);
        let mut record = StringRecord::new();
        let mut row = Row::default();
        let mut next = 1;
        let records = Records { gauge: &self.gauge, name: self.name, limit };
        while records.read(&mut reader, &mut record, next)? {
            let number = next + blank_lines_before(&reader, &record);
            next = number + 1;
            if record.len() > self.limits.max_columns {
                return Err(IngestError::TooLarge {
                    thing: format!("row {number} of {}", self.name),
                    found: record.len() as u64,
                    unit: "columns",
                    limit: self.limits.max_columns as u64,
                });
            }
            row.clear(number);
            for (column, field) in record.iter().enumerate() {
                row.set(column, Cell::Text(field));
            }
            if row.filled() > 0 && each(&row)? == Flow::Stop {
                break;
            }
        }
        Ok(())
    }
}

/// What reading a record needs beside the reader.
struct Records<'a> {
    gauge: &'a Gauge,
    name: &'a str,
    limit: u64,
}

impl Records<'_> {
    fn read<T: Read>(&self, reader: &mut Reader<T>, record: &mut StringRecord, row: u64) -> Result<bool, IngestError> {
        let name = self.name.to_owned();
        let limit = self.limit;
        match reader.read_record(record) {
            Ok(more) => {
                self.gauge.since_record.set(0);
                if record.as_slice().len() as u64 > limit {
                    return Err(IngestError::UnclosedQuote { name, row, limit });
                }
                Ok(more)
            }
            Err(_) if self.gauge.exceeded.get() => Err(IngestError::UnclosedQuote { name, row, limit }),
            Err(error) => Err(IngestError::Io { name, source: std::io::Error::other(error) }),
        }
    }
}

/// The parser skips blank lines; the spreadsheet does not.
fn blank_lines_before<T: Read>(reader: &Reader<T>, record: &StringRecord) -> u64 {
    let started = record.position().map_or(0, csv::Position::line);
    let consumed = reader.position().line().saturating_sub(started);
    let within = record.as_slice().bytes().filter(|byte| *byte == b'\n').count() as u64;
    consumed.saturating_sub(1 + within)
}
