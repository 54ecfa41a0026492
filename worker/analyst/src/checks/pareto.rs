//! Sales by item, largest first: A up to 80 % of the sum, B up to 95 %, C the rest.

use carrel_schemas::findings::{FindingKind::Fact, Level};

use crate::frame::{Frame, NULL};
use crate::role::Role;
use crate::state::{Saying, Share, State, at, metric};

/// The sales table: item and a sales or units measure, the most rows.
pub(crate) fn sales(frames: &[Frame]) -> Option<&Frame> {
    let fits =
        |f: &&Frame| f.role(Role::Item).is_some() && (f.role(Role::Sales).is_some() || f.role(Role::Units).is_some());
    frames.iter().filter(fits).max_by_key(|f| f.rows)
}

pub(crate) fn check(frames: &[Frame], state: &mut State) {
    let Some(frame) = sales(frames) else {
        state.refuse("Pareto (ABC)", "no table has both an item key and sales or units".to_owned());
        return;
    };
    let Some((column, values)) = frame.numbers(Role::Sales).or_else(|| frame.numbers(Role::Units)) else { return };
    let Some(item) = frame.role(Role::Item) else { return };
    let keys = item.keys();
    let mut sums = vec![0.0_f64; keys.labels.len()];
    for (code, value) in keys.codes.iter().zip(values).filter(|(c, v)| **c != NULL && v.is_finite()) {
        sums[*code as usize] += value;
    }
    let negative = sums.iter().filter(|s| **s < 0.0).count();
    let mut order: Vec<usize> = (0..sums.len()).filter(|at| sums[*at] > 0.0).collect();
    order.sort_by(|a, b| sums[*b].total_cmp(&sums[*a]).then_with(|| keys.labels[*a].cmp(&keys.labels[*b])));
    let total: f64 = order.iter().map(|at| sums[*at]).sum();
    if order.is_empty() || !total.is_finite() {
        state.refuse("Pareto (ABC)", format!("{} of {} is nowhere positive", column.name, frame.title()));
        return;
    }
    let mut running = 0.0;
    for at in &order {
        running += sums[*at];
        let cumulative = running / total;
        let class = if cumulative <= 0.8 {
            'A'
        } else if cumulative <= 0.95 {
            'B'
        } else {
            'C'
        };
        state.pareto.push(Share { item: keys.labels[*at].clone(), value: sums[*at], cumulative, class });
    }
    state.pareto_of = format!("{} of {}", column.name, frame.title());
    let of = |class| state.pareto.iter().filter(|s| s.class == class).count();
    let (a, b, c) = (of('A'), of('B'), of('C'));
    let rows: Vec<usize> = (0..frame.rows).collect();
    state.scorecard.push(metric(&column.name, total, &column.name, "Σ over items with a positive sum", frame.rows));
    state.scorecard.push(metric("items sold", order.len() as f64, "items", "items with a positive sum", frame.rows));
    state.say(Saying {
        rule: "pareto.abc",
        kind: Fact,
        level: Level::Note,
        weight: 20,
        title: format!("{a} of {} items make up to 80 % of {}", order.len(), column.name),
        statement: format!("A (≤ 80 %): {a} items, B (≤ 95 %): {b}, C: {c}, by {} of {total:.2}.", column.name),
        metrics: vec![
            metric("A items", a as f64, "items", "cumulative share ≤ 80 %, largest first", order.len()),
            metric("C items", c as f64, "items", "cumulative share > 95 %", order.len()),
            metric("total", total, &column.name, "Σ over items with a positive sum", frame.rows),
        ],
        evidence: vec![at(frame, &rows, &[item, column], "Σ by item")],
        caveat: if negative > 0 { "Items whose sum is negative are left out." } else { "" },
        ask: "Review the C items for role (new, seasonal, unique) before cutting any.",
    });
}
