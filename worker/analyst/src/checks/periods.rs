//! Gaps within a file's weeks, and whether files cover the same time as its sales.

use std::collections::BTreeSet;

use carrel_schemas::findings::FindingKind::{DataQuality, Fact};
use carrel_schemas::findings::Level;

use super::pareto::sales;
use crate::frame::{Column, Frame, NO_DAY, Values, iso, number};
use crate::role::Role;
use crate::state::{Saying, State, at, examples, many, metric};

/// Distinct periods in order: days, or week numbers.
pub(crate) fn periods(column: &Column) -> Vec<i64> {
    let all: BTreeSet<i64> = match &column.values {
        Values::Day(days) => days.iter().filter(|d| **d != NO_DAY).map(|d| i64::from(*d)).collect(),
        Values::Number { values, .. } => values.iter().filter(|v| !v.is_nan()).map(|v| *v as i64).collect(),
        Values::Text { .. } => BTreeSet::new(),
    };
    all.into_iter().collect()
}

pub(crate) fn label(column: &Column, period: i64) -> String {
    match column.values {
        Values::Day(_) => i32::try_from(period).map_or_else(|_| period.to_string(), iso),
        _ => number(period as f64),
    }
}

/// The step of an unbroken series of days or weeks; `None` for anything else.
fn step(seen: &[i64]) -> Option<i64> {
    let mut steps: Vec<i64> = seen.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    steps.sort_unstable();
    steps.get(steps.len() / 2).copied().filter(|step| *step == 7 || *step == 1)
}

pub(crate) fn check(frames: &[Frame], state: &mut State) {
    for frame in frames {
        gaps(frame, state);
    }
    let Some(base) = sales(frames, &[Role::Period]) else {
        return state.refuse("overlap of periods", "no table of sales has a period".to_owned());
    };
    for frame in frames.iter().filter(|frame| !std::ptr::eq(*frame, base)) {
        overlap(frame, base, state);
    }
}

fn overlap(frame: &Frame, base: &Frame, state: &mut State) {
    let (Some(column), Some(other)) = (frame.role(Role::Period), base.role(Role::Period)) else { return };
    let (seen, known) = (periods(column), periods(other));
    let days = |column: &Column| matches!(column.values, Values::Day(_));
    // A calendar of starts and ends is no series to compare.
    if days(column) != days(other) || step(&seen).is_none() || step(&seen) != step(&known) {
        return;
    }
    let known: BTreeSet<i64> = known.into_iter().collect();
    let common = seen.iter().filter(|period| known.contains(period)).count();
    let (first, last) = (label(column, seen[0]), label(column, seen[seen.len() - 1]));
    let every = |frame: &Frame| (0..frame.rows).collect::<Vec<_>>();
    let (title, level, ask) = if common == 0 {
        let title = format!("{} and {} have no period in common", frame.title(), base.title());
        (title, Level::Error, "Export both files for the same weeks, ending on the same day.")
    } else {
        let title = format!("{} covers {common} of {} of {}", frame.title(), many(known.len(), "period"), base.title());
        (title, Level::Note, "")
    };
    state.say(Saying {
        rule: "periods.overlap",
        kind: if common == 0 { DataQuality } else { Fact },
        level,
        weight: 78,
        title,
        statement: format!(
            "It runs from {first} to {last}; {common} of its {} occur in both.",
            many(seen.len(), "period")
        ),
        metrics: vec![metric(
            "common periods",
            common as f64,
            "periods",
            "|distinct periods ∩ distinct periods of the sales table|",
            seen.len(),
        )],
        evidence: vec![
            at(frame, &every(frame), &[column], "distinct periods"),
            at(base, &every(base), &[other], "distinct periods"),
        ],
        caveat: "",
        ask,
    });
}

fn gaps(frame: &Frame, state: &mut State) {
    let Some(column) = frame.role(Role::Period) else { return };
    let seen = periods(column);
    if seen.len() < 6 {
        return;
    }
    let Some(step) = step(&seen) else { return };
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    if last.saturating_sub(first) / step > 2000 {
        return;
    }
    let known: BTreeSet<i64> = seen.iter().copied().collect();
    let mut missing = Vec::new();
    let mut next = first;
    while next < last {
        if !known.contains(&next) {
            missing.push(label(column, next));
        }
        next += step;
    }
    if missing.is_empty() || missing.len() > seen.len() / 4 {
        return;
    }
    let rows: Vec<usize> = (0..frame.rows).collect();
    state.say(Saying {
        rule: "periods.gap",
        kind: DataQuality,
        level: Level::Error,
        weight: 75,
        title: format!("{} lacks {} of {} periods", frame.title(), missing.len(), missing.len() + seen.len()),
        statement: format!(
            "No row at all has {} {}; totals and averages over time miss it.",
            column.name,
            examples(&missing)
        ),
        metrics: vec![metric(
            "missing periods",
            missing.len() as f64,
            "periods",
            "expected at the median step − found",
            seen.len(),
        )],
        evidence: vec![at(
            frame,
            &rows,
            &[column],
            "distinct values, compared with an unbroken series from first to last",
        )],
        caveat: "",
        ask: "Export the missing period, or confirm that the stores were closed.",
    });
}
