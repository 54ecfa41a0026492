//! What the review must not say: small files on which a hasty check would be wrong, and what it says instead.

use std::fmt::Write as _;
use std::io::Cursor;

use calamine::{Data, Reader, Xlsx};
use carrel_schemas::findings::{Finding, Level};
use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str};

use crate::left::{Left, run, said, unusable};

fn review(files: &[(&str, &str)]) -> Left {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    run("truth", &files)
}

impl Left {
    fn of(&self, rule: &str) -> Vec<&Finding> {
        self.findings.findings.iter().filter(|finding| finding.rule_id == rule).collect()
    }

    fn only(&self, rule: &str) -> &Finding {
        let found = self.of(rule);
        let all: Vec<String> = self.findings.findings.iter().map(said).collect();
        assert_eq!(found.len(), 1, "{rule} in {all:#?}");
        found[0]
    }

    /// No finding of the rule, and the reason given in the list of what was not computed.
    fn refused(&self, rule: &str, what: &str, why: &str) {
        let said: Vec<String> = self.of(rule).into_iter().map(said).collect();
        assert!(said.is_empty(), "{said:#?}");
        let list = &self.findings.not_computed;
        assert!(list.iter().any(|n| n.what.contains(what) && n.why.contains(why)), "{list:#?}");
    }
}

/// One page with these lines, top to bottom.
fn page(lines: &[&str]) -> Vec<u8> {
    let [catalog, tree, page, content, font] = [1, 2, 3, 4, 5].map(Ref::new);
    let mut text = Content::new();
    for (at, line) in lines.iter().enumerate() {
        text.begin_text().set_font(Name(b"F1"), 10.0).next_line(54.0, 700.0 - 18.0 * at as f32);
        text.show(Str(line.as_bytes())).end_text();
    }
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids([page]).count(1);
    pdf.type1_font(font).base_font(Name(b"Helvetica"));
    let mut sheet = pdf.page(page);
    sheet.media_box(Rect::new(0.0, 0.0, 612.0, 792.0)).parent(tree).contents(content);
    sheet.resources().fonts().pair(Name(b"F1"), font);
    sheet.finish();
    pdf.stream(content, &text.finish());
    pdf.finish()
}

/// Sales of 12 weeks, one row a week, by item and store: units of each.
fn sales(pairs: &[(&str, &str, u32)]) -> String {
    let mut text = String::from("item_code,store_id,week_ending,units\n");
    for week in 0..12 {
        for (item, store, units) in pairs {
            writeln!(text, "{item},{store},{},{units}", saturday(week)).expect("a String");
        }
    }
    text
}

fn saturday(week: u32) -> String {
    let day = 3 + 7 * week;
    let ends = [31, 59, 90, 120];
    let month = ends.iter().position(|end| day <= *end).expect("before May");
    let before = if month == 0 { 0 } else { ends[month - 1] };
    format!("2026-{:02}-{:02}", month + 1, day - before)
}

#[test]
fn a_right_total_over_subtotals_is_not_called_wrong() {
    let inside = "region,amount\nA,10\nB,20\nSubtotal,30\nC,25\nD,15\nE,7\nGrand total,77\n";
    review(&[("a.csv", inside)]).refused("totals.reconcile", "stated totals of a.csv", "look like subtotals");
    let last_word = "region,amount\nA,10\nB,20\nC,5\nWest total,35\nD,40\nE,17\nF,3\nTotal,95\n";
    review(&[("a.csv", last_word)]).refused("totals.reconcile", "stated totals of a.csv", "look like subtotals");
    let several = "region,amount\nA,10\nB,20\nC,40\nTotal East,30\nTotal West,40\nGrand total,70\n";
    let left = review(&[("a.csv", several)]);
    left.refused("totals.reconcile", "Total West", "total of all rows");
    assert!(
        left.deck.contains("Stated totals that tie to their rows: 1 of 1"),
        "the grand total is held against its rows"
    );
}

#[test]
fn an_average_is_not_called_a_wrong_total() {
    review(&[("a.csv", "region,margin\nA,10\nB,30\nTotal,25\n")]).refused("totals.reconcile", "margin", "average");
    review(&[("a.csv", "region,margin\nA,10\nB,30\nTotal,20\n")]).refused("totals.reconcile", "margin", "average");
    let wrong = review(&[("a.csv", "region,amount\nA,10\nB,30\nTotal,45\n")]);
    assert!(wrong.only("totals.reconcile").title.contains("5 above"), "a wrong total is still found");
}

#[test]
fn a_total_over_cells_that_could_not_be_read_is_not_judged() {
    let mut text = String::from("region,amount\n");
    (0..30).for_each(|row| writeln!(text, "R{row},10").expect("a String"));
    text += "Z,10 or 12?\nTotal,310\n";
    review(&[("a.csv", &text)]).refused("totals.reconcile", "amount of row 33", "see row 32");
}

#[test]
fn equal_sums_in_other_files_are_no_totals_that_tie() {
    let pdf = page(&["Rebates by vendor", "North 600.00", "South 900.00", "Total 1,500.00"]);
    let table = b"vendor,rebate,other\nA,700.00,1\nB,800.00,2\n";
    let left = run("truth", &[("terms.pdf", &pdf), ("a.csv", table)]);
    assert!(left.deck.contains("Stated totals that tie to their rows: 1 of 1"), "one total is stated");
    assert!(left.deck.contains("1 printed amount equal to the sum of a column of another file"));
    assert!(left.deck.contains("<td class=\"n\">0.01</td>"), "the tolerance applied is shown");
}

#[test]
fn a_case_cost_is_not_held_against_a_unit_price() {
    let by_case = "item_code,case_cost,unit_price\nA1,24.00,3.99\nA2,3.00,3.99\nA3,3.50,3.99\n";
    review(&[("c.csv", by_case)]).refused("price.below_cost", "case_cost against unit_price", "not for one unit");
    let unsaid = "item_code,cost,price\nA1,24.00,3.99\nA2,36.00,3.99\nA3,3.50,3.99\n";
    review(&[("c.csv", unsaid)]).refused("price.below_cost", "cost against price", "perhaps it is for a pack");
    let wrong = "item_code,unit_cost,unit_price\nA1,4.00,3.99\nA2,3.00,3.99\nA3,3.50,3.99\n";
    let left = review(&[("c.csv", wrong)]);
    let below = left.only("price.below_cost");
    assert!(below.statement.contains("A1") && below.level == Level::Warning, "it may be right: {below:#?}");
}

/// Four items in every store of the plan but the first, which is in one of three.
const PLAN: &str = "item_code,store_id,facings\nA1,S1,2\nA2,S1,2\nA2,S2,2\nA2,S3,2\nA3,S1,2\nA3,S2,2\nA3,S3,2\nA4,S1,1\nA4,S2,1\nA4,S3,1\n";

#[test]
fn velocity_counts_only_sales_in_stores_that_carry_the_item() {
    let sold = sales(&[
        ("A1", "S1", 9),
        ("A1", "S2", 50),
        ("A2", "S1", 5),
        ("A2", "S2", 5),
        ("A2", "S3", 5),
        ("A3", "S1", 4),
        ("A3", "S2", 4),
        ("A3", "S3", 4),
        ("A4", "S1", 1),
        ("A4", "S2", 1),
        ("A4", "S3", 1),
    ]);
    let left = review(&[("pos.csv", &sold), ("plan.csv", PLAN)]);
    let narrow = left.only("range.narrow");
    assert_eq!(narrow.metrics[0].value, 9.0, "50 a week in a store that does not list it are not counted");
    assert!(narrow.title.contains("A1") && narrow.title.contains("1 of 3 stores"), "{}", narrow.title);
    assert_eq!(narrow.evidence.len(), 2, "the plan and the sales");
    assert!(left.only("range.tail").title.contains("A4"));
}

#[test]
fn an_item_that_never_joins_or_ties_is_not_called_the_slowest() {
    let mut pairs = Vec::new();
    for (item, units) in [("A1", 9), ("A2", 5), ("A3", 4), ("A4", 1), ("A5", 1)] {
        pairs.extend(["S1", "S2"].map(|store| (item, store, units)));
    }
    let mut plan = String::from("item_code,store_id,facings\n");
    for item in ["A1", "A2", "A3", "A4", "A5", "ZZ"] {
        writeln!(plan, "{item},S1,1\n{item},S2,1").expect("a String");
    }
    let left = review(&[("pos.csv", &sales(&pairs)), ("plan.csv", &plan)]);
    assert!(left.of("range.tail").is_empty(), "A4 and A5 sell alike, ZZ occurs in no sales");
}

#[test]
fn a_price_list_by_store_is_no_shelf_plan() {
    let sold = sales(&[("A1", "S1", 9), ("A1", "S2", 5), ("A2", "S1", 5)]);
    let prices = "item_code,store_id,zone,price\nA1,S1,x,1.99\nA1,S1,y,2.09\nA2,S1,x,3.99\nA2,S2,x,3.99\n";
    review(&[("pos.csv", &sold), ("prices.csv", prices)]).refused("shelf.void", "velocity and voids", "planogram");
    let plan = "item_code,store_id,facings\nA1,S1,2\nA1,S2,2\nA2,S1,2\nA2,S2,1\nA3,S1,1\nA3,S2,1\n";
    let left = review(&[("pos.csv", &sold), ("prices.csv", prices), ("range.csv", plan)]);
    let void = left.only("shelf.void");
    assert!(void.title.contains("listed in range.csv") && void.statement.contains("A2 in store S2"), "{void:#?}");
}

#[test]
fn a_calendar_without_a_row_for_every_week_lacks_nothing() {
    let mut calendar = String::from("promo,week_ending,mechanic\n");
    let mut sold = String::from("item_code,store_id,week_ending,units\n");
    let mut sparse = sold.clone();
    for week in (0..12).filter(|week| *week != 5) {
        writeln!(calendar, "P{week},{},cut", saturday(week)).expect("a String");
        writeln!(sold, "A1,S1,{},4", saturday(week)).expect("a String");
        if week % 3 != 2 {
            writeln!(sparse, "A1,S1,{},4", saturday(week)).expect("a String");
        }
    }
    let left = review(&[("sales.csv", &sold), ("promo.csv", &calendar)]);
    let gap = left.only("periods.gap");
    assert!(gap.title.starts_with("sales.csv lacks 1 of 12") && gap.statement.contains(&saturday(5)), "{gap:#?}");
    review(&[("sales.csv", &sparse)]).refused("periods.gap", "missing periods of sales.csv", "have no row");
}

#[test]
fn a_shelf_is_empty_only_if_every_row_of_every_late_week_says_so() {
    let mut text = String::from("item_code,store_id,week_ending,on_hand,place\n");
    for week in 0..4 {
        let day = saturday(week);
        // A1: nothing, in both places. A2: nothing on the shelf, something behind it. A3: one week, said three times.
        writeln!(text, "A1,S1,{day},0,shelf\nA1,S1,{day},0,back\nA2,S1,{day},0,shelf\nA2,S1,{day},5,back")
            .expect("a String");
        for place in ["shelf", "back", "till"] {
            let on_hand = if week == 3 { 0 } else { 2 };
            writeln!(text, "A3,S1,{day},{on_hand},{place}").expect("a String");
        }
    }
    let left = review(&[("stock.csv", &text)]);
    let empty = left.only("stock.empty");
    assert_eq!((empty.metrics[0].value, empty.level), (1.0, Level::Warning), "the file is right, the shelf is empty");
    assert!(empty.statement.starts_with("A1 in store S1"), "{}", empty.statement);
}

#[test]
fn rows_that_repeat_a_key_with_other_values_are_told_from_rows_that_repeat() {
    let mut text = sales(&[("A1", "S1", 9), ("A2", "S1", 5), ("A3", "S1", 5), ("A4", "S1", 5)]);
    writeln!(text, "A1,S1,{0},9\nA2,S1,{0},6", saturday(0)).expect("a String");
    let left = review(&[("sales.csv", &text)]);
    let (same, other) = (left.only("keys.duplicate"), left.only("keys.conflict"));
    assert!(same.title.starts_with("1 repeated key ") && same.level == Level::Error, "{same:#?}");
    assert!(other.title.starts_with("1 repeated key ") && other.level == Level::Warning, "{other:#?}");
    let mut prices = String::from("item_code,price,valid_from\n");
    (0..40).for_each(|item| writeln!(prices, "A{item},3.99,2026-01-01").expect("a String"));
    prices += "A7,4.99,2026-03-01\n";
    let left = review(&[("prices.csv", &prices)]);
    assert!(left.of("keys.duplicate").is_empty() && left.of("keys.conflict").is_empty(), "a price that changed");
}

#[test]
fn a_date_or_a_code_at_the_end_of_a_line_is_no_amount() {
    for end in ["27.06.26", "04410013", "A-150"] {
        let total = format!("Total 1,500.00 {end}");
        let pdf = page(&["Rebates by vendor", "North 600.00", "South 850.00", &total]);
        let left = run("truth", &[("terms.pdf", &pdf)]);
        left.refused("totals.pdf", "Total 1,500.00", "does not end with an amount");
    }
    let pdf = page(&["Rebates by vendor", "North 1,600", "South 850", "Total 2,500"]);
    assert!(run("truth", &[("terms.pdf", &pdf)]).only("totals.pdf").title.contains("50 above"));
}

#[test]
fn class_a_reaches_80_percent() {
    let left = review(&[("sales.csv", "sku,units\nA1,90\nA2,5\nA3,3\nA4,2\n")]);
    let abc = left.only("pareto.abc");
    assert_eq!(abc.title, "90.0 % of units of sales.csv comes from 1 of 4 items");
    assert_eq!(abc.metrics[0].value, 1.0);
    assert!(left.deck.contains("Cumulative share of units of sales.csv by item"), "the chart says what it shows");
}

#[test]
fn a_pack_without_rows_is_not_called_sound() {
    let left = review(&[("empty.csv", "a,b\n")]);
    assert!(left.deck.contains("Nothing could be checked"), "{}", left.deck);
    assert!(!left.deck.contains("No check found an error"));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let sold = sales(&[("A1", "S1", 9), ("A2", "S1", 5), ("A3", "S1", 5), ("A4", "S1", 5)]);
    let master = "item_code,name\nA1,a\nB2,b\nB3,c\nB4,d\nB5,e\n";
    let stock = "item_code,store_id,week,on_hand\nA1,S1,1,4\nA1,S1,2,4\nA1,S1,3,4\nA1,S1,4,4\n";
    let left = review(&[("sales.csv", &sold), ("item master.csv", master), ("stock.csv", stock)]);
    left.refused("keys.orphans", "item_code of sales.csv", "1 of 4 codes occur in both");
    left.refused(
        "periods.overlap",
        "stock.csv and sales.csv",
        "week holds week numbers, week_ending holds weeks by date",
    );
    let plan = "item_code,store_id,facings\nA1,S1,1\nA1,S2,1\nA2,S1,1\nA2,S2,1\n";
    let sold = sales(&[("A1", "S1", 9), ("A1", "S2", 5), ("A2", "S1", 5)]);
    review(&[("sales.csv", &sold), ("plan.csv", plan)]).refused("shelf.void", "voids", "1 of 4 item-stores");
    let refused = &left.findings.not_computed;
    assert_eq!(refused.iter().filter(|n| n.what.contains("GMROI")).count(), 1, "said once");
    assert!(refused.iter().all(|n| !n.why.contains("list only weeks with sales")), "nobody checked that");
}

#[test]
fn long_ids_stay_apart() {
    let text = "item_code,units\n900719925474099313,9\n900719925474099312,5\n900719925474099311,5\n";
    let left = review(&[("sales.csv", text)]);
    assert!(left.of("keys.duplicate").is_empty());
    assert!(left.only("pareto.abc").title.contains("of 3 items"));
    assert!(left.deck.contains("holds whole numbers of 16 digits or more"));
}

#[test]
fn codes_that_match_without_zeros_are_counted_as_they_are_written() {
    let sold = "item_code,units\n0007,1\n007,2\n0008,3\n0009,4\n";
    let left = review(&[("sales.csv", sold), ("item master.csv", "item_code,name\n07,a\n08,b\n09,c\n")]);
    let zeros = left.only("keys.leading_zeros");
    assert!(zeros.statement.starts_with("0 of 4 codes match as written, 4 once"), "{}", zeros.statement);
}

#[test]
fn negative_stock_is_not_called_a_return() {
    let stock = "item_code,store_id,week_ending,on_hand\nA1,S1,2026-01-03,-4\nA2,S1,2026-01-03,4\n";
    let left = review(&[("stock.csv", stock)]);
    assert!(left.only("values.negative").caveats.iter().all(|caveat| !caveat.contains("returns")));
    let sold = "item_code,store_id,week_ending,units\nA1,S1,2026-01-03,-4\nA2,S1,2026-01-03,4\n";
    assert!(review(&[("sales.csv", sold)]).only("values.negative").caveats[0].contains("returns"));
}

#[test]
fn misfits_are_counted_in_the_plural_and_numbers_of_the_appendix_are_numbers() {
    let mut text = String::from("sku,units\n");
    (0..97).for_each(|row| writeln!(text, "A{row},1").expect("a String"));
    text += "B1,about 3\nB2,4 or 5\nB3,5 sold?\n";
    let left = review(&[("sales.csv", &text), ("item master.csv", "sku,name\nA1,a\nA2,b\n")]);
    assert_eq!(left.code, 0);
    assert!(left.only("cells.misfit").title.starts_with("3 cells or rows of sales.csv"));
    let mut book: Xlsx<_> = Xlsx::new(Cursor::new(left.appendix)).expect("a workbook");
    let joins = book.worksheet_range("Joins").expect("a sheet");
    assert!((1..4).all(|at| matches!(joins.get_value((1, at)), Some(Data::Float(_)))), "{joins:?}");
}

/// A row with one cell too many is dropped by the reader; what it held is not absent.
#[test]
fn nothing_is_called_absent_that_may_stand_in_a_row_that_was_not_read() {
    let pairs: Vec<(String, u32)> = (1..40).map(|item| (format!("A{item}"), item)).collect();
    let pairs: Vec<(&str, &str, u32)> = pairs.iter().map(|(item, units)| (item.as_str(), "S1", *units)).collect();
    let sold = sales(&pairs);
    let mut master = String::from("item_code,name,size\n");
    (1..39).for_each(|item| writeln!(master, "A{item},x,1").expect("a String"));
    let orphaned = review(&[("sales.csv", &sold), ("item master.csv", &master)]);
    assert!(orphaned.only("keys.orphans").statement.contains("A39"), "a key that is nowhere is missing");
    master += "A39,Nuts, salted,1\n";
    let left = review(&[("sales.csv", &sold), ("item master.csv", &master)]);
    left.refused("keys.orphans", "missing from item master.csv", "could be read: see row 40");

    let mut gap = String::from("item_code,store_id,week_ending,units\n");
    for week in 0..12 {
        let units = if week == 5 { "4,000" } else { "4" };
        writeln!(gap, "A1,S1,{},{units}", saturday(week)).expect("a String");
    }
    review(&[("sales.csv", &gap)]).refused("periods.gap", "missing periods of sales.csv", "see row 7");

    let mut stock = String::from("item_code,store_id,week_ending,on_hand\n");
    (0..4).for_each(|week| writeln!(stock, "A1,S1,{},0", saturday(week)).expect("a String"));
    (0..40).for_each(|item| writeln!(stock, "B{item},S1,{},7", saturday(3)).expect("a String"));
    assert!(review(&[("stock.csv", &stock)]).only("stock.empty").statement.starts_with("A1"));
    writeln!(stock, "A1,S1,{},1,000", saturday(3)).expect("a String");
    review(&[("stock.csv", &stock)]).refused("stock.empty", "out of stock", "see row 46");
}

#[test]
fn a_sale_in_a_row_that_was_not_read_is_no_void() {
    let plan = "item_code,store_id,facings\nA1,S1,2\nA1,S2,2\nA2,S1,2\nA2,S2,1\nA3,S1,1\nA3,S2,1\n";
    let sold = sales(&[("A1", "S1", 9), ("A1", "S2", 5), ("A2", "S1", 5), ("A3", "S1", 2), ("A3", "S2", 2)]);
    let left = review(&[("pos.csv", &sold), ("plan.csv", plan)]);
    assert!(left.only("shelf.void").statement.contains("A2 in store S2"), "listed and nowhere sold");
    let more = sold.clone() + &format!("A2,S2,{},1,000\n", saturday(11));
    let left = review(&[("pos.csv", &more), ("plan.csv", plan)]);
    left.refused("shelf.void", "voids", "pos.csv: not all of it could be read: see row 62");
    left.refused("range.tail", "velocity", "see row 62");
    // Nor is an item carried in few stores, of whose stores one could not be read.
    let torn = plan.to_owned() + "A2,S3,3,moved\n";
    review(&[("pos.csv", &sold), ("plan.csv", &torn)]).refused(
        "range.narrow",
        "velocity and voids",
        "plan.csv: not all",
    );
}

#[test]
fn periods_are_compared_only_where_all_of_them_were_read() {
    let sold = sales(&["A1", "A2", "A3", "A4", "A5"].map(|item| (item, "S1", 9)));
    let until = sold.find(&saturday(8)).and_then(|at| sold[..at].rfind('\n')).expect("12 weeks");
    let stock = sold[..=until].replace("units", "on_hand");
    let left = review(&[("pos.csv", &sold), ("stock.csv", &stock)]);
    assert!(left.only("periods.overlap").title.contains("stock.csv covers 8 of 12 periods"));
    let more = format!("A1,S1,{},1,000\n", saturday(8));
    let left = review(&[("pos.csv", &sold), ("stock.csv", &(stock.clone() + &more))]);
    left.refused("periods.overlap", "stock.csv and pos.csv", "stock.csv: not all of it could be read: see row 42");
    let left = review(&[("pos.csv", &(sold + &more)), ("stock.csv", &stock)]);
    left.refused("periods.overlap", "stock.csv and pos.csv", "pos.csv: not all of it could be read: see row 62");
}

#[test]
fn a_pack_of_which_nothing_can_be_used_says_why_file_by_file() {
    let mut book = rust_xlsxwriter::Workbook::new();
    book.add_worksheet().write_number(1_048_575, 16_383, 1.0).expect("the last cell");
    let book = book.save_to_buffer().expect("a workbook");
    let (code, logged) = unusable(&[("far.xlsx", &book), ("torn.pdf", b"no pdf")]);
    assert_eq!(code, 20);
    assert_eq!(logged.len(), 2, "{logged:#?}");
    assert!(logged[0].starts_with("far.xlsx: ") && logged[0].contains("XFD1048576"), "{}", logged[0]);
    assert!(logged[1].starts_with("torn.pdf: "), "{}", logged[1]);
}

/// The stock of one item in each of these weeks; none where it is `out`.
fn weekly(head: &str, weeks: &[String], out: impl Fn(usize) -> bool) -> String {
    let mut text = format!("item_code,store_id,{head},on_hand\n");
    for (at, week) in weeks.iter().enumerate() {
        writeln!(text, "A1,S1,{week},{}", if out(at) { 0 } else { 9 }).expect("a String");
    }
    text
}

/// The end of a year and the beginning of the next.
fn two_years() -> Vec<(u32, u32)> {
    (40..=52).map(|week| (2025, week)).chain((1..=30).map(|week| (2026, week))).collect()
}

fn bare(weeks: impl Iterator<Item = u32>) -> Vec<String> {
    weeks.map(|week| week.to_string()).collect()
}

#[test]
fn week_52_is_followed_by_week_1_of_the_next_year() {
    let weeks = two_years();
    let beside: Vec<String> = weeks.iter().map(|(year, week)| format!("{year},{week}")).collect();
    let within: Vec<String> = weeks.iter().map(|(year, week)| format!("{year}{week:02}")).collect();
    for (head, weeks) in [("year,week", &beside), ("week", &within)] {
        let left = review(&[("stock.csv", &weekly(head, weeks, |at| at >= weeks.len() - 3))]);
        assert_eq!(left.only("stock.empty").metrics[0].value, 1.0, "{head}");
        assert!(left.of("periods.gap").is_empty() && left.of("keys.conflict").is_empty(), "{head}");
    }
    // Out in weeks 50 to 52 of 2025, and then no more.
    let early = review(&[("stock.csv", &weekly("year,week", &beside, |at| (10..13).contains(&at)))]);
    assert!(early.of("stock.empty").is_empty(), "week 52 of 2025 is not the last");
    let gap: Vec<String> = beside.into_iter().filter(|week| !["2025,52", "2026,7"].contains(&week.as_str())).collect();
    let gap = review(&[("stock.csv", &weekly("year,week", &gap, |_| false))]);
    let said = &gap.only("periods.gap").statement;
    assert!(said.contains("year and week 2025 week 52, 2026 week 7;"), "{said}");
}

#[test]
fn week_numbers_that_may_be_of_two_years_have_no_last_week() {
    let text = weekly("week", &bare(two_years().into_iter().map(|(_, week)| week)), |at| at >= 40);
    let left = review(&[("stock.csv", &text), ("pos.csv", &text.replace("on_hand", "units")), ("plan.csv", PLAN)]);
    left.refused("stock.empty", "out of stock", "may be of two years");
    left.refused("periods.gap", "missing periods of stock.csv", "may be of two years");
    left.refused("periods.overlap", "overlap of periods of stock.csv and pos.csv", "may be of two years");
    left.refused("shelf.void", "velocity and voids", "may be of two years");
    let text = ["FY25,1", "FY25,2", "FY26,1", "FY26,2"].map(str::to_owned);
    let text = weekly("fiscal_year,week", &text, |_| true);
    review(&[("stock.csv", &text)]).refused("stock.empty", "out of stock", "2 years, which fiscal_year writes as text");
    // Written with its year, week 1 to 52 is of that year.
    let one: Vec<String> = (1..=52).map(|week| format!("2025,{week}")).collect();
    let left = review(&[("stock.csv", &weekly("year,week", &one, |at| at >= 49))]);
    assert_eq!(left.only("stock.empty").caveats.len(), 1, "nothing is assumed of its weeks");
}

#[test]
fn a_plain_count_of_weeks_is_taken_to_count_on_and_that_is_said() {
    let study = bare((1..=102).filter(|week| *week != 60));
    let part = bare((30..=52).filter(|week| *week != 40));
    for (weeks, absent) in [(study, "week 60;"), (part, "week 40;")] {
        let last = weeks.len() - 3;
        let left = review(&[("stock.csv", &weekly("week", &weeks, |at| at >= last))]);
        let (gap, empty) = (left.only("periods.gap"), left.only("stock.empty"));
        assert!(gap.statement.contains(absent), "{}", gap.statement);
        assert!([gap, empty].iter().all(|found| found.caveats.iter().any(|c| c.contains("carry no year"))), "{gap:#?}");
    }
    let apart = |from: u32| weekly("week", &bare(from..from + 6), |_| false);
    let (stock, sold) = (apart(30), apart(10).replace("on_hand", "units"));
    review(&[("stock.csv", &stock), ("pos.csv", &sold)]).refused(
        "periods.overlap",
        "stock.csv and pos.csv",
        "share none",
    );
}

#[test]
fn a_day_on_which_nobody_trades_is_no_gap() {
    let daily = |closed: &[u32]| {
        let mut text = String::from("item_code,store_id,date,units\n");
        let open = (1..=28).filter(|day| day % 7 != 4 && !closed.contains(day));
        open.for_each(|day| writeln!(text, "A1,S1,2026-01-{day:02},4").expect("a String"));
        text
    };
    assert!(review(&[("sales.csv", &daily(&[]))]).of("periods.gap").is_empty(), "no Sunday has a row");
    let gap = review(&[("sales.csv", &daily(&[14]))]);
    assert!(gap.only("periods.gap").statement.contains("2026-01-14"), "a Wednesday is missing");
}

#[test]
fn rows_of_two_times_of_day_are_not_called_alike() {
    let mut text = String::from("item_code,store_id,date,units\n");
    (0..60).for_each(|item| writeln!(text, "A{item},S1,2026-01-03 09:00:00,1").expect("a String"));
    text += "A1,S1,2026-01-03 17:40:00,1\n";
    review(&[("sales.csv", &text)]).refused("keys.duplicate", "duplicates in sales.csv", "time of day");
}

#[test]
fn a_total_among_the_items_is_no_item() {
    let text = "sku,units\nA1,90\nA2,5\nSnacks total,95\nA3,3\n";
    review(&[("sales.csv", text)]).refused("pareto.abc", "Pareto", "look like totals among the items");
    let named = "sku,name,units\nA1,a,90\nA2,b,5\nT1,Snacks total,95\nA3,c,3\n";
    review(&[("sales.csv", named)]).refused("pareto.abc", "Pareto", "look like totals among the items");
}

#[test]
fn one_unit_in_two_spellings_is_one_unit() {
    let units = |last: &str| {
        let mut text = String::from("item_code,uom\n");
        (0..30).for_each(|item| writeln!(text, "A{item},kg").expect("a String"));
        text + &format!("B1, KG\nB2,{last}\n")
    };
    assert!(review(&[("items.csv", &units("Kgs"))]).of("units.mixed").is_empty());
    let each = units("EACH").replace(",kg", ",EA").replace(", KG", ",each");
    assert!(review(&[("items.csv", &each)]).of("units.mixed").is_empty());
    assert!(review(&[("items.csv", &units("lb"))]).only("units.mixed").statement.contains("lb in row 33"));
}

#[test]
fn a_printed_total_that_differs_from_a_column_of_its_name_is_told_and_not_judged() {
    let pdf = page(&["Rebates by vendor", "North 600.00", "South 900.00", "Total rebate 1,500.00"]);
    let left = run("truth", &[("terms.pdf", &pdf), ("a.csv", b"vendor,rebate\nA,700.00\nB,700.00\n")]);
    left.refused("totals.pdf", "terms.pdf, page 1 and Σ rebate of a.csv", "they are 100 apart");
    let left = run("truth", &[("terms.pdf", &pdf), ("a.csv", b"vendor,total,rebate\nA,700.00,A1\nB,700.00,B2\n")]);
    let said = left.findings.not_computed.iter().find(|n| n.what.contains("Σ"));
    assert!(said.is_none(), "a column called total may hold the total of anything: {said:#?}");
}

#[test]
fn an_item_that_sells_nothing_is_not_the_slowest_that_sells() {
    let mut pairs = Vec::new();
    for (item, units) in [("A1", 9), ("A2", 5), ("A3", 4), ("A4", 2), ("A5", 0)] {
        pairs.extend(["S1", "S2"].map(|store| (item, store, units)));
    }
    let mut plan = String::from("item_code,store_id,facings\n");
    for item in ["A1", "A2", "A3", "A4", "A5"] {
        writeln!(plan, "{item},S1,1\n{item},S2,1").expect("a String");
    }
    assert!(review(&[("pos.csv", &sales(&pairs)), ("plan.csv", &plan)]).of("range.tail").is_empty());
}
