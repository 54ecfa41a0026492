//! Gaps within a file's weeks, and whether files cover the same time as its sales.

use carrel_schemas::findings::FindingKind::{DataQuality, Fact};
use carrel_schemas::findings::Level;

use super::pareto::{sales, sells};
use crate::calendar::Calendar;
use crate::frame::Frame;
use crate::role::Role;
use crate::state::{Saying, State, at, examples, many, metric};

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

/// The periods of both tables, or why they cannot be compared.
fn comparable<'a>(frame: &'a Frame, base: &'a Frame) -> Result<(Calendar<'a>, Calendar<'a>), String> {
    let (seen, known) = (Calendar::of(frame)?, Calendar::of(base)?);
    let (one, two) = (seen.rhythm(), known.rhythm());
    if one != two || seen.step().is_none() || known.step().is_none() {
        return Err(format!("{} holds {one}, {} holds {two}", seen.name(), known.name()));
    }
    let unread = frame.unread_any(&seen.columns).or_else(|| base.unread_any(&known.columns));
    unread.map_or(Ok((seen, known)), Err)
}

fn overlap(frame: &Frame, base: &Frame, state: &mut State) {
    if frame.role(Role::Period).is_none() {
        return;
    }
    let what = format!("overlap of periods of {} and {}", frame.title(), base.title());
    let (seen, known) = match comparable(frame, base) {
        Ok(both) => both,
        Err(why) => return state.refuse(&what, why),
    };
    let common = seen.all.iter().filter(|period| known.all.binary_search(period).is_ok()).count();
    if common == 0 && seen.assumed().is_some() {
        return state.refuse(&what, "their week numbers carry no year and share none".to_owned());
    }
    let (first, last) = (seen.label(seen.all[0]), seen.label(seen.all[seen.all.len() - 1]));
    let every = |frame: &Frame| (0..frame.rows).collect::<Vec<_>>();
    let (title, level, ask) = if common == 0 {
        let title = format!("{} and {} have no period in common", frame.title(), base.title());
        (title, Level::Error, "Export both files for the same weeks, ending on the same day.")
    } else {
        let title =
            format!("{} covers {common} of {} of {}", frame.title(), many(known.all.len(), "period"), base.title());
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
            many(seen.all.len(), "period")
        ),
        metrics: vec![metric(
            "common periods",
            common as f64,
            "periods",
            "|distinct periods ∩ distinct periods of the sales table|",
            seen.all.len(),
        )],
        evidence: vec![
            at(frame, &every(frame), &seen.columns, "distinct periods"),
            at(base, &every(base), &known.columns, "distinct periods"),
        ],
        caveats: seen.assumed().into_iter().collect(),
        ask,
    });
}

/// The periods between the first and the last that no row has; or why none can be named.
fn missing(frame: &Frame, calendar: &Calendar<'_>) -> Result<Vec<String>, String> {
    if let Some(why) = frame.unread_any(&calendar.columns) {
        return Err(why);
    }
    let seen = &calendar.all;
    let (Some(&first), Some(&last)) = (seen.first(), seen.last()) else { return Err("it has no period".to_owned()) };
    let Some(step) = calendar.step().filter(|_| seen.len() >= 6) else {
        return Err(format!("its {} are no series of days or weeks", many(seen.len(), "period")));
    };
    let Some(series) = calendar.series(step) else {
        return Err(format!("{} to {} is no plain count of periods", calendar.label(first), calendar.label(last)));
    };
    // A day of the week that never has a row is a day on which nobody trades.
    let open = calendar.weekdays();
    let traded = |period: &i64| open.as_ref().is_none_or(|open| open.contains(&period.rem_euclid(7)));
    let absent = series.into_iter().filter(|period| seen.binary_search(period).is_err() && traded(period));
    let missing: Vec<String> = absent.map(|period| calendar.label(period)).collect();
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
    if frame.role(Role::Period).is_none() {
        return;
    }
    let found = Calendar::of(frame).and_then(|calendar| Ok((missing(frame, &calendar)?, calendar)));
    let (missing, calendar) = match found {
        Ok((missing, _)) if missing.is_empty() => return,
        Ok(found) => found,
        Err(why) => return state.refuse(&format!("missing periods of {}", frame.title()), why),
    };
    let (rows, seen) = ((0..frame.rows).collect::<Vec<_>>(), calendar.all.len());
    state.say(Saying {
        rule: "periods.gap",
        kind: DataQuality,
        level: Level::Error,
        weight: 75,
        title: format!("{} lacks {} of {} periods", frame.title(), missing.len(), missing.len() + seen),
        statement: format!(
            "No row at all has {} {}; totals over time hold nothing for it.",
            calendar.name(),
            examples(&missing)
        ),
        metrics: vec![metric(
            "missing periods",
            missing.len() as f64,
            "periods",
            "expected at the median step − found",
            seen,
        )],
        evidence: vec![at(
            frame,
            &rows,
            &calendar.columns,
            "distinct values, compared with an unbroken series from first to last",
        )],
        caveats: calendar.assumed().into_iter().collect(),
        ask: "Export the missing period, or confirm that the stores were closed.",
    });
}
