//! Cases that are more than one attack, or that are seen from outside the room.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use carrel_sandbox::{Exit, LimitHit, Running, Runtime, Tier, start};
use rustix::process::{Pid, Signal, getpgid, kill_process};
use tokio::io::AsyncBufReadExt as _;

use crate::world::{World, eventually, lives, mark};

/// What came of it, in a word.
pub(crate) type Told<'a> = Pin<Box<dyn Future<Output = String> + 'a>>;

fn told(seen: bool, yes: &str, no: &str) -> String {
    if seen { yes } else { no }.to_owned()
}

pub(crate) fn fork_bomb(world: &World) -> Told<'_> {
    Box::pin(async {
        let came = world.attack(&["fork-bomb", "4000"]).await;
        let forks = Command::new("/usr/bin/true").status().is_ok_and(|status| status.success());
        // In gVisor it may be the kernel of its own that meets the limit, and gives up.
        if world.tier == Tier::Oci(Runtime::Runsc) && came.finished.ended.exit == Exit::Code(2) {
            return "EAGAIN".to_owned();
        }
        // Without a control group somebody looks often, and counts what forks share for each of them. Whoever looks at a
        // room of crun or runc just then may find more than its limit, which is the kernel's with the runtime's own on top.
        if matches!(came.finished.ended.limit, Some(LimitHit::Processes | LimitHit::Memory)) {
            return "ended".to_owned();
        }
        if forks { came.word() } else { "the machine forks no more".to_owned() }
    })
}

pub(crate) fn forks(world: &World) -> Told<'_> {
    Box::pin(async {
        let came = world.attack(&["forks"]).await;
        // The room's first process and the command are two of them.
        let most = world.room(&[]).limits.processes;
        let made =
            came.said.split_once(' ').filter(|(_, why)| *why == "EAGAIN").and_then(|(made, _)| made.parse().ok());
        let is_at_limit = made.is_some_and(|made: u64| (most - 4..most).contains(&made));
        let gave_up = world.tier == Tier::Oci(Runtime::Runsc) && came.finished.ended.exit == Exit::Code(2);
        let was_ended = gave_up || matches!(came.finished.ended.limit, Some(LimitHit::Processes | LimitHit::Memory));
        match world.tier {
            // Without a control group somebody looks often, and gVisor's own kernel may give up before it refuses.
            Tier::Process | Tier::Oci(Runtime::Runsc) if is_at_limit || was_ended => "held".to_owned(),
            _ if is_at_limit => "at its limit".to_owned(),
            _ => came.word(),
        }
    })
}

pub(crate) fn memory_in_sockets(world: &World) -> Told<'_> {
    Box::pin(async {
        let came = world.attack(&["memory-in-sockets", "24", "28"]).await;
        let gave_up = came.finished.ended.exit == Exit::Code(2);
        // In gVisor it is the room's memory that runs out, or the kernel of its own that gives up: whichever is first.
        if world.tier == Tier::Oci(Runtime::Runsc) && (gave_up || came.finished.ended.limit == Some(LimitHit::Memory)) {
            return "ended".to_owned();
        }
        came.word()
    })
}

pub(crate) fn orphan(world: &World) -> Told<'_> {
    Box::pin(async {
        let mark = mark();
        let came = world.attack(&["orphan", &mark]).await;
        if came.said != "done" {
            return came.word();
        }
        told(eventually(|| !lives(&mark)).await, "gone", "lives")
    })
}

pub(crate) fn orphan_of_a_killed_room(world: &World) -> Told<'_> {
    Box::pin(async {
        let mark = mark();
        let (mut running, _, mut said) = begin(world, &["orphan-and-stay", &mark]).await;
        said.next_line().await.expect("ready");
        if !eventually(|| lives(&mark)).await {
            return "never lived".to_owned();
        }
        running.kill();
        running.wait().await.expect("ended");
        told(!lives(&mark), "gone", "lives")
    })
}

/// Starts an attack and leaves it to its caller.
pub(crate) async fn begin(
    world: &World,
    attack: &[&str],
) -> (Running, carrel_sandbox::Handed, tokio::io::Lines<tokio::io::BufReader<tokio::net::unix::pipe::Receiver>>) {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let err = std::io::stderr();
    let err = rustix::io::dup(err).expect("a copy");
    let (running, handed) = start(world.tier, &world.room(attack), theirs, err).await.expect("the room opens");
    let ours = tokio::net::unix::pipe::Receiver::from_owned_fd(ours).expect("a pipe");
    (running, handed, tokio::io::BufReader::new(ours).lines())
}

/// A second program with a launcher and a room in which something lives that carries the mark.
fn host(world: &World, mark: &str) -> (Child, Pid) {
    let own = std::env::current_exe().expect("this program");
    let (host, said) = said_by(Command::new(own).args(["host", &world.tier.to_string(), mark]), world);
    let launcher =
        said.split(' ').next().and_then(|pid| Pid::from_raw(pid.parse().ok()?)).expect("the launcher's number");
    (host, launcher)
}

/// Starts such a program, and returns the line that it says once its room stands.
fn said_by(program: &mut Command, world: &World) -> (Child, String) {
    let mut host = program.env("TMPDIR", world.outside("output")).stdout(Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    let said = host.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(said), &mut line).expect("a line");
    (host, line.trim().to_owned())
}

/// Where groups of version 2 may be made for rooms, if that is what counts memory here.
pub(crate) fn groups_of_version_two() -> Option<PathBuf> {
    let dir = group("self");
    let dir = if dir.ends_with(LEAF) { dir.parent()?.to_owned() } else { dir };
    let handed_on = std::fs::read_to_string(dir.join("cgroup.subtree_control")).ok()?;
    handed_on.split_whitespace().any(|controller| controller == "memory").then_some(dir)
}

/// Where a program lives that has made way for its rooms.
const LEAF: &str = "carrel.programs";

/// A process's group of version 2.
fn group(pid: &str) -> PathBuf {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("groups");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Path::new("/sys/fs/cgroup").join(own)
}

/// A group that was delegated, as systemd says it of one; it goes with all that lives in it.
struct Delegated(PathBuf);

impl Delegated {
    fn new(below: &Path) -> Self {
        let group = Self(below.join(format!("delegated-{}", mark())));
        std::fs::create_dir(&group.0).expect("made");
        let said = rustix::fs::setxattr(&group.0, "user.delegate", b"1", rustix::fs::XattrFlags::empty());
        said.expect("said of it");
        group
    }

    /// A program that is born in it.
    fn born(&self, program: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo $$ >$0/cgroup.procs && exec \"$@\""]).arg(&self.0).arg(program);
        shell
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let is_gone = || {
            drop(std::fs::write(self.0.join("cgroup.kill"), "1"));
            for below in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
                drop(std::fs::remove_dir(below.path()));
            }
            std::fs::remove_dir(&self.0).is_ok()
        };
        let until = Instant::now() + Duration::from_secs(10);
        while !is_gone() && Instant::now() < until {
            std::thread::yield_now();
        }
    }
}

/// Where a program and its room live, as far as they are in that group.
fn lives_in(delegated: &Delegated, world: &World, mut program: Command) -> (Child, String) {
    let (host, line) = said_by(program.args(["host", &world.tier.to_string(), &mark()]), world);
    let mut words = line.split(' ');
    let (launcher, room, is_held) = (words.next(), words.next(), words.next());
    let below = |pid: &str| {
        let group = group(pid);
        let name = group.strip_prefix(&delegated.0).expect("below it").to_string_lossy().into_owned();
        if name.starts_with("carrel-") { "a group of its own".to_owned() } else { name }
    };
    let [host_at, launcher_at] = [host.id().to_string().as_str(), launcher.expect("said")].map(below);
    assert_eq!(host_at, launcher_at, "they stay together");
    let room_at = below(room.expect("said"));
    (host, format!("[{host_at}] [{room_at}] {}", is_held.expect("said")))
}

pub(crate) fn group_delegated(world: &World) -> Told<'_> {
    Box::pin(async {
        let delegated = Delegated::new(&groups_of_version_two().expect("looked for before"));
        let own = std::env::current_exe().expect("this program");
        let own = own.to_str().expect("UTF-8");
        let (mut first, alone) = lives_in(&delegated, world, delegated.born(own));
        // As whatever the first one starts is born there, and only there: nobody may enter the group itself any more.
        let mut second = Command::new("/bin/sh");
        let leaf = delegated.0.join(LEAF);
        second.args(["-c", "echo $$ >$0/cgroup.procs && exec \"$@\""]).arg(&leaf).arg(own);
        let (mut second, later) = lives_in(&delegated, world, second);
        for host in [&mut first, &mut second] {
            host.kill().expect("killed");
            host.wait().expect("reaped");
        }
        format!("{alone}, {later}")
    })
}

pub(crate) fn group_shared(world: &World) -> Told<'_> {
    Box::pin(async {
        let delegated = Delegated::new(&groups_of_version_two().expect("looked for before"));
        let mut neighbour = delegated.born("sleep").arg("600").spawn().expect("started");
        let its_group = || group(&neighbour.id().to_string());
        assert!(eventually(|| its_group() == delegated.0).await, "it is there");
        let own = std::env::current_exe().expect("this program");
        let (mut host, came) = lives_in(&delegated, world, delegated.born(own.to_str().expect("UTF-8")));
        assert_eq!(its_group(), delegated.0, "it was not moved");
        for process in [&mut host, &mut neighbour] {
            process.kill().expect("killed");
            process.wait().expect("reaped");
        }
        came
    })
}

pub(crate) fn group_apart(world: &World) -> Told<'_> {
    Box::pin(async {
        let (mut host, launcher) = host(world, &mark());
        let room = children(launcher).expect("living").next().expect("the room's first process");
        // What the kernel signals with a group are its members, and no others.
        let [group_of_room, group_of_launcher] = [room, launcher].map(|pid| getpgid(Some(pid)).expect("it lives"));
        host.kill().expect("killed");
        host.wait().expect("reaped");
        told(group_of_room != group_of_launcher, "apart", "of its program's group")
    })
}

fn children(of: Pid) -> std::io::Result<impl Iterator<Item = Pid>> {
    let all = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"))?;
    let all: Vec<_> = all.split_whitespace().filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)).collect();
    Ok(all.into_iter())
}

/// What such a program does.
pub(crate) fn be_host(tier: &str, mark: &str) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let world = World::new(tier.parse().expect("a tier"));
    runtime.block_on(async {
        let (mut running, _handed, mut said) = begin(&world, &["orphan-and-stay", mark]).await;
        said.next_line().await.expect("ready");
        let launcher = children(rustix::process::getpid()).expect("living").next().expect("the launcher");
        let room = children(launcher).expect("living").next().expect("the room's first process");
        println!("{} {} {}", launcher.as_raw_nonzero(), room.as_raw_nonzero(), running.memory_guarantee());
        carrel_sandbox::launcher_gone().await.expect("the line is sound");
        // In tier `process` it is the room's first process that ends the rest now; to drop the room is to kill it.
        running.wait().await.expect_err("the launcher says nothing more");
    });
    std::process::exit(TOLD)
}

/// How such a program ends once its launcher has.
const TOLD: i32 = 77;

pub(crate) fn program_told(world: &World) -> Told<'_> {
    Box::pin(async {
        let (host, launcher) = host(world, &mark());
        let host = std::cell::RefCell::new(host);
        kill_process(launcher, Signal::KILL).expect("killed");
        let ended = || host.borrow_mut().try_wait().expect("ours");
        let is_told = eventually(|| ended().is_some()).await && ended().and_then(|end| end.code()) == Some(TOLD);
        host.borrow_mut().kill().expect("killed");
        host.borrow_mut().wait().expect("reaped");
        told(is_told, "told", "not told")
    })
}

async fn all_die(world: &World, kill: impl Fn(&mut Child, Pid)) -> String {
    let mark = mark();
    let (mut host, launcher) = host(world, &mark);
    let lived = eventually(|| lives(&mark)).await;
    kill(&mut host, launcher);
    let gone = eventually(|| !lives(&mark)).await;
    // Where it was the launcher that was killed.
    host.kill().expect("killed");
    host.wait().expect("reaped");
    if lived { told(gone, "gone", "lives") } else { "never lived".to_owned() }
}

pub(crate) fn launcher_killed(world: &World) -> Told<'_> {
    Box::pin(all_die(world, |_, launcher| kill_process(launcher, Signal::KILL).expect("killed")))
}

pub(crate) fn program_killed(world: &World) -> Told<'_> {
    Box::pin(all_die(world, |host, _| host.kill().expect("killed")))
}

pub(crate) fn spin(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut room = world.room(&["spin"]);
        room.limits.wall = Duration::from_secs(1);
        let began = Instant::now();
        let came = world.open(&room).await.expect("the room opens");
        if began.elapsed() < Duration::from_secs(2) { came.word() } else { "late".to_owned() }
    })
}

pub(crate) fn burn(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut room = world.room(&["spin"]);
        room.limits.cpu_seconds = 1;
        let came = world.open(&room).await.expect("the room opens");
        let ended = &came.finished.ended;
        if ended.limit == Some(LimitHit::Cpu) && ended.used.cpu < Duration::from_millis(500) {
            return format!("reported {:?}", ended.used);
        }
        came.word()
    })
}

pub(crate) fn burn_in_many(world: &World) -> Told<'_> {
    Box::pin(async {
        let mut room = world.room(&["spin-in-many", "6"]);
        room.limits.cpu_seconds = 1;
        world.open(&room).await.expect("the room opens").word()
    })
}

pub(crate) fn crash(world: &World) -> Told<'_> {
    Box::pin(async {
        let came = world.attack(&["crash"]).await;
        let left = [came.left("scratch"), came.left("output")].concat();
        let left = if left.is_empty() { "nothing left".to_owned() } else { left.join(" ") };
        format!("{:?}, {left}", came.finished.ended.exit)
    })
}

pub(crate) fn kill_first(world: &World) -> Told<'_> {
    Box::pin(async {
        let came = world.attack(&["kill-first", "{first}"]).await;
        format!("{}, {:?}", came.said, came.finished.ended.exit)
    })
}
