//! Cells to Arrow arrays, one builder for each column, by the verdict reached over the whole column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, TimeUnit};

use crate::date::{self, DAY};
use crate::document::{Kind, Why};
use crate::number;
use crate::profile::{Verdict, answer, is_null_word};
use crate::row::Cell;

/// The Arrow type of a kind.
pub(crate) fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text | Kind::Code | Kind::Empty => DataType::Utf8,
        Kind::Integer => DataType::Int64,
        Kind::Decimal => DataType::Float64,
        Kind::Date => DataType::Date32,
        Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Kind::Boolean => DataType::Boolean,
    }
}

/// The number a cell means under a column's verdict.
pub(crate) fn as_number(cell: Cell<'_>, verdict: &Verdict) -> Option<f64> {
    match cell {
        Cell::Number(value) => Some(value),
        Cell::Text(text) => number::parse(text, verdict.style).map(|found| found.value),
        Cell::Empty | Cell::Bool(_) | Cell::Time(_) | Cell::Error(_) => None,
    }
}

/// Collects one column.
pub(crate) struct ColumnBuilder {
    verdict: Verdict,
    values: Values,
    scratch: String,
    pub(crate) nulls: u64,
}

enum Values {
    Text(StringBuilder),
    Integer(Int64Builder),
    Decimal(Float64Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Boolean(BooleanBuilder),
}

impl ColumnBuilder {
    pub(crate) fn new(verdict: Verdict) -> Self {
        let values = match verdict.kind {
            Kind::Text | Kind::Code | Kind::Empty => Values::Text(StringBuilder::new()),
            Kind::Integer => Values::Integer(Int64Builder::new()),
            Kind::Decimal => Values::Decimal(Float64Builder::new()),
            Kind::Date => Values::Date(Date32Builder::new()),
            Kind::Timestamp => Values::Timestamp(TimestampMicrosecondBuilder::new()),
            Kind::Boolean => Values::Boolean(BooleanBuilder::new()),
        };
        Self { verdict, values, scratch: String::new(), nulls: 0 }
    }

    /// Appends a cell; says why if it had to become null though it held something.
    pub(crate) fn push(&mut self, cell: Cell<'_>) -> Option<Why> {
        let verdict = &self.verdict;
        let kept = match &mut self.values {
            Values::Text(builder) => {
                let value = match cell {
                    Cell::Empty | Cell::Error(_) => None,
                    Cell::Text(text) => Some(text),
                    other => {
                        self.scratch.clear();
                        other.write(&mut self.scratch);
                        Some(self.scratch.as_str())
                    }
                };
                builder.append_option(value);
                value.is_some()
            }
            Values::Integer(builder) => {
                let value = whole(cell, verdict);
                builder.append_option(value);
                value.is_some()
            }
            Values::Decimal(builder) => {
                let value = as_number(cell, verdict);
                builder.append_option(value);
                value.is_some()
            }
            Values::Date(builder) => {
                let value = moment(cell, verdict).and_then(|micros| i32::try_from(micros.div_euclid(DAY)).ok());
                builder.append_option(value);
                value.is_some()
            }
            Values::Timestamp(builder) => {
                let value = moment(cell, verdict);
                builder.append_option(value);
                value.is_some()
            }
            Values::Boolean(builder) => {
                let value = match cell {
                    Cell::Bool(value) => Some(value),
                    Cell::Text(text) => answer(text),
                    Cell::Empty | Cell::Number(_) | Cell::Time(_) | Cell::Error(_) => None,
                };
                builder.append_option(value);
                value.is_some()
            }
        };
        if kept {
            return None;
        }
        self.nulls += 1;
        match cell {
            Cell::Empty => None,
            Cell::Error(_) => Some(Why::ErrorValue),
            Cell::Text(text) if is_null_word(text) => None,
            Cell::Text(_) | Cell::Number(_) | Cell::Bool(_) | Cell::Time(_) => Some(Why::NotA(verdict.kind)),
        }
    }

    /// The cells since the last call, as one array.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Text(builder) => Arc::new(builder.finish()),
            Values::Integer(builder) => Arc::new(builder.finish()),
            Values::Decimal(builder) => Arc::new(builder.finish()),
            Values::Date(builder) => Arc::new(builder.finish()),
            Values::Timestamp(builder) => Arc::new(builder.finish()),
            Values::Boolean(builder) => Arc::new(builder.finish()),
        }
    }
}

fn whole(cell: Cell<'_>, verdict: &Verdict) -> Option<i64> {
    match cell {
        // Beyond 9e15 a float no longer counts in ones.
        Cell::Number(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(value as i64),
        Cell::Text(text) => number::parse(text, verdict.style).and_then(|found| found.whole),
        Cell::Empty | Cell::Number(_) | Cell::Bool(_) | Cell::Time(_) | Cell::Error(_) => None,
    }
}

fn moment(cell: Cell<'_>, verdict: &Verdict) -> Option<i64> {
    match cell {
        Cell::Time(micros) => Some(micros),
        Cell::Text(text) if verdict.compact => date::parse_compact(text),
        Cell::Text(text) => date::parse(text, verdict.order),
        Cell::Empty | Cell::Number(_) | Cell::Bool(_) | Cell::Error(_) => None,
    }
}
