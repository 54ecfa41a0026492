//! `appendix.xlsx`: every number behind the deck. Text is written as text, never as a formula.

use rust_xlsxwriter::{Workbook, XlsxError};

use crate::deck::place;
use crate::review::{Pack, Review};

/// Longest text of a cell; the format allows 32,767.
const CELL: usize = 8000;

pub(crate) fn workbook(pack: &Pack, review: &Review) -> Result<Vec<u8>, XlsxError> {
    let mut book = Workbook::new();
    let (all, state) = (&review.findings, &review.state);
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
    sheet(&mut book, "Findings", &["Id", "Level", "Kind", "Title", "Statement", "Caveats", "Ask"], findings.collect())?;
    let metrics = all.findings.iter().flat_map(|f| {
        f.metrics.iter().map(|m| {
            vec![f.id.clone(), m.name.clone(), m.value.to_string(), m.unit.clone(), m.formula.clone(), m.n.to_string()]
        })
    });
    sheet(&mut book, "Metrics", &["Finding", "Metric", "Value", "Unit", "Formula", "n"], metrics.collect())?;
    let evidence = all.findings.iter().flat_map(|f| {
        f.evidence
            .iter()
            .map(|e| vec![f.id.clone(), e.file_id.to_string(), place(&e.locator), e.query.clone(), e.sha256.clone()])
    });
    sheet(&mut book, "Evidence", &["Finding", "File", "Place", "Asked", "SHA-256"], evidence.collect())?;
    let failing =
        state.failing.iter().map(|f| vec![f.finding.clone(), f.file.clone(), f.row.to_string(), f.cells.clone()]);
    sheet(&mut book, "Failing rows", &["Finding", "File", "Row", "Cells"], failing.collect())?;
    let profiles = pack.frames.iter().flat_map(|f| {
        f.columns.iter().map(|c| {
            let nulls = (0..f.rows).filter(|r| c.is_null(*r)).count();
            let mut row = vec![
                f.title(),
                c.name.clone(),
                f.rows.to_string(),
                nulls.to_string(),
                c.keys().labels.len().to_string(),
            ];
            let found: Vec<f64> = c.numbers().unwrap_or(&[]).iter().copied().filter(|v| !v.is_nan()).collect();
            if !found.is_empty() {
                row.push(found.iter().copied().fold(f64::INFINITY, f64::min).to_string());
                row.push(found.iter().copied().fold(f64::NEG_INFINITY, f64::max).to_string());
                row.push((found.iter().sum::<f64>() / found.len() as f64).to_string());
            }
            row
        })
    });
    sheet(
        &mut book,
        "Profiles",
        &["Table", "Column", "Rows", "Nulls", "Distinct", "Min", "Max", "Mean"],
        profiles.collect(),
    )?;
    let joins =
        state.joins.iter().map(|j| vec![j.what.clone(), j.matched.to_string(), j.from.to_string(), j.to.to_string()]);
    sheet(&mut book, "Joins", &["Join", "Keys in both", "Keys", "Keys of reference"], joins.collect())?;
    let ties = state.ties.iter().map(|t| {
        vec![
            t.what.clone(),
            t.stated.to_string(),
            t.recomputed.to_string(),
            (t.stated - t.recomputed).to_string(),
            t.tolerance.to_string(),
        ]
    });
    sheet(&mut book, "Reconciliation", &["Total", "Stated", "Recomputed", "Difference", "Tolerance"], ties.collect())?;
    let pareto = state
        .pareto
        .iter()
        .map(|s| vec![s.item.clone(), s.class.to_string(), s.value.to_string(), s.cumulative.to_string()]);
    sheet(&mut book, "Pareto", &["Item (text)", "Class", "Value", "Cumulative"], pareto.collect())?;
    let missing = all.not_computed.iter().map(|n| vec![n.what.clone(), n.why.clone()]);
    sheet(&mut book, "Not computed", &["What", "Why"], missing.collect())?;
    book.save_to_buffer()
}

/// Cells under a heading of [`NUMERIC`] are numbers; all others are strings, whatever they look like.
const NUMERIC: [&str; 20] = [
    "Value",
    "n",
    "Row",
    "Rows",
    "Nulls",
    "Distinct",
    "Min",
    "Max",
    "Mean",
    "Matched",
    "Keys",
    "Matched of reference",
    "Keys of reference",
    "Stated",
    "Recomputed",
    "Difference",
    "Tolerance",
    "Cumulative",
    "Count",
    "Share",
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
                None => sheet.write_string(row, column, cell.chars().take(CELL).collect::<String>())?,
            };
        }
    }
    Ok(())
}
