//! Keys across files: coverage both ways, orphans, and codes that lost their leading zeros.
//!
//! One reference per role: the table where the key is unique, preferring one that is called a master or a list.

use std::collections::{BTreeMap, BTreeSet};

use carrel_schemas::findings::{FindingKind::DataQuality, Level};

use crate::frame::{Column, Frame, Keys, NULL};
use crate::role::Role;
use crate::state::{Join, Saying, State, at, examples, many, metric};

pub(crate) fn check(frames: &[Frame], state: &mut State) {
    for role in [Role::Item, Role::Store] {
        let Some(master) = reference(frames, role) else { continue };
        let known: BTreeSet<String> = distinct(&frames[master], role);
        let bare: BTreeSet<&str> = known.iter().map(|k| k.trim_start_matches('0')).collect();
        for (at_frame, frame) in frames.iter().enumerate() {
            if at_frame != master && frame.role(role).is_some() {
                pair(frame, &frames[master], role, &known, &bare, state);
            }
        }
    }
}

fn distinct(frame: &Frame, role: Role) -> BTreeSet<String> {
    frame.role(role).map_or_else(BTreeSet::new, |c| c.keys().labels.into_iter().collect())
}

fn reference(frames: &[Frame], role: Role) -> Option<usize> {
    let unique = |f: &Frame| {
        f.role(role).is_some_and(|c| {
            let keys = c.keys();
            !keys.labels.is_empty() && keys.labels.len() * 100 >= f.rows * 95
        })
    };
    let named = |f: &Frame| {
        let name = f.title().to_lowercase();
        ["master", "list", "stores"].iter().any(|word| name.contains(word))
    };
    let candidates = frames.iter().enumerate().filter(|(_, f)| unique(f));
    candidates.max_by_key(|(at, f)| (named(f), f.rows, usize::MAX - at)).map(|(at, _)| at)
}

/// A key column beside the reference's.
struct Side<'a> {
    frame: &'a Frame,
    master: &'a Frame,
    role: Role,
    column: &'a Column,
    other: &'a Column,
    keys: Keys,
}

fn pair(frame: &Frame, master: &Frame, role: Role, known: &BTreeSet<String>, bare: &BTreeSet<&str>, state: &mut State) {
    let (Some(column), Some(other)) = (frame.role(role), master.role(role)) else { return };
    let side = Side { frame, master, role, column, other, keys: column.keys() };
    let here: BTreeSet<&str> = side.keys.labels.iter().map(String::as_str).collect();
    let matched = here.iter().filter(|k| known.contains(**k)).count();
    let what = format!("{} → {} ({})", frame.title(), master.title(), column.name);
    let by_bare = here.iter().filter(|k| bare.contains(k.trim_start_matches('0'))).count();
    state.joins.push(Join { what, matched, from: here.len(), to: known.len() });
    if by_bare > matched && by_bare * 10 >= here.len() * 8 {
        return zeros(&side, matched, by_bare, state);
    }
    if matched * 2 < here.len() {
        let what = format!("{} of {} against {}", column.name, frame.title(), master.title());
        let why = format!("{matched} of {} codes occur in both: perhaps codes of another kind", here.len());
        return state.refuse(&what, why);
    }
    if matched == here.len() {
        return;
    }
    if let Some(why) = master.unread_any(&[other]) {
        return state.refuse(&format!("{} of {} missing from {}", column.name, frame.title(), master.title()), why);
    }
    orphans(&side, known, state);
}

/// Codes of which more match once leading zeros are ignored.
fn zeros(side: &Side<'_>, matched: usize, by_bare: usize, state: &mut State) {
    let Side { frame, master, column, other, keys, .. } = side;
    let all = keys.labels.len();
    let rows: Vec<usize> = (0..frame.rows).filter(|r| keys.codes[*r] != NULL).collect();
    let formula = "|distinct codes ∩ reference codes|";
    let bare = "as above, leading zeros ignored on both sides";
    state.say(Saying {
        rule: "keys.leading_zeros",
        kind: DataQuality,
        level: Level::Error,
        weight: 85,
        title: format!("Codes of {} and {} differ by leading zeros", frame.title(), master.title()),
        statement: format!(
            "{matched} of {all} codes match as written, {by_bare} once leading zeros are ignored: a join loses the rest."
        ),
        metrics: vec![
            metric("codes matching as written", matched as f64, "codes", formula, all),
            metric("codes matching without zeros", by_bare as f64, "codes", bare, all),
        ],
        evidence: vec![
            at(frame, &rows, &[column], "distinct codes"),
            at(master, &(0..master.rows).collect::<Vec<_>>(), &[other], "distinct codes"),
        ],
        caveats: vec![],
        ask: "Export the code column as text, with all its digits.",
    });
}

/// Keys that the reference does not have.
fn orphans(side: &Side<'_>, known: &BTreeSet<String>, state: &mut State) {
    let Side { frame, master, role, column, other, keys } = side;
    let orphan: Vec<bool> = keys.labels.iter().map(|l| !known.contains(l)).collect();
    let labels: Vec<String> = keys.labels.iter().filter(|l| !known.contains(*l)).cloned().collect();
    let rows: Vec<usize> =
        (0..frame.rows).filter(|r| keys.codes[*r] != NULL && orphan[keys.codes[*r] as usize]).collect();
    let mut metrics = vec![
        metric(
            "orphaned keys",
            labels.len() as f64,
            "keys",
            "distinct keys − keys in the reference",
            keys.labels.len(),
        ),
        metric("orphaned rows", rows.len() as f64, "rows", "rows whose key is not in the reference", frame.rows),
    ];
    let mut worth = String::new();
    if let Some((sales, values)) = frame.numbers(Role::Sales) {
        let sum: f64 = rows.iter().map(|r| values[*r]).filter(|v| !v.is_nan()).sum();
        metrics.push(metric("sales of orphans", sum, &sales.name, "Σ sales of those rows", rows.len()));
        worth = format!(" with {} {sum:.2}", sales.name);
    }
    let id = state.say(Saying {
        rule: "keys.orphans",
        kind: DataQuality,
        level: if worth.is_empty() { Level::Warning } else { Level::Error },
        weight: 80,
        title: format!("{} of {} missing from {}", many(labels.len(), role.words()), frame.title(), master.title()),
        statement: format!("{}: {}{worth}.", examples(&labels), many(rows.len(), "row")),
        metrics,
        evidence: vec![
            at(frame, &rows, &[column], "rows whose key is not in the reference"),
            at(master, &(0..master.rows).collect::<Vec<_>>(), &[other], "the reference's keys"),
        ],
        caveats: vec![],
        ask: "Add them to the reference file, or say that they are out of scope.",
    });
    state.show_rows(&id, frame, &rows);
}

/// Distinct pairs of item and store.
pub(crate) fn pairs(frame: &Frame) -> Option<BTreeMap<(String, String), usize>> {
    let (item, store) = (frame.role(Role::Item)?.keys(), frame.role(Role::Store)?.keys());
    let mut codes: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for row in 0..frame.rows {
        if item.codes[row] != NULL && store.codes[row] != NULL {
            codes.entry((item.codes[row], store.codes[row])).or_insert(row);
        }
    }
    let label =
        |((i, s), row): ((u32, u32), usize)| ((item.labels[i as usize].clone(), store.labels[s as usize].clone()), row);
    Some(codes.into_iter().map(label).collect())
}
