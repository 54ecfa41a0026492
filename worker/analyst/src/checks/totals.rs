//! Totals that are stated against totals that are recomputed: totals rows of tables, and printed tables of PDFs.

use carrel_schemas::findings::{FindingKind::DataQuality, Level, Locator};

use crate::frame::{Column, Frame, Total, Values, number};
use crate::pack::{Line, Page};
use crate::role::{Role, normalise};
use crate::state::{Saying, State, Tie, at, evidence, many, metric};

/// A stated total this far off, as a share of the sum, is no sum (an average, a rate, half of rows and subtotals).
const NO_SUM: f64 = 0.5;

/// Words in the names of columns whose values do not add up.
const RATES: [&str; 21] = [
    "price",
    "avg",
    "average",
    "mean",
    "median",
    "rate",
    "pct",
    "percent",
    "index",
    "share",
    "ratio",
    "per",
    "acv",
    "tdp",
    "distribution",
    "velocity",
    "stores",
    "buyers",
    "households",
    "customers",
    "penetration",
];

pub(crate) fn tables(frame: &Frame, state: &mut State) {
    if frame.totals.is_empty() {
        return;
    }
    if frame.subtotals || holds_totals(frame) {
        let why = "rows among its data look like subtotals, so its rows do not add up to its total".to_owned();
        return state.refuse(&format!("the stated totals of {}", frame.title()), why);
    }
    for total in &frame.totals {
        if !of_all_rows(&total.label, frame.totals.len()) {
            let what = format!("the totals of row {} ({}) of {}", total.row, total.label, frame.title());
            state.refuse(&what, "nothing says that it is the total of all rows".to_owned());
            continue;
        }
        for (column, stated) in frame.columns.iter().zip(&total.values) {
            let (Some(stated), Some(values)) = (*stated, column.numbers()) else { continue };
            let found: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
            match judged(frame, column, stated, &found) {
                Ok(tie) => row_total(frame, column, total, &found, tie, state),
                Err(why) => {
                    let what = format!("{} of row {} ({}) of {}", column.name, total.row, total.label, frame.title());
                    state.refuse(&what, why);
                }
            }
        }
    }
}

/// The text says that its row is a total.
fn is_total(text: &str) -> bool {
    const WORDS: [&str; 6] = ["total", "totals", "subtotal", "subtotals", "summe", "gesamt"];
    normalise(text).split('_').any(|word| WORDS.contains(&word))
}

/// A word of the data says that its row is a total: the reader tells only those that begin with it.
pub(crate) fn holds_totals(frame: &Frame) -> bool {
    frame.columns.iter().any(|column| match &column.values {
        Values::Text { words, .. } => words.iter().any(|text| is_total(text)),
        Values::Number { .. } | Values::Day(_) => false,
    })
}

/// Of several totals rows only the one that calls itself the grand total is held against all rows.
fn of_all_rows(label: &str, rows: usize) -> bool {
    let label = normalise(label);
    let grand = ["grand_total", "grand_totals", "overall_total", "total_general"].contains(&label.as_str());
    grand || (rows == 1 && ["total", "totals", "sum", "summe", "gesamt"].contains(&label.as_str()))
}

/// The stated total beside the sum of `found`, or why the two are not to be compared.
fn judged(frame: &Frame, column: &Column, stated: f64, found: &[f64]) -> Result<Tie, String> {
    if !adds_up(column) {
        return Err("the values of such a column do not add up".to_owned());
    }
    if let Some(why) = frame.unread(column) {
        return Err(why);
    }
    let what = format!("{}: {}", frame.title(), column.name);
    let tie = Tie { what, stated, recomputed: found.iter().sum(), tolerance: 0.005 * found.len() as f64 };
    no_sum(&tie, found).map_or(Ok(tie), Err)
}

/// Whether a sum over the column means something: not over rates, nor over codes and weeks.
fn adds_up(column: &Column) -> bool {
    let rate = column.percent || normalise(&column.name).split('_').any(|part| RATES.contains(&part));
    let key = column.role.as_ref().is_some_and(|(role, _)| [Role::Item, Role::Store, Role::Period].contains(role));
    !rate && !key
}

/// Why a stated number is perhaps no sum of `found` at all. What lies among the values may be their average or largest.
fn no_sum(tie: &Tie, found: &[f64]) -> Option<String> {
    let (stated, sum) = (tie.stated, tie.recomputed);
    if found.is_empty() || !sum.is_finite() || !stated.is_finite() {
        return Some("there is nothing to add up".to_owned());
    }
    let among = found.iter().any(|v| *v <= stated) && found.iter().any(|v| *v >= stated);
    let far = (stated - sum).abs() >= NO_SUM * sum.abs().max(1.0) - tie.tolerance;
    (!tie.holds() && (far || among))
        .then(|| format!("{} is perhaps no sum but an average: the values add up to {}", number(stated), number(sum)))
}

fn row_total(frame: &Frame, column: &Column, total: &Total, found: &[f64], tie: Tie, state: &mut State) {
    let (stated, sum, holds) = (tie.stated, tie.recomputed, tie.holds());
    state.ties.push(Tie { what: format!("{} of row {} ({})", tie.what, total.row, total.label), ..tie });
    if holds {
        return;
    }
    let place = if frame.sheet {
        Locator::Sheet { sheet: frame.name.clone(), range: format!("{0}{1}:{0}{1}", column.letter, total.row) }
    } else {
        Locator::Rows { rows: vec![total.row], columns: vec![column.name.clone()] }
    };
    let rows: Vec<usize> = (0..frame.rows).collect();
    let formula = "stated − Σ rows; tolerance 0.005 × rows";
    state.say(Saying {
        rule: "totals.reconcile",
        kind: DataQuality,
        level: Level::Error,
        weight: 90,
        title: format!("The total of {} in {} is {} its rows", column.name, frame.title(), off(stated - sum)),
        statement: format!(
            "Row {} states {}; its {} add up to {}.",
            total.row,
            number(stated),
            many(found.len(), "row"),
            number(sum)
        ),
        metrics: vec![
            metric("stated total", stated, &column.name, "the cell of the totals row", 1),
            metric("difference", stated - sum, &column.name, formula, found.len()),
        ],
        evidence: vec![
            evidence(&frame.source, place, "the stated total"),
            at(frame, &rows, &[column], "Σ over all rows"),
        ],
        caveats: vec![],
        ask: "Ask the file's owner which is right, the rows or the total, before quoting either.",
    });
}

/// A line that ends with an amount: its number, and how many decimals are printed.
struct Amount {
    value: f64,
    decimals: usize,
}

/// The line's last word and its last number must be the same: a code or a date at the end is no amount.
fn amount_at_the_end(line: &Line) -> Option<Amount> {
    let last = line.text.split_whitespace().next_back()?;
    let digits = last.trim_matches(|c: char| !c.is_ascii_digit() && !c.is_alphabetic() && c != '%');
    if !digits.chars().all(|c| c.is_ascii_digit() || ",.'\u{2019}".contains(c)) {
        return None;
    }
    // Three digits after the last separator are thousands.
    let decimals = match digits.rsplit_once(['.', ',']) {
        Some((_, after)) if after.len() != 3 => after.len(),
        _ => 0,
    };
    let value = *line.numbers.last()?;
    let plain: String = digits.chars().filter(char::is_ascii_digit).collect();
    let same = format!("{:.decimals$}", value.abs()).replace('.', "") == plain;
    (same && decimals <= 2).then_some(Amount { value, decimals })
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
    let sums = if pages.is_empty() { Vec::new() } else { sums(frames) };
    for page in pages {
        for (at, line) in page.lines.iter().enumerate().filter(|(_, line)| starts_with(line, "total")) {
            let Some(total) = amount_at_the_end(line) else {
                if !line.numbers.is_empty() {
                    let what = format!("{:?} on page {} of {}", line.text, page.page, page.source.name);
                    state.refuse(&what, "it does not end with an amount to hold against the lines above".to_owned());
                }
                continue;
            };
            match table_above(&page.lines, at, &total) {
                Some(amounts) => printed_total(page, line, total.value, &amounts, &sums, state),
                None => {
                    let what =
                        format!("printed total {} on page {} of {}", number(total.value), page.page, page.source.name);
                    state.refuse(&what, "the lines above it do not read as its whole table".to_owned());
                }
            }
        }
    }
}

fn printed_total(page: &Page, line: &Line, stated: f64, amounts: &[f64], sums: &[ColumnSum], state: &mut State) {
    let what = format!("{}, page {}: {}", page.source.name, page.page, line.text);
    let sum: f64 = amounts.iter().sum();
    let tie = Tie { what, stated, recomputed: sum, tolerance: 0.005 * amounts.len() as f64 };
    if let Some(why) = no_sum(&tie, amounts) {
        let what = format!("printed total {} on page {} of {}", number(stated), page.page, page.source.name);
        return state.refuse(&what, why);
    }
    let holds = tie.holds();
    state.ties.push(tie);
    elsewhere(page, line, stated, sums, state);
    if holds {
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
        caveats: vec!["Rows are read from the PDF's text; a table set as an image is not seen."],
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

/// What a column of a table adds up to, all of its cells read.
struct ColumnSum {
    /// Its table.
    title: String,
    name: String,
    count: usize,
    sum: f64,
}

fn sums(frames: &[Frame]) -> Vec<ColumnSum> {
    let of = |frame: &Frame, column: &Column| {
        if !adds_up(column) || frame.unread(column).is_some() {
            return None;
        }
        let found = column.numbers()?.iter().filter(|value| !value.is_nan());
        let (count, sum) = found.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value));
        Some(ColumnSum { title: frame.title(), name: column.name.clone(), count, sum })
    };
    frames.iter().flat_map(|frame| frame.columns.iter().filter_map(move |column| of(frame, column))).collect()
}

/// Columns of other files beside a printed total: equal sums are listed apart, since equal numbers need not mean the
/// same; sums that differ under the same name are told as what could not be reconciled.
fn elsewhere(page: &Page, line: &Line, stated: f64, sums: &[ColumnSum], state: &mut State) {
    let label = normalise(&line.text);
    let words: Vec<&str> = label.split('_').collect();
    for column in sums {
        let what = format!("{}, page {} and Σ {} of {}", page.source.name, page.page, column.name, column.title);
        let tolerance = (0.005 * column.count as f64).min(1.0);
        let tie = Tie { what, stated, recomputed: column.sum, tolerance };
        // `total` alone names nothing.
        let called = normalise(&column.name);
        let named = called.len() > 2 && !is_total(&called) && called.split('_').all(|part| words.contains(&part));
        if tie.holds() && stated.abs() >= 1000.0 {
            state.elsewhere.push(tie);
        } else if !tie.holds() && named {
            let why = format!(
                "they are {} apart, and nothing says that they mean the same",
                number(cents((stated - column.sum).abs()))
            );
            state.refuse(&format!("reconciliation of {}", tie.what), why);
        }
    }
}
