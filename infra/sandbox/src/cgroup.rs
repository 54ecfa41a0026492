//! A control group for each room where one can be made: memory and processes, counted and capped by the kernel.
//!
//! Version 1 (a hierarchy for each controller) and version 2 (one for all). A group is made below this process's own;
//! where that may not be written, or the memory controller is not there, there is none, and whoever asked reports that
//! nothing guarantees the memory limit.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Pid;

use crate::room::Limits;

const ROOT: &str = "/sys/fs/cgroup";

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
    /// A new group with these limits; `None` where this machine gives none.
    pub(crate) fn make(limits: &Limits) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let name = format!("carrel-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let hierarchies = Hierarchies::read(&own);
        let group = hierarchies.two.and_then(|dir| Self::two(&dir.join(&name), limits));
        group.or_else(|| {
            Self::one(&hierarchies.memory?.join(&name), hierarchies.pids.map(|dir| dir.join(&name)), limits)
        })
    }

    fn two(dir: &Path, limits: &Limits) -> Option<Self> {
        fs::create_dir(dir).ok()?;
        let group = Self { version: Version::Two, memory: dir.to_owned(), pids: None };
        let set = || -> io::Result<()> {
            write(dir, "memory.max", limits.memory_bytes)?;
            write(dir, "memory.swap.max", 0).or_else(absent)?;
            write(dir, "memory.oom.group", 1).or_else(absent)?;
            write(dir, "pids.max", limits.processes).or_else(absent)
        };
        group.or_remove(set())
    }

    fn one(memory: &Path, pids: Option<PathBuf>, limits: &Limits) -> Option<Self> {
        fs::create_dir(memory).ok()?;
        let pids = pids.filter(|dir| fs::create_dir(dir).is_ok());
        let group = Self { version: Version::One, memory: memory.to_owned(), pids };
        let set = || -> io::Result<()> {
            // Version 1 has no word for "no limit"; a group without one is born without.
            if limits.memory_bytes != Limits::UNLIMITED {
                write(memory, "memory.limit_in_bytes", limits.memory_bytes)?;
                write(memory, "memory.memsw.limit_in_bytes", limits.memory_bytes).or_else(absent)?;
            }
            group.pids.as_deref().map_or(Ok(()), |dir| write(dir, "pids.max", limits.processes))
        };
        let set = set();
        group.or_remove(set)
    }

    fn or_remove(self, set: io::Result<()>) -> Option<Self> {
        if set.is_ok() {
            return Some(self);
        }
        self.remove();
        None
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
        let number = |name: &str| fs::read_to_string(self.memory.join(name)).ok()?.trim().parse().ok();
        let killed = |name: &str| {
            let text = fs::read_to_string(self.memory.join(name)).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        };
        let counted = match self.version {
            Version::One => {
                Counted { peak_bytes: number("memory.max_usage_in_bytes"), out_of_memory: killed("memory.oom_control") }
            }
            Version::Two => Counted { peak_bytes: number("memory.peak"), out_of_memory: killed("memory.events") },
        };
        self.remove();
        counted
    }

    fn remove(&self) {
        for dir in std::iter::once(&self.memory).chain(&self.pids) {
            // What is left behind here is empty and names its maker; it harms nobody.
            drop(fs::remove_dir(dir));
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
                    "" => found.two = Some(Path::new(ROOT).join(path)),
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
    fn both_versions_are_found_where_the_kernel_says() {
        let one = Hierarchies::read("4:memory:/a/b\n3:pids,freezer:/\n0::/\n");
        assert_eq!(one.memory, Some("/sys/fs/cgroup/memory/a/b".into()));
        assert_eq!(one.pids, Some("/sys/fs/cgroup/pids".into()));
        let two = Hierarchies::read("0::/user.slice/x.scope\n");
        assert_eq!(
            two,
            Hierarchies { two: Some("/sys/fs/cgroup/user.slice/x.scope".into()), ..Hierarchies::default() }
        );
    }
}
