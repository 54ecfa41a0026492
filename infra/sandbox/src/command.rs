//! What to run and how much it may use. Plain data; refuses defaults for anything that a caller must decide.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// A command with everything that it inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program, as an absolute path or found over this process's `PATH`.
    pub program: OsString,
    /// Its arguments, without the program.
    pub args: Vec<OsString>,
    /// Its whole environment; a mark named `CARREL_ROOM` is added.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
}

/// How much a command may use before it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time by the monotonic clock.
    pub wall: Duration,
    /// Processor seconds of any one process.
    pub cpu_seconds: u64,
    /// Address space of any one process, bytes.
    pub memory_bytes: u64,
    /// Size of any one file it writes, bytes.
    pub file_bytes: u64,
    /// Open descriptors of any one process.
    pub open_files: u64,
    /// Bytes it may write to stdout and stderr, each.
    pub output_bytes: u64,
    /// A longer line of stdout is dropped whole.
    pub line_bytes: usize,
    /// How much of the end of stderr is kept.
    pub stderr_tail_bytes: usize,
}
