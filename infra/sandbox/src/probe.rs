//! What this machine can give, found by running a trivial program in a room of each tier; and what to do where it cannot.
//!
//! Nothing is concluded from a version or a setting alone, nor from a runtime that says that all is well: a setting only
//! explains a step that failed, and a room stands once its program is heard; or, but for runtimes, once it was ready for one
//! that the machine does not have.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::ended::{Ended, Exit, LimitHit};
use crate::room::{Command, Entry, Limits, Network, Profile, Room};
use crate::running::StartError;
use crate::supervise::{Finished, Hearing, run_unproven};
use crate::tier::{Runtime, Tier};

/// What the program in a trivial room says.
const WORD: &str = "here";
/// How long it is waited for.
const WALL: Duration = Duration::from_secs(10);

/// Something that a machine does not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is not there, and which step told.
    pub what: String,
    /// What to do about it; empty if nobody here knows.
    pub fix: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fix.as_str() {
            "" => f.write_str(&self.what),
            fix => write!(f, "{}: {fix}", self.what),
        }
    }
}

/// Whether this machine can build a tier. Needs what [`crate::run`] needs.
pub async fn probe(tier: Tier) -> Result<(), Missing> {
    stands(tier, trivial(tier)).await.map(drop)
}

/// The same; and whether the kernel holds the memory limit of its rooms.
pub async fn probe_held(tier: Tier) -> Result<bool, Missing> {
    let finished = stands(tier, trivial(tier)).await?;
    Ok(finished.is_some_and(|finished| finished.ended.memory_guarantee))
}

/// Whether a room of tier `namespaces` can have a volume.
pub async fn probe_volume() -> Result<(), Missing> {
    let mut room = trivial(Tier::Namespaces);
    room.view.push(Entry::Volume { at: "/input".into() });
    stands(Tier::Namespaces, room).await.map(drop)
}

/// Whether the kernel holds a room's memory limit; elsewhere it is held by looking often.
pub async fn probe_memory() -> Result<(), Missing> {
    // As an ordinary user tier `process` is given none, whatever others are.
    let namespaces = stands(Tier::Namespaces, trivial(Tier::Namespaces)).await;
    let ran = match namespaces {
        Ok(ran) => ran,
        Err(_) => stands(Tier::Process, trivial(Tier::Process)).await?,
    };
    match ran {
        Some(finished) if finished.ended.memory_guarantee => Ok(()),
        _ => Err(missing(
            "no control group can be made for a room, so nothing guarantees its memory limit",
            "run as root; or, where control groups are of version 2, alone in a group that is delegated, with nsdelegate \
             among the options of /sys/fs/cgroup, as systemd does it with Delegate=yes",
        )),
    }
}

/// Whether a room may be opened of a tier that is not used before a room of it has stood; once it has, it is not tried
/// again.
pub(crate) async fn stood(tier: Tier) -> Result<(), StartError> {
    static KATA: OnceCell<()> = OnceCell::const_new();
    if tier != Tier::Oci(Runtime::Kata) {
        return Ok(());
    }
    let proven = KATA.get_or_try_init(|| probe(tier)).await.copied();
    proven.map_err(|missing| StartError::Unproven { tier, missing })
}

fn trivial(tier: Tier) -> Room {
    Room {
        command: Command { program: "/bin/echo".into(), args: vec![WORD.to_owned()], env: vec![], cwd: "/".into() },
        view: if tier == Tier::Process { Vec::new() } else { Entry::system() },
        network: Network::None,
        profile: Profile::Command,
        limits: Limits {
            wall: WALL,
            cpu_seconds: 10,
            memory_bytes: 1 << 30,
            processes: 64,
            file_bytes: 1 << 20,
            open_files: 64,
        },
    }
}

async fn stands(tier: Tier, room: Room) -> Result<Option<Finished>, Missing> {
    let hearing = Hearing { output_bytes: 4096, line_bytes: 4096, stderr_tail_bytes: 400 };
    let mut heard = false;
    let ran = run_unproven(tier, &room, hearing, drop, |line| heard |= line == WORD.as_bytes()).await;
    match ran {
        Ok((finished, ())) if heard && finished.ended.exit == Exit::Code(0) => Ok(Some(finished)),
        Ok((finished, ())) => Err(unheard(tier, &finished.ended, &Settings::read())),
        // The room stood; that this machine has no `echo` is no fault of the tier. A runtime was not even asked by then.
        Err(StartError::Command { source, .. })
            if !matches!(tier, Tier::Oci(_)) && source.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(None)
        }
        Err(StartError::Build { step, source, .. } | StartError::Command { step, source }) => {
            Err(explained(&step, &source))
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Err(missing(&format!("{error}{cause}"), ""))
        }
    }
}

/// What explains a step that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Settings {
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's kernels).
    userns_off: bool,
    /// `user.max_user_namespaces` is 0.
    no_namespaces: bool,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu's kernels).
    apparmor: bool,
    /// This process runs under somebody's system call filter.
    filtered: bool,
    /// `/dev/kvm` cannot be opened.
    no_kvm: bool,
}

impl Settings {
    fn read() -> Self {
        let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            userns_off: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            no_namespaces: is("/proc/sys/user/max_user_namespaces", "0"),
            apparmor: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            filtered: status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])),
            no_kvm: fs::File::options().read(true).write(true).open("/dev/kvm").is_err(),
        }
    }
}

fn missing(what: &str, fix: &str) -> Missing {
    Missing { what: what.to_owned(), fix: fix.to_owned() }
}

/// What is missing where a step of building a room failed.
pub(crate) fn explained(step: &str, source: &std::io::Error) -> Missing {
    explain(step, source.raw_os_error(), &source.to_string(), &Settings::read())
}

fn explain(step: &str, errno: Option<i32>, words: &str, settings: &Settings) -> Missing {
    // A file that is shown may be closed to this user, whatever the machine allows.
    let closed = errno == Some(libc::EACCES) && step.starts_with("show ");
    let refused = matches!(errno, Some(libc::EPERM | libc::EACCES | libc::ENOSYS)) && !closed;
    let creating = step.starts_with("create the namespaces");
    let at = |what: &str| format!("{what} ({step}: {words})");
    if creating && (settings.no_namespaces || errno == Some(libc::ENOSPC)) {
        return missing(&at("there may be no more user namespaces"), "sysctl user.max_user_namespaces=15000");
    }
    if creating && settings.userns_off && refused {
        return missing(&at("user namespaces are off"), "sysctl kernel.unprivileged_userns_clone=1");
    }
    if settings.apparmor && refused && !step.contains("/dev/fuse") {
        let fix =
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give this program a profile with `userns,`";
        return missing(&at("AppArmor restricts user namespaces"), fix);
    }
    if step.starts_with("mount proc") && refused {
        let fix = "run it with --security-opt systempaths=unconfined";
        return missing(&at("/proc is masked by the container"), fix);
    }
    if step.starts_with("open /dev/fuse") {
        return match Path::new("/dev/fuse").exists() {
            true => missing(&at("this user may not open /dev/fuse"), "chmod 666 /dev/fuse, as the package fuse3 does"),
            false => {
                let fix = "modprobe fuse; in a container, run it with --device /dev/fuse";
                missing(&at("this machine has no /dev/fuse"), fix)
            }
        };
    }
    if step.starts_with("look for Landlock") {
        let fix = "boot Linux 6.12 or later with `landlock` among its security modules, or run as root";
        return missing(&at("the kernel keeps no command of tier process from whoever started it"), fix);
    }
    if settings.filtered && refused {
        let fix = "run the container with --security-opt seccomp=unconfined, or a profile that allows clone and mount";
        return missing(&at("a system call filter forbids building rooms"), fix);
    }
    if step.starts_with("mount cgroup2") && matches!(errno, Some(libc::ENODEV | libc::EPERM)) {
        return missing(&at("runc is given no cgroup2"), "use oci:crun or namespaces, which need none");
    }
    let entering = step.ends_with("cgroup of a room") || step.ends_with("into its cgroup");
    if entering && matches!(errno, Some(libc::EACCES | libc::EPERM)) {
        let fix = "run as root, who may move a process from any group to any other";
        return missing(&at("a room cannot enter the control group that was made for it"), fix);
    }
    if let Some(program) = step.strip_prefix("find ")
        && let Some(remedy) = words.strip_prefix("it is not installed; ")
    {
        return missing(&format!("{program} is not installed"), remedy);
    }
    missing(&format!("{step}: {words}"), "")
}

/// A room whose program was not heard, or did not end well.
fn unheard(tier: Tier, ended: &Ended, settings: &Settings) -> Missing {
    let said = String::from_utf8_lossy(&ended.stderr_tail).trim().replace('\n', "; ");
    let how = match (ended.limit, ended.exit, said.as_str()) {
        (Some(LimitHit::Wall), ..) => format!("given up after {} seconds", WALL.as_secs()),
        (_, Exit::Code(code), "") => format!("it ended with code {code} and without a word"),
        (_, Exit::Code(code), said) => format!("it ended with code {code}: {said}"),
        (_, Exit::Signal(signal), said) => format!("it ended by signal {signal} {said}").trim_end().to_owned(),
    };
    let fix = match tier {
        Tier::Oci(runtime @ Runtime::Kata) if said.contains("Invalid command") => {
            format!("this is Kata Containers 2 or later, which runs no bundle by itself; {}", runtime.remedy())
        }
        Tier::Oci(Runtime::Kata) if settings.no_kvm => {
            "it boots a machine of its own: this user must be let open /dev/kvm, on a machine that has one".to_owned()
        }
        _ => String::new(),
    };
    missing(&format!("no program runs in a room of tier {tier} ({how})"), &fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ended::Used;

    #[test]
    fn each_missing_primitive_is_named_with_its_remedy() {
        let create = "create the namespaces of tier namespaces";
        let says = |step: &str, errno, settings: Settings| explain(step, Some(errno), "refused", &settings).to_string();
        let off = says(create, libc::EPERM, Settings { userns_off: true, ..Settings::default() });
        assert!(off.contains("kernel.unprivileged_userns_clone=1") && off.contains(create), "{off}");
        let none = says(create, libc::ENOSPC, Settings::default());
        assert!(none.contains("user.max_user_namespaces"), "{none}");
        let apparmor = says("map the user of a room", libc::EPERM, Settings { apparmor: true, ..Settings::default() });
        assert!(apparmor.contains("kernel.apparmor_restrict_unprivileged_userns=0"), "{apparmor}");
        let masked = says("mount proc at /proc", libc::EPERM, Settings::default());
        assert!(masked.contains("systempaths=unconfined"), "{masked}");
        let filtered = says(create, libc::EPERM, Settings { filtered: true, ..Settings::default() });
        assert!(filtered.contains("seccomp"), "{filtered}");
        let closed = says("show /root", libc::EACCES, Settings { filtered: true, ..Settings::default() });
        assert_eq!(closed, "show /root: refused");
        let landlock = says("look for Landlock", libc::EOPNOTSUPP, Settings { filtered: true, ..Settings::default() });
        assert!(landlock.contains("Linux 6.12") && landlock.contains("run as root"), "{landlock}");
        let runc = says("mount cgroup2, which runc asks for", libc::ENODEV, Settings::default());
        assert!(runc.contains("use oci:crun"), "{runc}");
        for step in ["enter the cgroup of a room", "put a room into its cgroup"] {
            for errno in [libc::EACCES, libc::EPERM] {
                let group = says(step, errno, Settings::default());
                assert!(group.contains("run as root"), "{group}");
            }
            // A program that has ended meanwhile enters none, whoever asks.
            assert_eq!(says(step, libc::ESRCH, Settings::default()), format!("{step}: refused"));
        }
        let busy = says("mount cgroup2, which runc asks for", libc::EBUSY, Settings::default());
        assert_eq!(busy, "mount cgroup2, which runc asks for: refused");
        let runtime =
            explain("find runsc", None, "it is not installed; install the package runsc", &Settings::default());
        assert_eq!(runtime.to_string(), "runsc is not installed: install the package runsc");
    }

    #[test]
    fn a_runtime_that_boots_nothing_is_told_from_one_that_does() {
        let kata = Tier::Oci(Runtime::Kata);
        let says = |exit, limit, said: &str, settings: Settings| {
            let used = Used { wall: WALL, cpu: Duration::ZERO, peak_bytes: 0 };
            let ended = Ended { exit, limit, used, memory_guarantee: true, stderr_tail: said.into() };
            unheard(kata, &ended, &settings).to_string()
        };
        let here = Settings::default;
        assert_eq!(
            says(Exit::Code(0), None, "", here()),
            "no program runs in a room of tier oci:kata (it ended with code 0 and without a word)"
        );
        let hung = says(Exit::Signal(9), Some(LimitHit::Wall), "", here());
        assert!(hung.contains("given up after 10 seconds"), "{hung}");
        let later = says(Exit::Code(1), None, "Invalid command \"run\"\n", Settings { no_kvm: true, ..here() });
        assert!(later.contains("Kata Containers 2") && later.contains("install Kata Containers 1.x"), "{later}");
        let bare = says(Exit::Code(1), None, "could not access KVM", Settings { no_kvm: true, ..here() });
        assert!(bare.contains("could not access KVM") && bare.contains("open /dev/kvm"), "{bare}");
    }
}
