//! Which system calls a command may make: one list in the repository, read here for the kernel and for OCI bundles.
//!
//! The list names what is allowed; everything else answers "no such system call", which is what libraries know how to
//! live with. A call that a profile allows in part carries its condition here.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, TargetArch};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ranges;
use crate::room::Profile;

/// Where the names come from: Docker's default profile, without io_uring, ptrace, keyctl, bpf, perf, userfaultfd,
/// process_vm_*, mknod and whatever makes namespaces.
const LIST: &str = include_str!("syscalls.json");

/// `CLONE_NEW*`, as Docker's default masks them.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Requests that put words into a terminal.
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];
const UNIX: u64 = 1;
const INTERNET: [u64; 2] = [2, 10];
/// Levels of socket options that any command may set: IP, TCP, UDP, IPv6.
const OPTION_LEVELS: [u64; 4] = [0, 6, 17, 41];
/// Of the level of sockets themselves, by `SO_*`: what sets how an address is reused, how long is waited, how an end is
/// kept alive. Not the sizes of buffers: what lies in a socket is counted by their default.
const SOCKET_OPTIONS: [u64; 14] = [2, 5, 6, 9, 10, 13, 15, 16, 18, 20, 21, 29, 66, 67];
const SOCKET_LEVEL: u64 = 1;
/// What makes memory that no process need hold, so that whoever counts by processes misses it.
const NOBODYS_MEMORY: [&str; 5] = ["memfd_create", "shmat", "shmctl", "shmdt", "shmget"];
const SYSTEM_V: [&str; 8] = ["semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget"];

/// The list as it is written.
#[derive(Debug, Deserialize)]
struct List {
    /// For every command, on every machine.
    everywhere: Vec<String>,
    /// For every command, where the architecture has them.
    x86_64: Vec<String>,
    /// For programs that build rooms of their own.
    task: Vec<String>,
}

fn list() -> List {
    serde_json::from_str(LIST).expect("the list in the repository is well formed; a test reads it")
}

/// Conditions of one call: each row allows it, all of a row must hold; an empty row is no condition.
type Rows = Vec<Vec<Value>>;

/// Every allowed call with its conditions. Namespaces of its `own` make sockets of the internet's families, and System V's
/// memory, harmless; without them there are none.
fn allowed(profile: Profile, own: bool) -> BTreeMap<String, Rows> {
    let List { everywhere, x86_64, task } = list();
    let arch = if cfg!(target_arch = "x86_64") { x86_64 } else { Vec::new() };
    let more = if profile == Profile::Task { task } else { Vec::new() };
    let names = everywhere.into_iter().chain(arch).chain(more);
    let mut calls: BTreeMap<String, Rows> = names.map(|name| (name, vec![vec![]])).collect();
    let equal = |index: u8, value: u64| json!({ "index": index, "type": "dword", "op": "eq", "val": value });
    let families = std::iter::once(UNIX).chain(INTERNET.into_iter().filter(|_| own));
    calls.insert("socket".to_owned(), families.map(|family| vec![equal(0, family)]).collect());
    calls.insert("socketpair".to_owned(), vec![vec![equal(0, UNIX)]]);
    let levels = OPTION_LEVELS.into_iter().map(|level| vec![equal(1, level)]);
    let options = SOCKET_OPTIONS.into_iter().map(|option| vec![equal(1, SOCKET_LEVEL), equal(2, option)]);
    calls.insert("setsockopt".to_owned(), levels.chain(options).collect());
    let other = |value: u64| json!({ "index": 1, "type": "dword", "op": "ne", "val": value });
    calls.insert("ioctl".to_owned(), vec![TERMINAL_INPUT.into_iter().map(other).collect()]);
    // Of itself: the limits of a neighbour, or of the room's first process, are not its to set.
    calls.insert("prlimit64".to_owned(), vec![vec![equal(0, 0)]]);
    if !own {
        // Where IPC is the machine's, what they make outlives the room.
        calls.retain(|name, _| !SYSTEM_V.contains(&name.as_str()));
    }
    if profile == Profile::Command {
        calls.retain(|name, _| !NOBODYS_MEMORY.contains(&name.as_str()));
        let plain = json!({ "index": 0, "type": "qword", "op": { "masked_eq": NEW_NAMESPACES }, "val": 0 });
        calls.insert("clone".to_owned(), vec![vec![plain]]);
    }
    calls
}

/// The filter as the kernel runs it. The error says which word of the list is wrong.
pub(crate) fn program(profile: Profile, own: bool) -> Result<BpfProgram, String> {
    let (plain, conditional): (BTreeMap<_, _>, BTreeMap<_, _>) =
        allowed(profile, own).into_iter().partition(|(_, rows)| rows.iter().all(Vec::is_empty));
    let numbers = ranges::numbers(&compile(plain)?);
    ranges::extend(compile(conditional)?, &numbers, libc::SECCOMP_RET_ALLOW)
}

/// One comparison after the other, as the crate compiles them.
fn compile(calls: BTreeMap<String, Rows>) -> Result<BpfProgram, String> {
    let rules: Vec<Value> = calls
        .into_iter()
        .flat_map(|(name, rows)| {
            rows.into_iter().map(move |args| match args.is_empty() {
                true => json!({ "syscall": name }),
                false => json!({ "syscall": name, "args": args }),
            })
        })
        .collect();
    let filter = json!({ "room": {
        "mismatch_action": { "errno": libc::ENOSYS }, "match_action": "allow", "filter": rules,
    } });
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let mut compiled =
        seccompiler::compile_from_json(filter.to_string().as_bytes(), arch).map_err(|error| error.to_string())?;
    compiled.remove("room").ok_or_else(|| "the filter compiled to nothing".to_owned())
}

/// The same list as an OCI bundle carries it. Runtimes compare whole registers where the kernel reads half of one, so every
/// condition is one of masked equality over the half.
pub(crate) fn oci(profile: Profile) -> Value {
    let mut calls = Vec::new();
    let mut plain = Vec::new();
    for (name, rows) in allowed(profile, true) {
        let part = |args: Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args });
        if name == "ioctl" {
            calls.extend(no_terminal_input().into_iter().map(|(mask, value)| part(json!([masked(1, mask, value)]))));
        } else if rows.iter().all(Vec::is_empty) {
            plain.push(name);
        } else {
            for row in rows {
                let args: Vec<Value> = row.iter().map(condition).collect();
                calls.push(part(json!(args)));
            }
        }
    }
    calls.push(json!({ "names": plain, "action": "SCMP_ACT_ALLOW" }));
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::ENOSYS, "syscalls": calls })
}

fn condition(of: &Value) -> Value {
    let mask = of["op"]["masked_eq"].as_u64().unwrap_or(u64::from(u32::MAX));
    masked(of["index"].as_u64().unwrap_or(0), mask, of["val"].as_u64().unwrap_or(0))
}

fn masked(index: u64, mask: u64, value: u64) -> Value {
    json!({ "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
}

/// "Is neither of them", as alternatives of masked equality, by mask and value: the last four bits are another number, or
/// some other bit is not as in both.
fn no_terminal_input() -> Vec<(u64, u64)> {
    let [one, other] = TERMINAL_INPUT;
    let last = (0..16).filter(|last| *last != one & 0xf && *last != other & 0xf).map(|last| (0xf, last));
    (4..32).map(|bit| (1 << bit, !one & (1 << bit))).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_profiles_compile_and_a_task_may_do_more_than_a_command() {
        let task = program(Profile::Task, true).expect("the list is sound");
        let command = program(Profile::Command, true).expect("the list is sound");
        assert!(task.len() < 400 && command.len() < 400, "{} and {}", task.len(), command.len());
        let more: Vec<String> = {
            let (task, command) = (allowed(Profile::Task, true), allowed(Profile::Command, true));
            task.into_keys().filter(|name| !command.contains_key(name)).collect()
        };
        assert!(more.contains(&"mount".to_owned()) && more.contains(&"unshare".to_owned()), "{more:?}");
    }

    #[test]
    fn the_search_says_what_one_comparison_after_the_other_says() {
        for (profile, own) in [(Profile::Task, true), (Profile::Command, true), (Profile::Command, false)] {
            let searched = program(profile, own).expect("the list is sound");
            let compared = compile(allowed(profile, own)).expect("the list is sound");
            let arch = compared[1].k;
            for number in (0..600).chain([0x4000_0000, 0x4000_0027, u32::MAX]) {
                for first in [0, 1, 2, 10, 16, 17, 0x1000_0000, 0x2_0000, 1 << 40] {
                    for second in [0, 1, 6, 0x5401, 0x5412, 0x541c, 0x5412 | 1 << 40] {
                        for third in [0, 7, 9] {
                            let says = |filter| ranges::tests::verdict(filter, arch, number, [first, second, third]);
                            assert_eq!(says(&searched), says(&compared), "{number} {first:#x} {second:#x} {third}");
                        }
                    }
                }
            }
            let other = |filter| ranges::tests::verdict(filter, 0, 0, [0; 3]);
            assert_eq!(other(&searched), libc::SECCOMP_RET_KILL_PROCESS);
        }
    }

    #[test]
    fn a_bundle_refuses_what_puts_words_into_a_terminal_and_nothing_else() {
        let allows = |request: u64| no_terminal_input().iter().any(|(mask, value)| request & mask == *value);
        for refused in TERMINAL_INPUT {
            assert!(!allows(refused) && !allows(refused | 1 << 40), "{refused:x}");
            assert!(!(0..32).any(|bit| !allows(refused ^ 1 << bit) && !TERMINAL_INPUT.contains(&(refused ^ 1 << bit))));
        }
        assert!(allows(0x5401) && allows(0x541b) && allows(0));
    }

    #[test]
    fn what_no_command_needs_is_in_no_list() {
        let all = allowed(Profile::Task, true);
        for name in ["io_uring_setup", "ptrace", "process_vm_readv", "keyctl", "add_key", "bpf", "perf_event_open"]
            .into_iter()
            .chain(["userfaultfd", "mknod", "mknodat", "setns", "kexec_load", "init_module", "clone3", "pidfd_getfd"])
        {
            assert!(!all.contains_key(name), "{name}");
        }
    }
}
