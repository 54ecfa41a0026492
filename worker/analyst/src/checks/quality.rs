//! Cells and rows that are wrong within their own table: misfits, missing keys, negatives, duplicates, outliers.

use std::collections::HashMap;

use carrel_schemas::findings::{FindingKind::DataQuality, Level, Locator};

use crate::frame::{Frame, NULL};
use crate::role::Role;
use crate::state::{LISTED, Saying, State, at, evidence, many, metric};

/// Above this share of rows a repeated key is taken for the table's grain, not for an error.
const GRAIN_SHARE: f64 = 0.05;
/// An outlier lies this many times from its item's median …
const RATIO: f64 = 3.0;
/// … and this many scaled median absolute deviations (of logarithms) from the middle.
const MADS: f64 = 6.0;

pub(crate) fn check(frame: &Frame, state: &mut State) {
    misfits(frame, state);
    missing_keys(frame, state);
    negatives(frame, state);
    duplicates(frame, state);
    outliers(frame, state);
    cost_above_price(frame, state);
    measures(frame, state);
}

fn misfits(frame: &Frame, state: &mut State) {
    let Some(first) = frame.failing.first() else { return };
    let rows: Vec<u64> = frame.failing.iter().take(LISTED).map(|f| f.row).collect();
    let mut columns: Vec<String> = frame.failing.iter().filter_map(|f| f.column.clone()).collect();
    columns.sort();
    columns.dedup();
    let locator = if frame.sheet { Locator::File } else { Locator::Rows { rows, columns } };
    let id = state.say(Saying {
        rule: "cells.misfit",
        kind: DataQuality,
        level: Level::Warning,
        weight: 40,
        title: format!(
            "{} of {} without a fitting value",
            many(frame.failing_total as usize, "cell or row"),
            frame.title()
        ),
        statement: format!("The first is row {}: {} ({}).", first.row, first.why, first.value),
        metrics: vec![metric(
            "misfits",
            frame.failing_total as f64,
            "cells",
            "cells or rows reported by the reader",
            frame.rows,
        )],
        evidence: vec![evidence(&frame.source, locator, "cells that are no value of their column, and ragged rows")],
        caveat: "",
        ask: "Correct the cells at the source and upload the file again.",
    });
    for f in frame.failing.iter().take(LISTED) {
        let column = f.column.as_deref().map_or(String::new(), |c| format!("{c}="));
        let cells = format!("{column}{} · {}", f.value, f.why);
        let row = crate::state::FailingRow { finding: id.clone(), file: frame.title(), row: f.row, cells };
        state.failing.push(row);
    }
}

fn missing_keys(frame: &Frame, state: &mut State) {
    let keys: Vec<_> = [Role::Item, Role::Store, Role::Period].iter().filter_map(|r| frame.role(*r)).collect();
    let rows: Vec<usize> = (0..frame.rows).filter(|row| keys.iter().any(|k| k.is_null(*row))).collect();
    if rows.is_empty() {
        return;
    }
    let id = state.say(Saying {
        rule: "keys.missing",
        kind: DataQuality,
        level: Level::Warning,
        weight: 50,
        title: format!("{} of {} without a key", many(rows.len(), "row"), frame.title()),
        statement: format!(
            "{} of {} rows have no value in a key column; they join to nothing.",
            rows.len(),
            frame.rows
        ),
        metrics: vec![metric(
            "rows without key",
            rows.len() as f64,
            "rows",
            "count(rows where any key is null)",
            frame.rows,
        )],
        evidence: vec![at(frame, &rows, &keys, "rows where a key column is null")],
        caveat: "",
        ask: "Complete the keys, or confirm that these rows are to be left out.",
    });
    state.show_rows(&id, frame, &rows);
}

fn negatives(frame: &Frame, state: &mut State) {
    let roles = [Role::Units, Role::Sales, Role::OnHand, Role::Price, Role::Cost];
    let columns: Vec<_> = roles.iter().filter_map(|r| frame.numbers(*r)).collect();
    let rows: Vec<usize> = (0..frame.rows).filter(|row| columns.iter().any(|(_, v)| v[*row] < 0.0)).collect();
    if rows.is_empty() {
        return;
    }
    let hit: Vec<_> = columns.iter().filter(|(_, v)| rows.iter().any(|r| v[*r] < 0.0)).map(|(c, _)| *c).collect();
    let names = hit.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    let id = state.say(Saying {
        rule: "values.negative",
        kind: DataQuality,
        level: Level::Warning,
        weight: 60,
        title: format!("{} of {} with negative {names}", many(rows.len(), "row"), frame.title()),
        statement: format!(
            "{} of {} rows hold a negative value; sums in this review include them.",
            rows.len(),
            frame.rows
        ),
        metrics: vec![metric("negative rows", rows.len() as f64, "rows", "count(rows where value < 0)", frame.rows)],
        evidence: vec![at(frame, &rows, &hit, "rows where value < 0")],
        caveat: "Negative units may be returns booked as sales; the file does not say.",
        ask: "Say whether these rows are returns, and whether sales are to be net of them.",
    });
    state.show_rows(&id, frame, &rows);
}

fn duplicates(frame: &Frame, state: &mut State) {
    let keys: Vec<_> = [Role::Item, Role::Store, Role::Period].iter().filter_map(|r| frame.role(*r)).collect();
    if keys.is_empty() || frame.rows < 2 {
        return;
    }
    let coded: Vec<Vec<u32>> = keys.iter().map(|k| k.keys().codes).collect();
    let mut first: HashMap<[u32; 3], usize> = HashMap::new();
    let (mut rows, mut repeats) = (Vec::new(), 0_usize);
    for row in 0..frame.rows {
        let mut key = [0; 3];
        for (slot, codes) in key.iter_mut().zip(&coded) {
            *slot = codes[row];
        }
        if key[..coded.len()].contains(&NULL) {
            continue;
        }
        if let Some(earlier) = first.insert(key, row) {
            repeats += 1;
            rows.extend([earlier, row]);
        }
    }
    drop(first);
    rows.sort_unstable();
    rows.dedup();
    if repeats == 0 {
        return;
    }
    let names = keys.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" + ");
    if repeats as f64 > GRAIN_SHARE * frame.rows as f64 {
        let why = format!("{names} repeats in {repeats} of {} rows: each row is something finer", frame.rows);
        return state.refuse(&format!("duplicates in {}", frame.title()), why);
    }
    let id = state.say(Saying {
        rule: "keys.duplicate",
        kind: DataQuality,
        level: Level::Error,
        weight: 70,
        title: format!("{} in {}", many(repeats, "repeated key"), frame.title()),
        statement: format!("{names} is unique but for {repeats} of {} rows, so sums count them twice.", frame.rows),
        metrics: vec![metric("repeated rows", repeats as f64, "rows", "rows − distinct keys", frame.rows)],
        evidence: vec![at(frame, &rows, &keys, "rows whose key occurs more than once")],
        caveat: "If two rows per key are meant, they are to be added rather than dropped.",
        ask: "Drop the repeated rows, or say what tells them apart.",
    });
    state.show_rows(&id, frame, &rows);
}

fn median(sorted: &mut [f64]) -> f64 {
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

fn outliers(frame: &Frame, state: &mut State) {
    for role in [Role::Price, Role::Cost] {
        let Some(((column, values), item)) = frame.numbers(role).zip(frame.role(Role::Item)) else { continue };
        let keys = item.keys();
        let mut groups: Vec<Vec<usize>> = vec![Vec::new(); keys.labels.len()];
        for row in (0..frame.rows).filter(|r| keys.codes[*r] != NULL && values[*r] > 0.0) {
            groups[keys.codes[row] as usize].push(row);
        }
        let mut logs = Vec::new();
        for group in groups.iter().filter(|g| g.len() >= 3) {
            let middle = median(&mut group.iter().map(|r| values[*r]).collect::<Vec<_>>());
            logs.extend(group.iter().map(|r| (*r, (values[*r] / middle).ln())));
        }
        if logs.len() < 10 {
            continue;
        }
        let centre = median(&mut logs.iter().map(|l| l.1).collect::<Vec<_>>());
        let mad = 1.4826 * median(&mut logs.iter().map(|l| (l.1 - centre).abs()).collect::<Vec<_>>());
        let far = |log: f64| log.abs() >= RATIO.ln() && (log - centre).abs() > MADS * mad;
        let mut rows: Vec<usize> = logs.iter().filter(|l| far(l.1)).map(|l| l.0).collect();
        rows.sort_unstable();
        let Some(&one) = rows.first() else { continue };
        let id = state.say(Saying {
            rule: "values.outlier",
            kind: DataQuality,
            level: Level::Warning,
            weight: 55,
            title: format!(
                "{} of {} in {} far from the item's others",
                many(rows.len(), "value"),
                column.name,
                frame.title()
            ),
            statement: format!(
                "Row {}: {} {} of item {} is at least {RATIO} times off the item's median.",
                frame.row_number(one),
                column.name,
                column.show(one),
                item.show(one)
            ),
            metrics: vec![metric(
                "outliers",
                rows.len() as f64,
                "rows",
                "|ln(value ÷ item median)| ≥ ln 3 and > 6 × 1.4826 × MAD, items with three or more values",
                logs.len(),
            )],
            evidence: vec![at(frame, &rows, &[item, column], "rows beyond the stated rule")],
            caveat: "The rule flags; it does not know the right value.",
            ask: "Check these values against their source before comparing prices.",
        });
        state.show_rows(&id, frame, &rows);
    }
}

fn cost_above_price(frame: &Frame, state: &mut State) {
    let Some(((price, prices), (cost, costs))) = frame.numbers(Role::Price).zip(frame.numbers(Role::Cost)) else {
        return;
    };
    let rows: Vec<usize> = (0..frame.rows).filter(|r| costs[*r] > prices[*r]).collect();
    if rows.is_empty() {
        return;
    }
    let items: Vec<String> = frame.role(Role::Item).map_or(vec![], |c| rows.iter().map(|r| c.show(*r)).collect());
    let id = state.say(Saying {
        rule: "price.below_cost",
        kind: carrel_schemas::findings::FindingKind::Risk,
        level: Level::Error,
        weight: 65,
        title: format!("{} in {} with a cost above the price", many(rows.len(), "row"), frame.title()),
        statement: format!("{} exceeds {} for {}.", cost.name, price.name, crate::state::examples(&items)),
        metrics: vec![metric(
            "rows with cost above price",
            rows.len() as f64,
            "rows",
            "count(rows where cost > price)",
            frame.rows,
        )],
        evidence: vec![at(frame, &rows, &[cost, price], "rows where cost > price")],
        caveat: "Cost and price are compared as they stand, per row.",
        ask: "Correct the cost or the price; if both are right, each sale loses money.",
    });
    state.show_rows(&id, frame, &rows);
}

fn measures(frame: &Frame, state: &mut State) {
    let Some(column) = frame.role(Role::Measure) else { return };
    let keys = column.keys();
    let mut counts = vec![0_usize; keys.labels.len()];
    keys.codes.iter().filter(|c| **c != NULL).for_each(|c| counts[*c as usize] += 1);
    let Some(most) = (0..counts.len()).max_by_key(|at| counts[*at]) else { return };
    let rows: Vec<usize> =
        (0..frame.rows).filter(|r| keys.codes[*r] != NULL && keys.codes[*r] as usize != most).collect();
    if rows.is_empty() || rows.len() as f64 > 0.1 * frame.rows as f64 {
        return;
    }
    let id = state.say(Saying {
        rule: "units.mixed",
        kind: DataQuality,
        level: Level::Warning,
        weight: 30,
        title: format!("{} of {} in another unit of measure", many(rows.len(), "row"), frame.title()),
        statement: format!(
            "{} is {} in {} rows and {} in row {}.",
            column.name,
            keys.labels[most],
            counts[most],
            column.show(rows[0]),
            frame.row_number(rows[0])
        ),
        metrics: vec![metric(
            "rows in another unit",
            rows.len() as f64,
            "rows",
            "rows − rows in the commonest unit",
            frame.rows,
        )],
        evidence: vec![at(frame, &rows, &[column], "rows whose unit is not the commonest")],
        caveat: "",
        ask: "Convert to one unit before comparing sizes or prices per unit.",
    });
    state.show_rows(&id, frame, &rows);
}
