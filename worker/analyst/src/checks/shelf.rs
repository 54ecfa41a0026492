//! What needs sales and a range together: velocity, voids, empty shelves; and, where a column lacks, what cannot be said.

use std::collections::{BTreeMap, BTreeSet};

use carrel_schemas::findings::{FindingKind, Level};

use super::{
    joins::pairs,
    pareto::sales,
    periods::{label, periods},
};
use crate::frame::{Frame, NULL};
use crate::role::Role;
use crate::state::{Saying, State, at, examples, many, metric};

/// A void: ranged, and no sale for this many of the last periods while the item sells elsewhere.
const VOID_PERIODS: usize = 10;
/// Empty: zero on hand in each of this many last periods.
const EMPTY_PERIODS: usize = 3;

pub(crate) fn check(frames: &[Frame], state: &mut State) {
    let pos = sales(frames, &[Role::Store, Role::Period]);
    let range = frames.iter().find(|f| {
        f.role(Role::Item).is_some()
            && f.role(Role::Store).is_some()
            && f.role(Role::Period).is_none()
            && f.role(Role::Units).is_none()
            && f.role(Role::Sales).is_none()
    });
    match (pos, range) {
        (Some(pos), Some(range)) => ranged(pos, range, state),
        (None, _) => state.refuse("velocity and voids", "no table has item, store, week and units together".to_owned()),
        (_, None) => state.refuse("velocity and voids",
            "no file says which store carries which item (a planogram or range list); store-weeks with sales are not store-weeks carried".to_owned()),
    }
    match frames.iter().find(|f| f.role(Role::OnHand).is_some() && f.role(Role::Item).is_some()) {
        Some(stock) => empty(stock, state),
        None => state.refuse(
            "weeks of supply, out of stock, GMROI",
            "no table has an item key and an on-hand column".to_owned(),
        ),
    }
    state.refuse(
        "GMROI and weeks of supply",
        "average inventory at cost needs stock and cost of one period in one currency; this agent does not assume it"
            .to_owned(),
    );
    state.refuse(
        "promotion lift",
        "needs a complete grid of item, store and week with zero weeks filled; sales files list only weeks with sales"
            .to_owned(),
    );
    state.refuse(
        "%ACV and price gap per equivalised unit",
        "needs all-commodity sales of every store and sizes in one unit; not computed by this agent".to_owned(),
    );
}

fn ranged(pos: &Frame, range: &Frame, state: &mut State) {
    let (Some(carried), Some(week)) = (pairs(range), pos.role(Role::Period)) else { return };
    let weeks = periods(week);
    let (Some(item), Some(store)) = (pos.role(Role::Item), pos.role(Role::Store)) else { return };
    let (items, stores) = (item.keys(), store.keys());
    if weeks.len() <= VOID_PERIODS {
        return state.refuse("voids", format!("{} has {} periods, ten are looked back", pos.title(), weeks.len()));
    }
    let since = label(week, weeks[weeks.len() - VOID_PERIODS]);
    let marks = week.keys();
    let late: BTreeSet<String> = weeks[weeks.len() - VOID_PERIODS..].iter().map(|w| label(week, *w)).collect();
    let is_late: Vec<bool> = marks.labels.iter().map(|l| late.contains(l)).collect();
    let mut sold = BTreeSet::new();
    let mut units: BTreeMap<&str, f64> = BTreeMap::new();
    for row in 0..pos.rows {
        if [items.codes[row], stores.codes[row], marks.codes[row]].contains(&NULL) {
            continue;
        }
        if is_late[marks.codes[row] as usize] {
            sold.insert((items.codes[row], stores.codes[row]));
        }
        if let Some((_, values)) = pos.numbers(Role::Units).filter(|(_, v)| v[row].is_finite()) {
            *units.entry(&items.labels[items.codes[row] as usize]).or_default() += values[row];
        }
    }
    let sold: BTreeSet<(&str, &str)> =
        sold.iter().map(|(i, s)| (items.labels[*i as usize].as_str(), stores.labels[*s as usize].as_str())).collect();
    let alive: BTreeSet<&str> = sold.iter().map(|(i, _)| *i).collect();
    let open: BTreeSet<&str> = sold.iter().map(|(_, s)| *s).collect();
    let void = |(i, s): &(String, String)| {
        alive.contains(i.as_str()) && open.contains(s.as_str()) && !sold.contains(&(i.as_str(), s.as_str()))
    };
    let voids: Vec<_> = carried.iter().filter(|(key, _)| void(key)).collect();
    let keys: Vec<_> = [range.role(Role::Item), range.role(Role::Store)].into_iter().flatten().collect();
    if !voids.is_empty() && voids.len() * 5 < carried.len() {
        let rows: Vec<usize> = voids.iter().map(|(_, row)| **row).collect();
        let names: Vec<String> = voids.iter().map(|((i, s), _)| format!("{i} in store {s}")).collect();
        let id = state.say(Saying {
            rule: "shelf.void",
            kind: FindingKind::Opportunity,
            level: Level::Warning,
            weight: 58,
            title: format!("{} on the shelf plan without a sale since {since}", many(voids.len(), "item-store")),
            statement: format!(
                "{}: on the shelf plan, no sale in the last {VOID_PERIODS} periods, while the item sells elsewhere.",
                examples(&names)
            ),
            metrics: vec![metric(
                "voids",
                voids.len() as f64,
                "item-stores",
                "carried item-stores without a sales row in the last 10 periods",
                carried.len(),
            )],
            evidence: vec![
                at(range, &rows, &keys, "item-stores carried"),
                at(
                    pos,
                    &(0..pos.rows).collect::<Vec<_>>(),
                    &[item, store, week],
                    "item-stores with a sales row in the last 10 periods",
                ),
            ],
            caveat: "The shelf plan carries no dates; it is taken to hold for the last periods.",
            ask: "Have the stores check the shelf.",
        });
        state.show_rows(&id, range, &rows);
    }
    if pos.numbers(Role::Units).is_none() {
        return state.refuse("velocity", format!("{} has no units", pos.title()));
    }
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    carried.keys().for_each(|(i, _)| *count.entry(i).or_default() += 1);
    let matched = count.keys().filter(|item| units.contains_key(**item)).count();
    if matched * 10 < count.len() * 8 {
        let why = format!("{matched} of {} items of {} occur in {}", count.len(), range.title(), pos.title());
        return state.refuse("velocity", why);
    }
    let rate = |(i, n): (&&str, &usize)| {
        (units.get(*i).copied().unwrap_or(0.0) / (n * weeks.len()) as f64, *n, (*i).to_owned())
    };
    let mut rates: Vec<(f64, usize, String)> = count.iter().map(rate).collect();
    rates.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.2.cmp(&b.2)));
    let all: BTreeSet<&String> = carried.keys().map(|(_, s)| s).collect();
    let formula = "Σ units ÷ (stores carrying × periods in the sales file)";
    let rows: Vec<usize> = (0..range.rows).collect();
    let quarter = rates.len() / 4;
    if let Some(best) = rates.iter().take(quarter).find(|r| r.1 * 2 < all.len()) {
        speak(
            state,
            "range.narrow",
            FindingKind::Opportunity,
            best,
            all.len(),
            formula,
            at(range, &rows, &keys, "stores carrying each item"),
            weeks.len(),
        );
    }
    if let Some(worst) = rates.last().filter(|r| quarter > 0 && r.1 == all.len()) {
        speak(
            state,
            "range.tail",
            FindingKind::Opportunity,
            worst,
            all.len(),
            formula,
            at(range, &rows, &keys, "stores carrying each item"),
            weeks.len(),
        );
    }
}

#[expect(clippy::too_many_arguments, reason = "one sentence for two rules")]
fn speak(
    state: &mut State,
    rule: &'static str,
    kind: FindingKind,
    item: &(f64, usize, String),
    all: usize,
    formula: &str,
    place: carrel_schemas::findings::Evidence,
    weeks: usize,
) {
    let (rate, stores, name) = item;
    let narrow = rule == "range.narrow";
    let title = if narrow {
        format!("{name} is among the fastest and carried in {stores} of {all} stores")
    } else {
        format!("{name} is carried in every store and is the slowest item")
    };
    state.say(Saying {
        rule,
        kind,
        level: Level::Warning,
        weight: 45,
        title,
        statement: format!("It sells {rate:.2} units per store and period carried."),
        metrics: vec![metric("velocity", *rate, "units per store-period", formula, stores * weeks)],
        evidence: vec![place],
        caveat: "Carried means on the shelf plan, which has no dates; velocity in few stores need not hold in others.",
        ask: if narrow {
            "Consider ranging it more widely; test in a few stores first."
        } else {
            "Consider delisting it, unless it is new, seasonal or unique."
        },
    });
}

fn empty(stock: &Frame, state: &mut State) {
    let Some((column, on_hand)) = stock.numbers(Role::OnHand) else { return };
    let (Some(item), Some(store), Some(week)) =
        (stock.role(Role::Item), stock.role(Role::Store), stock.role(Role::Period))
    else {
        return state.refuse("out of stock", format!("{} lacks an item, store or week column", stock.title()));
    };
    let all = periods(week);
    if all.len() < EMPTY_PERIODS {
        return;
    }
    let late: BTreeSet<String> = all[all.len() - EMPTY_PERIODS..].iter().map(|w| label(week, *w)).collect();
    let (items, stores, weeks) = (item.keys(), store.keys(), week.keys());
    let is_late: Vec<bool> = weeks.labels.iter().map(|l| late.contains(l)).collect();
    let mut zero: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
    for row in (0..stock.rows).filter(|r| on_hand[*r] == 0.0 && weeks.codes[*r] != NULL) {
        if is_late[weeks.codes[row] as usize] && items.codes[row] != NULL && stores.codes[row] != NULL {
            zero.entry((items.codes[row], stores.codes[row])).or_default().push(row);
        }
    }
    zero.retain(|_, rows| rows.len() >= EMPTY_PERIODS);
    if zero.is_empty() {
        return;
    }
    let name = |(i, s): &(u32, u32)| format!("{} in store {}", items.labels[*i as usize], stores.labels[*s as usize]);
    let names: Vec<String> = zero.keys().map(name).collect();
    let rows: Vec<usize> = zero.values().flatten().copied().collect();
    let id = state.say(Saying {
        rule: "stock.empty",
        kind: FindingKind::Risk,
        level: Level::Error,
        weight: 68,
        title: format!("{} with nothing on hand in the last {EMPTY_PERIODS} periods", many(zero.len(), "item-store")),
        statement: format!("{}.", examples(&names)),
        metrics: vec![metric(
            "empty item-stores",
            zero.len() as f64,
            "item-stores",
            "on hand = 0 in each of the last 3 periods",
            stock.rows,
        )],
        evidence: vec![at(stock, &rows, &[item, store, week, column], "rows with on hand = 0 in the last 3 periods")],
        caveat: "Lost sales are not estimated.",
        ask: "Replenish these first, and check the order parameters.",
    });
    state.show_rows(&id, stock, &rows);
}
