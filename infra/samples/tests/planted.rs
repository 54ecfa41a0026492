//! What the demo packs promise: the same bytes at every call, a dozen files each that say they are synthetic, and every
//! planted problem really in the bytes, read again here with parsers that know nothing of the generator.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use calamine::{Data, Reader, Xlsx};
use carrel_samples::{SamplePack, packs};

type Rows = Vec<Vec<String>>;

/// The files of a pack, parsed; columns are told by position, since the two retailers write different headings.
struct Read {
    pack: SamplePack,
    pos: Rows,
    master: Rows,
    stores: Rows,
    prices: Rows,
    inventory: Rows,
    planogram: Rows,
    market: Rows,
    rivals: Rows,
    scorecard: Rows,
    terms: Vec<String>,
}

fn read() -> Vec<Read> {
    let one = |pack: SamplePack| {
        let bytes = |at: usize| pack.files[at].bytes.as_slice();
        let utf8 = |at: usize| String::from_utf8(bytes(at).to_vec()).expect("UTF-8");
        let latin = encoding_rs::WINDOWS_1252.decode(bytes(4)).0.into_owned();
        let utf16 = encoding_rs::UTF_16LE.decode(bytes(8)).0.into_owned();
        Read {
            pos: table(&utf8(0), b','),
            master: sheet(bytes(1)),
            stores: table(&utf8(2), b','),
            prices: sheet(bytes(3)),
            inventory: table(&latin, b';'),
            planogram: table(&utf8(5), b','),
            market: csv(&utf8(7), b',').split_off(5),
            rivals: table(&utf16, b','),
            scorecard: sheet(bytes(9)),
            terms: strings(bytes(11)),
            pack,
        }
    };
    packs().into_iter().map(one).collect()
}

fn csv(text: &str, delimiter: u8) -> Rows {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(text.as_bytes());
    reader.records().map(|row| row.expect("a record").iter().map(str::to_owned).collect()).collect()
}

/// Without the heading, all rows of one width.
fn table(text: &str, delimiter: u8) -> Rows {
    let rows = csv(text, delimiter);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    rows[1..].to_vec()
}

/// The first sheet without its heading; numbers as Excel would copy them.
fn sheet(bytes: &[u8]) -> Rows {
    let mut book = Xlsx::new(Cursor::new(bytes)).expect("a workbook");
    let name = book.sheet_names()[0].clone();
    let range = book.worksheet_range(&name).expect("the first sheet");
    range.rows().skip(1).map(|row| row.iter().map(Data::to_string).collect()).collect()
}

/// The shown strings of a PDF, in order, from its uncompressed content.
fn strings(bytes: &[u8]) -> Vec<String> {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let shown = |line: &str| {
        let string = line.trim().strip_suffix(" Tj")?;
        if let Some(plain) = string.strip_prefix('(') {
            return plain.strip_suffix(')').map(str::to_owned);
        }
        // A string with letters beyond ASCII is written in hexadecimal.
        let digits = string.strip_prefix('<')?.strip_suffix('>')?;
        let letter = |at: usize| char::from(u8::from_str_radix(&digits[at..at + 2], 16).expect("two hex digits"));
        Some((0..digits.len()).step_by(2).map(letter).collect())
    };
    text.lines().filter_map(shown).collect()
}

impl Read {
    /// What the list beside the generator says of one problem.
    fn said(&self, id: &str) -> &'static str {
        let found: Vec<_> = self.pack.planted.iter().filter(|planted| planted.id == id).collect();
        assert_eq!(found.len(), 1, "{id} in {}", self.pack.tenant);
        for file in found[0].where_.split(", ") {
            assert!(self.pack.files.iter().any(|known| known.name == file), "{id} names {file}");
        }
        found[0].what
    }

    fn codes(&self) -> BTreeSet<&str> {
        self.master.iter().map(|row| row[0].as_str()).collect()
    }

    /// Units by item, store and week, the first of duplicate rows only.
    fn sold(&self) -> BTreeMap<(&str, &str, &str), i64> {
        let mut sold = BTreeMap::new();
        for row in &self.pos {
            sold.entry((row[0].as_str(), row[1].as_str(), row[2].as_str())).or_insert_with(|| row[3].parse().unwrap());
        }
        sold
    }

    fn weeks(&self) -> Vec<&str> {
        let weeks: BTreeSet<&str> = self.pos.iter().map(|row| row[2].as_str()).collect();
        weeks.into_iter().collect()
    }

    /// Units per carried store and week.
    fn velocity(&self) -> BTreeMap<&str, f64> {
        let mut velocity = BTreeMap::new();
        for ((item, _, _), units) in self.sold() {
            *velocity.entry(item).or_insert(0.0) += units as f64;
        }
        velocity.retain(|item, _| self.codes().contains(item));
        for (item, units) in &mut velocity {
            *units /= (self.carried(item).len() * self.weeks().len()) as f64;
        }
        velocity
    }

    fn carried(&self, item: &str) -> Vec<&str> {
        self.planogram.iter().filter(|row| row[1] == item).map(|row| row[0].as_str()).collect()
    }
}

fn cents(text: &str) -> i64 {
    let plain: String = text.chars().filter(|letter| letter.is_ascii_digit() || *letter == '-').collect();
    plain.parse().unwrap()
}

/// The cells of a PDF's table: the strings from its first heading on, in rows, the total last.
fn printed(terms: &[String], first: &str, width: usize) -> Rows {
    let start = terms.iter().position(|text| text == first).expect("the table's heading") + 1;
    let start = start + terms[start..].iter().position(|text| text == "Vendor").expect("the first column");
    terms[start + width..].chunks(width).take(7).map(<[String]>::to_vec).collect()
}

#[test]
fn the_packs_are_the_same_at_every_call() {
    assert_eq!(packs(), packs());
}

#[test]
fn a_pack_is_a_dozen_files_of_modest_size_that_say_they_are_synthetic() {
    for pack in packs() {
        assert_eq!(pack.files.len(), 12);
        let names: BTreeSet<_> = pack.files.iter().map(|file| file.name).collect();
        assert_eq!(names.len(), 12);
        let total: usize = pack.files.iter().map(|file| file.bytes.len()).sum();
        assert!((100_000..2_000_000).contains(&total), "{total}");
        for file in &pack.files {
            let text = match file.name.rsplit_once('.').expect("an extension").1 {
                "xlsx" => {
                    let mut book = Xlsx::new(Cursor::new(&file.bytes)).expect("a workbook");
                    book.worksheet_range("About")
                        .expect("a second sheet")
                        .rows()
                        .flatten()
                        .map(Data::to_string)
                        .collect()
                }
                _ => file.bytes.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect::<String>(),
            };
            assert!(text.to_lowercase().contains("synthetic"), "{}", file.name);
        }
    }
}

#[test]
fn every_planted_problem_has_a_check_here() {
    let checked = include_str!("planted.rs");
    for planted in packs().iter().flat_map(|pack| pack.planted) {
        assert!(checked.contains(&format!("said(\"{}\")", planted.id)), "{}", planted.id);
    }
}

#[test]
fn sales_have_orphans_duplicates_returns_a_gap_and_an_unlisted_store() {
    for read in read() {
        let orphans: BTreeSet<&str> =
            read.pos.iter().map(|row| row[0].as_str()).filter(|code| !read.codes().contains(code)).collect();
        assert_eq!(orphans.len(), 2);
        assert!(orphans.iter().all(|code| read.said("orphan-skus").contains(code)), "{orphans:?}");

        assert_eq!(read.pos.len() - read.sold().len(), 6, "{}", read.said("duplicate-grain"));

        let negative: BTreeSet<_> = read.pos.iter().filter(|row| row[3].starts_with('-')).collect();
        assert_eq!(negative.len(), 4, "{}", read.said("negative-units"));

        let weeks = read.weeks();
        assert_eq!(weeks.len(), 51);
        let missing = if read.pack.tenant == "acme-foods" { "2026-01-31" } else { "2025-11-15" };
        assert!(weeks.contains(&"2026-06-27") && !weeks.contains(&missing) && read.said("week-gap").contains(missing));

        let listed: BTreeSet<&str> = read.stores.iter().map(|row| row[0].as_str()).collect();
        let unlisted: BTreeSet<&str> =
            read.pos.iter().map(|row| row[1].as_str()).filter(|store| !listed.contains(store)).collect();
        assert_eq!(unlisted.len(), 1);
        assert!(unlisted.iter().all(|store| read.said("unlisted-store").contains(store)), "{unlisted:?}");
    }
}

#[test]
fn codes_costs_sizes_and_dates_disagree_where_listed() {
    for read in read() {
        let said = read.said("lost-leading-zeros");
        assert!(
            read.prices
                .iter()
                .all(|row| !row[0].starts_with('0') && read.codes().contains(format!("0{}", row[0]).as_str()))
        );
        assert!(said.contains(&read.prices[0][0]) && said.contains(&read.master[0][0]));

        let number = |text: &str| text.parse::<f64>().unwrap();
        let dear: Vec<_> = read.prices.iter().filter(|row| number(&row[1]) > number(&row[2])).collect();
        assert_eq!(dear.len(), 1);
        assert!(read.said("cost-above-price").contains(&dear[0][0]));

        let unit = &read.master[0][6];
        let mixed: Vec<_> = read.master.iter().filter(|row| row[6] != *unit).collect();
        assert_eq!(mixed.len(), 1);
        assert!(read.said("mixed-units").contains(&mixed[0][0]));

        assert!(read.said("mixed-dates").contains("27.06.2026"));
        assert!(read.inventory.iter().any(|row| row[3] == "27.06.2026") && read.weeks().contains(&"2026-06-27"));
        assert!(read.inventory.iter().all(|row| row[5].contains(',')));
    }
}

#[test]
fn shelves_run_empty_while_the_item_sells_elsewhere() {
    for read in read() {
        let empty: Vec<_> = read.inventory.iter().filter(|row| row[4] == "0").collect();
        assert_eq!(empty.len(), 2 * 2 * 3, "two items, two stores, three weeks");
        let (sold, weeks) = (read.sold(), read.weeks());
        for row in empty {
            let (item, store) = (row[0].as_str(), row[1].as_str());
            let said = read.said("out-of-stock");
            assert!(said.contains(item) && said.contains(store), "{row:?}");
            assert!(weeks[48..].iter().all(|week| !sold.contains_key(&(item, store, week))));
            assert!(weeks[38..48].iter().all(|week| sold.contains_key(&(item, store, week))), "steady before: {row:?}");
        }
    }
}

#[test]
fn a_void_an_under_ranged_item_and_a_tail_stand_out() {
    for read in read() {
        let (sold, weeks, velocity) = (read.sold(), read.weeks(), read.velocity());
        let silent = |row: &&Vec<String>| {
            weeks[41..].iter().all(|week| !sold.contains_key(&(row[1].as_str(), row[0].as_str(), week)))
        };
        let void = read.planogram.iter().filter(silent).find(|row| read.said("void").contains(&row[1]));
        assert!(void.is_some_and(|row| read.said("void").contains(&format!("store {} ", row[0]))), "{void:?}");

        let under = velocity.iter().filter(|(item, _)| read.said("under-ranged").contains(**item));
        let (item, speed) = under.max_by(|a, b| a.1.total_cmp(b.1)).expect("the named item");
        assert_eq!(read.carried(item).len(), 4);
        assert!(velocity.values().filter(|other| *other > speed).count() < 5, "{speed}");

        let (item, _) = velocity.iter().min_by(|a, b| a.1.total_cmp(b.1)).expect("items");
        assert!(read.said("dead-tail").contains(*item) && read.carried(item).len() == 13, "{item}");
    }
}

#[test]
fn one_competitor_price_slipped_its_decimal_point() {
    for read in read() {
        let outliers: Vec<_> = read
            .rivals
            .iter()
            .filter(|row| {
                let others = read.rivals.iter().filter(|other| other[0] == row[0] && other[2] != row[2]);
                others.clone().count() == 2 && others.into_iter().all(|other| cents(&row[4]) > 5 * cents(&other[4]))
            })
            .collect();
        assert_eq!(outliers.len(), 1);
        let said = read.said("outlier-price");
        assert!(said.contains(&outliers[0][0]) && said.contains(&outliers[0][2]), "{outliers:?}");
    }
}

#[test]
fn printed_and_cached_totals_are_off_by_what_is_listed() {
    for read in read() {
        let acme = read.pack.tenant == "acme-foods";
        let (total, rows) = read.market.split_last().expect("a totals row");
        assert_eq!(total[0], "Total", "{}", read.said("totals-row"));
        let off = |column: usize| cents(&total[column]) - rows.iter().map(|row| cents(&row[column])).sum::<i64>();
        assert_eq!((off(2), off(3), off(4)), (if acme { 84_300 } else { -120_500 }, 0, 0));

        let (total, rows) = read.scorecard.split_last().expect("a totals row");
        let number = |text: &str| text.parse::<f64>().unwrap();
        let off = |column: usize| number(&total[column]) - rows.iter().map(|row| number(&row[column])).sum::<f64>();
        assert_eq!(off(4), if acme { 640.0 } else { -275.0 }, "{}", read.said("stale-formula"));
        assert!(off(5).abs() < 0.005 && off(6).abs() < 0.005);

        let rebates = printed(&read.terms, "Table 1. Volume rebate", 4);
        let funding = printed(&read.terms, "Table 2. Promotion funding", 4);
        let off = |rows: &Rows, column: usize| {
            let (total, rows) = rows.split_last().expect("a totals row");
            assert_eq!((rows.len(), total[0].as_str()), (6, "Total"));
            cents(&total[column]) - rows.iter().map(|row| cents(&row[column])).sum::<i64>()
        };
        let offs = (off(&rebates, 1), off(&rebates, 3), off(&funding, 1), off(&funding, 3));
        assert_eq!(offs, if acme { (0, 0, 0, 125_000) } else { (0, -93_750, 0, 0) }, "{}", read.said("pdf-total"));
        for (row, vendor) in rebates.iter().zip(rows) {
            assert_eq!(row[0], vendor[0]);
            assert_eq!(cents(&row[1]), (number(&vendor[5]) * 100.0).round() as i64, "{}", row[0]);
        }
    }
}
