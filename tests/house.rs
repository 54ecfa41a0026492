//! The house's own rules, held over `cargo metadata` and the source text.
//!
//! Owns what no lint can say: which room may link which, transitively; what every file begins with and how long it may
//! grow; where `unsafe` and the environment may be touched; which words the loopback cloud must not know; that a test that
//! is skipped is heard; that what the documents name exists. Refuses style: that is rustfmt's and clippy's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Parser as _;
use serde::Deserialize;

const ROOMS: [&str; 5] = ["dispatcher", "worker", "schemas", "infra", "tests"];

/// What a crate must never reach, with the reason.
const NEVER: [(&str, &[&str], &str); 8] = [
    ("carrel-worker", &["carrel-dispatcher", "carrel-local", "carrel"], "the worker runs beside hostile bytes"),
    ("carrel-worker", &["arrow", "calamine", "pdf_oxide"], "parsers run in the room, as a process of their own"),
    ("carrel-dispatcher", &["carrel-worker", "carrel-local", "carrel"], "the dispatcher knows no fake"),
    ("carrel-dispatcher", &["arrow", "calamine", "pdf_oxide"], "the dispatcher reads no customer's bytes"),
    ("carrel-schemas", &["tokio", "hyper", "axum", "reqwest", "tonic", "carrel-cloud"], "wire types have no behaviour"),
    (
        "carrel-local",
        &["carrel-schemas", "carrel-cloud", "carrel-dispatcher", "carrel-worker"],
        "a bug shared with the product would hide on both sides",
    ),
    ("carrel-ingest", &["tokio", "hyper", "reqwest", "mio", "socket2"], "a parser has no network"),
    ("carrel-analyst", &["tokio", "hyper", "reqwest", "mio", "socket2"], "the analyst is pure inside"),
];

/// Which rooms a room may name in its manifest; the root package names them all.
const DRAWN: [(&str, &[&str]); 12] = [
    ("carrel-schemas", &[]),
    ("carrel-cloud", &[]),
    ("carrel-telemetry", &[]),
    ("carrel-sandbox", &[]),
    ("carrel-egress", &[]),
    ("carrel-samples", &[]),
    ("carrel-ingest", &[]),
    ("carrel-local", &["carrel-sandbox", "carrel-egress"]),
    ("carrel-volume", &["carrel-cloud", "carrel-sandbox"]),
    ("carrel-analyst", &["carrel-schemas", "carrel-ingest"]),
    ("carrel-worker", &["carrel-schemas", "carrel-cloud", "carrel-egress", "carrel-sandbox", "carrel-telemetry"]),
    ("carrel-dispatcher", &["carrel-schemas", "carrel-cloud", "carrel-telemetry"]),
];

/// What the rules need of `cargo metadata`. Read here rather than by a crate whose features would build serde_json twice.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Declared>,
}

/// One dependency as a manifest declares it; `path` is set for the rooms of this house.
#[derive(Deserialize)]
struct Declared {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Linked>,
}

#[derive(Deserialize)]
struct Linked {
    pkg: String,
    dep_kinds: Vec<LinkedAs>,
}

#[derive(Deserialize)]
struct LinkedAs {
    kind: Option<String>,
}

const DEV: Option<&str> = Some("dev");

impl Metadata {
    fn read() -> Self {
        let here = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let answer = std::process::Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &here])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo starts");
        assert!(answer.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&answer.stderr));
        serde_json::from_slice(&answer.stdout).expect("cargo metadata's format 1")
    }

    fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Every package that `from` links or builds with, and through whom.
    fn reached(&self, from: &str) -> BTreeMap<&str, &str> {
        let nodes: BTreeMap<&str, &Node> = self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let names: BTreeMap<&str, &str> =
            self.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
        let start = self.members().find(|package| package.name == from).expect("a member of the workspace");
        let (mut through, mut open) = (BTreeMap::new(), vec![start.id.as_str()]);
        while let Some(id) = open.pop() {
            for linked in &nodes[id].deps {
                let dependency = linked.pkg.as_str();
                let for_real = linked.dep_kinds.iter().any(|kind| kind.kind.as_deref() != DEV);
                if for_real && !through.contains_key(names[dependency]) {
                    through.insert(names[dependency], names[id]);
                    open.push(dependency);
                }
            }
        }
        through
    }
}

#[test]
fn no_room_links_what_it_must_not_know() {
    let metadata = Metadata::read();
    let mut broken = Vec::new();
    for (from, never, why) in NEVER {
        let through = metadata.reached(from);
        for name in never.iter().filter(|name| through.contains_key(**name)) {
            let mut path = vec![*name];
            while let Some(user) = through.get(path[path.len() - 1]).filter(|user| **user != from) {
                path.push(user);
            }
            broken.push(format!("{from} -> {} ({why})", path.into_iter().rev().collect::<Vec<_>>().join(" -> ")));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn rooms_link_each_other_as_drawn() {
    let metadata = Metadata::read();
    for package in metadata.members().filter(|package| package.name != "carrel") {
        let drawn = DRAWN.iter().find(|(name, _)| *name == package.name.as_str());
        let (_, drawn) = drawn.unwrap_or_else(|| panic!("{} is a new room; draw what it may link here", package.name));
        let rooms = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
        for room in rooms.filter(|dependency| dependency.kind.as_deref() != DEV) {
            assert!(drawn.contains(&room.name.as_str()), "{} must not link {}", package.name, room.name);
        }
    }
    assert!(metadata.reached("carrel-worker").contains_key("tokio"), "the walk over the graph finds nothing");
}

#[test]
fn every_member_takes_the_workspaces_lints() {
    for package in Metadata::read().members() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} lacks `[lints] workspace = true`", package.name);
    }
}

/// One source file, by its path from the root.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn within(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    fn has_part(&self, part: &str) -> bool {
        self.path.iter().any(|name| name == part)
    }

    /// The lines that are code, numbered from 1: neither comments nor documentation, and nothing below `mod tests {`.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = (1..).zip(self.text.lines()).take_while(|(_, line)| line.trim() != "mod tests {");
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Lines of code that satisfy `test`, as `path:line`.
    fn hits(&self, test: impl Fn(&str) -> bool) -> Vec<String> {
        self.code().filter(|(_, line)| test(line)).map(|(at, _)| format!("{}:{at}", self.path.display())).collect()
    }
}

fn sources() -> Vec<Source> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8 source");
                found.push(Source { path: path.strip_prefix(root).expect("below the root").to_owned(), text });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for room in ROOMS {
        walk(root, &root.join(room), &mut found);
    }
    assert!(found.len() > 20, "the walk lost its way: {} files", found.len());
    found
}

fn word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).any(|part| part == word)
}

#[test]
fn the_top_level_is_the_one_that_is_drawn() {
    let known: BTreeSet<&str> = ["dispatcher", "worker", "schemas", "infra", "tests", "target"].into();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(root).expect("the root") {
        let entry = entry.expect("a readable entry");
        let name = entry.file_name().into_string().expect("a UTF-8 name");
        let folder = entry.file_type().expect("a file type").is_dir();
        assert!(!folder || name.starts_with('.') || known.contains(name.as_str()), "a new top-level folder: {name}");
    }
}

#[test]
fn every_file_opens_with_what_it_owns_and_stays_readable() {
    let mut broken = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!") {
            broken.push(format!("{}: does not open with //!", source.path.display()));
        }
        let lines = source.text.lines().count();
        if lines > 600 {
            broken.push(format!("{}: {lines} lines; 600 is the limit, split it", source.path.display()));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn unsafe_code_lies_in_the_sandbox_alone() {
    let outside = sources().into_iter().filter(|source| !source.within("infra/sandbox"));
    let hits: Vec<String> = outside
        .flat_map(|source| {
            source.hits(|line| {
                word(line, "unsafe")
                    && (line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"))
            })
        })
        .collect();
    // This file spells the words it looks for.
    let hits: Vec<&String> = hits.iter().filter(|hit| !hit.starts_with("tests/house.rs")).collect();
    assert!(hits.is_empty(), "{hits:#?}");
}

#[test]
fn the_environment_is_read_in_configs_and_mains_alone() {
    let may = |source: &Source| {
        let name = source.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        matches!(name, "config.rs" | "main.rs" | "build.rs" | "tests.rs")
            || ["tests", "config", "examples", "benches"].iter().any(|part| source.has_part(part))
            // The command line is the program's main, spread over one file for each command.
            || source.within("infra/cli")
    };
    let hits: Vec<String> = sources()
        .into_iter()
        .filter(|source| !may(source))
        .flat_map(|source| source.hits(|line| line.contains("env::") && !line.contains("env::consts")))
        .collect();
    assert!(hits.is_empty(), "{hits:#?}");
}

#[test]
fn the_loopback_cloud_knows_googles_nouns_only() {
    let ours = ["tenant", "tenants", "review", "reviews", "pack", "packs", "TenantId", "ReviewId", "PackId"];
    let hits: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.within("infra/local/src"))
        .flat_map(|source| source.hits(|line| ours.iter().any(|noun| word(line, noun))))
        .collect();
    assert!(hits.is_empty(), "{hits:#?}");
}

#[test]
fn a_test_that_is_skipped_says_so_where_nobody_captures_it() {
    let mut captured = Vec::new();
    // A bench is run by a main of its own; this file spells the words it looks for.
    let may =
        |source: &Source| source.has_part("bench") || source.has_part("benches") || source.within("tests/house.rs");
    for source in sources().into_iter().filter(|source| !may(source)) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| line.contains("SKIPPED: ")) {
            // `print!` and `eprint!`, with or without an end of line, on the line itself or on one just above.
            let near = lines[at.saturating_sub(2)..=at].iter();
            if near.into_iter().any(|line| line.contains("println!(") || line.contains("print!(")) {
                captured.push(format!("{}:{}: use writeln!(std::io::stderr(), …)", source.path.display(), at + 1));
            }
        }
    }
    assert!(captured.is_empty(), "{captured:#?}");
}

const DOCUMENTS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

#[test]
fn every_file_that_the_documents_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut named, mut missing) = (0, Vec::new());
    for name in DOCUMENTS {
        let text = document(name);
        let words = text.split(|c: char| c.is_whitespace() || "`()[]│".contains(c));
        let paths = words.map(|word| word.trim_end_matches(['.', ',', ':', ';', '/']));
        let ours =
            |path: &&str| ROOMS.iter().any(|room| path.strip_prefix(room).is_some_and(|rest| rest.starts_with('/')));
        for path in paths.filter(ours).filter(|path| !path.contains(['*', '<', '…', '{'])) {
            named += 1;
            if !root.join(path).exists() {
                missing.push(format!("{name}: {path}"));
            }
        }
    }
    assert!(named > 10, "the documents name only {named} files; are they still read right?");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_command_of_the_readme_is_one() {
    let text = document("README.md");
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("cargo run -- ")).collect();
    assert!(commands.len() > 5, "the README shows only {commands:?}");
    for command in commands {
        let typed = command.split('#').next().unwrap_or(command).split_whitespace();
        let parsed = carrel::args::Carrel::try_parse_from(std::iter::once("carrel").chain(typed));
        assert!(parsed.is_ok(), "{command}: {}", parsed.expect_err("checked"));
    }
}
