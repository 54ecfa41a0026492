//! A room around the attacker, and what lies outside it that it must not reach.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carrel_sandbox::{
    Command, Entry, Finished, Handed, Hearing, Limits, Network, Profile, Room, StartError, Tier, run,
};

/// Caps that an attack meets soon.
pub(crate) const SCRATCH_BYTES: u64 = 8 << 20;
pub(crate) const INODES: u64 = 500;
pub(crate) const MEMORY: u64 = 192 << 20;

/// Where the directories of a room lie; tier `process` has no view of its own, so there they are the machine's.
pub(crate) struct World {
    pub(crate) tier: Tier,
    outside: tempfile::TempDir,
}

/// What an attack came to.
pub(crate) struct Came {
    pub(crate) said: String,
    pub(crate) finished: Finished,
}

impl World {
    pub(crate) fn new(tier: Tier) -> Self {
        let outside = tempfile::Builder::new().prefix("carrel-rooms-").tempdir().expect("a directory");
        let world = Self { tier, outside };
        std::fs::write(world.secret(), "of another").expect("written");
        for dir in ["input", "scratch", "output"] {
            std::fs::create_dir(world.outside.path().join(dir)).expect("made");
        }
        std::fs::write(world.outside.path().join("input/f001.csv"), "sku,units\n").expect("written");
        // So that the user whom root becomes in tier `process` finds its way.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(world.outside.path(), open).expect("opened");
        world
    }

    /// Another tenant's file.
    pub(crate) fn secret(&self) -> PathBuf {
        self.outside.path().join("secret")
    }

    /// A directory of the room, as the command calls it.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        match self.tier {
            Tier::Process => self.outside.path().join(name),
            Tier::Namespaces | Tier::Oci(_) => Path::new("/").join(name),
        }
    }

    pub(crate) fn room(&self, attack: &str, args: &[String]) -> Room {
        let program = std::env::current_exe().expect("this program");
        let mut view = match self.tier {
            Tier::Process => Vec::new(),
            Tier::Namespaces | Tier::Oci(_) => Entry::system(),
        };
        if self.tier != Tier::Process {
            view.push(Entry::Show { from: program.clone(), at: "/attacker".into() });
            view.push(Entry::Show { from: self.outside.path().join("input"), at: "/input".into() });
        }
        let fresh = |name, exec| Entry::Fresh { at: self.dir(name), bytes: SCRATCH_BYTES, inodes: INODES, exec };
        view.extend([fresh("scratch", true), fresh("output", false)]);
        let args = ["attack", attack].map(str::to_owned).into_iter().chain(args.iter().cloned()).collect();
        let program = if self.tier == Tier::Process { program } else { "/attacker".into() };
        let env = [("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8")].map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
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

    /// Runs one attack in a room of its own.
    pub(crate) async fn attack(&self, attack: &str, args: &[String]) -> Came {
        let room = self.room(attack, args);
        self.open(&room).await.expect("the room opens")
    }

    pub(crate) async fn open(&self, room: &Room) -> Result<Came, StartError> {
        self.open_and(room, drop).await
    }

    pub(crate) async fn open_and<S>(&self, room: &Room, serve: impl FnOnce(Handed) -> S) -> Result<Came, StartError> {
        let mut said = String::new();
        let hearing = Hearing { output_bytes: 1 << 20, line_bytes: 64 << 10, stderr_tail_bytes: 4 << 10 };
        let hear = |line: &[u8]| said.push_str(&String::from_utf8_lossy(line));
        let (finished, served) = run(self.tier, room, hearing, serve, hear).await?;
        drop(served);
        Ok(Came { said, finished })
    }
}

impl Came {
    /// What a room left in a directory.
    pub(crate) fn left(&self, name: &str) -> Vec<String> {
        let (_, root) = self.finished.fresh.iter().find(|(at, _)| at.ends_with(name)).expect("handed out");
        let mut names = list(root);
        names.sort();
        names
    }
}

fn list(root: &OwnedFd) -> Vec<String> {
    let entries = rustix::fs::Dir::read_from(root).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "." && name != "..").collect()
}
