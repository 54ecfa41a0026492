//! Totals that are stated against totals that are recomputed: totals rows of tables, and printed tables of PDFs.

use carrel_schemas::findings::{FindingKind::DataQuality, Level, Locator};

use crate::frame::{Frame, number};
use crate::review::{Line, Page};
use crate::role::normalise;
use crate::state::{Saying, State, Tie, at, evidence, metric};

/// A stated total further off than this is no sum (an average, a rate) and is not judged.
const NO_SUM: f64 = 0.5;

pub(crate) fn tables(frame: &Frame, state: &mut State) {
    for total in &frame.totals {
        for (column, stated) in frame.columns.iter().zip(&total.values) {
            let (Some(stated), Some(values)) = (*stated, column.numbers()) else { continue };
            let name = normalise(&column.name);
            let rate = ["price", "avg", "average", "rate", "pct", "percent", "index", "year"].iter();
            let found: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
            let sum: f64 = found.iter().sum();
            let is_rate =
                column.percent || rate.clone().any(|w| name.split('_').any(|part| part == *w) && *w != "year");
            if is_rate || found.is_empty() || !sum.is_finite() || !stated.is_finite() {
                continue;
            }
            if (stated - sum).abs() > NO_SUM * sum.abs().max(1.0) {
                state.refuse(
                    &format!("{} of the row {:?} in {}", column.name, total.label, frame.title()),
                    format!("{} is nowhere near the sum {}: perhaps an average", number(stated), number(sum)),
                );
                continue;
            }
            let tolerance = 0.005 * found.len() as f64;
            let what = format!("{}: {} of row {} ({})", frame.title(), column.name, total.row, total.label);
            state.ties.push(Tie { what, stated, recomputed: sum, tolerance });
            if (stated - sum).abs() <= tolerance {
                continue;
            }
            let place = if frame.sheet {
                Locator::Sheet { sheet: frame.name.clone(), range: format!("{0}{1}:{0}{1}", column.letter, total.row) }
            } else {
                Locator::Rows { rows: vec![total.row], columns: vec![column.name.clone()] }
            };
            let rows: Vec<usize> = (0..frame.rows).collect();
            state.say(Saying {
                rule: "totals.reconcile",
                kind: DataQuality,
                level: Level::Error,
                weight: 90,
                title: format!("The total of {} in {} is {} its rows", column.name, frame.title(), off(stated - sum)),
                statement: format!(
                    "Row {} states {}; its {} rows add up to {}.",
                    total.row,
                    number(stated),
                    found.len(),
                    number(sum)
                ),
                metrics: vec![
                    metric("stated total", stated, &column.name, "the cell of the totals row", 1),
                    metric(
                        "difference",
                        stated - sum,
                        &column.name,
                        "stated − Σ rows; tolerance 0.005 × rows",
                        found.len(),
                    ),
                ],
                evidence: vec![
                    evidence(&frame.source, place, "the stated total"),
                    at(frame, &rows, &[column], "Σ over all rows"),
                ],
                caveat: "",
                ask: "Ask the file's owner which is right, the rows or the total, before quoting either.",
            });
        }
    }
}

/// A line that ends with an amount: its number, and how many decimals are printed.
struct Amount {
    value: f64,
    decimals: usize,
}

fn amount_at_the_end(line: &Line) -> Option<Amount> {
    let last = line.text.split_whitespace().next_back()?;
    let digits = last.trim_matches(|c: char| !c.is_ascii_digit());
    let plain = digits.chars().all(|c| c.is_ascii_digit() || ",.'\u{2019}".contains(c));
    let decimals = digits.rsplit_once(['.', ',']).map_or(0, |(_, decimals)| decimals.len());
    let value = *line.numbers.last()?;
    (plain && !digits.is_empty() && !last.ends_with('%') && decimals <= 2).then_some(Amount { value, decimals })
}

fn starts_with(line: &Line, word: &str) -> bool {
    line.text.trim_start().to_lowercase().starts_with(word)
}

/// The amounts of the table that a total at `at` closes: the lines directly above it that end with an amount of as many
/// decimals, down from a heading. `None` if they do not read as one whole table.
fn table_above(lines: &[Line], at: usize, total: &Amount) -> Option<Vec<f64>> {
    let is_row = |line: &Line| {
        amount_at_the_end(line).filter(|amount| amount.decimals == total.decimals).map(|amount| amount.value)
    };
    let mut amounts: Vec<f64> = lines[..at].iter().rev().map_while(is_row).collect();
    let first = at - amounts.len();
    let heading = lines[..first].last()?;
    // A heading holds no number, and no row of the table stands above it: else a row was broken in two.
    let broken = lines[..first].iter().rev().take(4).any(|line| is_row(line).is_some() && !starts_with(line, "total"));
    let partial = lines[first..at].iter().any(|line| starts_with(line, "total") || starts_with(line, "sub"));
    if !heading.numbers.is_empty() || broken || partial || amounts.len() < 2 {
        return None;
    }
    amounts.reverse();
    Some(amounts)
}

/// A line that begins with `Total` and ends with an amount is held against the rows of its table.
pub(crate) fn pages(pages: &[Page], frames: &[Frame], state: &mut State) {
    for page in pages {
        for (at, line) in page.lines.iter().enumerate().filter(|(_, line)| starts_with(line, "total")) {
            let Some(total) = amount_at_the_end(line) else { continue };
            match table_above(&page.lines, at, &total) {
                Some(amounts) => printed_total(page, line, total.value, &amounts, frames, state),
                None => {
                    let what =
                        format!("printed total {} on page {} of {}", number(total.value), page.page, page.source.name);
                    state.refuse(&what, "the lines above it do not read as its whole table".to_owned());
                }
            }
        }
    }
}

fn printed_total(page: &Page, line: &Line, stated: f64, amounts: &[f64], frames: &[Frame], state: &mut State) {
    let sum: f64 = amounts.iter().sum();
    if !(stated - sum).is_finite() || (stated - sum).abs() > NO_SUM * sum.abs().max(1.0) {
        let what = format!("printed total {} on page {} of {}", number(stated), page.page, page.source.name);
        return state.refuse(&what, format!("it is nowhere near the sum {} of the lines above it", number(sum)));
    }
    let tolerance = 0.005 * amounts.len() as f64;
    let what = format!("{}, page {}: {}", page.source.name, page.page, line.text);
    state.ties.push(Tie { what, stated, recomputed: sum, tolerance });
    tie_to_tables(page, stated, frames, state);
    if (stated - sum).abs() <= tolerance {
        return;
    }
    let place = Locator::Page { page: page.page, text: line.text.clone() };
    state.say(Saying {
        rule: "totals.pdf",
        kind: DataQuality,
        level: Level::Error,
        weight: 95,
        title: format!("A printed total in {} is {} its rows", page.source.name, off(stated - sum)),
        statement: format!(
            "Page {} prints {}; the {} rows above it add up to {}.",
            page.page,
            number(stated),
            amounts.len(),
            number(sum)
        ),
        metrics: vec![metric(
            "difference",
            stated - sum,
            "as printed",
            "printed total − Σ last number of each row of its table; tolerance 0.005 × rows",
            amounts.len(),
        )],
        evidence: vec![evidence(&page.source, place, "the total line against the rows of the table above it")],
        caveat: "Rows are read from the PDF's text; a table set as an image is not seen.",
        ask: "Have the vendor confirm the amount in writing before signing.",
    });
}

/// `84300 above`, `83 below`.
fn off(difference: f64) -> String {
    let side = if difference > 0.0 { "above" } else { "below" };
    format!("{} {side}", number(cents(difference.abs())))
}

/// Without the dust of binary fractions.
fn cents(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn tie_to_tables(page: &Page, stated: f64, frames: &[Frame], state: &mut State) {
    if stated.abs() < 1000.0 {
        return;
    }
    for frame in frames {
        for column in &frame.columns {
            let Some(values) = column.numbers() else { continue };
            let sum: f64 = values.iter().filter(|v| !v.is_nan()).sum();
            let tolerance = 0.005 * values.len() as f64;
            if (sum - stated).abs() <= tolerance.min(1.0) {
                let what =
                    format!("{}, page {} against Σ {} of {}", page.source.name, page.page, column.name, frame.title());
                state.ties.push(Tie { what, stated, recomputed: sum, tolerance });
            }
        }
    }
}
