//! The outer room: one task of one job, with the identity, the volume and the ways out that its job gives it.
//!
//! What it sees are the programs of this machine and the files of its image, its volume, a /tmp in memory. Its network
//! has the loopback addresses of its metadata server, of this cloud, of a virus scanner if there is one, and of what the
//! configuration says tasks may reach.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use carrel_egress::Policy;
use carrel_sandbox::{Command, Entry, Handed, Limits, Network, Profile, Room, Tier, Watched};

use super::Inner;
use super::body::Body;
use super::doors::{Doors, serve_volume};
use super::log::Log;
use super::record::ExecutionRecord;
use crate::config::Job;
use crate::iam::Principal;

/// Where a task finds its metadata, in the network of its room.
const METADATA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
/// Where it finds the way to the hosts that its job lists.
const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// Where it finds the virus scanner, if there is one.
const SCANNER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3310);
const TMP: &str = "/tmp";
const INODES: u64 = 200_000;
/// Processes and threads of a task: its worker's, and those of an agent and of a scanner in rooms of theirs. Each is
/// looked at where no cgroup counts.
const PROCESSES: u64 = 1024;
/// Open files of each of them. A user may have as many descriptors on their way through unix sockets as its sender may
/// open, all tasks together: where all have one user, one task with so many on their way has the others' refused. This
/// cloud, which may open more, still has some then.
const OPEN_FILES: u64 = 4_096;
/// The caller holds the task's time limit; this one only says that there is one.
const WALL: Duration = Duration::from_secs(8 * 24 * 3600);

/// Opens the room of a task and starts its command.
pub(super) async fn open(
    inner: &Inner,
    (job, record): (&Job, &ExecutionRecord),
    argv: Vec<String>,
    env: Vec<(String, String)>,
    log: &Log,
) -> io::Result<Body> {
    let image = inner.images.get(&record.image).ok_or_else(|| io::Error::other("its image is not configured"))?;
    let mut ways = vec![METADATA, inner.address];
    ways.extend(&inner.reach);
    ways.extend(inner.clamd.iter().map(|_| SCANNER));
    let policy = Policy::parse(&job.egress).map_err(io::Error::other)?;
    if !policy.is_empty() {
        ways.push(PROXY);
    }
    let room = plan(job, &image.files, argv, env, &ways)?;
    let (running, handed) =
        carrel_sandbox::start(Tier::Namespaces, &room, log.end()?, log.end()?).await.map_err(io::Error::other)?;
    let Handed { listeners, volume, .. } = handed;
    let mut listeners = listeners.into_iter();
    let mut next = || listeners.next().ok_or_else(|| io::Error::other("a room handed out too few sockets"));

    let identity = inner.metadata.serve(&record.service_account, next()?)?;
    let to_cloud = next()?;
    let served = match (volume, &job.volume) {
        (Some(channel), Some(wanted)) => {
            // Its server lives outside, so it is told who it is at a socket of its own.
            let outside = inner.metadata.start(&record.service_account).await?;
            let argv = inner.volume_server(&wanted.bucket);
            let server = serve_volume(&argv, outside.host(), channel, log.end()?)?;
            Some((server, outside))
        }
        _ => None,
    };
    let mut doors = Doors::new(identity, served);
    let app = inner.app().ok_or_else(|| io::Error::other("this cloud is shutting down"))?;
    doors.cloud(to_cloud, app, inner.iam.clone(), Principal::service_account(&record.service_account))?;
    for to in &inner.reach {
        doors.relay(next()?, *to)?;
    }
    if let Some(clamd) = &inner.clamd {
        doors.scan(next()?, clamd)?;
    }
    if !policy.is_empty() {
        doors.let_out(next()?, policy)?;
    }
    Ok(Body::room(Watched::new(running, room.limits), doors))
}

fn plan(
    job: &Job,
    files: &[std::path::PathBuf],
    argv: Vec<String>,
    env: Vec<(String, String)>,
    ways: &[SocketAddr],
) -> io::Result<Room> {
    let (program, args) = argv.split_first().ok_or_else(|| io::Error::other("its image has no command"))?;
    let mut view = Entry::system();
    // Before what may lie below it on this machine, and would be hidden by it.
    view.push(Entry::Fresh { at: TMP.into(), bytes: job.memory_bytes, inodes: INODES, exec: true });
    Entry::add(&mut view, Path::new(program));
    for file in files {
        Entry::add(&mut view, file);
    }
    if let Some(volume) = &job.volume {
        view.push(Entry::Volume { at: volume.mount_path.clone() });
    }
    let own = [("HOME", TMP.to_owned()), ("TMPDIR", TMP.to_owned()), ("GCE_METADATA_HOST", METADATA.to_string())];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    Ok(Room {
        command: Command {
            program: program.into(),
            args: args.to_vec(),
            env: env.into_iter().chain(own).collect(),
            cwd: TMP.into(),
        },
        view,
        network: Network::Listeners(ways.to_vec()),
        profile: Profile::Task,
        limits: Limits {
            wall: WALL,
            cpu_seconds: Limits::UNLIMITED,
            memory_bytes: job.memory_bytes,
            processes: PROCESSES,
            file_bytes: Limits::UNLIMITED,
            open_files: OPEN_FILES,
        },
    })
}
