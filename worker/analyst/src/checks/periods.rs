//! Gaps within a file's weeks, and whether files cover the same time as its sales.

use std::collections::BTreeSet;

use carrel_schemas::findings::FindingKind::{DataQuality, Fact};
use carrel_schemas::findings::Level;

use super::pareto::{sales, sells};
use crate::frame::{Column, Frame, NO_DAY, Values, iso, number};
use crate::role::{Role, normalise};
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
    // Other tables, a promotion calendar say, need no row for every week.
    for frame in frames.iter().filter(|frame| sells(frame) || frame.role(Role::OnHand).is_some()) {
        gaps(frame, state);
    }
    let Some(base) = sales(frames, &[Role::Period]) else {
        return state.refuse("overlap of periods", "no table of sales has a period".to_owned());
    };
    for frame in frames.iter().filter(|frame| !std::ptr::eq(*frame, base)) {
        overlap(frame, base, state);
    }
}

/// Why nobody can say which of these periods comes last: week numbers begin anew each year.
pub(crate) fn unordered(frame: &Frame, column: &Column) -> Option<String> {
    const YEARS: [&str; 6] = ["year", "yr", "fiscal_year", "fiscal_yr", "fy", "calendar_year"];
    let Values::Number { .. } = column.values else { return None };
    let seen = periods(column);
    let (first, last) = (*seen.first()?, *seen.last()?);
    let year = frame.columns.iter().find(|column| YEARS.contains(&normalise(&column.name).as_str()));
    match year.map(|year| year.keys().labels.len()) {
        Some(0 | 1) => None,
        Some(years) => Some(format!("{} of {} numbers weeks of {years} years", column.name, frame.title())),
        // All of a year, or the end of one and the beginning of the next.
        None => ((0..=4).contains(&first) && (49..=53).contains(&last)).then(|| {
            format!("{} of {} runs from {first} to {last}: it may be of two years", column.name, frame.title())
        }),
    }
}

/// Why the periods of two tables cannot be compared.
fn incomparable(column: &Column, seen: &[i64], other: &Column, known: &[i64]) -> Option<String> {
    let rhythm = |column: &Column, seen: &[i64]| match (&column.values, step(seen)) {
        (Values::Day(_), Some(1)) => "days",
        (Values::Day(_), Some(_)) => "weeks by date",
        (Values::Day(_), None) => "dates without a rhythm of days or weeks",
        _ if step(seen) == Some(1) => "week numbers",
        _ => "numbers that are no unbroken count of weeks",
    };
    let (one, two) = (rhythm(column, seen), rhythm(other, known));
    let series = step(seen).is_some() && step(known).is_some();
    (one != two || !series).then(|| format!("{} holds {one}, {} holds {two}", column.name, other.name))
}

fn overlap(frame: &Frame, base: &Frame, state: &mut State) {
    let (Some(column), Some(other)) = (frame.role(Role::Period), base.role(Role::Period)) else { return };
    let (seen, known) = (periods(column), periods(other));
    let why = incomparable(column, &seen, other, &known)
        .or_else(|| unordered(frame, column))
        .or_else(|| unordered(base, other))
        .or_else(|| frame.unread_any(&[column]))
        .or_else(|| base.unread_any(&[other]));
    if let Some(why) = why {
        return state.refuse(&format!("overlap of periods of {} and {}", frame.title(), base.title()), why);
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

/// The periods between the first and the last that no row has; or why none can be named.
fn missing(column: &Column, seen: &[i64]) -> Result<Vec<String>, String> {
    let (Some(&first), Some(&last)) = (seen.first(), seen.last()) else { return Err("it has no period".to_owned()) };
    let Some(step) = step(seen).filter(|_| seen.len() >= 6) else {
        return Err(format!("its {} are no series of days or weeks", many(seen.len(), "period")));
    };
    let span = last.saturating_sub(first) / step;
    // 202552 is followed by 202601: such numbers are no count.
    if span > 2000 || (matches!(column.values, Values::Number { .. }) && span > 53) {
        return Err(format!("{} to {} is no plain count of weeks", label(column, first), label(column, last)));
    }
    let known: BTreeSet<i64> = seen.iter().copied().collect();
    let expected = (0..span).map(|at| first + at * step);
    // A day of the week that never has a row is a day on which nobody trades.
    let days: BTreeSet<i64> = seen.iter().map(|period| period.rem_euclid(7)).collect();
    let traded = |p: &i64| step != 1 || !matches!(column.values, Values::Day(_)) || days.contains(&p.rem_euclid(7));
    let missing = expected.filter(|p| !known.contains(p)).filter(traded);
    let missing: Vec<String> = missing.map(|p| label(column, p)).collect();
    if missing.len() > seen.len() / 4 {
        let all = missing.len() + seen.len();
        return Err(format!(
            "{} of {all} periods have no row: perhaps not every period is meant to have one",
            missing.len()
        ));
    }
    Ok(missing)
}

fn gaps(frame: &Frame, state: &mut State) {
    let Some(column) = frame.role(Role::Period) else { return };
    let seen = periods(column);
    let whole = unordered(frame, column).or_else(|| frame.unread_any(&[column])).map_or(Ok(()), Err);
    let missing = match whole.and_then(|()| missing(column, &seen)) {
        Ok(missing) if missing.is_empty() => return,
        Ok(missing) => missing,
        Err(why) => return state.refuse(&format!("missing periods of {}", frame.title()), why),
    };
    let rows: Vec<usize> = (0..frame.rows).collect();
    state.say(Saying {
        rule: "periods.gap",
        kind: DataQuality,
        level: Level::Error,
        weight: 75,
        title: format!("{} lacks {} of {} periods", frame.title(), missing.len(), missing.len() + seen.len()),
        statement: format!(
            "No row at all has {} {}; totals over time hold nothing for it.",
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
