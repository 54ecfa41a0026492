//! Sales by item, largest first: A until 80 % of the sum are reached, B until 95 %, C the rest.

use carrel_schemas::findings::{FindingKind::Fact, Level};

use super::totals::holds_totals;
use crate::frame::{Column, Frame, NULL};
use crate::role::Role;
use crate::state::{Saying, Share, State, at, many, metric};

/// The sales table: item, a sales or units measure and whatever else is asked for, the most rows.
pub(crate) fn sales<'a>(frames: &'a [Frame], with: &[Role]) -> Option<&'a Frame> {
    let fits = |f: &&Frame| sells(f) && with.iter().all(|role| f.role(*role).is_some());
    frames.iter().filter(fits).max_by_key(|f| f.rows)
}

/// Whether it is a table of sales by item.
pub(crate) fn sells(frame: &Frame) -> bool {
    frame.role(Role::Item).is_some() && (frame.role(Role::Sales).is_some() || frame.role(Role::Units).is_some())
}

/// The class A in words: the fewest items that reach 80 %, and what they reach.
pub(crate) fn reach(shares: &[Share], of: &str) -> String {
    let a = shares.iter().filter(|s| s.class == 'A');
    let cumulative = a.clone().next_back().map_or(0.0, |s| s.cumulative * 100.0);
    format!("{cumulative:.1} % of {of} comes from {} of {}", a.count(), many(shares.len(), "item"))
}

/// Items with a positive sum, largest first, each with its class; and whether some item's sum is negative.
fn shares(item: &Column, values: &[f64]) -> (Vec<Share>, bool) {
    let keys = item.keys();
    let mut sums = vec![0.0_f64; keys.labels.len()];
    for (code, value) in keys.codes.iter().zip(values).filter(|(c, v)| **c != NULL && v.is_finite()) {
        sums[*code as usize] += value;
    }
    let mut order: Vec<usize> = (0..sums.len()).filter(|at| sums[*at] > 0.0).collect();
    order.sort_by(|a, b| sums[*b].total_cmp(&sums[*a]).then_with(|| keys.labels[*a].cmp(&keys.labels[*b])));
    let total: f64 = order.iter().map(|at| sums[*at]).sum();
    let mut running = 0.0;
    let share = |at: &usize| {
        // The item that crosses a limit belongs to the class it completes.
        let before = running / total + 1e-12;
        running += sums[*at];
        let class = if before < 0.8 {
            'A'
        } else if before < 0.95 {
            'B'
        } else {
            'C'
        };
        Share { item: keys.labels[*at].clone(), value: sums[*at], cumulative: running / total, class }
    };
    (order.iter().map(share).collect(), sums.iter().any(|sum| *sum < 0.0))
}

pub(crate) fn check(frames: &[Frame], state: &mut State) {
    let Some(frame) = sales(frames, &[]) else {
        state.refuse("Pareto (ABC)", "no table has both an item key and sales or units".to_owned());
        return;
    };
    if frame.subtotals || holds_totals(frame) {
        let why = format!("rows of {} look like totals among the items", frame.title());
        return state.refuse("Pareto (ABC)", why);
    }
    let Some((column, values)) = frame.numbers(Role::Sales).or_else(|| frame.numbers(Role::Units)) else { return };
    let Some(item) = frame.role(Role::Item) else { return };
    let (shares, negative) = shares(item, values);
    let total: f64 = shares.iter().map(|share| share.value).sum();
    if shares.is_empty() || !total.is_finite() {
        state.refuse("Pareto (ABC)", format!("{} of {} is nowhere positive", column.name, frame.title()));
        return;
    }
    state.pareto = shares;
    state.pareto_of = format!("{} of {}", column.name, frame.title());
    let of = |class| state.pareto.iter().filter(|s| s.class == class).count();
    let (a, b, c) = (of('A'), of('B'), of('C'));
    let rows: Vec<usize> = (0..frame.rows).collect();
    let fewest = "fewest items, largest first, whose cumulative share reaches 80 %";
    let caveats = [
        negative.then_some("Items whose sum is negative are left out."),
        frame.unread(column).is_some().then_some("Cells that could not be read are left out."),
    ];
    state.scorecard.push(metric(&column.name, total, &column.name, "Σ over items with a positive sum", frame.rows));
    state.scorecard.push(metric(
        "items sold",
        state.pareto.len() as f64,
        "items",
        "items with a positive sum",
        frame.rows,
    ));
    state.say(Saying {
        rule: "pareto.abc",
        kind: Fact,
        level: Level::Note,
        weight: 20,
        title: reach(&state.pareto, &state.pareto_of),
        statement: format!(
            "A, until 80 % are reached: {}; B, until 95 %: {b}; C, the rest: {c}. {} is {total:.2}.",
            many(a, "item"),
            column.name
        ),
        metrics: vec![
            metric("A items", a as f64, "items", fewest, state.pareto.len()),
            metric("C items", c as f64, "items", "items after 95 % are reached", state.pareto.len()),
            metric("total", total, &column.name, "Σ over items with a positive sum", frame.rows),
        ],
        evidence: vec![at(frame, &rows, &[item, column], "Σ by item")],
        caveats: caveats.into_iter().flatten().collect(),
        ask: "Review the C items for role (new, seasonal, unique) before cutting any.",
    });
}
