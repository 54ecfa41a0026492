//! One command from start to the end of its room: its words heard, its deadline held, its use watched.
//!
//! ```text
//! start ─► read stdout and stderr ─ watch the deadline ─ sample ─► kill at a limit ─► wait ─► Ended
//! ```
//! Dropping the future ends the room.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::ended::{Ended, LimitHit, Used, infer};
use crate::lines::{Lines, Tail};
use crate::probe;
use crate::room::Room;
use crate::running::{Handed, StartError, open};
use crate::tier::Tier;
use crate::watched::Watched;

/// How long after the end output that is still in the pipes is waited for.
const DRAIN: Duration = Duration::from_millis(500);

/// How much of what a command says is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hearing {
    /// Bytes it may write to stdout and stderr, each; one more ends it.
    pub output_bytes: u64,
    /// A longer line of stdout is dropped whole.
    pub line_bytes: usize,
    /// How much of the end of stderr is kept.
    pub stderr_tail_bytes: usize,
}

/// A room that ended, with what it left.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub ended: Ended,
    /// Roots of its `Fresh` directories, by where they lay inside; nobody is left who could change them.
    pub fresh: Vec<(PathBuf, OwnedFd)>,
}

/// Runs a command to its end and hands each line of its stdout to `on_line`. Needs a tokio runtime with I/O and time.
///
/// `serve` is given what the room handed out but for its directories, and returns whatever is to live as long as the
/// room: a proxy that accepts on its listener, a server of its volume.
pub async fn run<S>(
    tier: Tier,
    room: &Room,
    hearing: Hearing,
    serve: impl FnOnce(Handed) -> S,
    on_line: impl FnMut(&[u8]),
) -> Result<(Finished, S), StartError> {
    // On nobody's time: the room's begins with the room.
    probe::stood(tier).await?;
    run_unproven(tier, room, hearing, serve, on_line).await
}

/// The same, of a tier of which no room may have stood yet.
pub(crate) async fn run_unproven<S>(
    tier: Tier,
    room: &Room,
    hearing: Hearing,
    serve: impl FnOnce(Handed) -> S,
    mut on_line: impl FnMut(&[u8]),
) -> Result<(Finished, S), StartError> {
    let began = Instant::now();
    let (mut stdout, out) = listen().map_err(StartError::Launcher)?;
    let (mut stderr, err) = listen().map_err(StartError::Launcher)?;
    let opened = tokio::time::timeout_at(began + room.limits.wall, open(tier, room, out, err)).await;
    // What is shown may lie on a filesystem that hangs.
    let (running, mut handed) = opened.map_err(|_| StartError::Late { tier, wall: room.limits.wall })??;
    let fresh = std::mem::take(&mut handed.fresh);
    let served = serve(handed);

    let mut lines = Lines::new(hearing.line_bytes);
    let mut tail = Tail::new(hearing.stderr_tail_bytes);
    let mut limit = None;
    let mut watched = Watched::new(running, room.limits);
    let ending = {
        let mut feed = |bytes: &[u8]| lines.push(bytes, &mut on_line);
        let mut keep = |bytes: &[u8]| tail.push(bytes);
        let out = drain(&mut stdout, hearing.output_bytes, &mut feed);
        let err = drain(&mut stderr, hearing.output_bytes, &mut keep);
        tokio::pin!(out, err);
        let (mut out_open, mut err_open) = (true, true);
        let mut ending = None;
        let mut deadline = began + room.limits.wall;
        while out_open || err_open || ending.is_none() {
            let hit = tokio::select! {
                within = &mut out, if out_open => { out_open = false; (!within).then_some(LimitHit::Output) }
                within = &mut err, if err_open => { err_open = false; (!within).then_some(LimitHit::Output) }
                ended = watched.wait(), if ending.is_none() => {
                    let (ended, hit) = ended?;
                    ending = Some(ended);
                    limit = limit.or(hit);
                    deadline = Instant::now() + DRAIN;
                    None
                }
                () = tokio::time::sleep_until(deadline) => {
                    if ending.is_some() {
                        break;
                    }
                    // SIGKILL cannot be refused, only be slow; look again rather than trust it.
                    deadline = Instant::now() + Duration::from_secs(1);
                    Some(LimitHit::Wall)
                }
            };
            if let Some(hit) = hit {
                limit = limit.or(Some(hit));
                watched.running().kill();
            }
        }
        ending.expect("the loop ends only after the room has")
    };
    lines.finish(&mut on_line);
    let stderr_tail = tail.into_bytes();
    let (seen, memory_guarantee) = (watched.seen(), watched.running().memory_guarantee());
    let cpu = ending.cpu.max(seen.cpu);
    let peak_bytes = ending.peak_bytes.max(if memory_guarantee { 0 } else { seen.peak_bytes });
    let cpu_spent = cpu.as_secs() >= room.limits.cpu_seconds;
    let limit = limit.or_else(|| infer(ending.exit, cpu_spent, &stderr_tail));
    let used = Used { wall: began.elapsed(), cpu, peak_bytes };
    Ok((Finished { ended: Ended { exit: ending.exit, limit, used, memory_guarantee, stderr_tail }, fresh }, served))
}

fn listen() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

/// Reads to the end; false if more than `max` bytes came.
async fn drain(from: &mut (impl AsyncRead + Unpin), max: u64, each: &mut impl FnMut(&[u8])) -> bool {
    let mut seen = 0_u64;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return true,
            Ok(count) => {
                seen += count as u64;
                if seen > max {
                    return false;
                }
                each(&buffer[..count]);
            }
            Err(error) => {
                tracing::debug!(%error, "a pipe of the command broke");
                return true;
            }
        }
    }
}
