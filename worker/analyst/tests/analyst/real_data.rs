//! Real retail data (Complete Journey), if it lies beside the project. Absence is said aloud and is no failure.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use crate::left::run;

#[test]
fn a_real_category_is_reviewed_and_its_class_a_is_what_its_rows_add_up_to() {
    const FILES: [&str; 3] = ["pos_sku_store_week.csv", "item_master.xlsx", "promotions.csv"];
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/frozen_pizza");
    if !dir.exists() {
        // Not `eprintln!`: the harness would keep it to itself.
        writeln!(std::io::stderr(), "SKIPPED: {} is not here", dir.display()).expect("stderr");
        return;
    }
    let bytes = FILES.map(|name| std::fs::read(dir.join(name)).expect(name));
    let files: Vec<(&str, &[u8])> = FILES.into_iter().zip(bytes.iter().map(Vec::as_slice)).collect();
    let left = run("frozen_pizza", &files);
    assert_eq!(left.code, 0, "every file was read");

    // The same number by another way: plain text, cents as integers.
    let text = std::str::from_utf8(&bytes[0]).expect("UTF-8");
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let column = |name: &str| head.iter().position(|column| *column == name).expect(name);
    let (item, sales) = (column("product_id"), column("sales"));
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        // The file writes 19.689999999999998 for 19.69.
        let cents = (cells[sales].parse::<f64>().expect("a number") * 100.0).round() as i64;
        *sums.entry(cells[item]).or_default() += cents;
    }
    let total: i64 = sums.values().sum();
    let mut sums: Vec<i64> = sums.into_values().collect();
    sums.sort_unstable_by(|one, two| two.cmp(one));
    let mut reached = 0;
    let class_a = sums.iter().take_while(|sum| {
        let before = reached;
        reached += **sum;
        before * 5 < total * 4
    });
    let class_a = class_a.count() as f64;
    let abc = left.findings.findings.iter().find(|finding| finding.rule_id == "pareto.abc").expect("a Pareto");
    assert_eq!(abc.metrics[0].value, class_a);
    assert!(
        (abc.metrics[2].value - total as f64 / 100.0).abs() < 0.005,
        "{} is not {total} cents",
        abc.metrics[2].value
    );
}
