//! Scanners that die, babble, lie and keep silent, as real processes in real rooms: what becomes of the file in hand and
//! of its neighbours.
//!
//! A harness with a `main` of its own: the launcher of rooms must be started before there are threads.

use std::path::{Path, PathBuf};
use std::time::Duration;

use carrel_sandbox::{Command, Entry, Limits, Network, Profile, Room, Tier};
use carrel_schemas::agent::FileFormat;
use carrel_schemas::outcome::RefusalCode;
use carrel_worker::scan::scanner::{Looks, look};
use carrel_worker::scan::{AskedFile, ScanLimits};
use libtest_mimic::{Arguments, Failed, Trial};

/// The shortest time after which a file is said to take too long.
const WALL: Duration = Duration::from_secs(2);
/// No scanner takes this long but one that waits for its end.
const AT_LAST: Duration = Duration::from_secs(60);
const MEMORY: u64 = 64 << 20;
const SAFELY: &str = "cannot be looked at safely";
const LONGER: &str = "takes longer to look at";

/// Words of the shell for what an honest scanner says.
const HONEST: &str = r#"
ready() { echo '"ready"'; }
clean() { echo '{"looked":{"file":'$1',"answer":{"accepted":{"flags":[]}}}}'; }
"#;

/// What the first scanner does, when it is asked about three files.
struct Story {
    name: &'static str,
    script: &'static str,
    /// Which file it ends at, and what its refusal says.
    ends_at: usize,
    said: &'static str,
}

const STORIES: [Story; 11] = [
    story("is_killed", "ready; clean 0; kill -SEGV $$", 2, SAFELY),
    story("is_killed_at_the_first_file", "ready; kill -ABRT $$", 1, SAFELY),
    story("exits_as_if_it_were_done", "ready; clean 0; clean 1; exit 0", 3, SAFELY),
    story("prints_garbage", "ready; clean 0; echo gotcha; clean 1; clean 2", 2, SAFELY),
    story("answers_for_another_file", "ready; clean 1; clean 0; clean 2", 1, SAFELY),
    story("answers_twice", "ready; clean 0; clean 0; clean 1; clean 2", 2, SAFELY),
    // Such a line is not heard at all, so only the next one tells.
    story("prints_a_line_too_long", "ready; head -c 100000 /dev/zero | tr '\\0' x; echo; clean 1; clean 2", 1, SAFELY),
    story("prints_such_a_line_last", "ready; clean 0; clean 1; head -c 100000 /dev/zero | tr '\\0' x", 3, SAFELY),
    story("babbles_without_end", "ready; clean 0; exec yes", 2, SAFELY),
    story("keeps_silent", "ready; exec sleep 600", 1, LONGER),
    story(
        "takes_all_memory",
        "ready; clean 0; head -c 300000000 /dev/zero | tail -c 300000000 > /dev/null || exit 1; exec sleep 600",
        2,
        "takes more memory",
    ),
];

const fn story(name: &'static str, script: &'static str, ends_at: usize, said: &'static str) -> Story {
    Story { name, script, ends_at, said }
}

fn main() {
    carrel_sandbox::enter().expect("the launcher starts");
    let mut trials = Vec::new();
    // A runtime of containers changes nothing about what is heard of a scanner.
    for tier in [Tier::Process, Tier::Namespaces] {
        match wait_for(carrel_sandbox::probe(tier)) {
            Ok(()) => trials.extend(all(tier)),
            Err(missing) => trials.push(
                Trial::test(format!("{tier}::every_story"), || Ok(()))
                    .with_kind(format!("SKIPPED: {missing}"))
                    .with_ignored_flag(true),
            ),
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn all(tier: Tier) -> Vec<Trial> {
    let stories = STORIES.iter().map(|story| {
        Trial::test(format!("{tier}::a_scanner_that_{}_costs_one_file", story.name), move || hold(tier, story))
    });
    let others = [
        Trial::test(format!("{tier}::a_scanner_that_does_not_start_is_no_fault_of_a_file"), move || {
            does_not_start(tier)
        }),
        Trial::test(format!("{tier}::a_file_that_is_given_no_time_is_not_refused"), move || is_given_no_time(tier)),
        Trial::test(format!("{tier}::a_file_that_found_the_time_spent_is_asked_about_again"), move || {
            is_asked_again(tier)
        }),
        Trial::test(format!("{tier}::the_small_worker_is_its_own_scanner"), move || is_its_own_scanner(tier)),
    ];
    stories.chain(others).collect()
}

fn wait_for<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(story)
}

fn hold(tier: Tier, story: &Story) -> Result<(), Failed> {
    let wall = if story.said == LONGER { WALL } else { AT_LAST };
    let looks = scan(tier, wall, story.script)?;
    let came: Vec<_> = looks.judged.iter().map(|judged| judged.as_ref().err()).collect();
    let Some(refusal) = came.get(story.ends_at - 1).copied().flatten() else {
        return Err(format!("file {} is not refused: {came:?}", story.ends_at).into());
    };
    if refusal.code != RefusalCode::Broken || !refusal.message.contains(story.said) {
        return Err(format!("{refusal:?} does not say {:?}", story.said).into());
    }
    if came.len() != 3 || came.iter().flatten().count() != 1 {
        return Err(format!("its neighbours are not all accepted: {came:?}").into());
    }
    Ok(())
}

fn is_asked_again(tier: Tier) -> Result<(), Failed> {
    let looks = scan(tier, WALL, "ready; clean 0; exec sleep 600")?;
    if looks.judged.len() == 3 && looks.judged.iter().all(Result::is_ok) {
        Ok(())
    } else {
        Err(format!("{looks:?}").into())
    }
}

fn does_not_start(tier: Tier) -> Result<(), Failed> {
    match scan(tier, AT_LAST, "echo 'no such library' >&2; exit 127") {
        Err(error) if error.to_string().contains("no such library") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn is_given_no_time(tier: Tier) -> Result<(), Failed> {
    let looks = scan(tier, WALL / 2, "ready; clean 0; exec sleep 600")?;
    if looks.judged.is_empty() { Ok(()) } else { Err(format!("{looks:?}").into()) }
}

fn is_its_own_scanner(tier: Tier) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    // Another user is to find the way where this one is root and the tier has no view of its own.
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let worker = Path::new(env!("CARGO_BIN_EXE_worker"));
    let written = [("f1.csv", &b"sku,units\n1,2\n"[..]), ("f2.csv", b"\x89PNG\r\n"), ("f3.csv", b"sku\n=1+cmd|x!a\n")];
    let files = written.map(|(name, _)| AskedFile { path: dir.path().join(name), format: FileFormat::Csv });
    for (name, bytes) in written {
        std::fs::write(dir.path().join(name), bytes)?;
    }
    let plan = |ask: &[u8]| {
        let path = dir.path().join("scan.json");
        std::fs::write(&path, ask)?;
        let mut room = room(tier, AT_LAST, "");
        room.limits.memory_bytes = 1 << 30;
        room.command.program = worker.to_owned();
        room.command.args = vec!["scan".to_owned(), path.display().to_string()];
        if tier != Tier::Process {
            let shown = files.iter().map(|file| &file.path).chain([&path]);
            room.view.extend(shown.map(|path| Entry::Show { from: path.clone(), at: path.clone() }));
            Entry::add(&mut room.view, worker);
        }
        Ok(room)
    };
    let looks = wait_for(look(tier, ScanLimits { inflated_bytes: 1 << 20, entries: 10 }, &files, plan))?;
    let [Ok(plain), Err(picture), Ok(flagged)] = &looks.judged[..] else { return Err(format!("{looks:?}").into()) };
    if plain.is_empty() && picture.code == RefusalCode::TypeMismatch && !flagged.is_empty() {
        return Ok(());
    }
    Err(format!("{looks:?}").into())
}

/// Has three files looked at: the first scanner follows the script, those after it are honest.
fn scan(tier: Tier, wall: Duration, script: &str) -> anyhow::Result<Looks> {
    let file = |number| AskedFile { path: PathBuf::from(format!("/f{number}.csv")), format: FileFormat::Csv };
    let files = [1, 2, 3].map(file);
    let plan = |ask: &[u8]| {
        let ask: serde_json::Value = serde_json::from_slice(ask)?;
        let (wall, script) = match ask["files"].as_array().map_or(0, Vec::len) {
            3 => (wall, script.to_owned()),
            fewer => (AT_LAST, (0..fewer).fold("ready".into(), |all, number| format!("{all}; clean {number}"))),
        };
        Ok(room(tier, wall, &format!("{HONEST}{script}")))
    };
    wait_for(look(tier, ScanLimits { inflated_bytes: 1 << 20, entries: 10 }, &files, plan))
}

fn room(tier: Tier, wall: Duration, script: &str) -> Room {
    Room {
        command: Command {
            program: "/bin/sh".into(),
            args: ["-c", script].map(str::to_owned).into(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            cwd: "/".into(),
        },
        view: if tier == Tier::Process { Vec::new() } else { Entry::system() },
        network: Network::None,
        profile: Profile::Command,
        limits: Limits { wall, cpu_seconds: 60, memory_bytes: MEMORY, processes: 16, file_bytes: 1, open_files: 64 },
    }
}
