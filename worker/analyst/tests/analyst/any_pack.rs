//! Whatever a pack holds, the review ends whole: findings that validate, rows that exist, a deck without a broken number.

use carrel_schemas::findings::Locator;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::left::run;

/// Headings that mean something to a check, and one that means nothing.
const HEADINGS: [&str; 17] = [
    "item_code",
    "sku",
    "store_id",
    "week_ending",
    "week",
    "units",
    "net_sales",
    "price",
    "unit_cost",
    "case_cost",
    "on_hand",
    "facings",
    "uom",
    "amount",
    "region",
    "year",
    "<b>note</b>",
];

fn cell() -> impl Strategy<Value = String> {
    let odd = [
        "",
        " ",
        "0",
        "-0",
        "1e308",
        "-1e308",
        "1e-320",
        "1e999",
        "-1e999",
        "9007199254740993",
        "007",
        "Total",
        "Subtotal",
        "2026-01-03",
        "2026-13-45",
        "9999-12-31",
        "0001-01-01",
        "12%",
        "$3.99",
        "€1.234,56",
        "(5)",
        "#REF!",
        "\u{202e}x",
        "=1+1",
    ];
    prop_oneof![
        4 => (0_u32..6).prop_map(|code| format!("A{code}")),
        4 => (0_u32..8).prop_map(|code| code.to_string()),
        3 => (0_u32..12).prop_map(|week| format!("2026-{:02}-{:02}", 1 + week / 4, 1 + 7 * (week % 4))),
        2 => (-1e4_f64..1e4).prop_map(|value| format!("{value:.2}")),
        3 => select(odd.to_vec()).prop_map(str::to_owned),
    ]
}

/// A table whose columns hold mostly one kind of cell each, as real ones do, and sometimes anything.
fn table() -> impl Strategy<Value = String> {
    let column = prop_oneof![
        3 => vec((0_u32..40).prop_map(|code| format!("A{code}")), 30),
        3 => vec((0_u32..40).prop_map(|code| code.to_string()), 30),
        2 => (1_usize..3).prop_map(|step| (0..30).map(|at| format!("{}", 1 + at / step)).collect()),
        2 => vec((-1e4_f64..1e4).prop_map(|value| format!("{value:.2}")), 30),
        1 => vec(select(vec!["1e308", "-1e308", "8e307"]).prop_map(str::to_owned), 30),
        2 => vec(cell(), 30),
    ];
    let heading = select(HEADINGS.to_vec());
    (vec((heading, column), 1..8), 0_usize..=30, any::<bool>()).prop_map(|(columns, rows, totals)| {
        let line = |cells: Vec<String>| cells.join("\t") + "\n";
        let mut text = line(columns.iter().map(|(name, _)| (*name).to_owned()).collect());
        for row in 0..rows {
            text += &line(columns.iter().map(|(_, cells)| cells[row].clone()).collect());
        }
        if totals {
            text += &line(
                (0..columns.len()).map(|at| if at == 0 { "Total".to_owned() } else { "99".to_owned() }).collect(),
            );
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn a_review_ends_whole_whatever_the_tables_hold(tables in vec(table(), 1..5)) {
        const NAMES: [&str; 4] = ["sales.csv", "item master.csv", "planogram.csv", "stores.csv"];
        let files: Vec<(&str, &[u8])> = NAMES.into_iter().zip(tables.iter().map(String::as_bytes)).collect();
        let left = run("any", &files);
        for finding in &left.findings.findings {
            for evidence in &finding.evidence {
                let Locator::Rows { rows, .. } = &evidence.locator else { continue };
                let at: usize = evidence.file_id.as_str()[1..].parse().expect("a number");
                let lines = tables[at - 1].lines().count() as u64;
                prop_assert!(rows.iter().all(|row| (2..=lines).contains(row)), "{finding:#?}");
            }
        }
        for broken in [">NaN", ">inf", ">−inf", "NaN<", "inf<", " inf ", " NaN "] {
            prop_assert!(!left.deck.contains(broken), "the deck holds {broken:?}");
        }
        let again = run("any", &files);
        prop_assert_eq!(left.findings, again.findings);
        prop_assert_eq!(left.deck, again.deck);
    }
}
