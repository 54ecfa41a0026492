//! On the kernel: privileges, limits, and calls that nobody in a room may make.

use std::fs;

use super::{Attack, call, name};

/// By name, as the table of cases calls them.
pub(super) const ATTACKS: &[(&str, Attack)] = &[
    ("set-clock", |_| {
        let time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        call(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }.into())
    }),
    ("set-uid", |_| {
        let own = unsafe { libc::geteuid() };
        let others = [0, 1, 1000, 65_534].into_iter().filter(|user| *user != own);
        let taken = others.map(|user| unsafe { (libc::setuid(user), libc::seteuid(user), libc::setgid(user)) });
        let refused = taken.into_iter().all(|results| results == (-1, -1, -1));
        if refused && unsafe { libc::geteuid() } == own { "refused".to_owned() } else { "done".to_owned() }
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
            "add_key" => libc::SYS_add_key,
            "request_key" => libc::SYS_request_key,
            "keyctl" => libc::SYS_keyctl,
            "bpf" => libc::SYS_bpf,
            "perf_event_open" => libc::SYS_perf_event_open,
            "userfaultfd" => libc::SYS_userfaultfd,
            "io_uring_setup" => libc::SYS_io_uring_setup,
            "personality" => libc::SYS_personality,
            "settimeofday" => libc::SYS_settimeofday,
            "adjtimex" => libc::SYS_adjtimex,
            "chroot" => libc::SYS_chroot,
            "name_to_handle_at" => libc::SYS_name_to_handle_at,
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
    ("type-into-terminal", |_| {
        let letter = b'x';
        call(unsafe { libc::ioctl(0, libc::TIOCSTI, &raw const letter) }.into())
    }),
    ("x32", |_| call(unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) })),
    ("limit-of-another", |args| {
        let less = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
        let first: libc::pid_t = args[0].parse().expect("a process");
        let set = libc::SYS_prlimit64;
        call(unsafe { libc::syscall(set, first, libc::RLIMIT_NOFILE, &raw const less, std::ptr::null_mut::<u8>()) })
    }),
    ("type-with-high-bits", |_| {
        // The kernel reads half of the register; a filter that compares all of it is passed by.
        let letter = b'x';
        let request = (1_u64 << 40) | libc::TIOCSTI;
        call(unsafe { libc::syscall(libc::SYS_ioctl, 0, request, &raw const letter) })
    }),
    ("shared-memory", |_| call(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600) }.into())),
    ("memory-file", |_| call(unsafe { libc::memfd_create(c"x".as_ptr(), 0) }.into())),
    ("namespaces-left", |_| match fs::read_to_string("/proc/sys/user/max_user_namespaces") {
        Ok(left) if left.trim().len() < 4 => left.trim().to_owned(),
        Ok(_) => "the machine's".to_owned(),
        Err(_) => "not told".to_owned(),
    }),
    ("watchers", |_| {
        let made = (0..32).take_while(|_| unsafe { libc::inotify_init1(0) } >= 0).count();
        if made < 32 { made.to_string() } else { "more".to_owned() }
    }),
    ("host-name", |_| match fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) if name.trim() == "room" => "room".to_owned(),
        Ok(_) => "the machine's".to_owned(),
        Err(error) => name(&error),
    }),
    ("groups", |_| {
        let count = unsafe { libc::getgroups(0, std::ptr::null_mut()) };
        if count == 0 { "none".to_owned() } else { "some".to_owned() }
    }),
];
