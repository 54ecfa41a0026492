//! What a hostile command tries, one function each: run inside a room, it prints what came of it and nothing else.
//!
//! The word for success is the attacker's: `reached`, `done`. A refusal is the kernel's name for it.
#![expect(unsafe_code, reason = "an attacker makes the system calls that no library offers")]

use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::path::Path;

type Attack = fn(&[String]) -> String;

/// By name, as the table of cases calls them.
const ATTACKS: &[(&str, Attack)] = &[
    ("read", |args| word(fs::read(&args[0]).map(|_| "reached"))),
    ("read-by-link", |args| {
        let link = Path::new(&args[0]).join("link");
        word(std::os::unix::fs::symlink(&args[1], &link).and_then(|()| fs::read(link)).map(|_| "reached"))
    }),
    ("hardlink", |args| word(fs::hard_link(&args[0], &args[1]).map(|()| "done"))),
    ("write", |args| word(fs::OpenOptions::new().write(true).create(true).open(&args[0]).map(|_| "reached"))),
    ("list", |args| match fs::read_dir(&args[0]) {
        Ok(entries) => {
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names.join(" ")
        }
        Err(error) => name(&error),
    }),
    ("descriptors", |_| {
        let open = (0..256).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0);
        open.map(|fd| fd.to_string()).collect::<Vec<_>>().join(" ")
    }),
    ("processes", |_| {
        let all = fs::read_dir("/proc").expect("proc").flatten();
        let count = all.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()).count();
        if count <= 2 { "its own".to_owned() } else { "others".to_owned() }
    }),
    ("connect", |args| {
        let to: SocketAddr = args[0].parse().expect("an address");
        word(TcpStream::connect_timeout(&to, std::time::Duration::from_secs(2)).map(|_| "reached"))
    }),
    ("resolve", |_| {
        let host = CString::new("example.com").expect("a name");
        let mut found = std::ptr::null_mut();
        let code = unsafe { libc::getaddrinfo(host.as_ptr(), std::ptr::null(), std::ptr::null(), &raw mut found) };
        match code {
            0 => "reached".to_owned(),
            libc::EAI_AGAIN => "EAI_AGAIN".to_owned(),
            libc::EAI_NONAME => "EAI_NONAME".to_owned(),
            libc::EAI_SYSTEM => format!("EAI_SYSTEM {}", last()),
            code => code.to_string(),
        }
    }),
    ("datagram", |_| {
        let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", "8.8.8.8:53"));
        word(sent.map(|_| "sent"))
    }),
    ("abstract", |args| {
        let address = UnixAddr::from_abstract_name(&args[0]).expect("a name");
        word(UnixStream::connect_addr(&address).map(|_| "reached"))
    }),
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
    ("memory", |args| {
        let most: usize = args[0].parse().expect("a number");
        let mut held = Vec::new();
        while held.len() < most {
            held.push(vec![1_u8; 1 << 20]);
        }
        std::hint::black_box(&held);
        "done".to_owned()
    }),
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
    ("shout", |_| {
        let line = [b'x'; 4096];
        loop {
            if io::stdout().write_all(&line).is_err() {
                return "cut".to_owned();
            }
        }
    }),
    ("orphan", |args| {
        // Forks twice, ignores SIGTERM, leads a session of its own and carries a mark that the host can look for.
        if unsafe { libc::fork() } == 0 {
            unsafe {
                libc::setsid();
                libc::signal(libc::SIGTERM, libc::SIG_IGN);
            }
            if unsafe { libc::fork() } == 0 {
                exec("/usr/bin/tail", &["tail", "-f", "/dev/null", &format!("--pid={}", args[0])]);
            }
            unsafe { libc::_exit(0) };
        }
        "done".to_owned()
    }),
    ("spin", |_| {
        loop {
            std::hint::spin_loop();
        }
    }),
    ("sleep", |_| {
        loop {
            unsafe { libc::pause() };
        }
    }),
    ("set-clock", |_| {
        let time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        call(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }.into())
    }),
    ("set-uid", |_| {
        let before = unsafe { libc::geteuid() };
        let all = [unsafe { libc::setuid(0) }, unsafe { libc::seteuid(0) }, unsafe { libc::setgid(0) }];
        let same = unsafe { libc::geteuid() } == before && all.iter().all(|result| *result == -1);
        if same { last() } else { "done".to_owned() }
    }),
    ("su", |_| {
        let mut su = std::process::Command::new("/usr/bin/su");
        match su.args(["root", "-c", "true"]).stdin(std::process::Stdio::null()).output() {
            Ok(output) if output.status.success() => "done".to_owned(),
            Ok(_) => "refused".to_owned(),
            Err(error) => name(&error),
        }
    }),
    ("capabilities", |_| {
        let status = fs::read_to_string("/proc/self/status").expect("status");
        let sets = status.lines().filter(|line| line.starts_with("Cap"));
        let some = sets.filter(|line| !line.starts_with("CapBnd")).any(|line| !line.ends_with("0000000000000000"));
        if some { "some".to_owned() } else { "none".to_owned() }
    }),
    ("raise-limit", |_| {
        let more = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        call(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const more) }.into())
    }),
    ("nice", |_| call(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) }.into())),
    ("syscall", |args| {
        // Arguments that are wrong in themselves: a call that is allowed says so in other words than one that is not.
        let number = match args[0].as_str() {
            "ptrace" => libc::SYS_ptrace,
            "process_vm_readv" => libc::SYS_process_vm_readv,
            "pidfd_getfd" => libc::SYS_pidfd_getfd,
            "mount" => libc::SYS_mount,
            "umount2" => libc::SYS_umount2,
            "unshare" => libc::SYS_unshare,
            "setns" => libc::SYS_setns,
            "pivot_root" => libc::SYS_pivot_root,
            "keyctl" => libc::SYS_keyctl,
            "bpf" => libc::SYS_bpf,
            "perf_event_open" => libc::SYS_perf_event_open,
            "userfaultfd" => libc::SYS_userfaultfd,
            "io_uring_setup" => libc::SYS_io_uring_setup,
            "mknodat" => libc::SYS_mknodat,
            "clone3" => libc::SYS_clone3,
            "kexec_load" => libc::SYS_kexec_load,
            "open_by_handle_at" => libc::SYS_open_by_handle_at,
            other => return format!("no number for {other}"),
        };
        call(unsafe { libc::syscall(number, -1, -1, -1, -1, -1, -1) })
    }),
    ("new-user-namespace", |_| {
        let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
        match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
            0 => unsafe { libc::_exit(0) },
            result => call(result),
        }
    }),
    ("socket", |args| {
        let family: i32 = args[0].parse().expect("a family");
        call(unsafe { libc::socket(family, libc::SOCK_STREAM, 0) }.into())
    }),
    ("type-into-terminal", |_| {
        let letter = b'x';
        call(unsafe { libc::ioctl(0, libc::TIOCSTI, &raw const letter) }.into())
    }),
    ("core-limit", |_| {
        let mut limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
        unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) };
        limit.rlim_max.to_string()
    }),
    ("run-from", |args| {
        let to = Path::new(&args[0]).join("program");
        word(fs::copy("/usr/bin/true", &to).and_then(|_| std::process::Command::new(&to).status()).map(|_| "ran"))
    }),
    ("environment", |_| {
        let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
        names.sort();
        names.join(" ")
    }),
    ("kill-first", |_| {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGKILL, libc::SIGSTOP] {
            unsafe { libc::kill(1, signal) };
        }
        "still here".to_owned()
    }),
    ("exit-with", |args| {
        std::process::exit(args[0].parse().expect("a code"));
    }),
    ("python", |_| {
        let script = "import threading, subprocess, sys\n\
            t = threading.Thread(target=lambda: None); t.start(); t.join()\n\
            sys.stdout.write(subprocess.run(['/usr/bin/env', 'echo', 'works'], capture_output=True, text=True).stdout)\n";
        match std::process::Command::new("/usr/bin/python3").args(["-c", script]).output() {
            Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().replace('\n', " "),
            Err(error) => name(&error),
        }
    }),
    ("say", |args| {
        let mut stream = TcpStream::connect(&args[0]).expect("somebody listens");
        stream.write_all(b"hello").expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("said");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).expect("heard");
        heard
    }),
    ("put", |args| word(fs::write(&args[0], &args[1]).map(|()| "done"))),
];

/// Tries one thing and prints what came of it.
pub(crate) fn main(args: &[String]) {
    let (which, args) = args.split_first().expect("an attack");
    let (_, attack) = ATTACKS.iter().find(|(name, _)| name == which).unwrap_or_else(|| panic!("no attack {which}"));
    println!("{}", attack(args));
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
        (libc::EFAULT, "EFAULT"),
        (libc::EINVAL, "EINVAL"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
    ];
    let found = known.iter().find(|(number, _)| error.raw_os_error() == Some(*number));
    found.map_or_else(|| format!("{error}"), |(_, name)| (*name).to_owned())
}
