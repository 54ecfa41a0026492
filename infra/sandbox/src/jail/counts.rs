//! What the kernel counts by the machine's user, who is one and the same for all rooms: a room has its share of each.
//!
//! Namespaces hold kernel memory, and a machine gives a user so many of them, and so many inotify instances. A user
//! namespace carries limits of its own for whoever is in it, and in namespaces below it they count as well; the command
//! cannot raise them, since it has no privilege in this one.

use std::io::{self, Write as _};

use crate::messages::Fault;
use crate::room::Profile;
use crate::tier::Tier;

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
/// For the rooms that a program builds, those of its scanners and agents and their probes; the kernel takes its time to
/// forget one that has ended.
const OF_A_BUILDER: &str = "64";
/// By default all rooms of a user share 128 instances.
const INOTIFY: [(&str, &str); 2] = [("inotify_instances", "8"), ("inotify_watches", "4096")];

/// Limits what this room's namespace may have. Needs /proc, and the privileges that its first process begins with. Comes
/// after the files: what is on its way into the view lies in a mount namespace for a moment, which is counted.
pub(super) fn limit(tier: Tier, profile: Profile) -> Result<(), Fault> {
    // A runtime makes namespaces of its own before it applies the filter that refuses them.
    let builds = profile == Profile::Task || matches!(tier, Tier::Oci(_));
    // Whoever may have no user namespace may make none of the others either.
    let (kinds, amount) = if builds { (&NAMESPACES[..], OF_A_BUILDER) } else { (&["user"][..], "0") };
    // With a namespace of groups of its own a builder could mount the group that it is in, whosever else lives there, and
    // where both are one user's change its limits. The room's own begins with the room.
    let amount_of = |kind: &str| if kind == "cgroup" && tier == Tier::Namespaces { "0" } else { amount };
    let namespaces = kinds.iter().map(|kind| (format!("{kind}_namespaces"), amount_of(kind)));
    let inotify = INOTIFY.map(|(what, amount)| (what.to_owned(), amount));
    for (what, amount) in namespaces.chain(inotify) {
        let file = format!("/proc/sys/user/max_{what}");
        match std::fs::File::options().write(true).open(&file) {
            Ok(mut open) => open.write_all(amount.as_bytes()).map_err(Fault::at(format!("write {file}")))?,
            // A kernel that has no such things counts none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Fault::at(format!("write {file}"))(error)),
        }
    }
    Ok(())
}
