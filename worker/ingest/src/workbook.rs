//! Workbooks, by calamine's streaming reader alone: the other one allocates the rectangle a sheet claims, and one cell
//! at XFD1048576 claims 512 GiB.
//!
//! Cached values stand for formulas, which are counted. Hidden sheets are read and noted. Chart and macro sheets hold no
//! table and are noted.

use std::io::{Read, Seek, SeekFrom};

use calamine::{DataRef, Reader, Sheet, SheetType, SheetVisible, Xlsx, XlsxError};

use crate::date;
use crate::document::{Document, Note, NoteCode, Source};
use crate::error::IngestError;
use crate::limits::Limits;
use crate::read::Names;
use crate::row::{Cell, Flow, Row, Rows, cut};
use crate::table::{self, Budget, Placement, letter};
use crate::zip_guard;

/// What an encrypted workbook, and every old binary one, begins with.
const COMPOUND_FILE: [u8; 8] = [0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1];

pub(crate) fn read<R: Read + Seek>(mut input: R, names: &Names<'_>, limits: &Limits) -> Result<Document, IngestError> {
    let file = names.file;
    let io = |source| IngestError::Io { name: file.to_owned(), source };
    let mut start = Vec::new();
    (&mut input).take(COMPOUND_FILE.len() as u64).read_to_end(&mut start).map_err(io)?;
    if start == COMPOUND_FILE {
        return Err(IngestError::EncryptedWorkbook { name: file.to_owned() });
    }
    input.seek(SeekFrom::Start(0)).map_err(io)?;
    zip_guard::check(&mut input, file, limits)?;
    input.seek(SeekFrom::Start(0)).map_err(io)?;

    let mut workbook = Xlsx::new(input).map_err(|error| refuse(file, &error))?;
    let sheets: Vec<Sheet> = workbook.sheets_metadata().to_vec();
    if sheets.len() > limits.max_sheets {
        let (found, limit) = (sheets.len() as u64, limits.max_sheets as u64);
        return Err(IngestError::TooLarge { thing: file.to_owned(), found, unit: "sheets", limit });
    }
    let is_1904 = workbook.has_1904_epoch();
    let mut budget = Budget::new(limits);
    let mut document = Document::default();
    for sheet in &sheets {
        let thing = format!("sheet {:?} of {file}", cut(&sheet.name, 80));
        if sheet.typ != SheetType::WorkSheet {
            document.notes.push(Note::new(NoteCode::NoTable, format!("{thing} is no worksheet and was not read")));
            continue;
        }
        let hidden = sheet.visible != SheetVisible::Visible;
        let mut rows = SheetRows {
            workbook: &mut workbook,
            sheet: &sheet.name,
            thing: &thing,
            file,
            is_1904,
            formulas: 0,
            limits,
        };
        let placement = Placement { name: &sheet.name, thing: &thing, shifts: false, comma_first: false };
        let table = table::read(&mut rows, &placement, limits, &mut budget)?;
        let formulas = rows.formulas;
        let Some(mut table) = table else {
            document.notes.push(Note::new(NoteCode::NoTable, format!("{thing} is empty")));
            continue;
        };
        table.source = Source::Sheet { hidden, formulas };
        if hidden {
            let message = format!("{thing} is hidden; a person who opens the workbook does not see it");
            table.notes.push(Note::new(NoteCode::HiddenSheet, message));
        }
        if formulas > 0 {
            let message = format!("{formulas} cells of {thing} are formulas; the values are those last saved");
            table.notes.push(Note::new(NoteCode::Formulas, message));
        }
        document.tables.push(table);
    }
    Ok(document)
}

fn refuse(file: &str, error: &XlsxError) -> IngestError {
    match error {
        XlsxError::Password => IngestError::EncryptedWorkbook { name: file.to_owned() },
        other => IngestError::Workbook { name: file.to_owned(), cause: cut(&other.to_string(), 200) },
    }
}

struct SheetRows<'a, R> {
    workbook: &'a mut Xlsx<R>,
    sheet: &'a str,
    thing: &'a str,
    file: &'a str,
    is_1904: bool,
    /// The most that any scan met; the last one may stop before the end.
    formulas: u64,
    limits: &'a Limits,
}

impl<R: Read + Seek> Rows for SheetRows<'_, R> {
    fn scan(&mut self, each: &mut dyn FnMut(&Row) -> Result<Flow, IngestError>) -> Result<(), IngestError> {
        let (file, thing, is_1904) = (self.file, self.thing, self.is_1904);
        let max_columns = self.limits.max_columns;
        let mut cells = self.workbook.worksheet_cells_reader(self.sheet).map_err(|error| refuse(file, &error))?;
        let mut row = Row::default();
        let mut formulas = 0;
        while let Some(record) = cells.next_cell_with_formula_metadata().map_err(|error| refuse(file, &error))? {
            formulas += u64::from(record.formula.is_some());
            self.formulas = self.formulas.max(formulas);
            if matches!(record.value, DataRef::Empty) {
                continue;
            }
            let number = u64::from(record.pos.0) + 1;
            let column = record.pos.1 as usize;
            if column >= max_columns {
                return Err(IngestError::TooLarge {
                    thing: format!("{thing}, with a value in cell {}{number},", letter(column)),
                    found: column as u64 + 1,
                    unit: "columns",
                    limit: max_columns as u64,
                });
            }
            if number < row.number {
                let cause = format!("{thing} has row {number} after row {}", row.number);
                return Err(IngestError::Workbook { name: file.to_owned(), cause });
            }
            if number > row.number {
                if row.filled() > 0 && each(&row)? == Flow::Stop {
                    return Ok(());
                }
                row.clear(number);
            }
            put(&mut row, column, &record.value, is_1904);
        }
        if row.filled() > 0 {
            each(&row)?;
        }
        Ok(())
    }
}

fn put(row: &mut Row, column: usize, value: &DataRef<'_>, is_1904: bool) {
    match value {
        DataRef::Empty => {}
        DataRef::Int(number) => row.set(column, Cell::Number(*number as f64)),
        DataRef::Float(number) if number.is_finite() => row.set(column, Cell::Number(*number)),
        DataRef::Float(_) => row.set(column, Cell::Error("#NUM!")),
        DataRef::String(text) | DataRef::DurationIso(text) => row.set(column, Cell::Text(text)),
        DataRef::SharedString(text) => row.set(column, Cell::Text(text)),
        DataRef::Bool(value) => row.set(column, Cell::Bool(*value)),
        DataRef::DateTime(moment) => {
            let serial = moment.as_f64();
            let micros = if moment.is_duration() { None } else { date::from_serial(serial, is_1904) };
            row.set(column, micros.map_or(Cell::Number(serial), Cell::Time));
        }
        DataRef::DateTimeIso(text) => {
            let micros = date::parse(text, date::Order::DayFirst);
            row.set(column, micros.map_or(Cell::Text(text), Cell::Time));
        }
        DataRef::Error(error) => row.set(column, Cell::Error(&error.to_string())),
    }
}
