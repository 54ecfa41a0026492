//! Totals that are stated against totals that are recomputed: totals rows of tables, and printed tables of PDFs.

use carrel_schemas::findings::{FindingKind::DataQuality, Level, Locator};

use crate::frame::{Frame, number};
use crate::review::Page;
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
                title: format!("The total of {} in {} is off by {}", column.name, frame.title(), number(stated - sum)),
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

/// A `Total` line is compared with the lines above it that hold as many numbers, up to the last total or page start.
pub(crate) fn pages(pages: &[Page], frames: &[Frame], state: &mut State) {
    for page in pages {
        let mut rows: Vec<&Vec<f64>> = Vec::new();
        for line in &page.lines {
            if !line.text.trim_start().to_lowercase().starts_with("total") {
                if !line.numbers.is_empty() {
                    rows.push(&line.numbers);
                }
                continue;
            }
            let Some(&stated) = line.numbers.last() else { continue };
            let printed: Vec<f64> = rows.iter().filter_map(|n| n.last().copied()).collect();
            rows.clear();
            let sum: f64 = printed.iter().sum();
            if printed.len() < 2 || !(stated - sum).is_finite() || (stated - sum).abs() > 0.2 * sum.abs() {
                let what = format!("printed total {} on page {} of {}", number(stated), page.page, page.source.name);
                state.refuse(&what, "the lines above it do not read as its table".to_owned());
                continue;
            }
            let tolerance = 0.005 * printed.len() as f64;
            let what = format!("{}, page {}: {}", page.source.name, page.page, line.text);
            state.ties.push(Tie { what, stated, recomputed: sum, tolerance });
            tie_to_tables(page, stated, frames, state);
            if (stated - sum).abs() <= tolerance {
                continue;
            }
            let place = Locator::Page { page: page.page, text: line.text.clone() };
            state.say(Saying {
                rule: "totals.pdf",
                kind: DataQuality,
                level: Level::Error,
                weight: 95,
                title: format!("A printed total in {} is off by {}", page.source.name, number(stated - sum)),
                statement: format!(
                    "Page {} prints {}; the {} lines above it add up to {}.",
                    page.page,
                    number(stated),
                    printed.len(),
                    number(sum)
                ),
                metrics: vec![metric(
                    "difference",
                    stated - sum,
                    "as printed",
                    "printed total − Σ last number of each line above; tolerance 0.005 × lines",
                    printed.len(),
                )],
                evidence: vec![evidence(&page.source, place, "the total line against the lines above it on the page")],
                caveat: "Lines are read from the PDF's text; a table set as an image is not seen.",
                ask: "Have the vendor confirm the amount in writing before signing.",
            });
        }
    }
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
