//! How strong a room is: a ladder, and one setting.
//!
//! | tier | what divides |
//! |---|---|
//! | `process` | an own session, system call filter without network, limits, a clean environment; files are not hidden |
//! | `namespaces` | the above, and files, processes, network, IPC, host name and users of its own |
//! | `oci:RUNTIME` | the same plan as a bundle for crun, runc, or runsc (gVisor) |
//!
//! A tier that a machine cannot give is an error that names what is missing; none falls back to another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How strong a room is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// A process with limits, for a job that runs alone: nothing divides it from other work of the machine.
    Process,
    /// Linux namespaces, for an ordinary user.
    Namespaces,
    /// An OCI runtime.
    Oci(Runtime),
}

/// An OCI runtime that a bundle can be given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// <https://github.com/containers/crun>.
    Crun,
    /// <https://github.com/opencontainers/runc>.
    Runc,
    /// <https://gvisor.dev>.
    Runsc,
}

impl Runtime {
    /// Its program's name.
    pub fn program(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Runsc => "runsc",
        }
    }
}

/// A word that names no tier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no isolation tier; say process, namespaces, oci:crun, oci:runc or oci:runsc")]
pub struct TierError(pub String);

impl Tier {
    /// Every tier there is.
    pub const ALL: [Self; 5] = [
        Self::Process,
        Self::Namespaces,
        Self::Oci(Runtime::Crun),
        Self::Oci(Runtime::Runc),
        Self::Oci(Runtime::Runsc),
    ];
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("process"),
            Self::Namespaces => f.write_str("namespaces"),
            Self::Oci(runtime) => write!(f, "oci:{}", runtime.program()),
        }
    }
}

impl FromStr for Tier {
    type Err = TierError;

    fn from_str(word: &str) -> Result<Self, TierError> {
        Self::ALL.into_iter().find(|tier| tier.to_string() == word).ok_or_else(|| TierError(word.to_owned()))
    }
}

impl Serialize for Tier {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_read_as_it_is_written_and_others_are_refused_with_the_choice() {
        for tier in Tier::ALL {
            assert_eq!(tier.to_string().parse(), Ok(tier));
        }
        let refused = "docker".parse::<Tier>().expect_err("no tier").to_string();
        assert!(refused.contains("\"docker\"") && refused.contains("namespaces"), "{refused}");
    }
}
