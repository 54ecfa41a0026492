//! Promises of the review, on small frames with known answers.

use carrel_analyst::{Frame, FrameSource, Pack, Values, review};
use carrel_schemas::ids::FileId;

fn text(cells: &[&str]) -> Values {
    Values::Text { words: cells.iter().map(|c| (*c).to_owned()).collect(), codes: (0..cells.len() as u32).collect() }
}

fn pack() -> Pack {
    let source = |at, name: &str| FrameSource { file_id: FileId::nth(at), name: name.into(), sha256: "ab".repeat(32) };
    let numbers = |values: Vec<f64>| Values::Number { values, whole: false };
    let sold = vec![
        ("sku".to_owned(), text(&["01", "02", "99"])),
        ("units".to_owned(), numbers(vec![5.0, -1.0, 2.0])),
        ("sales".to_owned(), numbers(vec![80.0, 15.0, 5.0])),
    ];
    let items = vec![("sku".to_owned(), text(&["01", "02", "03", "04"]))];
    let frames = vec![
        Frame::new(source(0, "pos.csv"), "pos", false, sold),
        Frame::new(source(1, "item_master.csv"), "item_master", false, items),
    ];
    let mut pack = Pack::default();
    pack.frames = frames;
    pack
}

#[test]
fn an_unknown_item_is_found_with_its_sales_and_its_row() {
    let found = review(&pack()).findings;
    let orphan = found.findings.iter().find(|f| f.rule_id == "keys.orphans").expect("orphan");
    assert_eq!(orphan.metrics.iter().map(|m| m.value).collect::<Vec<_>>(), [1.0, 1.0, 5.0]);
    let place = serde_json::to_string(&orphan.evidence[0].locator).expect("locator");
    assert!(place.contains("[4]"), "{place}");
}

#[test]
fn the_same_pack_gives_the_same_valid_findings() {
    let (one, two) = (review(&pack()).findings, review(&pack()).findings);
    assert_eq!(one, two);
    assert_eq!(one.validate(), Ok(()));
    assert!(one.findings.iter().any(|f| f.rule_id == "values.negative"));
}
