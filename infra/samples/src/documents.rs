//! The PDFs: a vendor's sell sheet, and the trade terms with two tables of which one does not add up.

use crate::catalogue::{Brand, ITEMS_PER_BRAND};
use crate::line::{Line, Promo};
use crate::pdf::{Document, number, text};
use crate::tables::money;

/// Rebate in hundredths of a percent of net purchases, brand by brand.
const REBATES: [i64; 6] = [300, 450, 0, 250, 500, 200];

/// What the first vendor would like to be listed.
pub(crate) fn sell_sheet(line: &Line) -> Vec<u8> {
    let brand = &line.of.brands[0];
    let mut document = Document::new(&format!("{} - sell sheet 2026", brand.name));
    document.line(&format!("Prepared by {} for {}", brand.vendor, line.of.retailer));
    document.line(&format!("Category: {}. Period: 52 weeks ending 2026-06-27.", line.of.category));
    document.line("Our ask: full distribution for the three best items, one more facing for each.");
    document.heading("Line list");
    let columns = [
        text("Item code", 70.0),
        text("Item", 210.0),
        number("Case pack", 64.0),
        number("Cost", 64.0),
        number("Suggested price", 90.0),
    ];
    let rows: Vec<Vec<String>> = line.items[..ITEMS_PER_BRAND]
        .iter()
        .map(|item| vec![item.code(), item.name.clone(), "12".into(), money(item.cost), money(item.price)])
        .collect();
    document.table(&columns, &rows);
    document.heading("Support");
    document.line("Three promotion windows a year, half of the price reduction funded by us.");
    document.line("Free fill of shelf for new stores. Spoilage allowance 1.0% of net purchases.");
    document.bytes()
}

/// Rebates and promotion funding by vendor. Planted: one of the two printed totals.
pub(crate) fn trade_terms(line: &Line) -> Vec<u8> {
    let of = line.of;
    let mut document = Document::new(&format!("{} - trade terms 2025/26", of.retailer));
    document.line(&format!("Category: {}. Amounts in USD for the 52 weeks ending 2026-06-27.", of.category));
    document.line("Payment 45 days net. Rebates fall due 30 days after the end of the year.");

    document.heading("Table 1. Volume rebate");
    let columns =
        [text("Vendor", 170.0), number("Net purchases", 100.0), number("Rate", 60.0), number("Rebate", 100.0)];
    let rebate = |(brand, rate): (&Brand, i64)| line.purchases(brand) * rate / 10_000;
    let terms = || of.brands.iter().zip(REBATES);
    let mut rows: Vec<Vec<String>> = terms()
        .map(|(brand, rate)| {
            let percent = format!("{}%", money(rate));
            vec![brand.vendor.into(), grouped(line.purchases(brand)), percent, grouped(rebate((brand, rate)))]
        })
        .collect();
    let purchases: i64 = of.brands.iter().map(|brand| line.purchases(brand)).sum();
    let rebates = terms().map(rebate).sum::<i64>() + of.plants.rebate_total_off;
    rows.push(vec!["Total".into(), grouped(purchases), "-".into(), grouped(rebates)]);
    document.table(&columns, &rows);

    document.turn();
    document.heading("Table 2. Promotion funding");
    document.line("Half of every price reduction, for the units sold in the window.");
    let columns = [text("Vendor", 170.0), number("Windows", 100.0), number("Share", 60.0), number("Funding", 100.0)];
    let windows = |brand: &Brand| {
        let of_brand = |promo: &&Promo| line.items[promo.item].brand.name == brand.name;
        line.promos.iter().filter(of_brand).count()
    };
    let mut rows: Vec<Vec<String>> = of
        .brands
        .iter()
        .map(|brand| vec![brand.vendor.into(), windows(brand).to_string(), "50%".into(), grouped(line.funding(brand))])
        .collect();
    let funding = of.brands.iter().map(|brand| line.funding(brand)).sum::<i64>() + of.plants.funding_total_off;
    rows.push(vec!["Total".into(), line.promos.len().to_string(), "-".into(), grouped(funding)]);
    document.table(&columns, &rows);
    document.bytes()
}

/// Cents with thousands set apart, as documents print them.
fn grouped(cents: i64) -> String {
    let plain = money(cents);
    let (whole, rest) = plain.split_at(plain.len() - 3);
    let mut set = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            set.push(',');
        }
        set.push(digit);
    }
    set + rest
}
