//! What the processes of a room use, counted from outside: the supervisor's own eyes where no cgroup counts.
//!
//! Every process of a room descends from its first one. What lies in sockets is in nobody's pages, so each socket counts
//! for all that it can hold. A sample can miss what lives shorter than the pause between two of them, pages that many
//! share and none holds at the moment, and sockets in a network in which no process is; so it bounds, and guarantees
//! nothing. What may not be read is an error, never a zero.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Pid;

use crate::strays::{children, is_gone};

/// Processes that one sample looks at; the room's own limit is lower.
const MOST: usize = 10_000;

/// One look at a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Resident memory of all processes, what they share counted for each, and what their sockets can hold.
    pub(crate) memory_bytes: u64,
    /// How many they are, the first one not counted.
    pub(crate) processes: u64,
    /// Processor time of all, and of those that they waited for.
    pub(crate) cpu: Duration,
}

/// Looks at everything that descends from `first`, which must be there. What went away in the middle counts nothing.
///
/// `open_files` is how many descriptors any one of them may have.
pub(crate) fn sample(first: Pid, open_files: u64) -> io::Result<Sample> {
    let mut sockets = Sockets::of(open_files)?;
    let page = rustix::param::page_size() as u64;
    let tick = rustix::param::clock_ticks_per_second().max(1);
    let (mut open, mut seen, mut sum) = (vec![first], 0, Sample::default());
    while let Some(process) = open.pop() {
        seen += 1;
        if seen > MOST {
            break;
        }
        let number = process.as_raw_nonzero();
        let text = match fs::read_to_string(format!("/proc/{number}/stat")) {
            Err(error) if process != first && is_gone(&error) => continue,
            text => text?,
        };
        let stat = Stat::read(&text).ok_or_else(|| io::Error::other(format!("/proc/{number}/stat reads {text:?}")))?;
        // Those that were waited for are in their parent's sum; the first process's own parent is not of the room.
        sum.cpu += Duration::from_millis(stat.ticks.saturating_mul(1000) / tick);
        if process != first {
            sum.processes += 1;
            sum.memory_bytes += stat.resident_pages.saturating_mul(page);
            match sockets.look(number.get()) {
                Err(error) if is_gone(&error) => {}
                looked => looked?,
            }
        }
        match children(process) {
            Ok(children) => open.extend(children),
            Err(error) if process != first && is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    sum.memory_bytes = sum.memory_bytes.saturating_add(sockets.count.saturating_mul(socket_bytes()));
    Ok(sum)
}

/// The most that one socket keeps the kernel's memory busy with: a last message passes while any of its buffer is free,
/// and may be as long as that. Whoever is in a room cannot set a larger buffer.
fn socket_bytes() -> u64 {
    /// What kernels have had since 2.6; a network of its own may not say.
    const USUAL: u64 = 212_992;
    static BUFFER: OnceLock<u64> = OnceLock::new();
    let read = || fs::read_to_string("/proc/sys/net/core/wmem_default").ok()?.trim().parse().ok();
    BUFFER.get_or_init(|| read().unwrap_or(USUAL)).saturating_mul(2)
}

/// The sockets of a room's processes.
struct Sockets {
    open_files: u64,
    /// The network of whoever looks; absent where the kernel does not tell one from another, as in gVisor.
    own: Option<u64>,
    networks: HashSet<u64>,
    seen: HashSet<u64>,
    count: u64,
}

impl Sockets {
    fn of(open_files: u64) -> io::Result<Self> {
        let own = match fs::metadata("/proc/self/net/sockstat") {
            Err(error) if is_gone(&error) => None,
            read => Some(read?.ino()),
        };
        Ok(Self { open_files, own, networks: HashSet::new(), seen: HashSet::new(), count: 0 })
    }

    /// A network of the room's is counted once, by its own number, in which sockets are that are on their way through
    /// others. In a network that is not the room's alone, those count to which a process has a descriptor.
    fn look(&mut self, process: i32) -> io::Result<()> {
        if let Some(own) = self.own {
            let file = format!("/proc/{process}/net/sockstat");
            // Each network has a file of its own, and nobody needs leave to see which.
            let network = fs::metadata(&file)?.ino();
            if network != own {
                if self.networks.insert(network) {
                    let text = fs::read_to_string(&file)?;
                    let used = used(&text).ok_or_else(|| io::Error::other(format!("{file} reads {text:?}")))?;
                    self.count = self.count.saturating_add(used);
                }
                return Ok(());
            }
        }
        let dir = format!("/proc/{process}/fd");
        match self.descriptors(Path::new(&dir)) {
            // Of a process that keeps them to itself the kernel tells the number, since 6.2; before, it may have all it may.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let some = Some(fs::metadata(&dir)?.size()).filter(|number| *number > 0);
                self.count = self.count.saturating_add(some.unwrap_or(self.open_files));
                Ok(())
            }
            read => read,
        }
    }

    fn descriptors(&mut self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let target = match fs::read_link(entry?.path()) {
                Err(error) if is_gone(&error) => continue,
                target => target?,
            };
            let socket =
                target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            self.count += u64::from(socket.is_some_and(|socket| self.seen.insert(socket)));
        }
        Ok(())
    }
}

/// Reads `/proc/PID/net/sockstat`, whose first line is `sockets: used 12`: of all families, wherever their descriptors are.
fn used(text: &str) -> Option<u64> {
    text.lines().next()?.strip_prefix("sockets: used ")?.trim().parse().ok()
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat`. Fields are counted after the program's name, which may hold anything but ends with the
    /// last `)`: utime, stime, cutime, cstime are the 12th to 15th, resident pages the 22nd.
    fn read(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<i64>().ok().map(|n| u64::try_from(n).unwrap_or(0));
        let ticks = [11, 12, 13, 14].into_iter().map(number).sum::<Option<u64>>()?;
        Some(Self { ticks, resident_pages: number(21)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_s_name_cannot_forge_its_figures() {
        let text = "7 (a) R 1 1 1 (x) S 1 7 7 0 -1 4194560 9 8 0 0 3 4 5 6 20 0 1 0 100 1000 55 1844 1 1";
        assert_eq!(Stat::read(text), Some(Stat { ticks: 18, resident_pages: 55 }));
    }

    #[test]
    fn a_room_that_cannot_be_seen_is_no_room_that_uses_nothing() {
        let own = sample(rustix::process::getpid(), 64).expect("this process is there");
        assert!(own.processes > 0, "{own:?}");
        let nobody = Pid::from_raw(i32::MAX).expect("a number");
        assert!(is_gone(&sample(nobody, 64).expect_err("nobody has it")));
    }

    #[test]
    fn a_socket_counts_once_however_often_it_is_seen() {
        let own = i32::try_from(std::process::id()).expect("a number");
        let count = |looks: usize| {
            let mut sockets = Sockets::of(64).expect("looked");
            (0..looks).for_each(|_| sockets.look(own).expect("looked"));
            sockets.count
        };
        let pairs: Vec<_> = (0..100).map(|_| std::os::unix::net::UnixStream::pair().expect("a pair")).collect();
        let seen = count(2);
        assert!((200..400).contains(&seen), "{seen}");
        drop(pairs);
    }

    #[test]
    fn the_sockets_of_a_network_are_read_as_the_kernel_writes_them() {
        assert_eq!(used("sockets: used 262\nTCP: inuse 3 orphan 0\n"), Some(262));
        assert_eq!(used("TCP: inuse 3\n"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let own = std::fs::read_to_string("/proc/self/stat").expect("read");
        assert!(Stat::read(&own).expect("parsed").resident_pages > 0);
    }
}
