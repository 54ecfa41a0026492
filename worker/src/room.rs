//! The inner rooms: where everything happens that touches hostile bytes. The agent's sees programs, the sealed files under
//! generated names, the request, and three directories of its own; nobody's credentials or metadata, and no network but
//! a proxy to the hosts that its tenant lists. The scanner's sees this program, the files and what is asked of it; it has
//! nothing to write to and nobody to talk to.
//!
//! Owns where things lie inside, for each tier. Refuses a weaker tier than the settings name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use carrel_egress::{Decision, NextHop, Report, Resolver, Running, Upstream};
use carrel_sandbox::{Command, Entry, Handed, Limits, Network, Profile, Room, Tier};
use carrel_schemas::outcome::{EgressDecision, EgressReport, InputMode, RoomReport};

use crate::case::Case;
use crate::check::{Fetched, Place};
use crate::config::Config;
use crate::scan::Accepted;

/// Where programs are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Files and directories that an agent may have in one of its directories.
const INODES: u64 = 20_000;
/// What a home is for: settings and caches of tools.
const HOME_BYTES: u64 = 64 << 20;
/// Processes and threads of an agent and its tools. Numpy starts a thread for each processor.
const PROCESSES: u64 = 256;
/// Open files of each of them.
const OPEN_FILES: u64 = 256;
/// Where an agent that may reach hosts finds the proxy that leads to them, in the network of its room.
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// What a scanner is asked, as a file.
const ASK: &str = "scan.json";
/// A scanner is one process with one thread, and its launcher.
const SCANNER_PROCESSES: u64 = 8;
/// The smallest file beside its bytes takes a page.
const PAGE: u64 = 4096;

/// Where things lie, as the agent calls them.
#[derive(Debug, Clone)]
pub(crate) struct Inside {
    root: PathBuf,
}

impl Inside {
    /// Tier `process` has no view of its own: there the directories are the worker's.
    pub(crate) fn of(tier: Tier, place: &Place) -> Self {
        match tier {
            Tier::Process => Self { root: place.root().to_owned() },
            Tier::Namespaces | Tier::Oci(_) => Self { root: PathBuf::from("/") },
        }
    }

    /// Where a file lies that is to be looked at.
    pub(crate) fn input(&self, file: &Fetched) -> PathBuf {
        self.at("input").join(&file.shown)
    }

    /// `input`, `scratch`, `output`, `home` or `request.json`.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// The room of this case's agent.
pub(crate) fn plan(case: &Case, place: &Place, accepted: &[Accepted], wall: Duration) -> anyhow::Result<Room> {
    let config = &case.config;
    let (tier, limits) = (config.isolation, &config.limits);
    let inside = Inside::of(tier, place);
    let (program, args) = config.agent.split_first().context("the agent's command line is empty")?;
    let program = find(program)?;
    let mut args = args.to_vec();
    args.push(inside.at("request.json").to_string_lossy().into_owned());

    let fresh = |name: &str, bytes: u64, exec: bool| Entry::Fresh { at: inside.at(name), bytes, inodes: INODES, exec };
    // Before what may lie below one of them on this machine, and would be hidden by it.
    let mut view = if tier == Tier::Process { Vec::new() } else { Entry::system() };
    view.extend([
        fresh("scratch", limits.agent_memory_bytes, true),
        fresh("home", HOME_BYTES, true),
        // Judged by its own caps after the agent has ended; this one only keeps the memory of the machine.
        fresh("output", limits.max_output_bytes.saturating_add(INODES * PAGE), false),
    ]);
    if tier != Tier::Process {
        // What the command line names is shown where it lies: the program, a script, a directory of its own.
        for path in std::iter::once(program.as_path()).chain(config.agent.iter().map(Path::new).skip(1)) {
            if path.is_absolute() {
                Entry::add(&mut view, path);
            }
        }
        let show = |from: PathBuf, at: PathBuf| Entry::Show { from, at };
        let files = accepted.iter().map(|file| show(file.path.clone(), inside.at("input").join(&file.input.path)));
        view.extend(files);
        view.push(show(place.dir("request.json"), inside.at("request.json")));
    }
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let scratch = inside.at("scratch");
    let network = if config.egress.is_empty() { Network::None } else { Network::Listeners(vec![PROXY]) };
    let mut env = vec![
        ("PATH", PATH.to_owned()),
        ("HOME", text(inside.at("home"))),
        ("TMPDIR", text(scratch.clone())),
        ("LANG", "C.UTF-8".to_owned()),
        // Each arena reserves 64 MiB of an address space, which counts where no cgroup does.
        ("MALLOC_ARENA_MAX", "2".to_owned()),
    ];
    if network != Network::None {
        env.extend(["HTTPS_PROXY", "https_proxy"].map(|name| (name, format!("http://{PROXY}"))));
    }
    Ok(Room {
        command: Command {
            program,
            args,
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            cwd: scratch,
        },
        view,
        network,
        profile: Profile::Command,
        limits: Limits {
            wall,
            // Threads add up, so processor time may pass wall time; a few cores' worth is a runaway.
            cpu_seconds: wall.as_secs().saturating_mul(4).max(1),
            memory_bytes: limits.agent_memory_bytes,
            processes: PROCESSES,
            file_bytes: limits.max_output_bytes.max(limits.max_inflated_bytes),
            open_files: OPEN_FILES,
        },
    })
}

/// The room of a scanner of these files, which is told what is asked of it.
pub(crate) fn scanner(case: &Case, place: &Place, files: &[Fetched], ask: &[u8]) -> anyhow::Result<Room> {
    let config = &case.config;
    let (tier, inside) = (config.isolation, Inside::of(config.isolation, place));
    let asked = place.dir(ASK);
    std::fs::write(&asked, ask).with_context(|| format!("write {}", asked.display()))?;
    let (program, words) = config.scanner.split_first().context("the scanner's command line is empty")?;
    let program = PathBuf::from(program);
    let mut view = Vec::new();
    if tier != Tier::Process {
        view = Entry::system();
        Entry::add(&mut view, &program);
        view.extend(files.iter().map(|file| Entry::Show { from: file.path.clone(), at: inside.input(file) }));
        view.push(Entry::Show { from: asked, at: inside.at(ASK) });
    }
    // Half of what remains: a file that takes it all is refused, and the others are still reviewed.
    let wall = case.time_left() / 2;
    Ok(Room {
        command: Command {
            program,
            args: words.iter().cloned().chain([inside.at(ASK).to_string_lossy().into_owned()]).collect(),
            env: vec![("LANG".to_owned(), "C.UTF-8".to_owned())],
            cwd: PathBuf::from("/"),
        },
        view,
        network: Network::None,
        profile: Profile::Command,
        limits: Limits {
            wall,
            cpu_seconds: wall.as_secs().max(1),
            memory_bytes: config.limits.agent_memory_bytes,
            processes: SCANNER_PROCESSES,
            file_bytes: 1,
            open_files: 64,
        },
    })
}

/// A program by its absolute path, or by its name in [`PATH`].
fn find(program: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(program);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    if path.components().count() == 1
        && let Some(found) = PATH.split(':').map(|dir| Path::new(dir).join(path)).find(|found| found.is_file())
    {
        return Ok(found);
    }
    bail!("find the agent {program:?}: it is no absolute path and no program in {PATH}; correct CARREL_AGENT")
}

/// What this machine gives the rooms to come; an error where it gives none of the tier that is set.
pub(crate) async fn probe(config: &Config) -> anyhow::Result<RoomReport> {
    let tier = config.isolation;
    let held = carrel_sandbox::probe_held(tier).await;
    let report = RoomReport {
        tier: tier.to_string(),
        memory_guarantee: held.map_err(|missing| anyhow!("open rooms of tier {tier}: {missing}"))?,
        cloud_run_sandbox: carrel_sandbox::probe_cloud_run().await.is_ok(),
        input: if config.volume.is_some() { InputMode::Hybrid } else { InputMode::Hydrate },
        egress: None,
    };
    tracing::info!(
        room.tier = report.tier,
        room.memory_guarantee = report.memory_guarantee,
        room.cloud_run_sandbox = report.cloud_run_sandbox,
        "room"
    );
    Ok(report)
}

/// Accepts at the socket that the room handed out, for as long as the room lives.
pub(crate) fn let_out(config: &Config, handed: Handed) -> std::io::Result<Option<Running>> {
    let Some(listener) = handed.listeners.into_iter().next() else { return Ok(None) };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let upstream = match config.egress_via {
        Some(proxy) => Upstream::Via(NextHop::Tcp(proxy)),
        None => Upstream::Direct(Resolver::System),
    };
    Ok(Some(carrel_egress::serve(listener, config.egress.clone(), upstream, carrel_egress::Limits::default())))
}

/// What the room asked of the hosts outside.
pub(crate) async fn asked(proxy: Running) -> EgressReport {
    told(proxy.finish().await)
}

fn told(report: Report) -> EgressReport {
    let Report { decisions, truncated, bytes_up, bytes_down, .. } = report;
    let unlisted: u64 = decisions.iter().skip(EgressReport::MOST).map(|decision| decision.count).sum();
    let one = |decision: Decision| EgressDecision {
        host: decision.host,
        verdict: decision.verdict.as_str().to_owned(),
        reason: decision.reason.to_string(),
        count: decision.count,
    };
    let decisions = decisions.into_iter().take(EgressReport::MOST).map(one).collect();
    EgressReport { bytes_up, bytes_down, decisions, unlisted: truncated + unlisted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrel_egress::{Reason, Verdict};

    #[test]
    fn what_is_not_listed_of_a_room_s_requests_is_counted() {
        let (verdict, reason) = (Verdict::Denied, Reason::NotListed);
        let decision = |at: usize| {
            let host = format!("h{at:02}.example.com");
            Decision { host, port: Some(443), verdict, reason, count: 2, bytes_up: 0, bytes_down: 0 }
        };
        let report = |kinds: usize| {
            let decisions = (0..kinds).map(decision).collect();
            told(Report { decisions, truncated: 5, bytes_up: 7, bytes_down: 9, lookups: 1 })
        };
        let whole = report(EgressReport::MOST);
        assert_eq!((whole.decisions.len(), whole.unlisted), (EgressReport::MOST, 5));
        let more = report(EgressReport::MOST + 10);
        assert_eq!((more.decisions.len(), more.unlisted), (EgressReport::MOST, 25));
        assert_eq!((more.bytes_up, more.bytes_down), (7, 9));
        let first = &more.decisions[0];
        assert_eq!((first.host.as_str(), first.verdict.as_str(), first.count), ("h00.example.com", "denied", 2));
    }
}
