//! On files: others' by every path, and more of one's own than is granted.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use super::{Attack, call, name, word};

/// By name, as the table of cases calls them.
pub(super) const ATTACKS: &[(&str, Attack)] = &[
    ("read", |args| word(fs::read(&args[0]).map(|_| "reached"))),
    ("read-by-link", |args| {
        let link = Path::new(&args[0]).join("link");
        word(std::os::unix::fs::symlink(&args[1], &link).and_then(|()| fs::read(link)).map(|_| "reached"))
    }),
    ("hardlink", |args| word(fs::hard_link(&args[0], &args[1]).map(|()| "done"))),
    ("write", |args| {
        word(fs::OpenOptions::new().write(true).create(true).truncate(false).open(&args[0]).map(|_| "reached"))
    }),
    ("list", |args| super::names(&args[0]).map_or_else(|error| name(&error), |names| names.join(" "))),
    ("fill", |args| {
        let most: usize = args[1].parse().expect("a number");
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let block = vec![0; 64 << 10];
        let filled = || -> io::Result<()> {
            for number in 0..most {
                let mut file = fs::File::create(Path::new(&args[0]).join(format!("f{number}")))?;
                (0..16).try_for_each(|_| file.write_all(&block))?;
            }
            Ok(())
        };
        word(filled().map(|()| "done"))
    }),
    ("many-files", |args| {
        let most: usize = args[1].parse().expect("a number");
        let made = (0..most).try_for_each(|at| fs::File::create(Path::new(&args[0]).join(at.to_string())).map(drop));
        word(made.map(|()| "done"))
    }),
    ("sparse", |args| {
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        word(
            fs::File::create(Path::new(&args[0]).join("sparse"))
                .and_then(|file| file.set_len(1 << 40))
                .map(|()| "done"),
        )
    }),
    ("large-file", |args| {
        // Unlike the one above it does not ignore the signal that comes before the error.
        word(
            fs::File::create(Path::new(&args[0]).join("large")).and_then(|file| file.set_len(1 << 40)).map(|()| "done"),
        )
    }),
    ("open-files", |_| {
        let mut open = Vec::new();
        loop {
            match fs::File::open("/dev/null") {
                Ok(file) => open.push(file),
                Err(error) => return format!("{} {}", open.len(), name(&error)),
            }
        }
    }),
    ("run-from", |args| {
        let to = Path::new(&args[0]).join("program");
        word(fs::copy("/usr/bin/true", &to).and_then(|_| std::process::Command::new(&to).status()).map(|_| "ran"))
    }),
    ("put", |args| word(fs::write(&args[0], &args[1]).map(|()| "done"))),
    ("devices", |_| {
        let known = "fd full null random stderr stdin stdout urandom zero";
        // What a runtime adds is no device of the machine: terminals of the container's own, and its queues.
        let added = ["console", "core", "fuse", "kmsg", "mqueue", "net", "ptmx", "pts", "shm", "tty"];
        let names = super::names("/dev").unwrap_or_default();
        let others: Vec<_> = names.iter().filter(|name| !known.split(' ').any(|word| word == *name)).collect();
        match others.iter().all(|name| added.contains(&name.as_str())) {
            true if others.is_empty() => "its own".to_owned(),
            true => "its own and the runtime's".to_owned(),
            false => "the machine's".to_owned(),
        }
    }),
    ("look", |args| word(super::names(&args[0]).map(|_| "reached"))),
    ("fifo", |args| {
        let path = CString::new(format!("{}/fifo", args[0])).expect("a path");
        call(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }.into())
    }),
    ("block-device", |args| {
        let path = CString::new(format!("{}/disk", args[0])).expect("a path");
        call(unsafe { libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(254, 0)) }.into())
    }),
    ("into-first", |args| {
        let first: u32 = args[0].parse().expect("a process");
        if first == std::process::id() {
            return "is it".to_owned();
        }
        let path = format!("/proc/{first}/{}", args[1]);
        word(
            if args[1] == "environ" { fs::read(path).map(drop) } else { super::names(&path).map(drop) }
                .map(|()| "reached"),
        )
    }),
];
