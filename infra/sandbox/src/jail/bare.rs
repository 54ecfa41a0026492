//! Tier `process`: the view is that of the machine, so what is asked for must lie where it is asked for.

use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Uid};

use super::Handed;
use super::confine::Become;
use crate::messages::Fault;
use crate::room::{Entry, Network, Profile, Room};
use crate::sys;

/// Opens the directories, and gives them to whom the command becomes; refuses what this tier has not.
pub(super) fn place(room: &Room, user: Become, handed: &mut Handed) -> Result<(), Fault> {
    if room.network != Network::None {
        return Err(Fault::at("listen in a room")(io::Error::other("this tier has no network of its own")));
    }
    // Before the command would find it missing, which can say no more than a number.
    if user == Become::Stay && !sys::has_domain(room.profile == Profile::Task) {
        return Err(Fault::at("look for Landlock")(io::Error::other("this kernel has none, or not enough of it")));
    }
    for entry in &room.view {
        match entry {
            Entry::Show { from, at } if from == at => {}
            Entry::Fresh { at, .. } => {
                let step = || format!("open {}", at.display());
                std::fs::create_dir_all(at).map_err(Fault::at(step()))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let root = rustix::fs::open(at, flags, Mode::empty()).map_err(Fault::kernel(step()))?;
                if let Become::User(number) = user {
                    let (uid, gid) = (Uid::from_raw(number), Gid::from_raw(number));
                    rustix::fs::fchown(&root, Some(uid), Some(gid)).map_err(Fault::kernel(step()))?;
                }
                handed.fresh.push((at.clone(), root));
            }
            other => {
                let step = format!("lay {} out", other.at().display());
                return Err(Fault::at(step)(io::Error::other("this tier has no view of its own")));
            }
        }
    }
    Ok(())
}
