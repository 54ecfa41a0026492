//! Gaps within a file's weeks, and whether files cover the same time.

use std::collections::BTreeSet;

use carrel_schemas::findings::{FindingKind::DataQuality, Level};

use crate::frame::{Column, Frame, NO_DAY, Values, iso, number};
use crate::role::Role;
use crate::state::{Saying, State, at, examples, metric};

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

pub(crate) fn check(frames: &[Frame], state: &mut State) {
    for frame in frames {
        let Some(column) = frame.role(Role::Period) else { continue };
        let seen = periods(column);
        if seen.len() < 6 {
            continue;
        }
        let mut steps: Vec<i64> = seen.windows(2).map(|w| w[1].saturating_sub(w[0])).collect();
        steps.sort_unstable();
        let step = steps[steps.len() / 2];
        let (first, last) = (seen[0], seen[seen.len() - 1]);
        if step <= 0 || last.saturating_sub(first) / step > 2000 || (step != 7 && step != 1) {
            continue;
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
            continue;
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
}
