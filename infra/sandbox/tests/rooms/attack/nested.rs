//! From a room that may build rooms, or may not.

use std::time::Duration;

use carrel_sandbox::{Command, Entry, Hearing, Limits, Network, Profile, Room, StartError, Tier, run};

use super::Attack;

/// By name, as the table of cases calls them.
pub(super) const ATTACKS: &[(&str, Attack)] = &[
    ("open-a-room", |_| open(&["descriptors"])),
    ("open-a-room-of-many", |args| {
        let shown = (0..args[0].parse().expect("a number")).map(|number: u32| Entry::Show {
            from: "/input/f001.csv".into(),
            at: format!("/many/f{number:04}.csv").into(),
        });
        open_with(&["list", "/many"], shown.collect()).split(' ').count().to_string()
    }),
    ("out-of-an-inner-room", |_| {
        std::fs::write("/scratch/secret", "of the outer room").expect("written");
        let tried = [["read", "/scratch/secret"], ["read", "/input/f001.csv"], ["environments", ""], ["processes", ""]];
        tried.map(|attack| open(&attack)).join(" ")
    }),
    ("open-a-room-without-user-namespaces", |_| without_namespaces(|| open(&["descriptors"]))),
    ("many-namespaces", |_| many_namespaces()),
    ("mount-its-group", |args| mount_group(&args[0]).unwrap_or_else(|error| super::name(&error))),
    ("probe", |args| probe(args.first().map_or(Tier::Namespaces, |tier| tier.parse().expect("a tier")))),
    ("probe-without-user-namespaces", |_| without_namespaces(|| probe(Tier::Namespaces))),
];

/// In a user namespace of its own a program may lower what it and its children have left.
fn without_namespaces(then: impl FnOnce() -> String) -> String {
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        return super::last();
    }
    match std::fs::write("/proc/sys/user/max_user_namespaces", "0") {
        Ok(()) => then(),
        Err(error) => super::name(&error),
    }
}

/// In namespaces of its own, as far as it is given any: what it is told of one of groups, and of a mount of its group.
fn mount_group(at: &str) -> std::io::Result<String> {
    let check = |result| if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    let user = unsafe { libc::getuid() };
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) })?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    let own = check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) });
    let (path, kind) = (std::ffi::CString::new(at)?, c"cgroup2".as_ptr());
    let mounted = check(unsafe { libc::mount(kind, path.as_ptr(), kind, 0, std::ptr::null()) });
    Ok([own, mounted].map(|came| super::word(came.map(|()| "done"))).join(" "))
}

/// How many user namespaces a task may hold at once, and what it is told then; whether it may have more by saying so.
fn many_namespaces() -> String {
    let raised = match std::fs::write("/proc/sys/user/max_user_namespaces", "1000") {
        Ok(()) => "raised".to_owned(),
        Err(error) => super::name(&error),
    };
    let (mut held, mut told) = (0, [0_u8]);
    let mut ends = [0; 2];
    unsafe { libc::pipe(ends.as_mut_ptr()) };
    loop {
        if unsafe { libc::fork() } == 0 {
            let result = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
            let errno = if result == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(1) };
            unsafe { libc::write(ends[1], [errno as u8].as_ptr().cast(), 1) };
            loop {
                unsafe { libc::pause() };
            }
        }
        unsafe { libc::read(ends[0], told.as_mut_ptr().cast(), 1) };
        if told != [0] || held > 100 {
            let refused = super::name(&std::io::Error::from_raw_os_error(told[0].into()));
            return format!("{held} {refused} {raised}");
        }
        held += 1;
    }
}

/// What a tier lacks here.
fn probe(tier: Tier) -> String {
    carrel_sandbox::enter().expect("the launcher starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let found = runtime.block_on(carrel_sandbox::probe(tier));
    found.map_or_else(|missing| missing.to_string(), |()| "stands".to_owned())
}

/// Opens a room in this one, and says what the attack in it said, or why there is none.
fn open(attack: &[&str]) -> String {
    open_with(attack, Vec::new())
}

fn open_with(attack: &[&str], shown: Vec<Entry>) -> String {
    carrel_sandbox::enter().expect("the launcher starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut view = Entry::system();
    view.push(Entry::Show { from: "/attacker".into(), at: "/attacker".into() });
    view.extend(shown);
    let word = |word: &&str| (*word).to_owned();
    let room = Room {
        command: Command {
            program: "/attacker".into(),
            args: std::iter::once(&"attack").chain(attack).map(word).collect(),
            env: vec![],
            cwd: "/".into(),
        },
        view,
        network: Network::None,
        profile: Profile::Command,
        limits: Limits {
            wall: Duration::from_secs(10),
            cpu_seconds: 10,
            memory_bytes: 1 << 30,
            processes: 8,
            file_bytes: 1 << 20,
            open_files: 64,
        },
    };
    let hearing = Hearing { output_bytes: 1 << 20, line_bytes: 1 << 17, stderr_tail_bytes: 1 << 12 };
    let mut said = String::new();
    let hear = |line: &[u8]| said.push_str(&String::from_utf8_lossy(line));
    match runtime.block_on(run(Tier::Namespaces, &room, hearing, drop, hear)) {
        Ok(_) => said,
        Err(error @ StartError::Build { .. }) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error}: {cause}")
        }
        Err(error) => format!("{error:?}"),
    }
}
