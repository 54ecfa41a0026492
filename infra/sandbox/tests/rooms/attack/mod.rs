//! What a hostile command tries, one function each: run inside a room, it prints what came of it and nothing else.
//!
//! The word for success is the attacker's: `reached`, `done`. A refusal is the kernel's name for it.
#![expect(unsafe_code, reason = "an attacker makes the system calls that no library offers")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "soundness is not what an attacker cares for")]

use std::ffi::CString;
use std::io;

mod files;
mod kernel;
mod nested;
mod network;
mod processes;

type Attack = fn(&[String]) -> String;

/// Tries one thing and prints what came of it.
pub(crate) fn main(args: &[String]) {
    let (which, args) = args.split_first().expect("an attack");
    let all = [files::ATTACKS, kernel::ATTACKS, nested::ATTACKS, network::ATTACKS, processes::ATTACKS].concat();
    let (_, attack) = all.iter().find(|(name, _)| name == which).unwrap_or_else(|| panic!("no attack {which}"));
    let args: Vec<String> = args
        .iter()
        // The room's first process is the command's parent, where it has no number of its own.
        .map(|word| if word == "{parent}" { unsafe { libc::getppid() }.to_string() } else { word.clone() })
        .collect();
    println!("{}", attack(&args));
}

/// Whether this kernel's Landlock is of version 6 or later.
pub(crate) fn domains_are_scoped() -> bool {
    // SAFETY: with the flag 1 the kernel reads no memory and answers its version.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1) >= 6 }
}

/// Forks twice, ignores SIGTERM, leads a session of its own and carries a mark that the host can look for.
fn orphan(mark: &str) {
    if unsafe { libc::fork() } == 0 {
        unsafe {
            libc::setsid();
            libc::signal(libc::SIGTERM, libc::SIG_IGN);
        }
        if unsafe { libc::fork() } == 0 {
            exec("/usr/bin/sleep", &["sleep", mark]);
        }
        unsafe { libc::_exit(0) };
    }
}

fn python(script: &str) -> String {
    match std::process::Command::new("/usr/bin/python3").args(["-c", script]).output() {
        Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().replace('\n', " "),
        Err(error) => name(&error),
    }
}

fn names(dir: &str) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(dir)?.flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn exec(program: &str, args: &[&str]) {
    let text = |word: &str| CString::new(word).expect("a word");
    let args: Vec<CString> = args.iter().map(|arg| text(arg)).collect();
    let mut pointers: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    pointers.push(std::ptr::null());
    unsafe { libc::execv(text(program).as_ptr(), pointers.as_ptr()) };
}

fn word(result: io::Result<&str>) -> String {
    result.map_or_else(|error| name(&error), str::to_owned)
}

fn call(result: i64) -> String {
    if result >= 0 { "done".to_owned() } else { last() }
}

fn last() -> String {
    name(&io::Error::last_os_error())
}

fn name(error: &io::Error) -> String {
    let known = [
        (libc::ENOENT, "ENOENT"),
        (libc::EACCES, "EACCES"),
        (libc::EPERM, "EPERM"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::EXDEV, "EXDEV"),
        (libc::EROFS, "EROFS"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EFBIG, "EFBIG"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::ELOOP, "ELOOP"),
        (libc::EBADF, "EBADF"),
        (libc::EMFILE, "EMFILE"),
        (libc::EFAULT, "EFAULT"),
        (libc::EINVAL, "EINVAL"),
        (libc::EHOSTUNREACH, "EHOSTUNREACH"),
        (libc::ESRCH, "ESRCH"),
        (libc::ENXIO, "ENXIO"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
    ];
    let found = known.iter().find(|(number, _)| error.raw_os_error() == Some(*number));
    found.map_or_else(|| format!("{error}"), |(_, name)| (*name).to_owned())
}
