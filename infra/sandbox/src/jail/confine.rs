//! The last steps before a stranger's program: who it is, what it may use, which system calls it may make.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::process::{
    Gid, Pid, Resource, Rlimit, Signal, Uid, chdir, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
    setsid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::Plan;
use crate::room::{Command, Limits, Profile};
use crate::tier::Tier;
use crate::{launcher, sys};

/// Who a process becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Become {
    /// It is that user already.
    Stay,
    /// User and group of this number, from root.
    User(u32),
}

/// Sees to it that no program that is started gains a privilege.
pub(super) fn bound(user: Become) -> io::Result<()> {
    clear_ambient_capability_set()?;
    for bit in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(bit) {
            // A capability that this kernel does not know, or a process that never had the right to drop any.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(rustix::io::Errno::PERM) if user == Become::Stay => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Gives up every privilege for good.
pub(super) fn renounce(user: Become) -> io::Result<()> {
    if let Become::User(number) = user {
        let (uid, gid) = (Uid::from_raw(number), Gid::from_raw(number));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(set_no_new_privs(true)?)
}

/// Sets the limits that the kernel holds for each process, or for a user of a namespace.
fn limit(limits: &Limits, tier: Tier, memory_guarantee: bool) -> io::Result<()> {
    let set = |resource, soft: u64, hard: u64| {
        // One that is lower already stays: only the machine's owner may raise it.
        let present = getrlimit(resource).maximum.unwrap_or(Limits::UNLIMITED);
        let some = |amount: u64| Some(amount.min(present)).filter(|amount| *amount != Limits::UNLIMITED);
        Ok::<_, io::Error>(setrlimit(resource, Rlimit { current: some(soft), maximum: some(hard) })?)
    };
    let both = |resource, amount| set(resource, amount, amount);
    // Where a cgroup counts memory, an address space may be as large as it likes. A runtime sets its own.
    if !memory_guarantee && !matches!(tier, Tier::Oci(_)) {
        both(Resource::As, limits.memory_bytes)?;
    }
    // At the hard limit comes SIGKILL, which could be anybody's; a second before it SIGXCPU, which names the cause.
    set(Resource::Cpu, limits.cpu_seconds, limits.cpu_seconds.saturating_add(1))?;
    both(Resource::Fsize, limits.file_bytes)?;
    both(Resource::Nofile, limits.open_files)?;
    // Elsewhere this counts every process of the user on the machine.
    if tier == Tier::Namespaces {
        both(Resource::Nproc, limits.processes)?;
    }
    // What a user of the machine may do beyond others is not for those in a room.
    both(Resource::Rtprio, 0)?;
    both(Resource::Nice, 0)?;
    // A core dump would write the customer's bytes to a place nobody looks after.
    both(Resource::Core, 0)
}

/// Becomes the command of the room that `first` guards; returns only to say why it could not.
pub(super) fn start(plan: &Plan<'_>, user: Become, first: Pid) -> io::Error {
    let Plan { tier, room, filter, memory_guarantee, stdio } = plan;
    let Command { program, args, env, cwd } = &room.command;
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::other("a word of the command holds a NUL"));
    let confine = || -> io::Result<_> {
        let program = text(program.as_os_str().as_bytes())?;
        let args = std::iter::once(Ok(program.clone())).chain(args.iter().map(|arg| text(arg.as_bytes())));
        let args = args.collect::<io::Result<Vec<_>>>()?;
        let env = env.iter().map(|(name, value)| text(format!("{name}={value}").as_bytes()));
        let env = env.collect::<io::Result<Vec<_>>>()?;
        setsid()?;
        let nothing = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
        sys::put(nothing.as_fd(), 0)?;
        for (number, descriptor) in (1..).zip(stdio) {
            sys::put(*descriptor, number)?;
        }
        sys::close_on_exec_from(3)?;
        chdir(cwd)?;
        limit(&room.limits, *tier, *memory_guarantee)?;
        renounce(user)?;
        // After the last change of user, which would clear it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(first) {
            return Err(io::Error::other("the room's first process is gone"));
        }
        sys::listen_again(&launcher::DEAF_TO)?;
        if *tier == Tier::Process {
            // In the other tiers namespaces say the same. Another user cannot look into the worker anyway.
            let is_apart = sys::stay_in_domain(room.profile == Profile::Task)?;
            if !is_apart && user == Become::Stay {
                let why = "this kernel has no Landlock, which keeps a command of tier process from whoever started it";
                return Err(io::Error::other(why));
            }
        }
        if let Some(filter) = filter {
            seccompiler::apply_filter(filter).map_err(io::Error::other)?;
        }
        Ok((program, args, env))
    };
    match confine() {
        Ok((program, args, env)) => sys::exec(&program, &args, &env),
        Err(error) => error,
    }
}
