//! What parses a customer's bytes does so in a room of its own, and dies there alone; clamd is asked through its door.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use carrel_local::config::Isolation;
use carrel_schemas::outcome::{InputVerdict, RefusalCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::files::{encrypted, sales};
use crate::world::{World, descends_from, eventually, parent, program, tenant};

/// Long enough to be looked at that whoever watches sees it happen.
const LONG: usize = 200 << 20;

fn about(pid: Pid, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{what}", pid.as_raw_nonzero()))
}

fn words(pid: Pid) -> Option<Vec<String>> {
    let line = std::fs::read_to_string(about(pid, "cmdline")).ok()?;
    Some(line.split_terminator('\0').map(str::to_owned).collect())
}

/// The scanner of a fleet, stopped while it looks at a file; what it forked carries the same words.
fn stopped_scanner(dir: &Path) -> Option<Pid> {
    let is_scanner = |pid: Pid| {
        let scans = ["internal", "worker", "scan"].map(str::to_owned);
        words(pid).is_some_and(|words| words.get(1..).is_some_and(|words| words.starts_with(&scans)))
    };
    let all = std::fs::read_dir("/proc").expect("/proc");
    let pids = all.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?));
    let mut scanners = pids.filter(|pid| is_scanner(*pid) && !parent(*pid).is_some_and(is_scanner));
    let found = scanners.find(|pid| descends_from(*pid, dir))?;
    kill_process(found, Signal::STOP).ok()?;
    // Before it has opened a file, its end would be no fault of any.
    let mut open = std::fs::read_dir(about(found, "fd")).ok()?;
    if open.any(|entry| entry.and_then(|entry| entry.path().read_link()).is_ok_and(|path| path.ends_with("f001.csv"))) {
        return Some(found);
    }
    kill_process(found, Signal::CONT).ok()?;
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_takes_its_scanner_down_is_refused_and_its_neighbours_are_reviewed() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let mut long = b"sku,units\n".to_vec();
    long.resize(LONG, b'1');
    world.upload("acme", "q3", vec![("a-long.csv", long), ("sales.csv", sales())]).await;
    let scanner = eventually("a scanner at work", async || stopped_scanner(world.dir())).await;

    let environment = std::fs::read_to_string(about(scanner, "environ")).expect("it is stopped");
    assert_eq!(environment.trim_end_matches('\0'), "LANG=C.UTF-8", "no word of tenant, bucket or metadata");
    for kind in ["net", "mnt", "pid", "user", "ipc", "uts"] {
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).expect("a namespace");
        assert_ne!(of(&scanner.as_raw_nonzero().to_string()), of("self"), "{kind}");
    }
    let interfaces = std::fs::read_to_string(about(scanner, "net/dev")).expect("its network");
    let named = interfaces.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    assert_eq!(named.collect::<Vec<_>>(), ["lo"]);
    let status = std::fs::read_to_string(about(scanner, "status")).expect("its status");
    for held in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
        assert!(status.contains(held), "{held} is not in {status}");
    }
    let limits = std::fs::read_to_string(about(scanner, "limits")).expect("its limits");
    for held in ["Max file size             1 ", "Max open files            64 ", "Max core file size        0 "] {
        assert!(limits.contains(held), "{held} is not in {limits}");
    }
    let root: Vec<String> = std::fs::read_dir(about(scanner, "root"))
        .map(|found| found.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
        .expect("its root");
    // The way to this very program is there, wherever it lies; of the rest, nothing that is somebody's.
    let way = program().components().nth(1).expect("an absolute path").as_os_str().to_owned();
    let is_ours = |name: &String| !["home", "root", "tmp"].contains(&name.as_str()) || way == name.as_str();
    assert!(!root.is_empty() && root.iter().all(is_ours), "{root:?}");

    kill_process(scanner, Signal::ABORT).expect("it is stopped");
    kill_process(scanner, Signal::CONT).expect("it is there");
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    let outcome = world.outcome(&got.completion).await;
    assert_eq!(outcome.room.as_ref().expect("said").tier, "namespaces");
    let of = |name: &str| outcome.inputs.iter().find(|input| input.name.as_str().ends_with(name)).expect("sealed");
    let InputVerdict::Refused { code, message } = &of("a-long.csv").verdict else { panic!("{outcome:?}") };
    assert_eq!(*code, RefusalCode::Broken);
    assert!(message.contains("a-long.csv") && message.contains("cannot be looked at safely"), "{message}");
    assert_eq!(of("sales.csv").verdict, InputVerdict::Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_divides_tasks_files_are_looked_at_in_a_child_all_the_same() {
    let world = World::start(vec![tenant("acme", json!({}))], |setup| setup.isolation = Isolation::None).await;
    world.upload("acme", "q3", vec![("locked.xlsx", encrypted()), ("sales.csv", sales())]).await;
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    let outcome = world.outcome(&got.completion).await;
    assert_eq!(outcome.room.as_ref().expect("said").tier, "process", "what was asked for, and no less");
    let verdicts: Vec<_> = outcome.inputs.iter().map(|input| &input.verdict).collect();
    let [InputVerdict::Refused { code: RefusalCode::Encrypted, .. }, InputVerdict::Accepted] = verdicts[..] else {
        panic!("{outcome:?}")
    };
}

/// The harmless file that every scanner agrees to find, in two pieces, so that this source is not found itself.
const EICAR: [&str; 2] = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD", "-ANTIVIRUS-TEST-FILE!$H+H*"];
/// Its MD5 and length, as a signature.
const SIGNATURE: &str = "44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test-Signature\n";

/// A clamd of this test alone, with that one signature.
struct Clamd {
    child: Child,
    socket: PathBuf,
    _dir: TempDir,
}

impl Drop for Clamd {
    fn drop(&mut self) {
        self.child.kill().expect("it is ours to end");
        self.child.wait().expect("it ends");
    }
}

impl Clamd {
    /// None, and why, where it is not installed.
    async fn start() -> Option<Self> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&paths).chain(["/usr/sbin".into()]);
        let Some(program) = places.map(|place| place.join("clamd")).find(|path| path.is_file()) else {
            writeln!(std::io::stderr(), "SKIPPED: clamd is not installed (apt-get install clamav-daemon)")
                .expect("stderr");
            return None;
        };
        let dir = TempDir::with_prefix("carrel-clamd-").expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("signatures")).expect("made");
        std::fs::write(at("signatures/test.hdb"), SIGNATURE).expect("written");
        let (socket, signatures) = (at("clamd.ctl"), at("signatures"));
        let (listens, knows) = (socket.display(), signatures.display());
        let settings = format!("Foreground yes\nLocalSocket {listens}\nDatabaseDirectory {knows}\nMaxThreads 2\n");
        std::fs::write(at("clamd.conf"), settings).expect("written");
        let mut command = Command::new(program);
        command.arg("--config-file").arg(at("clamd.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("clamd starts");
        let mut clamd = Self { child, socket, _dir: dir };
        eventually("clamd at work", async || {
            assert!(clamd.child.try_wait().expect("ours").is_none(), "clamd ended before it listened");
            let mut stream = UnixStream::connect(&clamd.socket).await.ok()?;
            stream.write_all(b"zVERSION\0").await.ok()?;
            let mut version = String::new();
            stream.read_to_string(&mut version).await.ok()?;
            version.starts_with("ClamAV ").then_some(())
        })
        .await;
        Some(clamd)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clamd_knows_is_refused_through_its_door_and_the_rest_is_reviewed() {
    let Some(clamd) = Clamd::start().await else { return };
    let at = clamd.socket.to_str().expect("UTF-8").parse().expect("a path");
    let strict = json!({ "scan": { "antivirus": "required" } });
    // In its room a task finds neither that socket nor a way to it but the door.
    let world = World::start(vec![tenant("acme", strict)], |setup| setup.clamd = Some(at)).await;
    let eicar = EICAR.concat().into_bytes();
    world.upload("acme", "q3", vec![("eicar.csv", eicar.clone()), ("sales.csv", sales())]).await;
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered", "{:?}", got.completion.verdict);
    let outcome = world.outcome(&got.completion).await;
    assert_eq!(outcome.room.as_ref().expect("said").tier, "namespaces");
    let [structure, version] = &outcome.scanners[..] else { panic!("{:?}", outcome.scanners) };
    assert!(structure == "structure" && version.starts_with("ClamAV "), "{version}");
    let verdicts: Vec<_> = outcome.inputs.iter().map(|input| &input.verdict).collect();
    let [InputVerdict::Refused { code, message }, InputVerdict::Accepted] = verdicts[..] else { panic!("{outcome:?}") };
    assert_eq!(*code, RefusalCode::Malware);
    assert!(message.contains("eicar.csv") && message.contains("Eicar-Test-Signature"), "{message}");

    // Alone in its pack, nothing is left to review.
    world.upload("acme", "q4", vec![("eicar.csv", eicar)]).await;
    let got = world.completion("acme", "q4").await;
    assert_eq!(got.completion.verdict.state(), "refused", "{:?}", got.completion.verdict);
}
