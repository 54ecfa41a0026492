//! What opening a room costs: from the request to the first byte of a command, and to the end of the room, for each tier
//! beside its peers in the same run; and again while the program holds a gibibyte. Peers are bubblewrap, the runtimes by
//! themselves on the smallest bundle, and Docker.
//!
//! `cargo bench -p carrel-sandbox --bench start` measures optimised code, `--profile dev` what tests run. The command is
//! `echo`, whose first byte comes a dynamic loader's start after its first instruction; the first row is the price of
//! that alone. Refuses to judge: goals are printed, never asserted.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command as Peer, Stdio};
use std::time::{Duration, Instant};

use carrel_sandbox::{Command, Entry, Limits, Network, Profile, Room, Runtime, Tier, probe, start};
use tokio::io::AsyncReadExt as _;

const LAUNCHES: usize = 200;
const WARM_UP: usize = 20;
const SLOW: usize = 20;
const HELD: usize = 1 << 30;

/// One launch: until the first byte, until the end.
type Took = (Duration, Duration);

fn main() {
    if let Err(error) = carrel_sandbox::enter() {
        eprintln!("start the launcher: {error}");
        std::process::exit(1);
    }
    // `cargo test --benches` asks whether it starts, not how fast it is.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let profile = if cfg!(debug_assertions) { "dev profile" } else { "optimised profile" };
        println!("{}, {cores} cores, {profile}, {LAUNCHES} launches each ({SLOW} of runsc and Docker)", cpu());
        println!("{:42} {:>19}   {:>19}", "ms, p50 / p95", "first byte", "end of the room");
        let mut stands = Vec::new();
        for tier in Tier::ALL {
            stands.push((tier, probe(tier).await));
        }
        let dir = bundle().expect("a bundle");
        let peers = peers(dir.path());
        table("", &stands, &peers).await;
        let held = vec![1_u8; HELD];
        table(", 1 GiB held", &stands, &peers).await;
        drop(std::hint::black_box(held));
        println!(
            "goals for namespaces, first byte: p50 <= 4, p95 <= 6, p50 <= 0.7 of bubblewrap, the same with 1 GiB held"
        );
    });
}

/// Whatever starts a command.
enum Launcher {
    Fork,
    Bubblewrap,
    /// A command line that wants one more word.
    Bare(Vec<String>),
    Room(Tier, Box<Room>),
}

impl Launcher {
    fn is_slow(&self) -> bool {
        match self {
            Self::Room(tier, _) => *tier == Tier::Oci(Runtime::Runsc),
            Self::Bare(words) => ["runsc", "docker"].contains(&words[0].as_str()),
            Self::Fork | Self::Bubblewrap => false,
        }
    }

    async fn launch(&self) -> Took {
        match self {
            Self::Fork => peer(Peer::new("/usr/bin/echo")),
            Self::Bubblewrap => peer(bwrap()),
            Self::Bare(words) => peer(bare(words)),
            Self::Room(tier, plan) => room(*tier, plan).await,
        }
    }
}

async fn table(when: &str, stands: &[(Tier, Result<(), carrel_sandbox::Missing>)], peers: &[Vec<String>]) {
    let mut launchers = vec![("fork and exec, no room".to_owned(), Launcher::Fork)];
    match Path::new("/usr/bin/bwrap").exists() {
        true => launchers.push(("bubblewrap, no filter".to_owned(), Launcher::Bubblewrap)),
        false => println!("bubblewrap: not measured; install bubblewrap"),
    }
    for words in peers {
        match says_x(bare(words)) {
            Ok(()) => launchers.push((format!("{} by itself", words[0]), Launcher::Bare(words.clone()))),
            Err(why) => println!("{}: not measured: {why}", words[0]),
        }
    }
    for (tier, stands) in stands {
        match stands {
            Ok(()) => launchers.push((tier.to_string(), Launcher::Room(*tier, Box::new(plan(*tier))))),
            Err(missing) => println!("{tier}: not measured: {missing}"),
        }
    }
    // In turns, so that what the neighbours take is taken from all alike.
    let mut took: Vec<Vec<Took>> = launchers.iter().map(|_| Vec::new()).collect();
    for round in 0..WARM_UP + LAUNCHES {
        for ((_, launcher), took) in launchers.iter().zip(&mut took) {
            if launcher.is_slow() && !round.is_multiple_of(LAUNCHES / SLOW) {
                continue;
            }
            let one = launcher.launch().await;
            if round >= WARM_UP {
                took.push(one);
            }
        }
    }
    let mut bubblewrap = None;
    for ((name, launcher), took) in launchers.iter().zip(took) {
        let half = row(&format!("{name}{when}"), took);
        match (launcher, bubblewrap) {
            (Launcher::Bubblewrap, _) => bubblewrap = Some(half),
            (Launcher::Room(Tier::Namespaces, _), Some(peer)) => {
                println!("{:42} {:>19.2}", "  of bubblewrap", half.as_secs_f64() / peer.as_secs_f64());
            }
            _ => {}
        }
    }
}

/// Prints a row; its median to the first byte comes back.
fn row(what: &str, took: Vec<Took>) -> Duration {
    let (mut first, mut end): (Vec<Duration>, Vec<Duration>) = took.into_iter().unzip();
    let two = |samples: &mut Vec<Duration>| {
        samples.sort_unstable();
        let at = |share: usize| samples[(samples.len() * share / 100).min(samples.len() - 1)];
        (at(50), at(95))
    };
    let (first, end) = (two(&mut first), two(&mut end));
    let words = |(half, most): (Duration, Duration)| format!("{:.2} / {:.2}", millis(half), millis(most));
    println!("{what:42} {:>19}   {:>19}", words(first), words(end));
    first.0
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn peer(mut command: Peer) -> Took {
    let began = Instant::now();
    let mut child = command.arg("x").stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("started");
    child.stdout.take().expect("piped").read_exact(&mut [0]).expect("a byte");
    let first = began.elapsed();
    child.wait().expect("ended");
    (first, began.elapsed())
}

/// The smallest bundle: the programs of this machine, and namespaces.
fn bundle() -> std::io::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    for name in ["state", "rootfs/usr", "rootfs/proc"] {
        std::fs::create_dir_all(dir.path().join(name))?;
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), dir.path().join("rootfs").join(name))?;
    }
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| serde_json::json!({ "type": kind }));
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": ["/usr/bin/echo", "x"], "env": [], "cwd": "/", "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] },
        ],
        "linux": { "namespaces": namespaces },
    });
    std::fs::write(dir.path().join("config.json"), config.to_string())?;
    Ok(dir)
}

/// Command lines that end with the name of a container, and of Docker with what is to be said.
fn peers(dir: &Path) -> Vec<Vec<String>> {
    let (state, bundle) = (dir.join("state").display().to_string(), dir.display().to_string());
    let run = |runtime: &str, options: &[&str]| -> Vec<String> {
        // They keep what they know of a container in files of the same names.
        let root = format!("{state}/{runtime}");
        let words = [&[runtime, "--root", &root][..], options, &["run", "--bundle", &bundle]].concat();
        words.into_iter().map(str::to_owned).collect()
    };
    let docker = ["docker", "run", "--rm", "--pull=never", "--network=none", "debian:bookworm-slim", "/usr/bin/echo"];
    vec![
        run("crun", &["--cgroup-manager=disabled"]),
        run("runc", &[]),
        run("runsc", &["--platform=ptrace", "--network=none", "--ignore-cgroups"]),
        docker.map(str::to_owned).to_vec(),
    ]
}

fn bare(words: &[String]) -> Peer {
    let mut command = Peer::new(&words[0]);
    command.args(&words[1..]).stderr(Stdio::null());
    command
}

/// Whether it does what is to be measured; if not, what it says first.
fn says_x(mut command: Peer) -> Result<(), String> {
    let tried =
        command.arg("x").stdin(Stdio::null()).stderr(Stdio::piped()).output().map_err(|error| error.to_string())?;
    if tried.status.success() && tried.stdout == b"x\n" {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
    Err(said.lines().next().map_or_else(|| tried.status.to_string(), str::to_owned))
}

fn bwrap() -> Peer {
    let mut command = Peer::new("/usr/bin/bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
    for entry in Entry::system() {
        let at = entry.at().to_owned();
        match entry {
            Entry::Show { from, .. } => command.arg("--ro-bind").arg(from).arg(at),
            Entry::Link { to, .. } => command.arg("--symlink").arg(to).arg(at),
            _ => &mut command,
        };
    }
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/scratch", "--tmpfs", "/output", "/usr/bin/echo"]);
    command
}

fn plan(tier: Tier) -> Room {
    let mut view = Vec::new();
    if tier != Tier::Process {
        view = Entry::system();
        let fresh = |at: &str| Entry::Fresh { at: at.into(), bytes: 64 << 20, inodes: 1_000, exec: false };
        view.extend([fresh("/scratch"), fresh("/output")]);
    }
    Room {
        command: Command { program: "/usr/bin/echo".into(), args: vec!["x".to_owned()], env: vec![], cwd: "/".into() },
        view,
        network: Network::None,
        profile: Profile::Command,
        limits: Limits {
            wall: Duration::from_secs(10),
            cpu_seconds: 10,
            memory_bytes: 1 << 30,
            processes: 64,
            file_bytes: 1 << 20,
            open_files: 64,
        },
    }
}

async fn room(tier: Tier, plan: &Room) -> Took {
    let began = Instant::now();
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let (out, theirs) = pipe();
    let (_err, their_err) = pipe();
    let (mut running, _handed) = start(tier, plan, theirs, their_err).await.expect("the room opens");
    let mut out = tokio::net::unix::pipe::Receiver::from_owned_fd(out).expect("a pipe");
    out.read_exact(&mut [0]).await.expect("a byte");
    let first = began.elapsed();
    running.wait().await.expect("ended");
    (first, began.elapsed())
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    name.unwrap_or("unknown processor").to_owned()
}
