//! What each case came to, as a table that is kept in the repository: `cargo test -p carrel-sandbox --test rooms --
//! --matrix` writes the columns of the tiers that this machine builds, for the user that runs it, and keeps the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

use carrel_sandbox::{Runtime, Tier};
use libtest_mimic::Trial;

use crate::cases::{CASES, Case, ELSEWHERE, Held};

/// Column, then row.
pub(crate) type Cells = BTreeMap<(String, String), String>;

/// What stands where no machine has measured.
const NEVER: &str = "-";
const COLUMNS: [&str; 6] = ["process as root", "process as user", "namespaces", "oci:crun", "oci:runc", "oci:runsc"];
static SEEN: Mutex<Cells> = Mutex::new(BTreeMap::new());

/// The column of a tier. Of an ordinary user's containers none is kept: there the user is another, and nothing counts
/// memory. Of kata none is either, which no machine has booted that wrote the table.
pub(crate) fn column(tier: Tier) -> Option<String> {
    let root = rustix::process::geteuid().is_root();
    match tier {
        Tier::Process if root => Some("process as root".to_owned()),
        Tier::Process => Some("process as user".to_owned()),
        Tier::Namespaces => Some(tier.to_string()),
        Tier::Oci(Runtime::Kata) => None,
        Tier::Oci(_) => root.then(|| tier.to_string()),
    }
}

pub(crate) fn row(case: &Case) -> String {
    format!("{:02} {}", case.number, case.name.replace('_', " "))
}

pub(crate) fn saw(tier: Tier, case: &Case, outcome: &str) {
    if let Some(column) = column(tier) {
        SEEN.lock().expect("whole").insert((column, row(case)), outcome.to_owned());
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/rooms/matrix.txt")
}

/// The table as it is kept.
pub(crate) fn kept() -> Cells {
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let mut cells = Cells::new();
    for line in text.lines() {
        let mut words = line.split(" | ").map(str::trim);
        let row = words.next().unwrap_or_default();
        for (column, word) in COLUMNS.iter().zip(words) {
            cells.insert(((*column).to_owned(), row.to_owned()), word.to_owned());
        }
    }
    cells
}

/// Writes what was seen over what is kept.
pub(crate) fn write() -> std::io::Result<()> {
    let mut cells = kept();
    cells.extend(SEEN.lock().expect("whole").clone());
    let rows: Vec<String> = std::iter::once("case".to_owned()).chain(CASES.iter().map(row)).collect();
    for column in COLUMNS {
        cells.insert((column.to_owned(), "case".to_owned()), column.to_owned());
    }
    let cell = |column: &str, row: &str| cells.get(&(column.to_owned(), row.to_owned())).map_or(NEVER, String::as_str);
    let width = |column: &str| rows.iter().map(|row| cell(column, row).chars().count()).max().unwrap_or(0);
    let first = rows.iter().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for row in &rows {
        let mut line = format!("{row:first$}");
        for column in COLUMNS {
            write!(line, " | {:1$}", cell(column, row), width(column)).expect("a string takes it");
        }
        text += line.trim_end();
        text += "\n";
    }
    std::fs::write(file(), text + &elsewhere())
}

/// What stands under the table.
fn elsewhere() -> String {
    let mut text = "\nHeld elsewhere\n".to_owned();
    for Held { number, what, file, test } in ELSEWHERE {
        writeln!(text, "{number:02} {what}: {file}, {test}").expect("a string takes it");
    }
    text
}

/// No number of the list is left out.
pub(crate) fn every_number_is_held() -> Trial {
    Trial::test("every_number_is_a_case_or_held_elsewhere", || {
        let held = CASES.iter().map(|case| case.number).chain(ELSEWHERE.iter().map(|held| held.number));
        let held: BTreeSet<u8> = held.collect();
        let last = held.last().copied().unwrap_or(0);
        match (1..=last).find(|number| !held.contains(number)) {
            None => Ok(()),
            Some(number) => Err(format!("nothing holds case {number}; name it in CASES or ELSEWHERE").into()),
        }
    })
}

/// The table that is kept is that of these cases.
pub(crate) fn every_case_is_kept() -> Trial {
    Trial::test("the_matrix_has_a_row_for_every_case_and_no_other", || {
        let text = std::fs::read_to_string(file()).map_err(|error| format!("read {}: {error}", file().display()))?;
        let rows = text.lines().skip(1).take_while(|line| !line.is_empty());
        let kept: Vec<&str> = rows.map(|line| line.split(" | ").next().unwrap_or_default().trim_end()).collect();
        let cases: Vec<String> = CASES.iter().map(row).collect();
        let odd = kept.iter().copied().find(|kept| !cases.iter().any(|case| case == kept));
        let gone = cases.iter().find(|case| !kept.contains(&case.as_str()));
        if odd.is_some() || gone.is_some() || !text.ends_with(&elsewhere()) {
            return Err(format!("matrix.txt has {odd:?} too many, lacks {gone:?}; run with --matrix").into());
        }
        Ok(())
    })
}

/// What is said to be held elsewhere is held there, by a test of that name.
pub(crate) fn held_elsewhere() -> Trial {
    Trial::test("what_is_held_elsewhere_is_a_test_there", || {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        for Held { number, file, test, .. } in ELSEWHERE {
            let text = std::fs::read_to_string(root.join(file)).map_err(|error| format!("read {file}: {error}"))?;
            if !is_test(&text, test) {
                return Err(format!("case {number}: {file} has no test {test}; name the one that holds it").into());
            }
        }
        Ok(())
    })
}

/// Whether a function of this name stands under an attribute that makes it a test.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.trim_start_matches("async ").starts_with(&format!("fn {name}(")));
    let above = at.map_or(&[][..], |at| &lines[..at]);
    let attributes = above.iter().rev().take_while(|line| line.starts_with('#') || line.starts_with("//"));
    attributes.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}
