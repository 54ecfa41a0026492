//! The plan of a room: what runs, what it sees, what it may use. Plain data, checked without root and built by a tier.
//!
//! Paths inside are those of the room; paths outside those of whoever plans it. What is not in the view does not exist
//! inside. Refuses to decide for the caller: no limit has a default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A command in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// What runs.
    pub command: Command,
    /// What it sees, in the order in which it is laid out; later entries may lie on earlier ones.
    pub view: Vec<Entry>,
    /// Whom it may talk to.
    pub network: Network,
    /// Which system calls it may make.
    pub profile: Profile,
    /// How much it may use.
    pub limits: Limits,
}

/// A command with everything that it inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program, as an absolute path inside the room.
    pub program: PathBuf,
    /// Its arguments, without the program.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Its working directory inside the room.
    pub cwd: PathBuf,
}

/// Something in the view of a room. `at` is an absolute path inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A file or directory from outside with everything below it, read-only, without devices and set-uid programs.
    Show {
        /// Outside.
        from: PathBuf,
        /// Inside.
        at: PathBuf,
    },
    /// An empty directory in memory that the command may write, with hard caps. Its root is handed out.
    Fresh {
        /// Inside.
        at: PathBuf,
        /// Bytes of all files in it.
        bytes: u64,
        /// Files, directories and links in it.
        inodes: u64,
        /// Programs in it may be started.
        exec: bool,
    },
    /// A small read-only file.
    Text {
        /// Inside.
        at: PathBuf,
        /// Its contents.
        text: String,
    },
    /// A symbolic link.
    Link {
        /// Inside.
        at: PathBuf,
        /// What it names.
        to: PathBuf,
    },
    /// A FUSE filesystem, read-only, whose open channel is handed out for somebody to serve.
    Volume {
        /// Inside.
        at: PathBuf,
    },
}

/// Whom a command may talk to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Nobody: a network of its own in which nothing is up.
    None,
    /// Whoever accepts at these loopback addresses of a network of its own. Each listening socket is made inside and
    /// handed out, so that accepting on it outside is to know which room called: the socket is the identity.
    Listeners(Vec<SocketAddr>),
}

/// Which system calls a command may make; both are lists of what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Profile {
    /// A program that builds rooms of its own: it may create user namespaces and mount inside them.
    Task,
    /// A program that may not.
    Command,
}

/// How much a command may use before it is refused more or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Time by the monotonic clock.
    pub wall: Duration,
    /// Processor seconds, summed over everything the command started.
    pub cpu_seconds: u64,
    /// Memory, summed over everything the command started, files in `Fresh` directories included where a cgroup counts.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub processes: u64,
    /// Size of any one file it writes, bytes.
    pub file_bytes: u64,
    /// Open descriptors of any one process.
    pub open_files: u64,
}

impl Limits {
    /// No limit, for a field that something else bounds.
    pub const UNLIMITED: u64 = u64::MAX;
}

/// Directories of the system that programs need; those that a machine has are shown.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt"];
/// Of the machine's settings, those that name no user, host or secret.
const SETTINGS: [&str; 10] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki",
    "/etc/ssl/certs",
];

/// The user and group of everything in a room, by number.
pub const USER: u32 = 1000;

impl Entry {
    /// Where it lies inside.
    pub fn at(&self) -> &Path {
        match self {
            Self::Show { at, .. }
            | Self::Fresh { at, .. }
            | Self::Text { at, .. }
            | Self::Link { at, .. }
            | Self::Volume { at } => at,
        }
    }

    /// The programs and libraries of this machine, and the few settings that they read.
    pub fn system() -> Vec<Self> {
        let mut view: Vec<Self> =
            SYSTEM.iter().chain(&SETTINGS).filter_map(|path| Self::same(Path::new(path))).collect();
        let text = |at: &str, text: String| Self::Text { at: at.into(), text };
        view.extend([
            text("/etc/passwd", format!("room:x:{USER}:{USER}::/scratch:/bin/sh\n")),
            text("/etc/group", format!("room:x:{USER}:\n")),
            text("/etc/hosts", "127.0.0.1 localhost\n".to_owned()),
            text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
        ]);
        view
    }

    /// What lies at `path` outside, at the same path inside; a symbolic link stays one. `None` if nothing lies there.
    pub fn same(path: &Path) -> Option<Self> {
        let at = path.to_owned();
        match std::fs::read_link(path) {
            // A link into the system's own directories, as /bin is on most machines.
            Ok(to) if SYSTEM.iter().any(|dir| Path::new("/").join(&to).starts_with(dir)) => Some(Self::Link { at, to }),
            _ => path.exists().then(|| Self::Show { from: at.clone(), at }),
        }
    }

    /// Shows `path` at the same path inside unless `view` shows it already.
    pub fn add(view: &mut Vec<Self>, path: &Path) {
        let covers = |entry: &Self| match entry {
            Self::Show { from, at } => from == at && path.starts_with(at),
            _ => false,
        };
        if !view.iter().any(covers) {
            view.extend(Self::same(path));
        }
    }
}

/// A plan that no tier builds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A path inside that is not absolute, or not plain.
    #[error("{0:?} is no plain absolute path inside a room")]
    Path(PathBuf),
    /// Two entries at one place.
    #[error("two things lie at {0:?}")]
    Twice(PathBuf),
    /// A listener that others could reach.
    #[error("a room listens at {0}; only loopback addresses are its own")]
    NotLoopback(SocketAddr),
    /// A limit that lets nothing run.
    #[error("the limit {0} is zero")]
    Zero(&'static str),
    /// More than one volume.
    #[error("a room has one volume at most")]
    Volumes,
}

impl Room {
    /// Refuses what cannot be built, before anything is.
    pub fn check(&self) -> Result<(), PlanError> {
        let plain = |path: &Path| {
            use std::path::Component;
            let mut parts = path.components();
            parts.next() == Some(Component::RootDir) && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        let mut seen = std::collections::BTreeSet::new();
        for at in self.view.iter().map(Entry::at) {
            if !plain(at) || at == Path::new("/") {
                return Err(PlanError::Path(at.to_owned()));
            }
            if !seen.insert(at) {
                return Err(PlanError::Twice(at.to_owned()));
            }
        }
        for path in [&self.command.program, &self.command.cwd] {
            if !plain(path) {
                return Err(PlanError::Path(path.clone()));
            }
        }
        if let Network::Listeners(at) = &self.network
            && let Some(open) = at.iter().find(|address| !address.ip().is_loopback())
        {
            return Err(PlanError::NotLoopback(*open));
        }
        let Limits { wall, cpu_seconds, memory_bytes, processes, file_bytes, open_files } = self.limits;
        let amounts = [
            ("wall", u64::from(!wall.is_zero())),
            ("cpu_seconds", cpu_seconds),
            ("memory_bytes", memory_bytes),
            ("processes", processes),
            ("file_bytes", file_bytes),
            ("open_files", open_files),
        ];
        if let Some((name, _)) = amounts.into_iter().find(|(_, amount)| *amount == 0) {
            return Err(PlanError::Zero(name));
        }
        if self.view.iter().filter(|entry| matches!(entry, Entry::Volume { .. })).count() > 1 {
            return Err(PlanError::Volumes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Room {
        Room {
            command: Command { program: "/usr/bin/true".into(), args: vec![], env: vec![], cwd: "/".into() },
            view: vec![Entry::Link { at: "/bin".into(), to: "usr/bin".into() }],
            network: Network::None,
            profile: Profile::Command,
            limits: Limits {
                wall: Duration::from_secs(1),
                cpu_seconds: 1,
                memory_bytes: 1,
                processes: 1,
                file_bytes: 1,
                open_files: 1,
            },
        }
    }

    #[test]
    fn what_cannot_be_built_is_refused_before_anything_is() {
        assert_eq!(room().check(), Ok(()));
        let refused = |change: fn(&mut Room)| {
            let mut room = room();
            change(&mut room);
            room.check().expect_err("refused")
        };
        let link = |at: &str| Entry::Link { at: at.into(), to: "x".into() };
        assert_eq!(refused(|r| r.view.push(Entry::Volume { at: "input".into() })), PlanError::Path("input".into()));
        let mut up = room();
        up.view.push(link("/a/../etc"));
        assert_eq!(up.check(), Err(PlanError::Path("/a/../etc".into())));
        let mut twice = room();
        twice.view.push(link("/bin"));
        assert_eq!(twice.check(), Err(PlanError::Twice("/bin".into())));
        let open = "0.0.0.0:80".parse().expect("an address");
        let mut world = room();
        world.network = Network::Listeners(vec![open]);
        assert_eq!(world.check(), Err(PlanError::NotLoopback(open)));
        assert_eq!(refused(|r| r.limits.processes = 0), PlanError::Zero("processes"));
    }

    #[test]
    fn what_the_view_shows_already_is_not_shown_twice() {
        let mut view = vec![Entry::Show { from: "/usr".into(), at: "/usr".into() }];
        Entry::add(&mut view, Path::new("/usr/bin"));
        assert_eq!(view.len(), 1);
        Entry::add(&mut view, Path::new("/proc/version"));
        assert_eq!(view.len(), 2);
        Entry::add(&mut view, Path::new("/nothing/lies/here"));
        assert_eq!(view.len(), 2);
    }
}
