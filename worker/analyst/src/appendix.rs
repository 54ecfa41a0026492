//! `appendix.xlsx`: every number behind the deck. Text is written as text, never as a formula.

use carrel_schemas::findings::Findings;
use rust_xlsxwriter::{Workbook, XlsxError};

use crate::deck::place;
use crate::frame::{Column, Frame};
use crate::pack::Pack;
use crate::review::Review;
use crate::state::{State, Tie};

/// Longest text of a cell; the format allows 32,767.
const CELL: usize = 8000;

pub(crate) fn workbook(pack: &Pack, review: &Review) -> Result<Vec<u8>, XlsxError> {
    let mut book = Workbook::new();
    said(&mut book, &review.findings)?;
    profiles(&mut book, pack)?;
    beside(&mut book, &review.state)?;
    let missing = review.findings.not_computed.iter().map(|n| vec![n.what.clone(), n.why.clone()]);
    sheet(&mut book, "Not computed", &["What", "Why"], missing.collect())?;
    book.save_to_buffer()
}

/// Findings with their metrics and evidence.
fn said(book: &mut Workbook, all: &Findings) -> Result<(), XlsxError> {
    let findings = all.findings.iter().map(|f| {
        vec![
            f.id.clone(),
            format!("{:?}", f.level),
            format!("{:?}", f.kind),
            f.title.clone(),
            f.statement.clone(),
            f.caveats.join(" "),
            f.recommendation.clone().unwrap_or_default(),
        ]
    });
    sheet(book, "Findings", &["Id", "Level", "Kind", "Title", "Statement", "Caveats", "Ask"], findings.collect())?;
    let metrics = all.findings.iter().flat_map(|f| {
        f.metrics.iter().map(|m| {
            vec![f.id.clone(), m.name.clone(), m.value.to_string(), m.unit.clone(), m.formula.clone(), m.n.to_string()]
        })
    });
    sheet(book, "Metrics", &["Finding", "Metric", "Value", "Unit", "Formula", "n"], metrics.collect())?;
    let evidence = all.findings.iter().flat_map(|f| {
        f.evidence
            .iter()
            .map(|e| vec![f.id.clone(), e.file_id.to_string(), place(&e.locator), e.query.clone(), e.sha256.clone()])
    });
    sheet(book, "Evidence", &["Finding", "File", "Place", "Asked", "SHA-256"], evidence.collect())
}

fn profiles(book: &mut Workbook, pack: &Pack) -> Result<(), XlsxError> {
    let profile = |f: &Frame, c: &Column| {
        let nulls = (0..f.rows).filter(|r| c.is_null(*r)).count();
        let counts = [f.rows, nulls, c.keys().labels.len()].map(|count| count.to_string());
        let mut row: Vec<String> = [f.title(), c.name.clone()].into_iter().chain(counts).collect();
        let found: Vec<f64> = c.numbers().unwrap_or(&[]).iter().copied().filter(|v| !v.is_nan()).collect();
        if !found.is_empty() {
            row.push(found.iter().copied().fold(f64::INFINITY, f64::min).to_string());
            row.push(found.iter().copied().fold(f64::NEG_INFINITY, f64::max).to_string());
            row.push((found.iter().sum::<f64>() / found.len() as f64).to_string());
        }
        row
    };
    let rows = pack.frames.iter().flat_map(|f| f.columns.iter().map(|c| profile(f, c))).collect();
    sheet(book, "Profiles", &["Table", "Column", "Rows", "Nulls", "Distinct", "Min", "Max", "Mean"], rows)
}

/// What the deck shows beside the findings.
fn beside(book: &mut Workbook, state: &State) -> Result<(), XlsxError> {
    let failing =
        state.failing.iter().map(|f| vec![f.finding.clone(), f.file.clone(), f.row.to_string(), f.cells.clone()]);
    sheet(book, "Failing rows", &["Finding", "File", "Row", "Cells"], failing.collect())?;
    let joins =
        state.joins.iter().map(|j| vec![j.what.clone(), j.matched.to_string(), j.from.to_string(), j.to.to_string()]);
    sheet(book, "Joins", &["Join", "Keys in both", "Keys", "Keys of reference"], joins.collect())?;
    let tie = |t: &Tie| {
        let numbers = [t.stated, t.recomputed, t.stated - t.recomputed, t.tolerance].map(|n| n.to_string());
        std::iter::once(t.what.clone()).chain(numbers).collect()
    };
    let head = ["Total", "Stated", "Recomputed", "Difference", "Tolerance"];
    sheet(book, "Reconciliation", &head, state.ties.iter().map(tie).collect())?;
    sheet(book, "Equal elsewhere", &head, state.elsewhere.iter().map(tie).collect())?;
    let pareto = state
        .pareto
        .iter()
        .map(|s| vec![s.item.clone(), s.class.to_string(), s.value.to_string(), s.cumulative.to_string()]);
    sheet(book, "Pareto", &["Item (text)", "Class", "Value", "Cumulative"], pareto.collect())
}

/// Cells under a heading of [`NUMERIC`] are numbers; all others are strings, whatever they look like.
const NUMERIC: [&str; 17] = [
    "Value",
    "n",
    "Row",
    "Rows",
    "Nulls",
    "Distinct",
    "Min",
    "Max",
    "Mean",
    "Keys",
    "Keys in both",
    "Keys of reference",
    "Stated",
    "Recomputed",
    "Difference",
    "Tolerance",
    "Cumulative",
];

fn sheet(book: &mut Workbook, name: &str, head: &[&str], rows: Vec<Vec<String>>) -> Result<(), XlsxError> {
    let sheet = book.add_worksheet().set_name(name)?;
    for (at, cell) in head.iter().enumerate() {
        sheet.write_string(0, at as u16, *cell)?;
    }
    for (row, cells) in rows.iter().take(1_000_000).enumerate() {
        for (at, cell) in cells.iter().enumerate() {
            let (row, column) = (row as u32 + 1, at as u16);
            match cell
                .parse::<f64>()
                .ok()
                .filter(|v| v.is_finite() && head.get(at).is_some_and(|h| NUMERIC.contains(h)))
            {
                Some(value) => sheet.write_number(row, column, value)?,
                None => sheet.write_string(row, column, cut(cell))?,
            };
        }
    }
    Ok(())
}

/// What is cut off is marked.
fn cut(cell: &str) -> String {
    match cell.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &cell[..end]),
        None => cell.to_owned(),
    }
}
