//! What the checks add to, and the few ways to add: findings with evidence, rows of the deck's tables.

use std::collections::BTreeMap;

use carrel_schemas::findings::{Evidence, Finding, FindingKind, Level, Locator, Metric, NotComputed};
use sha2::{Digest, Sha256};

use crate::frame::{Column, Frame, FrameSource};

/// Rows listed in one locator.
pub(crate) const LISTED: usize = 100;

/// A line of the reconciliation table.
#[derive(Debug, Clone)]
pub(crate) struct Tie {
    pub(crate) what: String,
    pub(crate) stated: f64,
    pub(crate) recomputed: f64,
    pub(crate) tolerance: f64,
}

impl Tie {
    /// Within the tolerance, and the dust of binary fractions.
    pub(crate) fn holds(&self) -> bool {
        (self.stated - self.recomputed).abs() <= self.tolerance + 1e-9 * self.recomputed.abs()
    }
}

/// A line of the joins table.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) what: String,
    pub(crate) matched: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// A failing row, as it stands in its file.
#[derive(Debug, Clone)]
pub(crate) struct FailingRow {
    pub(crate) finding: String,
    pub(crate) file: String,
    pub(crate) row: u64,
    pub(crate) cells: String,
}

/// One item of the Pareto curve, largest first.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) item: String,
    pub(crate) value: f64,
    pub(crate) cumulative: f64,
    pub(crate) class: char,
}

/// Everything said so far.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) findings: Vec<(u32, Finding)>,
    pub(crate) not_computed: Vec<NotComputed>,
    pub(crate) ties: Vec<Tie>,
    /// Printed totals that equal the sum of some column of another file.
    pub(crate) elsewhere: Vec<Tie>,
    pub(crate) joins: Vec<Join>,
    pub(crate) failing: Vec<FailingRow>,
    pub(crate) pareto: Vec<Share>,
    pub(crate) pareto_of: String,
    pub(crate) scorecard: Vec<Metric>,
    seen: BTreeMap<String, u32>,
}

/// What a check says; [`State::say`] completes it.
pub(crate) struct Saying {
    pub(crate) rule: &'static str,
    pub(crate) kind: FindingKind,
    pub(crate) level: Level,
    /// Consequence: higher is said first within a level.
    pub(crate) weight: u32,
    pub(crate) title: String,
    pub(crate) statement: String,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) caveats: Vec<&'static str>,
    pub(crate) ask: &'static str,
}

impl State {
    pub(crate) fn say(&mut self, saying: Saying) -> String {
        let place = saying.evidence.first().map_or(String::new(), |e| format!("{}:{}", e.sha256, saying.title));
        let hash = Sha256::digest(format!("{}\n{place}", saying.rule).as_bytes());
        let fingerprint: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
        let count = self.seen.entry(saying.rule.to_owned()).or_default();
        *count += 1;
        let id = format!("{}.{count}", saying.rule);
        let finding = Finding {
            id: id.clone(),
            rule_id: saying.rule.to_owned(),
            kind: saying.kind,
            level: saying.level,
            title: saying.title,
            statement: saying.statement,
            metrics: saying.metrics.into_iter().filter(|m| m.value.is_finite()).collect(),
            impact: None,
            evidence: saying.evidence,
            confidence: if saying.caveats.is_empty() { 1.0 } else { 0.8 },
            caveats: saying.caveats.into_iter().map(str::to_owned).collect(),
            recommendation: Some(saying.ask).filter(|a| !a.is_empty()).map(str::to_owned),
            slides: vec![],
            fingerprint,
        };
        self.findings.push((saying.weight, finding));
        id
    }

    /// Keeps the first failing rows as they stand in the file.
    pub(crate) fn show_rows(&mut self, finding: &str, frame: &Frame, rows: &[usize]) {
        for &row in rows.iter().take(LISTED) {
            let cells: Vec<_> = frame.columns.iter().map(|c| format!("{}={}", c.name, c.show(row))).collect();
            self.failing.push(FailingRow {
                finding: finding.to_owned(),
                file: frame.title(),
                row: frame.row_number(row),
                cells: cells.join(" · "),
            });
        }
    }

    pub(crate) fn refuse(&mut self, what: &str, why: String) {
        self.not_computed.push(NotComputed { what: what.to_owned(), why, file_id: None });
    }
}

pub(crate) fn metric(name: &str, value: f64, unit: &str, formula: &str, n: usize) -> Metric {
    let (name, unit, formula) = (name.to_owned(), unit.to_owned(), formula.to_owned());
    // Sums of cents carry the dust of binary fractions; a millionth is below anything these files state.
    let value = if value.abs() < 1e9 { (value * 1e6).round() / 1e6 } else { value };
    Metric { name, value, unit, formula, n: n as u64, period: None }
}

/// Rows of a frame (data indexes) and the columns looked at. Where not all rows are listed, the query says so.
pub(crate) fn at(frame: &Frame, rows: &[usize], columns: &[&Column], query: &str) -> Evidence {
    let mut numbers: Vec<u64> = rows.iter().map(|row| frame.row_number(*row)).collect();
    numbers.sort_unstable();
    let mut letters: Vec<&str> = columns.iter().map(|column| column.letter.as_str()).collect();
    letters.sort_unstable_by_key(|letter| (letter.len(), *letter));
    let (locator, listed) = match (frame.sheet, letters.first().zip(letters.last())) {
        _ if numbers.is_empty() => (Locator::File, 0),
        (true, None) => (Locator::File, numbers.len()),
        (true, Some((left, right))) => {
            let runs = runs(&numbers);
            let shown = &runs[..runs.len().min(LISTED)];
            let range: Vec<_> = shown.iter().map(|(from, to)| format!("{left}{from}:{right}{to}")).collect();
            let listed = shown.iter().map(|(from, to)| (to - from + 1) as usize).sum();
            (Locator::Sheet { sheet: frame.name.clone(), range: range.join(",") }, listed)
        }
        (false, _) => {
            let listed = numbers.len().min(LISTED);
            let columns = columns.iter().map(|column| column.name.clone()).collect();
            (Locator::Rows { rows: numbers[..listed].to_vec(), columns }, listed)
        }
    };
    if listed < numbers.len() {
        let query = format!("{query}; the first {listed} of {} rows are listed", numbers.len());
        return evidence(&frame.source, locator, &query);
    }
    evidence(&frame.source, locator, query)
}

/// Ascending row numbers as unbroken runs, both ends included.
fn runs(numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, to)) if number <= *to + 1 => *to = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

pub(crate) fn evidence(source: &FrameSource, locator: Locator, query: &str) -> Evidence {
    let (file_id, sha256) = (source.file_id.clone(), source.sha256.clone());
    Evidence { file_id, locator, query: query.to_owned(), sha256 }
}

/// The first few labels, and how many more there are.
pub(crate) fn examples(labels: &[String]) -> String {
    let shown = labels.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if labels.len() > 5 { format!("{shown} and {} more", labels.len() - 5) } else { shown }
}

/// `1 row`, `7 rows`.
pub(crate) fn many(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}
