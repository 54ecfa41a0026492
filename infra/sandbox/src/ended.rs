//! How a command ended: exit, the limit that ended it, what it used.
//!
//! Without a cgroup the kernel does not say that a memory limit was met: allocation fails and the program does as it
//! likes. So [`LimitHit::Memory`] may be inferred, from a kill that was not ours or from a failure with the words of a
//! failed allocation. It is a label for people, never a ground for trust.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The end of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How the process went.
    pub exit: Exit,
    /// The limit that ended it, if one did.
    pub limit: Option<LimitHit>,
    /// What everything in its room used.
    pub used: Used,
    /// A cgroup held the memory limit. Otherwise it was held by looking often, which guarantees nothing.
    pub memory_guarantee: bool,
    /// The last bytes of its stderr.
    pub stderr_tail: Vec<u8>,
}

/// How a process went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Which limit ended a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitHit {
    /// The deadline.
    Wall,
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Processes at once.
    Processes,
    /// The size of a file.
    FileSize,
    /// Bytes on stdout or stderr.
    Output,
}

/// What a command used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Time by the monotonic clock.
    pub wall: Duration,
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Peak memory, bytes: of the whole room where a cgroup counted it; elsewhere the most that was seen at once, with
    /// what its sockets can hold, or that its largest process had resident.
    pub peak_bytes: u64,
}

/// Words of a failed allocation: Rust, C++, Python, C, GNU's tools.
const OUT_OF_MEMORY: [&[u8]; 5] =
    [b"memory allocation of", b"std::bad_alloc", b"MemoryError", b"Cannot allocate memory", b"memory exhausted"];

/// The limit behind an exit that the supervisor did not cause; `cpu_spent` says that its processor time is used up.
pub(crate) fn infer(exit: Exit, cpu_spent: bool, stderr_tail: &[u8]) -> Option<LimitHit> {
    let said_so = || OUT_OF_MEMORY.iter().any(|words| stderr_tail.windows(words.len()).any(|at| at == *words));
    match exit {
        Exit::Code(0) => None,
        Exit::Signal(libc::SIGXCPU) => Some(LimitHit::Cpu),
        Exit::Signal(libc::SIGXFSZ) => Some(LimitHit::FileSize),
        // A command that takes no notice of SIGXCPU gets this a second later.
        Exit::Signal(libc::SIGKILL) if cpu_spent => Some(LimitHit::Cpu),
        // The kernel's out-of-memory killer sends it; so may the command itself, to its own cost.
        Exit::Signal(libc::SIGKILL) => Some(LimitHit::Memory),
        Exit::Code(_) | Exit::Signal(_) => said_so().then_some(LimitHit::Memory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_names_the_limit_behind_it_as_far_as_it_can() {
        let cases: &[(Exit, bool, &str, Option<LimitHit>)] = &[
            // Whatever it printed, and whatever it used.
            (Exit::Code(0), true, "MemoryError", None),
            (Exit::Code(1), false, "", None),
            (Exit::Code(1), true, "", None),
            (Exit::Code(1), false, "Traceback: MemoryError", Some(LimitHit::Memory)),
            (Exit::Code(101), false, "memory allocation of 8 bytes failed", Some(LimitHit::Memory)),
            (Exit::Code(2), false, "memory exhausted", Some(LimitHit::Memory)),
            (Exit::Signal(libc::SIGABRT), false, "what(): std::bad_alloc", Some(LimitHit::Memory)),
            (Exit::Signal(libc::SIGABRT), false, "fork: Cannot allocate memory", Some(LimitHit::Memory)),
            (Exit::Signal(libc::SIGABRT), false, "", None),
            (Exit::Signal(libc::SIGSEGV), true, "", None),
            (Exit::Signal(libc::SIGXCPU), false, "MemoryError", Some(LimitHit::Cpu)),
            (Exit::Signal(libc::SIGXFSZ), false, "", Some(LimitHit::FileSize)),
            (Exit::Signal(libc::SIGKILL), true, "", Some(LimitHit::Cpu)),
            (Exit::Signal(libc::SIGKILL), false, "", Some(LimitHit::Memory)),
        ];
        for (exit, cpu_spent, stderr, limit) in cases {
            assert_eq!(infer(*exit, *cpu_spent, stderr.as_bytes()), *limit, "{exit:?} {cpu_spent} {stderr}");
        }
    }
}
