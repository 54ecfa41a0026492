//! What the kernel divides by: attributes of mounts, a network's loopback, a Landlock domain.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use super::check;

/// Attributes of a mount that are switched on, for it and, if asked, everything below it.
pub(crate) fn restrict_mount(mount: BorrowedFd<'_>, attributes: u64, below: bool) -> io::Result<()> {
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and `change` is live and as long as the kernel is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Brings up the loopback interface of this process's network namespace.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: ifreq is a plain C struct for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("both are small");
    // SAFETY: this request reads one ifreq, which is live.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

/// The kernel's `struct landlock_ruleset_attr`, which is handed over up to the field that it knows.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// To ask for the version, and the two things that version 6 scopes: abstract sockets and signals.
const RULESET_VERSION: libc::c_ulong = 1;
const SCOPED_VERSION: libc::c_long = 6;
const SCOPED: u64 = 0b11;
/// The right to make block devices, which nobody here has: a domain must be about something.
const MAKE_BLOCK: u64 = 1 << 11;

/// The version of Landlock that this kernel has; negative where it has none.
fn landlock() -> libc::c_long {
    // SAFETY: with this flag the kernel reads no memory and answers its version.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Ruleset>(), 0, RULESET_VERSION) }
}

/// Whether [`stay_in_domain`] would find one.
pub(crate) fn has_domain(mounts: bool) -> bool {
    landlock() >= if mounts { SCOPED_VERSION } else { 1 }
}

/// Enters a Landlock domain that denies no file. What is in it cannot look into processes outside, by ptrace or `/proc`,
/// nor, from version 6 of Landlock on, signal them or reach their abstract sockets. False if this kernel has none.
///
/// Before version 6 a domain has to be about files, and whoever is in such a one may not mount; so a program that is to
/// build rooms stays out.
pub(crate) fn stay_in_domain(mounts: bool) -> io::Result<bool> {
    let (ruleset, size) = match landlock() {
        SCOPED_VERSION.. => {
            (Ruleset { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPED }, size_of::<Ruleset>())
        }
        1.. if !mounts => {
            (Ruleset { handled_access_fs: MAKE_BLOCK, handled_access_net: 0, scoped: 0 }, size_of::<u64>())
        }
        _ => return Ok(false),
    };
    // SAFETY: the ruleset is live and as long as the kernel is told.
    let made = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, size, 0) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    let made = RawFd::try_from(made).expect("a descriptor is small");
    // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
    let made = unsafe { OwnedFd::from_raw_fd(made) };
    // SAFETY: this call takes plain numbers.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, made.as_raw_fd(), 0) } {
        0 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}
