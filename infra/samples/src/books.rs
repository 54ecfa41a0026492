//! The workbooks: item master, costs and prices, promotion calendar, vendor scorecard.
//!
//! Each has a second sheet, `About`, that says it is synthetic; the creation date is fixed so that bytes repeat.

use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Formula, Workbook, Worksheet, XlsxError};
use time::{Date, Duration};

use crate::LABEL;
use crate::line::{Line, Promo};

const WRITES: &str = "cells within the sheet's bounds, text below Excel's limit";

/// The items. Planted: one size in the larger unit.
pub(crate) fn item_master(line: &Line) -> Vec<u8> {
    book("Items", |sheet| {
        let heads = ["item_code", "item_name", "brand", "vendor", "segment", "size", "size_unit", "own_brand"];
        header(sheet, 0, line, &heads)?;
        for (row, item) in (1..).zip(&line.items) {
            let unit = &line.of.unit;
            let mixed = item.code == line.items[line.of.plants.mixed_unit].code;
            let size = if mixed { f64::from(item.size) / f64::from(unit.per_large) } else { f64::from(item.size) };
            sheet.write_string(row, 0, item.code())?;
            sheet.write_string(row, 1, item.name.as_str())?;
            sheet.write_string(row, 2, item.brand.name)?;
            sheet.write_string(row, 3, item.brand.vendor)?;
            sheet.write_string(row, 4, item.segment)?;
            sheet.write_number(row, 5, size)?;
            sheet.write_string(row, 6, if mixed { unit.large } else { unit.name })?;
            sheet.write_string(row, 7, if item.brand.own { "Y" } else { "N" })?;
        }
        Ok(())
    })
}

/// Costs and list prices. Planted: codes as numbers, one cost above its price.
pub(crate) fn cost_price(line: &Line) -> Vec<u8> {
    book("Prices", |sheet| {
        header(sheet, 0, line, &["item_code", "unit_cost", "list_price", "currency", "valid_from"])?;
        let two = Format::new().set_num_format("0.00");
        let day = Format::new().set_num_format("yyyy-mm-dd");
        let valid_from = ExcelDateTime::from_ymd(2025, 7, 1)?;
        for (row, (index, item)) in (1..).zip(line.items.iter().enumerate()) {
            let planted = index == line.of.plants.cost_above_price;
            let cost = if planted { item.price + 85 } else { item.cost };
            sheet.write_number(row, 0, item.code)?;
            sheet.write_number_with_format(row, 1, cost as f64 / 100.0, &two)?;
            sheet.write_number_with_format(row, 2, item.price as f64 / 100.0, &two)?;
            sheet.write_string(row, 3, "USD")?;
            sheet.write_datetime_with_format(row, 4, &valid_from, &day)?;
        }
        Ok(())
    })
}

/// The promotions of the year, below a title.
pub(crate) fn promo_calendar(line: &Line) -> Vec<u8> {
    book("Calendar", |sheet| {
        sheet.write_string(0, 0, format!("{} promotion calendar (synthetic)", line.of.category))?;
        let heads = ["promo_id", "item_code", "start_date", "end_date", "mechanic", "promo_price", "funding_per_unit"];
        header(sheet, 2, line, &heads)?;
        let two = Format::new().set_num_format("0.00");
        let day = Format::new().set_num_format("dd-mmm-yyyy");
        for (row, (number, promo)) in (3..).zip(line.promos.iter().enumerate()) {
            let last = line.weeks[promo.first_week + Promo::WEEKS - 1];
            sheet.write_string(row, 0, format!("P{:03}", number + 1))?;
            sheet.write_string(row, 1, line.items[promo.item].code())?;
            sheet.write_datetime_with_format(
                row,
                2,
                &excel(line.weeks[promo.first_week] - Duration::days(6))?,
                &day,
            )?;
            sheet.write_datetime_with_format(row, 3, &excel(last)?, &day)?;
            sheet.write_string(row, 4, "Temporary price reduction")?;
            sheet.write_number_with_format(row, 5, promo.price as f64 / 100.0, &two)?;
            sheet.write_number_with_format(row, 6, promo.funding as f64 / 100.0, &two)?;
        }
        Ok(())
    })
}

/// The vendors' year. Planted: a formula whose cached result no longer is the sum.
pub(crate) fn scorecard(line: &Line) -> Vec<u8> {
    book("Scorecard", |sheet| {
        let heads = [
            "vendor",
            "on_time_pct",
            "fill_rate_pct",
            "invoice_accuracy_pct",
            "chargebacks",
            "net_purchases",
            "promo_funding",
        ];
        header(sheet, 0, line, &heads)?;
        let brands = &line.of.brands;
        for (row, (index, brand)) in (1..).zip(brands.iter().enumerate()) {
            sheet.write_string(row, 0, brand.vendor)?;
            sheet.write_number(row, 1, [96.2, 92.5, 98.8, 88.1, 94.0, 79.6][index])?;
            sheet.write_number(row, 2, [97.9, 95.1, 99.2, 91.4, 90.2, 84.3][index])?;
            sheet.write_number(row, 3, [99.0, 98.4, 99.9, 97.2, 98.8, 93.5][index])?;
            sheet.write_number(row, 4, chargebacks(index) as f64)?;
            sheet.write_number(row, 5, line.purchases(brand) as f64 / 100.0)?;
            sheet.write_number(row, 6, line.funding(brand) as f64 / 100.0)?;
        }
        let total: i64 = (0..brands.len()).map(chargebacks).sum();
        let purchases: i64 = brands.iter().map(|brand| line.purchases(brand)).sum();
        let funding: i64 = brands.iter().map(|brand| line.funding(brand)).sum();
        let sum = |column: char, result: String| Formula::new(format!("=SUM({column}2:{column}7)")).set_result(result);
        sheet.write_string(7, 0, "Total")?;
        sheet.write_formula(7, 4, sum('E', (total + line.of.plants.chargebacks_off).to_string()))?;
        sheet.write_formula(7, 5, sum('F', (purchases as f64 / 100.0).to_string()))?;
        sheet.write_formula(7, 6, sum('G', (funding as f64 / 100.0).to_string()))?;
        Ok(())
    })
}

fn chargebacks(index: usize) -> i64 {
    [1_240, 2_980, 0, 4_415, 1_875, 9_320][index]
}

fn header(sheet: &mut Worksheet, row: u32, line: &Line, names: &[&'static str]) -> Result<(), XlsxError> {
    let bold = Format::new().set_bold();
    for (column, name) in (0..).zip(names) {
        sheet.write_string_with_format(row, column, line.of.heading(name), &bold)?;
    }
    Ok(())
}

fn book(name: &str, fill: impl FnOnce(&mut Worksheet) -> Result<(), XlsxError>) -> Vec<u8> {
    let mut workbook = Workbook::new();
    let written = (|| {
        let created = ExcelDateTime::from_ymd(2026, 7, 1)?;
        let properties = DocProperties::new().set_title(name).set_comment(LABEL).set_creation_datetime(&created);
        workbook.set_properties(&properties);
        fill(workbook.add_worksheet().set_name(name)?)?;
        workbook.add_worksheet().set_name("About")?.write_string(0, 0, LABEL)?;
        workbook.save_to_buffer()
    })();
    written.expect(WRITES)
}

fn excel(day: Date) -> Result<ExcelDateTime, XlsxError> {
    let year = u16::try_from(day.year()).expect("a year of this century");
    ExcelDateTime::from_ymd(year, u8::from(day.month()), day.day())
}
