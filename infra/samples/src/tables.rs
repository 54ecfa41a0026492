//! The CSV files, in the dialects they come in: plain, semicolons in Windows-1252, a preamble with a totals row, UTF-16.

use time::Date;

use crate::LABEL;
use crate::catalogue::WEEKS;
use crate::line::{Line, Sale};
use crate::random::Random;

/// The column that says in every row of a table that it is invented.
const SOURCE: &str = "synthetic";
/// Weeks of stock history.
const STOCK_WEEKS: usize = 8;

/// Sales by item, store and week. Planted: orphans, duplicates, returns as sales, a missing week.
pub(crate) fn pos(line: &Line) -> Vec<u8> {
    let of = line.of;
    let mut random = Random::new(of.seed + 1);
    let mut rows: Vec<(String, Sale)> = line
        .sales
        .iter()
        .filter(|sale| sale.week != of.plants.gap_week)
        .map(|sale| (line.items[sale.item].code(), *sale))
        .collect();
    for _ in 0..4 {
        let at = random.below(rows.len());
        rows[at].1.units = -rows[at].1.units;
    }
    let mut copied = Vec::new();
    while copied.len() < 6 {
        let at = random.below(rows.len());
        if !copied.contains(&at) {
            copied.push(at);
            rows.push(rows[at].clone());
        }
    }
    for (number, code) in of.plants.orphans.into_iter().enumerate() {
        for week in WEEKS - 6..WEEKS {
            let units = 2 + random.below(4) as i64;
            let sale = Sale { item: 0, store: number, week, units, price: 399, promoted: false };
            rows.push((code.to_owned(), sale));
        }
    }
    rows.sort_by(|(a, x), (b, y)| (x.week, x.store, a).cmp(&(y.week, y.store, b)));

    let mut table = Table::new(b',', "\n");
    let heads = ["item_code", "store_id", "week_ending", "units", "net_sales", "on_promo", "source"];
    table.row(heads.map(|name| of.heading(name)));
    for (code, sale) in rows {
        table.row([
            code.as_str(),
            of.stores[sale.store].id,
            &iso(line.weeks[sale.week]),
            &sale.units.to_string(),
            &money(sale.units * sale.price),
            if sale.promoted { "Y" } else { "N" },
            SOURCE,
        ]);
    }
    table.bytes()
}

/// The stores. Planted: the last one is missing.
pub(crate) fn stores(line: &Line) -> Vec<u8> {
    let of = line.of;
    let mut table = Table::new(b',', "\n");
    let heads = ["store_id", "store_name", "region", "cluster", "annual_sales", "note"];
    table.row(heads.map(|name| of.heading(name)));
    for store in &of.stores[..of.stores.len() - 1] {
        let cluster = if store.size >= 1.1 {
            "A"
        } else if store.size >= 0.85 {
            "B"
        } else {
            "C"
        };
        let annual = (store.size * 14_600_000.0) as i64;
        table.row([store.id, store.name, store.region, cluster, &annual.to_string(), SOURCE]);
    }
    table.bytes()
}

/// Stock at the end of the last weeks: semicolons, decimal commas, day.month.year, Windows-1252. Planted: empty shelves.
pub(crate) fn inventory(line: &Line) -> Vec<u8> {
    let of = line.of;
    let mut random = Random::new(of.seed + 2);
    let mut table = Table::new(b';', "\r\n");
    let heads = ["item_code", "store_id", "store_name", "week_ending", "on_hand", "stock_value", "source"];
    table.row(heads.map(|name| of.heading(name)));
    for week in WEEKS - STOCK_WEEKS..WEEKS {
        for (store, place) in of.stores.iter().enumerate() {
            for (item, it) in line.items.iter().enumerate().filter(|(item, _)| line.ranged[*item][store]) {
                let cover = random.between(1.2, 3.5);
                let shelf = (line.units(item, store, week) as f64 * cover) as i64 + 3;
                let on_hand = if line.is_empty(item, store, week) { 0 } else { shelf };
                table.row([
                    it.code().as_str(),
                    place.id,
                    place.name,
                    &dotted(line.weeks[week]),
                    &on_hand.to_string(),
                    &money(on_hand * it.cost).replace('.', ","),
                    SOURCE,
                ]);
            }
        }
    }
    // Every letter of the names lies where Latin-1 and Windows-1252 agree with Unicode.
    let text = String::from_utf8(table.bytes()).expect("written from strings");
    text.chars().map(|letter| u8::try_from(u32::from(letter)).expect("a Latin-1 letter")).collect()
}

/// Which item has which place in which store: the ranging.
pub(crate) fn planogram(line: &Line) -> Vec<u8> {
    let of = line.of;
    let mut table = Table::new(b',', "\n");
    let heads = ["store_id", "item_code", "shelf", "position", "facings", "width_cm", "capacity", "source"];
    table.row(heads.map(|name| of.heading(name)));
    for (store, place) in of.stores.iter().enumerate() {
        let carried = line.items.iter().enumerate().filter(|(item, _)| line.ranged[*item][store]);
        for (position, (_, item)) in carried.enumerate() {
            table.row([
                place.id,
                &item.code(),
                &(position / 8 + 1).to_string(),
                &(position % 8 + 1).to_string(),
                &item.facings.to_string(),
                &item.width_cm.to_string(),
                &item.capacity().to_string(),
                SOURCE,
            ]);
        }
    }
    table.bytes()
}

/// The market by segment and brand, with a preamble and a totals row. Planted: the total of this year is wrong.
pub(crate) fn market(line: &Line) -> Vec<u8> {
    let of = line.of;
    let mut random = Random::new(of.seed + 3);
    let mut table = Table::new(b',', "\n");
    table.row([&format!("{} - total market", of.category)]);
    table.row([LABEL]);
    table.row(["Period: 52 weeks ending 2026-06-27"]);
    table.row([""]);
    let heads = ["segment", "brand", "sales_this_year", "sales_prior_year", "units_this_year"];
    table.row(heads.map(|name| of.heading(name)));
    let carried = of.brands.iter().map(|brand| (brand.name, brand.pull * brand.price, brand.growth, brand.price));
    let rivals = of.rivals.into_iter().zip([(1.8, 1.02, 1.0), (0.9, 1.3, 1.15)]);
    let brands = carried.chain(rivals.map(|(name, (weight, growth, price))| (name, weight, growth, price)));
    let mut totals = [0; 3];
    for (brand, weight, growth, price) in brands {
        for segment in of.segments {
            let this = (weight * random.between(0.6, 1.4) * 1_900_000.0) as i64;
            let prior = (this as f64 / (growth * random.between(0.97, 1.03))) as i64;
            let units = (this as f64 * 100.0 / (of.base_price * price * 1.1)) as i64;
            for (total, part) in totals.iter_mut().zip([this, prior, units]) {
                *total += part;
            }
            table.row([segment, brand, &this.to_string(), &prior.to_string(), &units.to_string()]);
        }
    }
    let [this, prior, units] = totals;
    let printed = this + of.plants.market_total_off;
    table.row(["Total", "", &printed.to_string(), &prior.to_string(), &units.to_string()]);
    table.bytes()
}

/// Prices seen at three competitors, in UTF-16 with a byte order mark. Planted: one slipped decimal point.
pub(crate) fn competitor_prices(line: &Line) -> Vec<u8> {
    let of = line.of;
    let mut random = Random::new(of.seed + 4);
    let mut table = Table::new(b',', "\r\n");
    let heads = ["item_code", "item_name", "competitor", "observed_on", "shelf_price", "source"];
    table.row(heads.map(|name| of.heading(name)));
    for (index, item) in line.items.iter().enumerate().filter(|(_, item)| !item.brand.own) {
        for (number, competitor) in of.competitors.into_iter().enumerate() {
            let level = [0.97, 1.04, 0.9][number] * random.between(0.96, 1.05);
            let price = (item.price as f64 * level) as i64 / 10 * 10 + 9;
            let price = if (index, number) == (of.plants.outlier_price, 1) { price * 10 } else { price };
            table.row([&item.code(), item.name.as_str(), competitor, "2026-06-18", &money(price), SOURCE]);
        }
    }
    let text = String::from_utf8(table.bytes()).expect("written from strings");
    [0xFF, 0xFE].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

/// A CSV writer into memory, where nothing can fail.
struct Table(csv::Writer<Vec<u8>>);

impl Table {
    fn new(delimiter: u8, line_end: &str) -> Self {
        let terminator = if line_end == "\r\n" { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let mut writer = csv::WriterBuilder::new();
        writer.delimiter(delimiter).terminator(terminator).flexible(true);
        Self(writer.from_writer(Vec::new()))
    }

    fn row<I: IntoIterator<Item = T>, T: AsRef<[u8]>>(&mut self, cells: I) {
        self.0.write_record(cells).expect("memory takes every row");
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("memory takes every row")
    }
}

/// Cents as a decimal.
pub(crate) fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

fn iso(day: Date) -> String {
    format!("{}-{:02}-{:02}", day.year(), u8::from(day.month()), day.day())
}

fn dotted(day: Date) -> String {
    format!("{:02}.{:02}.{}", day.day(), u8::from(day.month()), day.year())
}
