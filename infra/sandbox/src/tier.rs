//! How strong a room is: a ladder, and one setting.
//!
//! | tier | what divides |
//! |---|---|
//! | `process` | an own session, system call filter without network, limits, a clean environment; files are not hidden |
//! | `namespaces` | the above, and files, processes, network, IPC, host name and users of its own |
//! | `oci:RUNTIME` | the same plan as a bundle for crun, runc, runsc (gVisor), or kata (a machine of its own) |
//!
//! A tier that a machine cannot give is an error that names what is missing; none falls back to another. Of kata no more
//! is known than that a runtime of its name is there, so no room of it opens before its probe has booted one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How strong a room is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// A process with limits, for a job that runs alone: nothing divides it from other work of the machine. Before Linux
    /// 6.12 it also reaches abstract sockets, and signals whatever runs as its user. Control groups that belong to its user
    /// are open to it.
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
    /// <https://katacontainers.io>: of 1.x, for later ones run no bundle by themselves.
    Kata,
}

impl Runtime {
    /// As a tier calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Runsc => "runsc",
            Self::Kata => "kata",
        }
    }

    /// Its program's name.
    pub fn program(self) -> &'static str {
        match self {
            Self::Crun | Self::Runc | Self::Runsc => self.name(),
            Self::Kata => "kata-runtime",
        }
    }

    /// What to do where it is not there.
    pub(crate) fn remedy(self) -> String {
        match self {
            Self::Crun | Self::Runc | Self::Runsc => format!("install the package {}", self.program()),
            Self::Kata => "install Kata Containers 1.x, the last that runs a bundle by itself".to_owned(),
        }
    }

    /// Whether it stays as long as the command, which has a kernel, devices and a network of the runtime's own.
    pub(crate) fn stays(self) -> bool {
        matches!(self, Self::Runsc | Self::Kata)
    }
}

/// A word that names no tier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no isolation tier; say process, namespaces, oci:crun, oci:runc, oci:runsc or oci:kata")]
pub struct TierError(pub String);

impl Tier {
    /// Every tier there is.
    pub const ALL: [Self; 6] = [
        Self::Process,
        Self::Namespaces,
        Self::Oci(Runtime::Crun),
        Self::Oci(Runtime::Runc),
        Self::Oci(Runtime::Runsc),
        Self::Oci(Runtime::Kata),
    ];
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("process"),
            Self::Namespaces => f.write_str("namespaces"),
            Self::Oci(runtime) => write!(f, "oci:{}", runtime.name()),
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
