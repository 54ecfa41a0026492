//! Workbooks as people save them.

use carrel_ingest::{Document, Format, Kind, Limits, NoteCode, Source, Unit, Why, read_bytes};
use rust_xlsxwriter::{ExcelDateTime, Format as Style, Formula, Workbook};

use crate::{kinds, only_table, shown};

pub(crate) fn read(workbook: &mut Workbook) -> Document {
    let bytes = workbook.save_to_buffer().expect("the workbook is written");
    read_bytes(&bytes, "book.xlsx", Format::Xlsx, &Limits::default()).expect("the workbook is read")
}

#[test]
fn codes_dates_and_whole_numbers_keep_their_kind() {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet().set_name("Items").unwrap();
    let day = Style::new().set_num_format("yyyy-mm-dd");
    let moment = Style::new().set_num_format("yyyy-mm-dd hh:mm");
    for (column, header) in ["code", "units", "price", "listed", "seen", "active", "name"].iter().enumerate() {
        sheet.write(0, column as u16, *header).unwrap();
    }
    for row in 1..=3u32 {
        sheet.write(row, 0, format!("0044{row}")).unwrap();
        sheet.write(row, 1, row * 10).unwrap();
        sheet.write(row, 2, f64::from(row) + 0.5).unwrap();
        sheet.write_with_format(row, 3, ExcelDateTime::from_ymd(2026, 1, 30 + row as u8 % 2).unwrap(), &day).unwrap();
        let seen = ExcelDateTime::from_ymd(2026, 1, 31).unwrap().and_hms(10, 30, 0.0).unwrap();
        sheet.write_with_format(row, 4, &seen, &moment).unwrap();
        sheet.write(row, 5, row % 2 == 0).unwrap();
        sheet.write(row, 6, "Pizza").unwrap();
    }
    let document = read(&mut workbook);
    let table = only_table(&document);
    assert_eq!(
        kinds(table),
        [
            ("code", Kind::Code),
            ("units", Kind::Integer),
            ("price", Kind::Decimal),
            ("listed", Kind::Date),
            ("seen", Kind::Timestamp),
            ("active", Kind::Boolean),
            ("name", Kind::Text),
        ]
    );
    assert_eq!(shown(table, "code"), ["00441", "00442", "00443"]);
    assert_eq!(shown(table, "listed"), ["day 20484", "day 20483", "day 20484"]);
    assert_eq!((table.name.as_str(), table.columns[3].letter.as_str()), ("Items", "D"));
}

#[test]
fn title_rows_totals_and_gaps_are_told_with_their_rows() {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.merge_range(0, 1, 0, 3, "Promotion calendar 2026", &Style::new()).unwrap();
    for (column, header) in ["item", "units", "sales"].iter().enumerate() {
        sheet.write(2, 1 + column as u16, *header).unwrap();
    }
    for (at, row) in [3u32, 4, 6, 7].into_iter().enumerate() {
        sheet.write(row, 1, format!("item {at}")).unwrap();
        sheet.write(row, 2, 10).unwrap();
        sheet.write(row, 3, 2.5).unwrap();
    }
    sheet.write(8, 1, "Grand total").unwrap();
    sheet.write_formula(8, 2, Formula::new("SUM(C4:C8)").set_result("40")).unwrap();
    sheet.write(8, 3, 10.0).unwrap();
    let document = read(&mut workbook);
    let table = only_table(&document);
    assert_eq!(table.header_row, Some(3));
    assert_eq!((table.preamble[0].row, table.preamble[0].text.as_str()), (1, "Promotion calendar 2026"));
    assert_eq!((0..4).map(|at| table.row_number(at)).collect::<Vec<_>>(), [4, 5, 7, 8]);
    assert_eq!(table.columns[0].letter, "B", "the empty column A is no column");
    assert_eq!((table.totals[0].row, table.totals[0].values.clone()), (9, vec![None, Some(40.0), Some(10.0)]));
    assert_eq!(table.source, Source::Sheet { hidden: false, formulas: 1 });
    assert!(table.notes.iter().any(|note| note.code == NoteCode::Formulas));
}

#[test]
fn every_sheet_is_read_and_hidden_ones_are_noted() {
    let mut workbook = Workbook::new();
    for (name, hidden) in [("Data", false), ("About", false), ("Secret", true), ("Blank", false)] {
        let sheet = workbook.add_worksheet().set_name(name).unwrap().set_hidden(hidden);
        if name != "Blank" {
            sheet.write(0, 0, "key").unwrap();
            sheet.write(0, 1, "value").unwrap();
            sheet.write(1, 0, name).unwrap();
            sheet.write(1, 1, 5).unwrap();
        }
    }
    let document = read(&mut workbook);
    let names: Vec<&str> = document.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["Data", "About", "Secret"]);
    assert_eq!(document.tables[2].notes[0].code, NoteCode::HiddenSheet);
    assert_eq!(document.notes[0].message, "sheet \"Blank\" of book.xlsx is empty");
}

#[test]
fn spreadsheet_errors_are_null_and_told() {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write(0, 0, "item").unwrap();
    sheet.write(0, 1, "margin").unwrap();
    for row in 1..=30u32 {
        sheet.write(row, 0, "x").unwrap();
        sheet.write(row, 1, 0.25).unwrap();
    }
    sheet.write_formula(30, 1, Formula::new("1/0").set_result("#DIV/0!")).unwrap();
    let document = read(&mut workbook);
    let table = only_table(&document);
    assert_eq!(table.columns[1].kind, Kind::Decimal);
    let problem = &table.problems.listed[0];
    assert_eq!((problem.row, problem.value.as_str(), problem.why), (31, "#DIV/0!", Why::ErrorValue));
    assert_eq!(problem.column.as_deref(), Some("margin"));
}

#[test]
fn numbers_saved_as_text_are_numbers() {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    for (row, (name, amount)) in [("name", "amount"), ("x", "$1,234.50"), ("y", "$7.25")].into_iter().enumerate() {
        sheet.write(row as u32, 0, name).unwrap();
        sheet.write(row as u32, 1, amount).unwrap();
    }
    sheet.write(3, 0, "z").unwrap();
    sheet.write(3, 1, 2).unwrap();
    let document = read(&mut workbook);
    let table = only_table(&document);
    assert_eq!(shown(table, "amount"), ["1234.5", "7.25", "2"]);
    assert_eq!(table.columns[1].unit, Some(Unit::Currency("$".to_owned())));
}

#[test]
fn a_cell_beside_the_table_is_told_and_its_row_is_kept() {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write(0, 0, "item").unwrap();
    sheet.write(0, 1, "units").unwrap();
    for row in 1..=30u32 {
        sheet.write(row, 0, format!("A{row}")).unwrap();
        sheet.write(row, 1, row).unwrap();
    }
    sheet.write(4, 9, "ask Jo about this").unwrap();
    let document = read(&mut workbook);
    let table = only_table(&document);
    assert_eq!((table.rows, table.columns.len()), (30, 2));
    assert_eq!(
        (table.problems.listed[0].row, table.problems.listed[0].why),
        (5, Why::LongRow { cells: 10, expected: 2 })
    );
}
