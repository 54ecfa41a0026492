//! A room around the attacker, and what lies outside it that it must not reach.

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use carrel_sandbox::{
    Command, Entry, Finished, Handed, Hearing, Limits, Network, Profile, Room, StartError, Tier, run,
};

/// Caps that an attack meets soon.
pub(crate) const SCRATCH_BYTES: u64 = 8 << 20;
pub(crate) const INODES: u64 = 500;
pub(crate) const MEMORY: u64 = 192 << 20;
pub(crate) const HEARING: Hearing = Hearing { output_bytes: 1 << 20, line_bytes: 64 << 10, stderr_tail_bytes: 4 << 10 };

/// Where the directories of a room lie; tier `process` has no view of its own, so there they are the machine's.
pub(crate) struct World {
    pub(crate) tier: Tier,
    outside: tempfile::TempDir,
    loopback: std::net::TcpListener,
    _abstract: UnixListener,
}

/// What an attack came to.
pub(crate) struct Came {
    pub(crate) said: String,
    pub(crate) finished: Finished,
}

impl World {
    pub(crate) fn new(tier: Tier) -> Self {
        let outside = tempfile::Builder::new().prefix("carrel-rooms-").tempdir().expect("a directory");
        let address = UnixAddr::from_abstract_name(outside.path().as_os_str().as_encoded_bytes()).expect("a name");
        let world = Self {
            tier,
            outside,
            loopback: std::net::TcpListener::bind("127.0.0.1:0").expect("bound"),
            _abstract: UnixListener::bind_addr(&address).expect("bound"),
        };
        std::fs::write(world.outside("secret"), "of another").expect("written");
        let closed = PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(world.outside("secret"), closed).expect("closed");
        for dir in ["input", "scratch", "output"] {
            std::fs::create_dir(world.outside(dir)).expect("made");
        }
        std::fs::write(world.outside("input/f001.csv"), "sku,units\n").expect("written");
        if tier != Tier::Process {
            // What keeps it as it is must be the mount, not the mode.
            for (name, mode) in [("input", 0o777), ("input/f001.csv", 0o666)] {
                std::fs::set_permissions(world.outside(name), PermissionsExt::from_mode(mode)).expect("opened");
            }
        }
        // So that the user whom root becomes in tier `process` finds its way.
        std::fs::set_permissions(world.outside.path(), PermissionsExt::from_mode(0o755)).expect("opened");
        world
    }

    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.outside.path().join(name)
    }

    /// A directory of the room, as the command calls it.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        match self.tier {
            Tier::Process => self.outside(name),
            Tier::Namespaces | Tier::Oci(_) => Path::new("/").join(name),
        }
    }

    /// A word of the table, in which `{NAME}` stands for something of this world.
    pub(crate) fn word(&self, word: &str) -> String {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let port = self.loopback.local_addr().expect("bound").port();
        word.replace("{secret}", &path(self.outside("secret")))
            .replace("{scratch}", &path(self.dir("scratch")))
            .replace("{output}", &path(self.dir("output")))
            .replace("{input}", &path(self.dir("input")))
            .replace("{abstract}", &path(self.outside.path().to_owned()))
            .replace("{loopback}", &format!("127.0.0.1:{port}"))
            .replace("{first}", if self.tier == Tier::Process { "{parent}" } else { "1" })
            .replace("{host}", &std::process::id().to_string())
    }

    pub(crate) fn room(&self, attack: &[&str]) -> Room {
        let program = std::env::current_exe().expect("this program");
        let mut view = match self.tier {
            Tier::Process => Vec::new(),
            Tier::Namespaces | Tier::Oci(_) => Entry::system(),
        };
        if self.tier != Tier::Process {
            view.push(Entry::Show { from: program.clone(), at: "/attacker".into() });
            view.push(Entry::Show { from: self.outside("input"), at: "/input".into() });
        }
        let fresh = |name, exec| Entry::Fresh { at: self.dir(name), bytes: SCRATCH_BYTES, inodes: INODES, exec };
        view.extend([fresh("scratch", true), fresh("output", false)]);
        let args = std::iter::once("attack".to_owned()).chain(attack.iter().map(|word| self.word(word))).collect();
        let program = if self.tier == Tier::Process { program } else { "/attacker".into() };
        let mut env = vec![("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8")];
        if matches!(self.tier, Tier::Oci(_)) {
            // A runtime gives one to whoever has none.
            env.push(("HOME", "/scratch"));
        }
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Room {
            command: Command { program, args, env, cwd: self.dir("scratch") },
            view,
            network: Network::None,
            profile: Profile::Command,
            limits: Limits {
                wall: Duration::from_secs(20),
                cpu_seconds: 20,
                memory_bytes: MEMORY,
                processes: 32,
                file_bytes: 64 << 20,
                open_files: 64,
            },
        }
    }

    /// A room for a worker: it may build rooms, and has the time and memory for it.
    pub(crate) fn task(&self, attack: &[&str]) -> Room {
        let mut room = self.room(attack);
        room.profile = Profile::Task;
        room.limits.memory_bytes = 4 << 30;
        room
    }

    /// Runs one attack in a room of its own.
    pub(crate) async fn attack(&self, attack: &[&str]) -> Came {
        self.open(&self.room(attack)).await.expect("the room opens")
    }

    pub(crate) async fn open(&self, room: &Room) -> Result<Came, StartError> {
        self.open_and(room, drop).await
    }

    pub(crate) async fn open_and<S>(&self, room: &Room, serve: impl FnOnce(Handed) -> S) -> Result<Came, StartError> {
        let mut said = Vec::new();
        let hear = |line: &[u8]| said.push(String::from_utf8_lossy(line).into_owned());
        let (finished, served) = run(self.tier, room, HEARING, serve, hear).await?;
        drop(served);
        Ok(Came { said: said.join("\n"), finished })
    }
}

impl Came {
    /// What a room left in a directory.
    pub(crate) fn left(&self, name: &str) -> Vec<String> {
        let (_, root) = self.finished.fresh.iter().find(|(at, _)| at.ends_with(name)).expect("handed out");
        list(root)
    }

    /// The limit that ended it, else what it said.
    pub(crate) fn word(&self) -> String {
        match self.finished.ended.limit {
            Some(limit) => format!("{limit:?}"),
            None if self.said.is_empty() => {
                let words = String::from_utf8_lossy(&self.finished.ended.stderr_tail);
                format!("{:?} {words}", self.finished.ended.exit).trim_end().to_owned()
            }
            None => self.said.clone(),
        }
    }
}

/// Names in a directory, sorted.
pub(crate) fn list(root: &OwnedFd) -> Vec<String> {
    let entries = rustix::fs::Dir::read_from(root).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name != "." && name != "..").collect();
    names.sort();
    names
}

/// Looks until `seen` is true; false after ten seconds. What happens outside this process tells nobody.
pub(crate) async fn eventually(seen: impl Fn() -> bool) -> bool {
    for _ in 0..1_000 {
        if seen() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// Whether a sleeper lives that carries this word on its command line.
pub(crate) fn lives(mark: &str) -> bool {
    std::fs::read_dir("/proc").expect("proc").flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line == [b"sleep\0", mark.as_bytes(), b"\0"].concat()
    })
}

/// A word that no other process carries.
pub(crate) fn mark() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    // As seconds: what carries it sleeps for a quarter of an hour.
    format!("1000.{:07}{next:03}", std::process::id())
}
