//! What needs sales and a range together: velocity, voids, empty shelves; and, where a column lacks, what cannot be said.

use std::collections::{BTreeMap, BTreeSet};

use carrel_schemas::findings::{Evidence, FindingKind, Level};

use super::{joins::pairs, pareto::sales};
use crate::calendar::Calendar;
use crate::frame::{Column, Frame, Keys, NULL};
use crate::html::amount;
use crate::role::{Role, normalise};
use crate::state::{Saying, State, at, examples, many, metric};

/// A void: ranged, and no sale for this many of the last periods while the item sells elsewhere.
const VOID_PERIODS: usize = 10;
/// Empty: zero on hand in each of this many last periods.
const EMPTY_PERIODS: usize = 3;

/// Words that only a shelf plan has in its headings.
const PLACES: [&str; 8] = ["facings", "facing", "shelf", "position", "planogram", "bay", "fixture", "slot"];

pub(crate) fn check(frames: &[Frame], state: &mut State) {
    match (sales(frames, &[Role::Store, Role::Period]), plan(frames)) {
        (Some(pos), Some(plan)) => {
            let calendar = Calendar::of(pos).and_then(|calendar| {
                let why = plan.unread_any(&Shelf::keys(plan));
                why.map_or(Ok(calendar), Err)
            });
            match calendar {
                Ok(calendar) => {
                    if let Some(shelf) = Shelf::new(pos, plan, calendar) {
                        voids(&shelf, state);
                        velocity(&shelf, state);
                    }
                }
                Err(why) => state.refuse("velocity and voids", why),
            }
        }
        (None, _) => state.refuse(
            "velocity and voids",
            "no table has item, store, period and units or sales together".to_owned(),
        ),
        (_, None) => state.refuse(
            "velocity and voids",
            "no file says which store carries which item (a planogram or range list); store-weeks with sales are not store-weeks carried"
                .to_owned(),
        ),
    }
    match frames.iter().find(|f| f.role(Role::OnHand).is_some() && f.role(Role::Item).is_some()) {
        Some(stock) => empty(stock, state),
        None => state.refuse("out of stock", "no table has an item key and an on-hand column".to_owned()),
    }
    state.refuse(
        "GMROI and weeks of supply",
        "average inventory at cost needs stock and cost of one period in one currency; this agent does not assume it"
            .to_owned(),
    );
    state.refuse(
        "promotion lift",
        "it needs every item, store and week, those without sales filled in; this agent does not build that grid"
            .to_owned(),
    );
    state.refuse(
        "%ACV and price gap per equivalised unit",
        "needs all-commodity sales of every store and sizes in one unit; not computed by this agent".to_owned(),
    );
}

/// The table that lists which store carries which item: one with places on the shelf, else one that lists each
/// item-store once and nothing that is counted or dated.
fn plan(frames: &[Frame]) -> Option<&Frame> {
    let counted = [Role::Period, Role::Units, Role::Sales, Role::OnHand];
    let lists = |f: &&Frame| counted.iter().all(|role| f.role(*role).is_none()) && pairs(f).is_some();
    let placed = |f: &&Frame| {
        f.columns.iter().any(|c| {
            let name = normalise(&c.name);
            // A shelf price is no place.
            !name.contains("price") && name.split('_').any(|part| PLACES.contains(&part))
        })
    };
    let once = |f: &&Frame| f.rows > 0 && pairs(f).is_some_and(|pairs| pairs.len() == f.rows);
    frames.iter().filter(lists).find(placed).or_else(|| frames.iter().filter(lists).find(once))
}

/// Sales beside the plan that says what is carried.
struct Shelf<'a> {
    pos: &'a Frame,
    plan: &'a Frame,
    /// Item and store, with their first row of the plan.
    carried: BTreeMap<(String, String), usize>,
    item: &'a Column,
    store: &'a Column,
    calendar: Calendar<'a>,
}

impl<'a> Shelf<'a> {
    fn new(pos: &'a Frame, plan: &'a Frame, calendar: Calendar<'a>) -> Option<Self> {
        let (item, store) = (pos.role(Role::Item)?, pos.role(Role::Store)?);
        Some(Self { pos, plan, carried: pairs(plan)?, item, store, calendar })
    }

    fn keys(frame: &Frame) -> Vec<&Column> {
        [Role::Item, Role::Store].iter().filter_map(|r| frame.role(*r)).collect()
    }

    /// The columns of the sales that name an item, a store and a period.
    fn sold_by(&self) -> Vec<&'a Column> {
        [self.item, self.store].into_iter().chain(self.calendar.columns.iter().copied()).collect()
    }

    /// Item-stores with a row in the sales since that period, and the items that have units there in some store.
    fn sold_since(&self, since: i64) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
        let (items, stores) = (self.item.keys(), self.store.keys());
        // A row without units still says that the item is there; only one with units says that it sells.
        let sales = [Role::Units, Role::Sales].iter().find_map(|r| self.pos.numbers(*r));
        let (mut codes, mut sells) = (BTreeSet::new(), BTreeSet::new());
        for row in (0..self.pos.rows).filter(|row| self.calendar.of_row[*row].is_some_and(|period| period >= since)) {
            let key = (items.codes[row], stores.codes[row]);
            if ![key.0, key.1].contains(&NULL) {
                codes.insert(key);
                if sales.is_some_and(|(_, values)| values[row] > 0.0) {
                    sells.insert(items.labels[key.0 as usize].clone());
                }
            }
        }
        let words = |(i, s): (u32, u32)| (items.labels[i as usize].clone(), stores.labels[s as usize].clone());
        (codes.into_iter().map(words).collect(), sells)
    }

    fn of_plan(&self, rows: &[usize], query: &str) -> Evidence {
        at(self.plan, rows, &Self::keys(self.plan), query)
    }

    fn of_sales(&self, columns: &[&Column], query: &str) -> Evidence {
        at(self.pos, &(0..self.pos.rows).collect::<Vec<_>>(), columns, query)
    }
}

fn voids(shelf: &Shelf<'_>, state: &mut State) {
    let Shelf { pos, plan, carried, calendar, .. } = shelf;
    let periods = &calendar.all;
    if periods.len() <= VOID_PERIODS {
        let why = format!("{} has {} periods, more than {VOID_PERIODS} are needed", pos.title(), periods.len());
        return state.refuse("voids", why);
    }
    if let Some(why) = pos.unread_any(&shelf.sold_by()) {
        return state.refuse("voids", why);
    }
    let since = periods[periods.len() - VOID_PERIODS];
    let (sold, sells) = shelf.sold_since(since);
    let since = calendar.label(since);
    let open: BTreeSet<&String> = sold.iter().map(|(_, s)| s).collect();
    let void = |key: &(String, String)| sells.contains(&key.0) && open.contains(&key.1) && !sold.contains(key);
    let voids: Vec<_> = carried.iter().filter(|(key, _)| void(key)).collect();
    if voids.is_empty() {
        return;
    }
    if voids.len() * 5 >= carried.len() {
        let why = format!(
            "{} of {} item-stores of {} have no row in the last {VOID_PERIODS} periods of {}: perhaps it is no list of what is carried now",
            voids.len(),
            carried.len(),
            plan.title(),
            pos.title()
        );
        return state.refuse("voids", why);
    }
    let rows: Vec<usize> = voids.iter().map(|(_, row)| **row).collect();
    let names: Vec<String> = voids.iter().map(|((i, s), _)| format!("{i} in store {s}")).collect();
    let formula = "item-stores listed without a sales row in the last 10 periods, item and store having others";
    let id = state.say(Saying {
        rule: "shelf.void",
        kind: FindingKind::Opportunity,
        level: Level::Warning,
        weight: 58,
        title: format!("{} listed in {} without a sale since {since}", many(voids.len(), "item-store"), plan.title()),
        statement: format!(
            "{}: listed there, no row in the last {VOID_PERIODS} periods of {}, while the item sells elsewhere.",
            examples(&names),
            pos.title()
        ),
        metrics: vec![metric("voids", voids.len() as f64, "item-stores", formula, carried.len())],
        evidence: vec![
            shelf.of_plan(&rows, "item-stores listed"),
            shelf.of_sales(&shelf.sold_by(), "item-stores with a sales row in the last 10 periods"),
        ],
        caveats: ["The list carries no dates; it is taken to hold for the last periods."]
            .into_iter()
            .chain(calendar.assumed())
            .collect(),
        ask: "Have the stores check the shelf.",
    });
    state.show_rows(&id, plan, &rows);
}

/// An item's pace over the stores that list it.
struct Pace {
    item: String,
    stores: usize,
    rate: f64,
}

/// Units per store and period of every item that both files have, fastest first; and how many stores both have.
fn paces(shelf: &Shelf<'_>, values: &[f64]) -> (Vec<Pace>, usize) {
    let (items, stores) = (shelf.item.keys(), shelf.store.keys());
    let open: BTreeSet<&str> = stores.labels.iter().map(String::as_str).collect();
    let known: BTreeSet<&str> = items.labels.iter().map(String::as_str).collect();
    let (mut all, mut listed) = (BTreeSet::new(), BTreeMap::<&str, (BTreeSet<&str>, f64)>::new());
    for (i, s) in shelf.carried.keys().filter(|(i, s)| open.contains(s.as_str()) && known.contains(i.as_str())) {
        all.insert(s);
        listed.entry(i).or_default().0.insert(s);
    }
    for row in (0..shelf.pos.rows).filter(|r| values[*r].is_finite() && shelf.calendar.of_row[*r].is_some()) {
        let (item, store) = (items.codes[row], stores.codes[row]);
        if ![item, store].contains(&NULL)
            && let Some((stores_of, units)) = listed.get_mut(items.labels[item as usize].as_str())
            && stores_of.contains(stores.labels[store as usize].as_str())
        {
            *units += values[row];
        }
    }
    let pace = |(item, (stores, units)): (&str, (BTreeSet<&str>, f64))| Pace {
        item: item.to_owned(),
        stores: stores.len(),
        rate: units / (stores.len() * shelf.calendar.all.len()) as f64,
    };
    let mut paces: Vec<Pace> = listed.into_iter().map(pace).collect();
    paces.sort_by(|a, b| b.rate.total_cmp(&a.rate).then_with(|| a.item.cmp(&b.item)));
    (paces, all.len())
}

fn velocity(shelf: &Shelf<'_>, state: &mut State) {
    let Some((units, values)) = shelf.pos.numbers(Role::Units) else {
        return state.refuse("velocity", format!("{} has no units", shelf.pos.title()));
    };
    if let Some(why) = shelf.pos.unread_any(&[vec![units], shelf.sold_by()].concat()) {
        return state.refuse("velocity", why);
    }
    let (paces, all) = paces(shelf, values);
    let listed: BTreeSet<&String> = shelf.carried.keys().map(|(i, _)| i).collect();
    if paces.len() * 10 < listed.len() * 8 || paces.is_empty() {
        let (plan, pos) = (shelf.plan.title(), shelf.pos.title());
        let why = format!("{} of {} items of {plan} occur in {pos}, in stores of both", paces.len(), listed.len());
        return state.refuse("velocity", why);
    }
    let quarter = paces.len() / 4;
    if let Some(best) = paces.iter().take(quarter).find(|pace| pace.stores * 2 < all) {
        let title = format!("{} is among the fastest and carried in {} of {all} stores", best.item, best.stores);
        let ask = "Consider ranging it more widely; test in a few stores first.";
        pace(shelf, units, "range.narrow", best, title, ask, state);
    }
    // Of two that are equally slow, neither is the slowest.
    if let [.., next, worst] = &paces[..]
        && quarter > 0
        && worst.stores == all
        && worst.rate > 0.0
        && next.rate - worst.rate > 1e-9 * next.rate.abs()
    {
        let title = format!("{} is carried in every store and is the slowest item that sells", worst.item);
        let ask = "Consider delisting it, unless it is new, seasonal or unique.";
        pace(shelf, units, "range.tail", worst, title, ask, state);
    }
}

fn pace(
    shelf: &Shelf<'_>,
    units: &Column,
    rule: &'static str,
    found: &Pace,
    title: String,
    ask: &'static str,
    state: &mut State,
) {
    let formula = "Σ units in the stores that carry it ÷ (stores carrying it × periods of the sales file)";
    let every: Vec<usize> = (0..shelf.plan.rows).collect();
    let n = found.stores * shelf.calendar.all.len();
    state.say(Saying {
        rule,
        kind: FindingKind::Opportunity,
        level: Level::Warning,
        weight: 45,
        title,
        statement: format!(
            "It sells {} units per store and period where {} lists it.",
            amount(found.rate),
            shelf.plan.title()
        ),
        metrics: vec![metric("velocity", found.rate, "units per store-period", formula, n)],
        evidence: vec![
            shelf.of_plan(&every, "stores carrying each item"),
            shelf.of_sales(&[vec![units], shelf.sold_by()].concat(), "units by item and store, and the periods"),
        ],
        caveats: vec!["Carried means listed in a file without dates; only stores and items that also occur in the sales count. Velocity in few stores need not hold in others."],
        ask,
    });
}

/// Item-stores without stock in each of the late periods: all their rows are zero, and no period lacks a row.
fn emptied(items: &Keys, stores: &Keys, late: &[Option<usize>], on_hand: &[f64]) -> BTreeMap<(u32, u32), Vec<usize>> {
    let mut found: BTreeMap<(u32, u32), (BTreeSet<usize>, Vec<usize>)> = BTreeMap::new();
    let mut filled = BTreeSet::new();
    for (row, period) in late.iter().enumerate() {
        let key = (items.codes[row], stores.codes[row]);
        let Some(period) = period.filter(|_| ![key.0, key.1].contains(&NULL)) else { continue };
        if on_hand[row] == 0.0 {
            let (periods, rows) = found.entry(key).or_default();
            periods.insert(period);
            rows.push(row);
        } else {
            filled.insert(key);
        }
    }
    found.retain(|key, (periods, _)| periods.len() == EMPTY_PERIODS && !filled.contains(key));
    found.into_iter().map(|(key, (_, rows))| (key, rows)).collect()
}

fn empty(stock: &Frame, state: &mut State) {
    let Some((column, on_hand)) = stock.numbers(Role::OnHand) else { return };
    let (Some(item), Some(store), Some(_)) =
        (stock.role(Role::Item), stock.role(Role::Store), stock.role(Role::Period))
    else {
        return state.refuse(
            "out of stock",
            format!("{} lacks an item, a store, or a week that is a number or a date", stock.title()),
        );
    };
    let calendar = match Calendar::of(stock) {
        Ok(calendar) => calendar,
        Err(why) => return state.refuse("out of stock", why),
    };
    let all = &calendar.all;
    if all.len() < EMPTY_PERIODS {
        let why = format!("{} has {}, {EMPTY_PERIODS} are needed", stock.title(), many(all.len(), "period"));
        return state.refuse("out of stock", why);
    }
    let columns: Vec<&Column> = [item, store, column].into_iter().chain(calendar.columns.iter().copied()).collect();
    if let Some(why) = stock.unread_any(&columns) {
        return state.refuse("out of stock", why);
    }
    let late = &all[all.len() - EMPTY_PERIODS..];
    let of_row: Vec<_> = calendar.of_row.iter().map(|p| late.iter().position(|at| Some(*at) == *p)).collect();
    let (items, stores) = (item.keys(), store.keys());
    let zero = emptied(&items, &stores, &of_row, on_hand);
    if zero.is_empty() {
        return;
    }
    let name = |(i, s): &(u32, u32)| format!("{} in store {}", items.labels[*i as usize], stores.labels[*s as usize]);
    let names: Vec<String> = zero.keys().map(name).collect();
    let rows: Vec<usize> = zero.values().flatten().copied().collect();
    let id = state.say(Saying {
        rule: "stock.empty",
        kind: FindingKind::Risk,
        level: Level::Warning,
        weight: 68,
        title: format!("{} with nothing on hand in the last {EMPTY_PERIODS} periods", many(zero.len(), "item-store")),
        statement: format!("{}.", examples(&names)),
        metrics: vec![metric(
            "empty item-stores",
            zero.len() as f64,
            "item-stores",
            "every row of the last 3 periods has on hand = 0, and each period has a row",
            stock.rows,
        )],
        evidence: vec![at(stock, &rows, &columns, "rows with on hand = 0 in the last 3 periods")],
        caveats: ["Lost sales are not estimated."].into_iter().chain(calendar.assumed()).collect(),
        ask: "Replenish these first, and check the order parameters.",
    });
    state.show_rows(&id, stock, &rows);
}
