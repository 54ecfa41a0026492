//! Users of a room: one ordinary user inside, an ordinary user outside, and nobody else.

use std::io;

use rustix::process::{Pid, getegid, geteuid};

use super::confine::Become;
use crate::room::USER;
use crate::tier::Tier;

/// Outside, who a room's user is when root starts it: nobody.
const NOBODY: u32 = 65_534;

/// Writes the id maps of a child in a new user namespace.
///
/// An ordinary user may map itself alone. Root maps itself, to build the room, and nobody, who lives in it.
pub(crate) fn write_maps(tier: Tier, child: Pid) -> io::Result<()> {
    let dir = format!("/proc/{}", child.as_raw_nonzero());
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    // A runtime expects to be root of where it runs.
    let inside = if matches!(tier, Tier::Oci(_)) { 0 } else { USER };
    let (uids, gids) = if uid == 0 && knows_nobody()? {
        let both = format!("0 0 1\n{USER} {NOBODY} 1\n");
        (both.clone(), both)
    } else {
        // Without this an ordinary user may not map its group.
        std::fs::write(format!("{dir}/setgroups"), "deny")?;
        (format!("{inside} {uid} 1\n"), format!("{inside} {gid} 1\n"))
    };
    std::fs::write(format!("{dir}/uid_map"), uids)?;
    std::fs::write(format!("{dir}/gid_map"), gids)
}

/// Whether commands become another user than this process is, to the kernel.
pub(crate) fn becomes_another() -> bool {
    geteuid().is_root() && knows_nobody().unwrap_or(false)
}

fn knows_nobody() -> io::Result<bool> {
    Ok(maps("uid", NOBODY)? && maps("gid", NOBODY)?)
}

/// Whether this process's own namespace knows that number.
fn maps(kind: &str, number: u32) -> io::Result<bool> {
    let map = std::fs::read_to_string(format!("/proc/self/{kind}_map"))?;
    let mut ranges = map.lines().filter_map(|line| {
        let mut words = line.split_whitespace().map(|word| word.parse::<u64>().ok());
        let (first, _, count) = (words.next()??, words.next()??, words.next()??);
        Some(first..first + count)
    });
    Ok(ranges.any(|range| range.contains(&u64::from(number))))
}

/// Who the command of a container is: the room's user, or, where an ordinary user could map itself alone, that one as
/// root of a namespace in which root has no privilege.
pub(super) fn user_of_container() -> io::Result<u32> {
    Ok(if maps("uid", USER)? { USER } else { 0 })
}

/// Whom the command becomes: in a namespace its user, unless the first process is that already; elsewhere nobody, if
/// root started it.
pub(super) fn become_whom(tier: Tier) -> Become {
    match (tier, geteuid().as_raw()) {
        (Tier::Namespaces, USER) | (Tier::Oci(_), _) => Become::Stay,
        (Tier::Namespaces, _) => Become::User(USER),
        (Tier::Process, 0) => Become::User(NOBODY),
        (Tier::Process, _) => Become::Stay,
    }
}
