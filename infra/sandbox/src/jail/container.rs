//! Tier `oci`: this process keeps what the runtime makes of the room.
//!
//! It is process 1 in the room's namespaces, as in tier `namespaces`; the runtime gives the command its root, filter and
//! limits, and leaves.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::confine::{self, Become};
use super::{
    Handed, Plan, counts, end_with_launcher, grow_poor, guard, hand_out, has_ended, ids, launcher_gone, mounts, network,
};
use crate::messages::{Fault, Note};
use crate::oci;
use crate::room::{Entry, Network, USER};
use crate::sys::Signals;
use crate::tier::Runtime;

/// The rest of a life in tier `oci`: the runtime confines the command, so this process keeps its privileges until it has.
pub(super) fn keep(
    plan: &Plan<'_>,
    runtime: Runtime,
    kept: [BorrowedFd<'_>; 2],
    signals: &Signals,
) -> Result<Note, Fault> {
    let Plan { tier, room, .. } = plan;
    let without = |what: &str| Err(Fault::at(what)(io::Error::other(format!("{tier} gives none; use namespaces"))));
    if room.network != Network::None && runtime.stays() {
        return without("listen in a room");
    }
    if room.view.iter().any(|entry| matches!(entry, Entry::Volume { .. })) {
        return without("mount a volume in a room");
    }
    let program = oci::find(runtime).ok_or_else(|| {
        let why = format!("it is not installed; {}", runtime.remedy());
        Fault::at(format!("find {}", runtime.program()))(io::Error::other(why))
    })?;
    let [line, go] = kept;
    let mut handed = Handed::default();
    network::set_up(&room.network, &mut handed.listeners)?;
    let user = ids::user_of_container().map_err(Fault::at("read the id maps"))?;
    lay_container_out(plan, runtime, user, &mut handed)?;
    hand_out(line, handed).map_err(Fault::at("hand out what belongs to a room"))?;
    let command = oci::start(runtime, &program, plan)?;
    // As whom the command is, this process may ask it to end; a runtime that stays has none to be asked for.
    let guards = if user == USER && !runtime.stays() { Become::User(user) } else { Become::Stay };
    confine::bound(guards).map_err(Fault::at("give up privileges"))?;
    grow_poor(guards, &kept).map_err(Fault::at("give up privileges"))?;
    end_with_launcher(*tier)?;
    if has_ended(go)? {
        return Err(launcher_gone());
    }
    match guard(*tier, command, signals)? {
        Note::Ended { exit, cpu_us, peak_bytes } => {
            Ok(Note::Ended { exit: oci::exit(runtime, exit), cpu_us, peak_bytes })
        }
        other => Ok(other),
    }
}

fn lay_container_out(plan: &Plan<'_>, runtime: Runtime, user: u32, handed: &mut Handed) -> Result<(), Fault> {
    let programs = oci::programs();
    // For the runtime alone. Where there is none, it says so itself.
    let kvm = runtime == Runtime::Kata && Path::new("/dev/kvm").exists();
    let old = mounts::move_out()?;
    let mut site = mounts::Site::at("/".as_ref())?;
    site.devices(&old, if kvm { &["kvm"] } else { &[] })?;
    site.proc()?;
    if runtime == Runtime::Runc {
        site.control_groups()?;
    }
    site.lay_out(&old, &programs, USER, handed)?;
    std::fs::create_dir_all(oci::ROOM).map_err(Fault::at("make the root of a room"))?;
    let mut site = mounts::Site::at(oci::ROOM.as_ref())?;
    site.devices(&old, &[])?;
    site.lay_out(&old, &plan.room.view, user, handed)?;
    oci::write_bundle(plan, runtime, user)?;
    site.seal()?;
    mounts::let_go(old)?;
    counts::limit(plan.tier, plan.room.profile)
}
