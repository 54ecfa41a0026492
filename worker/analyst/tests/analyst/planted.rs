//! The agent under its contract: whole packs in, three files out, held against what was planted in them.

use std::collections::BTreeSet;
use std::io::Cursor;

use calamine::{Data, Reader, Xlsx};
use carrel_samples::packs;
use carrel_schemas::findings::{Finding, Level};

use crate::left::{run, said};

/// How a finding shows each planted problem: its rule, and what it must say.
fn shown(tenant: &str, problem: &str) -> (&'static str, &'static [&'static str]) {
    match (tenant, problem) {
        ("acme-foods", "orphan-skus") => ("keys.orphans", &["04499001, 04499002", "12 rows", "183.54"]),
        (_, "orphan-skus") => ("keys.orphans", &["07399007, 07399008", "12 rows", "139.65"]),
        (_, "duplicate-grain") => ("keys.duplicate", &["6 repeated keys"]),
        (_, "lost-leading-zeros") => ("keys.leading_zeros", &["0 of 30 codes match as written, 30 once"]),
        (_, "negative-units") => ("values.negative", &["4 rows"]),
        ("acme-foods", "week-gap") => ("periods.gap", &["2026-01-31"]),
        (_, "week-gap") => ("periods.gap", &["2025-11-15"]),
        ("acme-foods", "pdf-total") => ("totals.pdf", &["trade_terms.pdf", "1250 above", "Page 2"]),
        (_, "pdf-total") => ("totals.pdf", &["Trade terms 2026.pdf", "937.5 below", "Page 1"]),
        ("acme-foods", "totals-row") => ("totals.reconcile", &["market_data.csv", "84300 above"]),
        (_, "totals-row") => ("totals.reconcile", &["Market panel.csv", "120500 below"]),
        ("acme-foods", "stale-formula") => ("totals.reconcile", &["vendor_scorecard.xlsx", "640 above"]),
        (_, "stale-formula") => ("totals.reconcile", &["Vendor Scorecard.xlsx", "275 below"]),
        ("acme-foods", "cost-above-price") => ("price.below_cost", &["1 row", "4410310"]),
        (_, "cost-above-price") => ("price.below_cost", &["1 row", "7320279"]),
        ("acme-foods", "out-of-stock") => (
            "stock.empty",
            &["4 item-stores", "04410013 in store 103", "04410013 in store 105", "04410068 in store 103"],
        ),
        (_, "out-of-stock") => ("stock.empty", &["4 item-stores", "07320048 in store B02", "07320103 in store B04"]),
        ("acme-foods", "unlisted-store") => ("keys.orphans", &["pos_weekly.csv", "store_list.csv", "113: 978 rows"]),
        (_, "unlisted-store") => ("keys.orphans", &["POS by SKU", "Stores.csv", "B99: 915 rows"]),
        ("acme-foods", "outlier-price") => ("values.outlier", &["1 value", "04410189"]),
        (_, "outlier-price") => ("values.outlier", &["1 value", "07320070"]),
        ("acme-foods", "void") => ("shelf.void", &["1 item-store ", "04410134 in store 107"]),
        (_, "void") => ("shelf.void", &["07320092 in store B09"]),
        ("acme-foods", "under-ranged") => ("range.narrow", &["04410101", "carried in 4 of"]),
        (_, "under-ranged") => ("range.narrow", &["07320213", "carried in 4 of"]),
        ("acme-foods", "dead-tail") => ("range.tail", &["04410332", "every store"]),
        (_, "dead-tail") => ("range.tail", &["07320334", "every store"]),
        ("acme-foods", "mixed-units") => ("units.mixed", &["1 row", "kg"]),
        (_, "mixed-units") => ("units.mixed", &["1 row", "hl"]),
        // Read right, they are no problem: the inventory's weeks are among those of the sales.
        ("acme-foods", "mixed-dates") => ("periods.overlap", &["inventory.csv covers 8 of 51 periods"]),
        (_, "mixed-dates") => ("periods.overlap", &["Inventory weekly.csv covers 8 of 51 periods"]),
        (_, other) => panic!("{other} was planted; say here how it shows"),
    }
}

#[test]
fn every_planted_problem_is_found_and_no_other_error_is_claimed() {
    for pack in packs() {
        let files: Vec<(&str, &[u8])> = pack.files.iter().map(|file| (file.name, file.bytes.as_slice())).collect();
        let left = run(pack.pack, &files);
        assert_eq!(left.code, 0, "every file was read");
        let findings = &left.findings.findings;
        let mut explained = BTreeSet::new();
        for planted in pack.planted {
            let (rule, needles) = shown(pack.tenant, planted.id);
            let fits = |finding: &&Finding| {
                finding.rule_id == rule && needles.iter().all(|needle| said(finding).contains(needle))
            };
            let found: Vec<&Finding> = findings.iter().filter(fits).collect();
            let all: Vec<String> = findings.iter().filter(|f| f.rule_id == rule).map(said).collect();
            assert_eq!(found.len(), 1, "{} {}: {needles:?} in {all:#?}", pack.tenant, planted.id);
            explained.insert(found[0].id.clone());
        }
        let errors = findings.iter().filter(|finding| finding.level == Level::Error);
        let claimed: Vec<String> = errors.filter(|finding| !explained.contains(&finding.id)).map(said).collect();
        assert!(claimed.is_empty(), "{}: claimed and never planted: {claimed:#?}", pack.tenant);
    }
}

#[test]
fn every_finding_stands_on_the_slide_it_names_and_the_deck_needs_nothing_else() {
    for pack in packs() {
        let files: Vec<(&str, &[u8])> = pack.files.iter().map(|file| (file.name, file.bytes.as_slice())).collect();
        let left = run(pack.pack, &files);
        let sections: Vec<&str> = left.deck.split("<section>").collect();
        for finding in &left.findings.findings {
            for slide in &finding.slides {
                let title = finding.title.replace('\'', "&#39;");
                assert!(sections[*slide as usize].contains(&title), "{title} is not on slide {slide}");
            }
        }
        for wanted in ["<script", "src=", "href=", "url(", "@import", "://"] {
            assert!(!left.deck.contains(wanted), "the deck holds {wanted}");
        }
    }
}

#[test]
fn hostile_names_and_cells_stay_text() {
    let formula = "=HYPERLINK(\"http://evil.example\";\"x\")";
    let markup = "<img src=x onerror=alert(1)>";
    let mut rows = format!("sku,{markup},net_sales\n");
    for row in 0..20 {
        rows += &format!("{row:03},\"{}\",-{row}\n", formula.replace('"', "\"\""));
    }
    rows += &format!("000,\u{202E}{markup}\u{0007},{}\n", "9".repeat(300));
    let name = format!("{markup}.csv");
    let left = run(markup, &[(&name, rows.as_bytes()), ("empty.csv", b"a,b\n"), ("one.csv", b"x\n1\n")]);
    for forbidden in ["<img", "\u{7}", "<script"] {
        assert!(!left.deck.contains(forbidden), "the deck holds {forbidden:?}");
    }
    assert!(left.deck.contains("&lt;img src=x onerror=alert(1)&gt;"), "the name is shown as text");
    let mut book: Xlsx<_> = Xlsx::new(Cursor::new(left.appendix)).expect("a workbook");
    let mut seen = 0;
    for sheet in book.sheet_names() {
        let formulas = book.worksheet_formula(&sheet).expect("readable");
        assert!(formulas.used_cells().all(|(_, _, formula)| formula.is_empty()), "{sheet} holds a formula");
        let cells = book.worksheet_range(&sheet).expect("readable");
        seen += cells
            .used_cells()
            .filter(|(_, _, cell)| matches!(cell, Data::String(text) if text.contains("HYPERLINK")))
            .count();
    }
    assert!(seen > 0, "the formula is shown as text");
}
