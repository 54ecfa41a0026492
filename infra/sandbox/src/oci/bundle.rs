//! A plan as the configuration of an OCI bundle. Pure: the same plan is always the same JSON.
//!
//! Shape: <https://github.com/opencontainers/runtime-spec/blob/main/config.md>.

use serde_json::{Value, json};

use crate::room::{Entry, Limits, Room};
use crate::seccomp;
use crate::tier::Runtime;

/// Files of /proc that tell of the machine, as Docker masks them.
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The configuration; `user` is who the command is in the keeper's user namespace.
pub(super) fn config(room: &Room, runtime: Runtime, user: u32, memory_guarantee: bool) -> Value {
    let args: Vec<String> = std::iter::once(room.command.program.to_string_lossy().into_owned())
        .chain(room.command.args.iter().cloned())
        .collect();
    let env: Vec<String> = room.command.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let none: [&str; 0] = [];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": user, "gid": user },
            "args": args,
            "env": env,
            "cwd": room.command.cwd,
            "noNewPrivileges": true,
            "rlimits": rlimits(&room.limits, memory_guarantee || runtime != Runtime::Crun),
            "capabilities": {
                "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none,
            },
        },
        // gVisor holds a whole tree read-only or none of it; below it the mounts are what they are.
        "root": { "path": super::ROOM, "readonly": runtime != Runtime::Runsc },
        "hostname": "room",
        "mounts": mounts(room, runtime),
        "linux": {
            "namespaces": namespaces(runtime),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": filter(room, runtime),
        },
    })
}

/// gVisor answers what is not listed with an error that C libraries take for final, where they would try the elder call; the
/// namespaces that clone3 makes there are its own, not the kernel's.
fn filter(room: &Room, runtime: Runtime) -> Value {
    let mut filter = seccomp::oci(room.profile);
    if let (Runtime::Runsc, Some(calls)) = (runtime, filter["syscalls"].as_array_mut()) {
        calls.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ALLOW" }));
    }
    filter
}

/// What the keeper has not made already. Its process namespace is the room's: the keeper is process 1 there, which a command
/// must not be, for the kernel keeps signals from a process 1. A kernel of the runtime's own has all of these inside,
/// whatever is said here.
fn namespaces(runtime: Runtime) -> Vec<Value> {
    let kinds: &[&str] = match runtime {
        Runtime::Crun | Runtime::Runc => &["mount", "ipc", "uts"],
        Runtime::Runsc | Runtime::Kata => &["mount", "ipc", "uts", "pid", "network"],
    };
    kinds.iter().map(|kind| json!({ "type": kind })).collect()
}

/// The view is laid out in the root already, with every mount as it is to be.
fn mounts(room: &Room, runtime: Runtime) -> Vec<Value> {
    let proc =
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] });
    let bind = |at: &std::path::Path, options: &[&str]| {
        let source = std::path::Path::new(super::ROOM).join(at.strip_prefix("/").unwrap_or(at));
        json!({ "destination": at, "type": "bind", "source": source, "options": options })
    };
    let fresh = room.view.iter().filter_map(|entry| match entry {
        // Each filesystem has a server of its own; crossing into another by the root's is refused.
        Entry::Fresh { at, exec, .. } if runtime.stays() => {
            Some(bind(at, if *exec { &["rbind"] } else { &["rbind", "noexec"] }))
        }
        _ => None,
    });
    // A /dev that is bound is left as it is; otherwise a runtime would fill one.
    let dev = (!runtime.stays()).then(|| bind("/dev".as_ref(), &["rbind", "ro", "nosuid", "noexec"]));
    std::iter::once(proc).chain(dev).chain(fresh).collect()
}

/// A runtime written in Go lives under these itself for a moment, and reserves more of an address space than most limits.
fn rlimits(limits: &Limits, memory_guarantee: bool) -> Vec<Value> {
    let limit = |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
    let mut all = vec![
        limit("RLIMIT_CPU", limits.cpu_seconds, limits.cpu_seconds.saturating_add(1)),
        limit("RLIMIT_FSIZE", limits.file_bytes, limits.file_bytes),
        limit("RLIMIT_NOFILE", limits.open_files, limits.open_files),
        limit("RLIMIT_NPROC", limits.processes, limits.processes),
        limit("RLIMIT_RTPRIO", 0, 0),
        limit("RLIMIT_NICE", 0, 0),
        limit("RLIMIT_CORE", 0, 0),
    ];
    if !memory_guarantee {
        all.push(limit("RLIMIT_AS", limits.memory_bytes, limits.memory_bytes));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::{Command, Network, Profile};

    #[test]
    fn a_bundle_says_what_the_plan_says() {
        let room = Room {
            command: Command {
                program: "/usr/bin/true".into(),
                args: vec!["x".to_owned()],
                env: vec![("A".to_owned(), "b".to_owned())],
                cwd: "/scratch".into(),
            },
            view: vec![Entry::Fresh { at: "/scratch".into(), bytes: 1, inodes: 1, exec: false }],
            network: Network::None,
            profile: Profile::Command,
            limits: Limits {
                wall: std::time::Duration::from_secs(1),
                cpu_seconds: 2,
                memory_bytes: 3,
                processes: 4,
                file_bytes: 5,
                open_files: 6,
            },
        };
        let config = config(&room, Runtime::Crun, 1000, false);
        assert_eq!(config["process"]["args"], json!(["/usr/bin/true", "x"]));
        assert_eq!(config["process"]["env"], json!(["A=b"]));
        assert_eq!(config["process"]["noNewPrivileges"], json!(true));
        assert_eq!(config["process"]["capabilities"]["bounding"], json!([]));
        let limits = config["process"]["rlimits"].as_array().expect("a list");
        assert!(limits.contains(&json!({ "type": "RLIMIT_AS", "soft": 3, "hard": 3 })));
        assert_eq!(config["root"]["readonly"], json!(true));
        assert_eq!(config["linux"]["seccomp"]["defaultErrnoRet"], json!(libc::ENOSYS));
    }
}
