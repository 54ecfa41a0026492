//! Real retail data (Complete Journey), if it lies beside the project. Absence is said aloud and is no failure.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use carrel_ingest::{Format, Kind, Limits, read};

fn real(file: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/frozen_pizza").join(file);
    if !path.exists() {
        // Not `eprintln!`: the harness would keep it to itself.
        writeln!(std::io::stderr(), "SKIPPED: {} is not here", path.display()).expect("stderr");
        return None;
    }
    Some(path)
}

#[test]
fn real_sales_are_read_whole() {
    let Some(path) = real("pos_sku_store_week.csv") else { return };
    let document = read(&path, Format::Csv, &Limits::default()).expect("readable");
    let table = &document.tables[0];
    let lines = std::fs::read_to_string(&path).expect("text").lines().count() as u64;
    assert_eq!(table.rows + 1, lines);
    assert_eq!(table.problems.total, 0, "{:?}", table.problems.listed.first());
    let kinds: Vec<Kind> = table.columns.iter().map(|column| column.kind).collect();
    assert_eq!(kinds, [Kind::Integer, Kind::Integer, Kind::Integer, Kind::Integer, Kind::Decimal]);
}

#[test]
fn real_promotions_are_read_whole() {
    let Some(path) = real("promotions.csv") else { return };
    let document = read(&path, Format::Csv, &Limits::default()).expect("readable");
    let table = &document.tables[0];
    let lines = std::fs::read(&path).expect("bytes").iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(table.rows + 1, lines);
    assert_eq!(table.problems.total, 0, "{:?}", table.problems.listed.first());
}

#[test]
fn a_real_item_master_is_read() {
    let Some(path) = real("item_master.xlsx") else { return };
    let document = read(&path, Format::Xlsx, &Limits::default()).expect("readable");
    let table = &document.tables[0];
    assert!(table.rows > 100, "{} rows", table.rows);
    assert_eq!(table.header_row, Some(1));
}
