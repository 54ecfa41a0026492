//! Cells and rows that are wrong within their own table: misfits, missing keys, negatives, duplicates, outliers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry};

use carrel_schemas::findings::{FindingKind::DataQuality, Level, Locator};

use crate::calendar::Calendar;
use crate::frame::{Column, Frame, NULL};
use crate::role::{Role, normalise};
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
        title: match frame.failing_total {
            1 => format!("1 cell or row of {} without a fitting value", frame.title()),
            count => format!("{count} cells or rows of {} without a fitting value", frame.title()),
        },
        statement: format!("The first is row {}: {} ({}).", first.row, first.why, first.value),
        metrics: vec![metric(
            "misfits",
            frame.failing_total as f64,
            "cells",
            "cells or rows reported by the reader",
            frame.rows,
        )],
        evidence: vec![evidence(&frame.source, locator, "cells that are no value of their column, and ragged rows")],
        caveats: vec![],
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
            "{} of {} rows have no value in a key column and cannot be joined by it.",
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
        caveats: vec![],
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
    let sold =
        [Role::Units, Role::Sales].iter().filter_map(|r| frame.role(*r)).any(|c| hit.iter().any(|h| h.name == c.name));
    let (caveat, ask) = if sold {
        (
            "They may be returns booked as sales; the file does not say.",
            "Say whether these rows are returns, and whether sales are to be net of them.",
        )
    } else {
        ("The file does not say what a negative value means.", "Say what a negative value means here, or correct it.")
    };
    let id = state.say(Saying {
        rule: "values.negative",
        kind: DataQuality,
        level: Level::Warning,
        weight: 60,
        title: format!("{} of {} with negative {names}", many(rows.len(), "row"), frame.title()),
        statement: format!("{} of {} rows hold a negative value.", rows.len(), frame.rows),
        metrics: vec![metric("negative rows", rows.len() as f64, "rows", "count(rows where value < 0)", frame.rows)],
        evidence: vec![at(frame, &rows, &hit, "rows where value < 0")],
        caveats: vec![caveat],
        ask,
    });
    state.show_rows(&id, frame, &rows);
}

/// Rows whose key stands in an earlier row too, each with the first row of that key.
fn repeats(frame: &Frame, keys: &[&Column]) -> Vec<(usize, usize)> {
    let coded: Vec<Vec<u32>> = keys.iter().map(|k| k.keys().codes).collect();
    let mut first: HashMap<[u32; 4], usize> = HashMap::new();
    let mut repeats = Vec::new();
    for row in 0..frame.rows {
        let mut key = [0; 4];
        for (slot, codes) in key.iter_mut().zip(&coded) {
            *slot = codes[row];
        }
        if key[..coded.len()].contains(&NULL) {
            continue;
        }
        match first.entry(key) {
            Entry::Occupied(earlier) => repeats.push((*earlier.get(), row)),
            Entry::Vacant(new) => {
                new.insert(row);
            }
        }
    }
    repeats
}

/// Rows that repeat another whole row; and, where item, store and period name a row, rows that repeat only its key.
fn duplicates(frame: &Frame, state: &mut State) {
    let mut keys: Vec<_> = [Role::Item, Role::Store].iter().filter_map(|r| frame.role(*r)).collect();
    // Without all three, the key need not name a row: a price that changed has two.
    let whole = keys.len() == 2 && frame.role(Role::Period).is_some();
    let calendar = Calendar::of(frame);
    match &calendar {
        Ok(calendar) => keys.extend(&calendar.columns),
        Err(_) => keys.extend(frame.role(Role::Period)),
    }
    if keys.is_empty() {
        return;
    }
    // Rows of one week number that may be of two years.
    let undated = whole && calendar.is_err();
    if let Some(column) = frame.columns.iter().find(|column| column.timed) {
        let why = format!("{} tells rows apart by the time of day, which is not compared", column.name);
        return state.refuse(&format!("duplicates in {}", frame.title()), why);
    }
    let repeats = repeats(frame, &keys);
    if repeats.len() as f64 > GRAIN_SHARE * frame.rows as f64 {
        let names = keys.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" + ");
        let why = format!("{names} repeats in {} of {} rows: each row is something finer", repeats.len(), frame.rows);
        return state.refuse(&format!("duplicates in {}", frame.title()), why);
    }
    let unread: HashSet<u64> = frame.failing.iter().map(|f| f.row).collect();
    let alike = |(one, two): &(usize, usize)| {
        let read = [*one, *two].iter().all(|row| !unread.contains(&frame.row_number(*row)));
        read && frame.columns.iter().all(|c| c.same(*one, *two))
    };
    let (same, other): (Vec<_>, Vec<_>) = repeats.into_iter().partition(alike);
    if !same.is_empty() {
        let mut caveats = vec!["If equal rows are meant, they are to be added rather than dropped."];
        caveats.extend(undated.then_some("Its week numbers carry no year: equal rows may be of two years."));
        let level = if whole && !undated { Level::Error } else { Level::Warning };
        identical(frame, &keys, &same, level, caveats, state);
    }
    if whole && !undated && !other.is_empty() {
        differing(frame, &keys, &other, state);
    }
}

/// Both rows of every pair, each once and in order.
fn both(pairs: &[(usize, usize)]) -> Vec<usize> {
    let rows: BTreeSet<usize> = pairs.iter().flat_map(|(one, two)| [*one, *two]).collect();
    rows.into_iter().collect()
}

fn identical(
    frame: &Frame,
    keys: &[&Column],
    pairs: &[(usize, usize)],
    level: Level,
    caveats: Vec<&'static str>,
    state: &mut State,
) {
    let (rows, count) = (both(pairs), pairs.len() as f64);
    let id = state.say(Saying {
        rule: "keys.duplicate",
        kind: DataQuality,
        level,
        weight: 70,
        title: format!("{} in {}, the whole row alike", many(pairs.len(), "repeated key"), frame.title()),
        statement: format!(
            "{} of {} rows repeat an earlier row in every column; a sum over the file adds them again.",
            pairs.len(),
            frame.rows
        ),
        metrics: vec![metric("repeated rows", count, "rows", "rows equal to the first row of their key", frame.rows)],
        evidence: vec![at(frame, &rows, keys, "rows that occur more than once")],
        caveats,
        ask: "Drop the repeated rows, or say what tells them apart.",
    });
    state.show_rows(&id, frame, &rows);
}

fn differing(frame: &Frame, keys: &[&Column], pairs: &[(usize, usize)], state: &mut State) {
    let (rows, count) = (both(pairs), pairs.len() as f64);
    let names = keys.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" + ");
    let id = state.say(Saying {
        rule: "keys.conflict",
        kind: DataQuality,
        level: Level::Warning,
        weight: 52,
        title: format!("{} in {} with other values", many(pairs.len(), "repeated key"), frame.title()),
        statement: format!(
            "{} of {} rows have the {names} of an earlier row but not its values.",
            pairs.len(),
            frame.rows
        ),
        metrics: vec![metric(
            "rows of a repeated key",
            count,
            "rows",
            "rows that differ from the first row of their key",
            frame.rows,
        )],
        evidence: vec![at(frame, &rows, keys, "rows whose key occurs more than once, with other values")],
        caveats: vec!["The file does not say whether they are parts of one amount or corrections of it."],
        ask: "Say whether such rows are to be added, or which of them holds.",
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
            caveats: vec!["The rule flags; it does not know the right value."],
            ask: "Check these values against their source before comparing prices.",
        });
        state.show_rows(&id, frame, &rows);
    }
}

/// Why a cost and a price do not speak of the same thing.
fn other_terms(price: &Column, cost: &Column, above: usize, compared: usize) -> Option<String> {
    const PACKS: [&str; 10] = ["case", "cases", "pack", "carton", "ctn", "box", "outer", "inner", "pallet", "dozen"];
    let by_pack = |c: &&Column| normalise(&c.name).split('_').any(|part| PACKS.contains(&part));
    if let Some(column) = [price, cost].into_iter().find(by_pack) {
        return Some(format!("{} is by its name for a pack, not for one unit", column.name));
    }
    if price.currency.is_some() && cost.currency.is_some() && price.currency != cost.currency {
        return Some("they are written in different currencies".to_owned());
    }
    let most = above * 2 > compared;
    most.then(|| format!("the cost is above the price in {above} of {compared} rows: perhaps it is for a pack"))
}

fn cost_above_price(frame: &Frame, state: &mut State) {
    let Some(((price, prices), (cost, costs))) = frame.numbers(Role::Price).zip(frame.numbers(Role::Cost)) else {
        return;
    };
    let compared = (0..frame.rows).filter(|r| costs[*r].is_finite() && prices[*r].is_finite()).count();
    let rows: Vec<usize> = (0..frame.rows).filter(|r| costs[*r] > prices[*r]).collect();
    if rows.is_empty() {
        return;
    }
    if let Some(why) = other_terms(price, cost, rows.len(), compared) {
        return state.refuse(&format!("{} against {} in {}", cost.name, price.name, frame.title()), why);
    }
    let items: Vec<String> = frame.role(Role::Item).map_or(vec![], |c| rows.iter().map(|r| c.show(*r)).collect());
    let id = state.say(Saying {
        rule: "price.below_cost",
        kind: carrel_schemas::findings::FindingKind::Risk,
        level: Level::Warning,
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
        caveats: vec!["Cost and price are compared as they stand, per row."],
        ask: "Correct the cost or the price; if both are right and of one unit, each sale at that price loses money.",
    });
    state.show_rows(&id, frame, &rows);
}

/// A unit of measure under one spelling.
fn unit(written: &str) -> String {
    const SPELLINGS: [(&str, &[&str]); 9] = [
        ("ea", &["each", "pc", "pcs", "piece", "pieces", "unit", "units", "ct", "count"]),
        ("case", &["cs", "cases", "ctn", "carton"]),
        ("kg", &["kgs", "kilo", "kilogram", "kilograms"]),
        ("g", &["gr", "gram", "grams"]),
        ("l", &["lt", "ltr", "liter", "litre", "liters", "litres"]),
        ("ml", &["millilitre", "milliliter"]),
        ("oz", &["ounce", "ounces"]),
        ("fl_oz", &["floz", "fluid_ounce", "fluid_ounces"]),
        ("lb", &["lbs", "pound", "pounds"]),
    ];
    let plain = normalise(written);
    let known = SPELLINGS.iter().find(|(_, others)| others.contains(&plain.as_str()));
    known.map_or(plain, |(unit, _)| (*unit).to_owned())
}

fn measures(frame: &Frame, state: &mut State) {
    let Some(column) = frame.role(Role::Measure) else { return };
    let keys = column.keys();
    let units: Vec<String> = keys.labels.iter().map(|label| unit(label)).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    keys.codes.iter().filter_map(|c| units.get(*c as usize)).for_each(|u| *counts.entry(u).or_default() += 1);
    let Some((most, count)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return };
    let other = |row: &usize| units.get(keys.codes[*row] as usize).is_some_and(|unit| unit != most);
    let rows: Vec<usize> = (0..frame.rows).filter(other).collect();
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
            most,
            count,
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
        caveats: vec![],
        ask: "Convert to one unit before comparing sizes or prices per unit.",
    });
    state.show_rows(&id, frame, &rows);
}
