//! With processes: too many, too large, too long, or out of sight.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{Attack, call, last};

/// By name, as the table of cases calls them.
pub(super) const ATTACKS: &[(&str, Attack)] = &[
    ("descriptors", |_| {
        let open = (0..256).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0);
        open.map(|fd| fd.to_string()).collect::<Vec<_>>().join(" ")
    }),
    ("processes", |_| {
        let all = fs::read_dir("/proc").expect("proc").flatten();
        let count = all.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()).count();
        // The first one, this one, and a runtime on its way out.
        if count <= 4 { "its own".to_owned() } else { "others".to_owned() }
    }),
    ("lift-limits", |_| if opens_its_groups() { "reached" } else { "held" }.to_owned()),
    ("fork-bomb", |args| {
        let most: usize = args[0].parse().expect("a number");
        for _ in 0..most {
            match unsafe { libc::fork() } {
                0 => loop {
                    unsafe { libc::pause() };
                },
                -1 => return last(),
                _ => {}
            }
        }
        "done".to_owned()
    }),
    ("forks", |_| {
        // Without a limit of its own it would be the machine's.
        for made in 0..4_000 {
            match unsafe { libc::fork() } {
                0 => loop {
                    unsafe { libc::pause() };
                },
                -1 => return format!("{made} {}", last()),
                _ => {}
            }
        }
        // Whoever looks now and then is not to find it gone.
        loop {
            unsafe { libc::pause() };
        }
    }),
    ("memory", |args| {
        let most: usize = args[0].parse().expect("a number");
        let mut held = Vec::new();
        while held.len() < most {
            held.push(vec![1_u8; 1 << 20]);
        }
        std::hint::black_box(&held);
        "done".to_owned()
    }),
    ("memory-behind-a-thread", |args| {
        // The kernel lists children by the thread that forked them.
        let each: usize = args[0].parse().expect("a number");
        std::thread::spawn(move || take_and_wait(each)).join().expect("joined")
    }),
    ("shout", |_| {
        let line = [b'x'; 4096];
        loop {
            if io::stdout().write_all(&line).is_err() {
                return "cut".to_owned();
            }
        }
    }),
    ("shout-errors", |_| {
        let line = [b'x'; 4096];
        loop {
            if io::stderr().write_all(&line).is_err() {
                return "cut".to_owned();
            }
        }
    }),
    ("orphan", |args| {
        super::orphan(&args[0]);
        "done".to_owned()
    }),
    ("spin", |_| {
        loop {
            std::hint::spin_loop();
        }
    }),
    ("spin-in-many", |args| {
        let most: usize = args[0].parse().expect("a number");
        for _ in 0..most {
            if unsafe { libc::fork() } == 0 {
                loop {
                    std::hint::spin_loop();
                }
            }
        }
        // Each of them may be ended by itself; nobody has ended this one then.
        while unsafe { libc::wait(std::ptr::null_mut()) } > 0 {}
        "each by itself".to_owned()
    }),
    ("sleep", |_| {
        loop {
            unsafe { libc::pause() };
        }
    }),
    ("core-limit", |_| {
        let mut limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
        unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) };
        limit.rlim_max.to_string()
    }),
    ("environment", |_| {
        let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
        names.sort();
        names.join(" ")
    }),
    ("environments", |_| {
        let all = fs::read_dir("/proc").expect("proc").flatten();
        // This one was given none.
        let some = all.filter_map(|entry| fs::read(entry.path().join("environ")).ok()).any(|text| !text.is_empty());
        if some { "reached".to_owned() } else { "none".to_owned() }
    }),
    ("kill-first", |args| {
        let first: libc::pid_t = args[0].parse().expect("a process");
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGSTOP, libc::SIGKILL] {
            unsafe { libc::kill(first, signal) };
        }
        "still here".to_owned()
    }),
    ("exit-with", |args| {
        std::process::exit(args[0].parse().expect("a code"));
    }),
    ("python", |_| {
        super::python(
            "import threading, subprocess, sys\n\
             t = threading.Thread(target=lambda: None); t.start(); t.join()\n\
             sys.stdout.write(subprocess.run(['/usr/bin/env', 'echo', 'works'], capture_output=True, text=True).stdout)\n",
        )
    }),
    ("memory-of-many", |args| take_and_wait(args[0].parse().expect("a number"))),
    ("orphan-and-stay", |args| {
        super::orphan(&args[0]);
        println!("ready");
        loop {
            unsafe { libc::pause() };
        }
    }),
    ("crash", |_| {
        unsafe { libc::abort() };
    }),
    ("ignore-term", |_| {
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        println!("ready");
        loop {
            unsafe { libc::pause() };
        }
    }),
    ("raise", |args| {
        let signal: i32 = args[0].parse().expect("a signal");
        unsafe { libc::raise(signal) };
        "still here".to_owned()
    }),
    ("signal", |args| {
        let process: i32 = args[0].parse().expect("a process");
        call(unsafe { libc::kill(process, 0) }.into())
    }),
    ("ignored-signals", |_| {
        let status = fs::read_to_string("/proc/self/status").expect("status");
        // Rust's own runtime ignores SIGPIPE, the 13th.
        let pipe = format!("{:016x}", 1_u64 << 12);
        let Some(set) = status.lines().find_map(|line| line.strip_prefix("SigIgn:")) else {
            return "not told".to_owned();
        };
        let set = set.trim();
        if set == pipe { "none".to_owned() } else { set.to_owned() }
    }),
    ("numpy", |_| super::python("import numpy; print('works' if numpy.ones((64, 64)).sum() == 4096 else 'wrong')")),
];

/// Children of which each takes less than the limit, all together more. The kernel ends the first of them, or somebody ends
/// all.
fn take_and_wait(megabytes: usize) -> String {
    for _ in 0..8 {
        if unsafe { libc::fork() } == 0 {
            let held = vec![1_u8; megabytes << 20];
            std::hint::black_box(&held);
            loop {
                unsafe { libc::pause() };
            }
        }
    }
    unsafe { libc::wait(std::ptr::null_mut()) };
    "one is gone".to_owned()
}

/// Whether a process may write what limits the groups that it is in, or enter others, as far as it sees them.
fn opens_its_groups() -> bool {
    let opens = |path: PathBuf| fs::OpenOptions::new().write(true).open(path).is_ok();
    fs::read_to_string("/proc/self/cgroup").expect("groups").lines().any(|line| {
        // Version 1 has a hierarchy for each controller, version 2 one for all.
        let (_, rest) = line.split_once(':').expect("a hierarchy");
        let (controllers, group) = rest.split_once(':').expect("a group");
        let group = Path::new("/sys/fs/cgroup").join(controllers).join(group.trim_start_matches('/'));
        let doors = ["memory.limit_in_bytes", "memory.max", "pids.max", "../carrel.programs/cgroup.procs", "../tasks"];
        doors.iter().any(|door| opens(group.join(door)))
    })
}
