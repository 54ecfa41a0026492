//! A control group for each room where one can be made: memory and processes, counted and capped by the kernel.
//!
//! Version 1 (a hierarchy for each controller) and version 2 (one for all). A group is made below this process's own;
//! where that may not be written, or the memory controller is not there, there is none, and whoever asked reports that
//! nothing guarantees the memory limit. Nor is there one that the room itself could lift: for a command that stays who
//! started it and sees the machine's files, or one that could mount the groups of its user.
//!
//! By the rules of version 2 a group hands controllers on only while no process is in it, but for the root of the machine.
//! So with the first room program and launcher, if they are all that lives in a group that was delegated, move into a leaf
//! of it, which programs that they start are born in and know by its name. Nobody else is ever moved: beside others, and
//! where somebody else manages the group, there are none for rooms. The group stays handed on: who starts a program there
//! again makes it anew, as systemd does with its units.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{Pid, getpid, getppid};

use crate::jail::becomes_another;
use crate::room::Limits;
use crate::tier::Tier;

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "carrel-";
/// Where programs of version 2 live that have made way for their rooms.
const LEAF: &str = "carrel.programs";
/// A group that is older than this has long been entered.
const OLD: Duration = Duration::from_secs(60);

/// Where groups may be made.
#[derive(Debug, Default)]
pub(crate) struct Groups(Hierarchies);

impl Groups {
    /// Those of a launcher, which this process is, and of its program, with nothing in them of launchers that are gone.
    pub(crate) fn of(program: Pid) -> Self {
        let mut found = Hierarchies::read(&read("/proc/self/cgroup"));
        // Version 2 counts only where it is what lies at the root.
        found.two = found.two.filter(|dir| dir.join("cgroup.controllers").exists());
        found.two = found.two.filter(|_| becomes_another() || holds_limits(&read("/proc/self/mountinfo")));
        found.two = found.two.filter(|dir| hand_on(dir, program).is_ok());
        [&found.memory, &found.pids, &found.two].into_iter().flatten().for_each(|dir| sweep(dir));
        Self(found)
    }

    /// Whether a room of this tier may have one at all: not where its command owns it and sees it.
    pub(crate) fn may_hold(tier: Tier) -> bool {
        tier != Tier::Process || becomes_another()
    }

    /// A new group for a room with these limits; `None` where this machine gives none.
    pub(crate) fn make(&self, limits: &Limits) -> Option<Cgroup> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let group = self.0.two.as_ref().and_then(|dir| Cgroup::two(&dir.join(&name), limits));
        group.or_else(|| {
            let pids = self.0.pids.as_ref().map(|dir| dir.join(&name));
            Cgroup::one(&self.0.memory.as_ref()?.join(&name), pids, limits)
        })
    }
}

/// Directories of one room's group.
#[derive(Debug)]
pub(crate) struct Cgroup {
    version: Version,
    /// Counts memory.
    memory: PathBuf,
    /// Version 1 counts processes elsewhere.
    pids: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What a group counted.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) peak_bytes: Option<u64>,
    pub(crate) out_of_memory: bool,
}

impl Cgroup {
    fn two(dir: &Path, limits: &Limits) -> Option<Self> {
        anew(dir).ok()?;
        Self { version: Version::Two, memory: dir.to_owned(), pids: None }.limited(limits)
    }

    fn one(memory: &Path, pids: Option<PathBuf>, limits: &Limits) -> Option<Self> {
        anew(memory).ok()?;
        let pids = pids.filter(|dir| anew(dir).is_ok());
        Self { version: Version::One, memory: memory.to_owned(), pids }.limited(limits)
    }

    fn limited(self, limits: &Limits) -> Option<Self> {
        if self.limit(limits).is_ok() {
            return Some(self);
        }
        self.remove();
        None
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let memory = &self.memory;
        match self.version {
            Version::One => {
                // Version 1 has no word for "no limit"; a group without one is born without.
                if limits.memory_bytes != Limits::UNLIMITED {
                    write(memory, "memory.limit_in_bytes", limits.memory_bytes)?;
                    write(memory, "memory.memsw.limit_in_bytes", limits.memory_bytes).or_else(absent)?;
                }
                self.pids.as_deref().map_or(Ok(()), |dir| write(dir, "pids.max", limits.processes))
            }
            Version::Two => {
                write(memory, "memory.max", limits.memory_bytes)?;
                write(memory, "memory.swap.max", 0).or_else(absent)?;
                write(memory, "memory.oom.group", 1).or_else(absent)?;
                // Nor is it divided by who is in it.
                write(memory, "cgroup.max.descendants", 0)?;
                write(memory, "pids.max", limits.processes).or_else(absent)
            }
        }
    }

    /// Files by which a process puts itself, and whatever it will start, into the group.
    ///
    /// Version 1 moves the writing thread without stopping every fork and exit on the machine for a grace period, which
    /// is several milliseconds. Version 2 moves whole processes, and has the launcher do it.
    pub(crate) fn doors(&self) -> io::Result<Vec<fs::File>> {
        let all = std::iter::once(&self.memory).chain(&self.pids);
        match self.version {
            Version::One => all.map(|dir| fs::File::options().write(true).open(dir.join("tasks"))).collect(),
            Version::Two => Ok(Vec::new()),
        }
    }

    /// Puts a process that has no doors, and whatever it will start, into the group.
    pub(crate) fn add(&self, process: Pid) -> io::Result<()> {
        match self.version {
            Version::One => Ok(()),
            Version::Two => set(&self.memory, "cgroup.procs", &process.as_raw_nonzero().to_string()),
        }
    }

    /// What it counted; the group goes. Its processes are dead.
    pub(crate) fn finish(self) -> Counted {
        let counted = self.counted();
        self.remove();
        counted
    }

    fn counted(&self) -> Counted {
        let number = |name: &str| fs::read_to_string(self.memory.join(name)).ok()?.trim().parse().ok();
        let killed = |name: &str| {
            let text = fs::read_to_string(self.memory.join(name)).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        };
        match self.version {
            Version::One => {
                Counted { peak_bytes: number("memory.max_usage_in_bytes"), out_of_memory: killed("memory.oom_control") }
            }
            Version::Two => Counted { peak_bytes: number("memory.peak"), out_of_memory: killed("memory.events") },
        }
    }

    fn remove(&self) {
        for dir in std::iter::once(&self.memory).chain(&self.pids) {
            // What is left behind here is empty and names its maker; it harms nobody.
            drop(fs::remove_dir(dir));
        }
    }
}

/// Has a group of version 2 hand its controllers on, if need be once this launcher and its program have left it.
fn hand_on(dir: &Path, program: Pid) -> io::Result<()> {
    let memory = || set(dir, "cgroup.subtree_control", "+memory");
    match memory() {
        Err(busy) if busy.kind() == io::ErrorKind::ResourceBusy && is_delegated(dir) => {
            let opened = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            // One at a time; not waited for, since whoever may read the directory may hold it.
            flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
            let both = [program, getpid()].map(|pid| pid.as_raw_nonzero().to_string());
            let living = fs::read_to_string(dir.join("cgroup.procs"))?;
            // An orphan's parent is somebody else; who lives there may have left since.
            let is_alone = getppid() == Some(program) && living.lines().all(|pid| both.iter().any(|own| own == pid));
            if !is_alone || living.lines().count() != both.len() {
                return memory();
            }
            let leaf = dir.join(LEAF);
            match fs::create_dir(&leaf) {
                // By a program that has ended before it had moved.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
            let move_to = |to: &Path| both.iter().map(|pid| set(to, "cgroup.procs", pid)).fold(Ok(()), Result::and);
            if let Err(error) = move_to(&leaf).and_then(|()| memory()) {
                // Somebody has come in between: all is as it was.
                move_to(dir).and_then(|()| fs::remove_dir(&leaf))?;
                return Err(error);
            }
        }
        other => other?,
    }
    // Where nothing counts processes, their number is held as it is without a group.
    set(dir, "cgroup.subtree_control", "+pids").or(Ok(()))
}

/// Whether a group is this user's to divide: systemd says so of a group, and a container's is all that it sees.
fn is_delegated(dir: &Path) -> bool {
    let says_so = |name: &str| {
        let mut value = [0; 1];
        rustix::fs::getxattr(dir, name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    };
    dir == Path::new(ROOT) || says_so("user.delegate") || says_so("trusted.delegate")
}

/// Whether what is mounted lets nobody lift the limits of the group that his own namespace begins with.
fn holds_limits(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let Some((mount, filesystem)) = line.split_once(" - ") else { return false };
        let mut of_it = filesystem.split(' ');
        mount.split(' ').nth(4) == Some(ROOT)
            && of_it.next() == Some("cgroup2")
            && of_it.nth(1).is_some_and(|options| options.split(',').any(|option| option == "nsdelegate"))
    })
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Makes a group of its own. One by that name was left behind by a launcher that was killed and whose number is ours now;
/// left as it is, it would cost this room its guarantee.
fn anew(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_dir(dir)?;
            fs::create_dir(dir)
        }
        other => other,
    }
}

/// Takes away what launchers that were killed have left: groups of a maker that is gone, not made just now by one whose
/// number means another process here.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')).map(|(maker, _)| maker);
        let gone = maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists());
        let old =
            || entry.metadata().and_then(|data| data.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|t| t > OLD));
        if gone && old() {
            // A group in which something lives stays, by the kernel's own rule.
            drop(fs::remove_dir(entry.path()));
        }
    }
}

fn write(dir: &Path, file: &str, value: u64) -> io::Result<()> {
    let value = if value == Limits::UNLIMITED { "max".to_owned() } else { value.to_string() };
    set(dir, file, &value)
}

/// Writes a file that is there: one made by this call would cap nothing.
fn set(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::File::options().write(true).open(dir.join(file))?.write_all(value.as_bytes())
}

/// A file that this kernel does not have, such as one that counts swap, caps nothing here.
fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Where this process's own groups lie.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hierarchies {
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    two: Option<PathBuf>,
}

impl Hierarchies {
    /// Reads `/proc/self/cgroup`: lines of `number:controllers:path`.
    fn read(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let path = path.trim_start_matches('/');
            for controller in controllers.split(',') {
                match controller {
                    "memory" => found.memory = Some(Path::new(ROOT).join("memory").join(path)),
                    "pids" => found.pids = Some(Path::new(ROOT).join("pids").join(path)),
                    "" => {
                        let own = Path::new(ROOT).join(path);
                        found.two =
                            Some(if own.ends_with(LEAF) { own.parent().expect("below the root").into() } else { own });
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_launcher_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().expect("a directory");
        let left = dir.path().join("carrel-999999999-0");
        anew(&left).expect("made");
        anew(&left).expect("made anew");
        sweep(dir.path());
        assert!(left.exists(), "it may be somebody's who has just made it");
    }

    /// A group whose files are plain ones, with these contents.
    fn group(version: Version, files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("written");
        }
        let memory = dir.path().to_owned();
        let pids = (version == Version::One).then(|| memory.clone());
        (dir, Cgroup { version, memory, pids })
    }

    fn limits(memory_bytes: u64) -> Limits {
        let wall = Duration::from_secs(1);
        Limits { wall, cpu_seconds: 1, memory_bytes, processes: 7, file_bytes: 1, open_files: 1 }
    }

    fn holds(group: &Cgroup, file: &str) -> String {
        fs::read_to_string(group.memory.join(file)).expect("there")
    }

    #[test]
    fn version_two_is_told_the_limits_and_tells_what_it_counted() {
        let events = "low 0\noom 2\noom_kill 1\n";
        let files = [
            ("memory.max", ""),
            ("pids.max", ""),
            ("cgroup.max.descendants", ""),
            ("memory.peak", "4096\n"),
            ("memory.events", events),
        ];
        let (_dir, made) = group(Version::Two, &files);
        made.limit(&limits(512)).expect("files for swap and for whole groups are not in every kernel");
        assert_eq!((holds(&made, "memory.max"), holds(&made, "pids.max")), ("512".to_owned(), "7".to_owned()));
        assert!(!made.memory.join("memory.swap.max").exists(), "a file that is made caps nothing");
        assert_eq!(holds(&made, "cgroup.max.descendants"), "0", "nothing begins below it");
        let counted = made.counted();
        assert_eq!((counted.peak_bytes, counted.out_of_memory), (Some(4096), true));
        let (_dir, whole) = group(
            Version::Two,
            &[("memory.max", ""), ("memory.swap.max", ""), ("pids.max", ""), ("cgroup.max.descendants", "")],
        );
        whole.limit(&limits(Limits::UNLIMITED)).expect("set");
        assert_eq!((holds(&whole, "memory.max"), holds(&whole, "memory.swap.max")), ("max".to_owned(), "0".to_owned()));
        let counted = whole.counted();
        assert_eq!((counted.peak_bytes, counted.out_of_memory), (None, false));
        // As below a group that has processes of its own.
        let (_dir, bare) = group(Version::Two, &[("pids.max", "")]);
        assert!(bare.limited(&limits(512)).is_none(), "nothing counts memory there");
    }

    #[test]
    fn version_one_is_told_the_limits_and_tells_what_it_counted() {
        let control = "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n";
        let files = [("memory.limit_in_bytes", ""), ("pids.max", ""), ("memory.oom_control", control)];
        let (_dir, made) = group(Version::One, &files);
        made.limit(&limits(512)).expect("set");
        assert_eq!((holds(&made, "memory.limit_in_bytes"), holds(&made, "pids.max")), ("512".into(), "7".into()));
        assert!(!made.counted().out_of_memory);
        fs::write(made.memory.join("memory.limit_in_bytes"), "unset").expect("written");
        made.limit(&limits(Limits::UNLIMITED)).expect("set");
        assert_eq!(holds(&made, "memory.limit_in_bytes"), "unset", "it is born without one");
        fs::write(made.memory.join("memory.oom_control"), "oom_kill 3\n").expect("written");
        fs::write(made.memory.join("memory.max_usage_in_bytes"), "8192\n").expect("written");
        let counted = made.counted();
        assert_eq!((counted.peak_bytes, counted.out_of_memory), (Some(8192), true));
    }

    #[test]
    fn a_group_that_hands_controllers_on_by_itself_has_nobody_moved() {
        let dir = tempfile::tempdir().expect("a directory");
        hand_on(dir.path(), getpid()).expect_err("that is no group");
        fs::write(dir.path().join("cgroup.subtree_control"), "").expect("written");
        hand_on(dir.path(), getpid()).expect("handed on");
        assert!(!dir.path().join(LEAF).exists(), "nobody had to move");
        assert!(!is_delegated(dir.path()), "nobody said so");
    }

    #[test]
    fn both_versions_are_found_where_the_kernel_says() {
        let one = Hierarchies::read("4:memory:/a/b\n3:pids,freezer:/\n0::/\n");
        assert_eq!(one.memory, Some("/sys/fs/cgroup/memory/a/b".into()));
        assert_eq!(one.pids, Some("/sys/fs/cgroup/pids".into()));
        let two = Hierarchies::read("0::/user.slice/x.scope\n");
        let scope = Some("/sys/fs/cgroup/user.slice/x.scope".into());
        assert_eq!(two, Hierarchies { two: scope, ..Hierarchies::default() });
        assert_eq!(Hierarchies::read("0::/user.slice/x.scope/carrel.programs\n"), two, "whose leaf that is");
        let container = Hierarchies::read("0::/carrel.programs\n");
        assert_eq!(container.two, Some(ROOT.into()));
    }

    #[test]
    fn a_room_could_lift_its_limits_unless_the_groups_are_mounted_so_that_namespaces_hold_them() {
        let line = |options| format!("30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 {options}\n");
        assert!(holds_limits(&line("rw,nsdelegate,memory_recursiveprot")));
        assert!(!holds_limits(&line("rw")) && !holds_limits(""));
        assert!(!holds_limits(&line("rw,nsdelegate").replace(ROOT, "/mnt")));
    }
}
