//! What this machine can give, found by building a trivial room of each tier; and what to do where it cannot.
//!
//! Nothing is concluded from a version or a setting alone: a setting only explains a step that failed.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::room::{Command, Entry, Limits, Network, Profile, Room};
use crate::running::StartError;
use crate::supervise::{Finished, Hearing, run};
use crate::tier::Tier;

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

/// Whether this machine can build a tier. Needs what [`run`] needs.
pub async fn probe(tier: Tier) -> Result<(), Missing> {
    stands(tier, trivial(tier)).await.map(drop)
}

/// Whether a room of tier `namespaces` can have a volume.
pub async fn probe_volume() -> Result<(), Missing> {
    let mut room = trivial(Tier::Namespaces);
    room.view.push(Entry::Volume { at: "/input".into() });
    stands(Tier::Namespaces, room).await.map(drop)
}

/// Whether the kernel holds a room's memory limit; elsewhere it is held by looking often.
pub async fn probe_memory() -> Result<(), Missing> {
    match stands(Tier::Process, trivial(Tier::Process)).await? {
        Some(finished) if finished.ended.memory_guarantee => Ok(()),
        _ => Err(missing(
            "no control group can be made for a room, so nothing guarantees its memory limit",
            "run as root, or have systemd delegate the memory controller (Delegate=yes)",
        )),
    }
}

fn trivial(tier: Tier) -> Room {
    Room {
        command: Command { program: "/usr/bin/true".into(), args: vec![], env: vec![], cwd: "/".into() },
        view: if tier == Tier::Process { Vec::new() } else { Entry::system() },
        network: Network::None,
        profile: Profile::Command,
        limits: Limits {
            wall: Duration::from_secs(10),
            cpu_seconds: 10,
            memory_bytes: 1 << 30,
            processes: 64,
            file_bytes: 1 << 20,
            open_files: 64,
        },
    }
}

async fn stands(tier: Tier, room: Room) -> Result<Option<Finished>, Missing> {
    let hearing = Hearing { output_bytes: 4096, line_bytes: 4096, stderr_tail_bytes: 4096 };
    match run(tier, &room, hearing, drop, |_| {}).await {
        Ok((finished, ())) => Ok(Some(finished)),
        // The room stood; that this machine has no `true` is no fault of the tier.
        Err(StartError::Command { .. }) => Ok(None),
        Err(StartError::Build { step, source, .. }) => {
            Err(explain(&step, source.raw_os_error(), &source.to_string(), &Settings::read()))
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
        }
    }
}

fn missing(what: &str, fix: &str) -> Missing {
    Missing { what: what.to_owned(), fix: fix.to_owned() }
}

fn explain(step: &str, errno: Option<i32>, words: &str, settings: &Settings) -> Missing {
    let refused = matches!(errno, Some(libc::EPERM | libc::EACCES | libc::ENOSYS));
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
    if settings.filtered && refused {
        let fix = "run the container with --security-opt seccomp=unconfined, or a profile that allows clone and mount";
        return missing(&at("a system call filter forbids building rooms"), fix);
    }
    if let Some(program) = step.strip_prefix("find ")
        && words.contains("not installed")
    {
        return missing(&format!("{program} is not installed"), &format!("install the package {program}"));
    }
    missing(&format!("{step}: {words}"), "")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let runtime =
            explain("find runsc", None, "it is not installed; install the package runsc", &Settings::default());
        assert_eq!(runtime.to_string(), "runsc is not installed: install the package runsc");
    }
}
