//! The promises of the ingest crate, on files built here and, where it is at hand, on real retail data.

mod delimited;
mod hostile;
mod pages;
mod real_data;
mod sheets;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, Float64Type, Int64Type};
use carrel_ingest::{Document, Format, Kind, Limits, Table, read_bytes};

fn csv(bytes: impl AsRef<[u8]>) -> Document {
    read_bytes(bytes.as_ref(), "table", Format::Csv, &Limits::default()).expect("this text is read")
}

fn only_table(document: &Document) -> &Table {
    assert_eq!(document.tables.len(), 1, "one table, notes: {:?}", document.notes);
    &document.tables[0]
}

fn kinds(table: &Table) -> Vec<(&str, Kind)> {
    table.columns.iter().map(|column| (column.name.as_str(), column.kind)).collect()
}

/// A column as a person would read it; empty for null.
fn shown(table: &Table, column: &str) -> Vec<String> {
    let at = table.column(column).unwrap_or_else(|| panic!("no column {column:?} in {:?}", kinds(table)));
    let mut values = Vec::new();
    for batch in &table.batches {
        let array = batch.column(at);
        for row in 0..array.len() {
            values.push(if array.is_null(row) {
                String::new()
            } else {
                match table.columns[at].kind {
                    Kind::Text | Kind::Code | Kind::Empty => array.as_string::<i32>().value(row).to_owned(),
                    Kind::Integer => array.as_primitive::<Int64Type>().value(row).to_string(),
                    Kind::Decimal => array.as_primitive::<Float64Type>().value(row).to_string(),
                    Kind::Date => format!("day {}", array.as_primitive::<Date32Type>().value(row)),
                    Kind::Timestamp => "moment".to_owned(),
                    Kind::Boolean => array.as_boolean().value(row).to_string(),
                }
            });
        }
    }
    values
}
