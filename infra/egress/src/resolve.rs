//! Names to addresses, once for each connection.
//!
//! Owns the two ways a name is resolved. Refuses nothing: what an address is, [`crate::classify`] says, and it says it
//! of pinned addresses as well.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::name::HostName;

/// How names become addresses.
#[derive(Clone, Debug)]
pub enum Resolver {
    /// The system's resolver, where the proxy runs.
    System,
    /// Hosts pinned by configuration, and no others. Nobody is asked, so no name leaves as a question.
    Pinned(BTreeMap<HostName, Vec<IpAddr>>),
}

impl Resolver {
    /// The addresses of a host. A lookup that is dropped goes on in its thread until the system gives up, and keeps its
    /// place among `lookups` until then: a name server that never answers holds a few threads, not all of them.
    pub(crate) async fn look_up(&self, host: &HostName, lookups: &Arc<Semaphore>) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::Pinned(hosts) => Ok(hosts.get(host).cloned().unwrap_or_default()),
            Self::System => {
                let place = lookups.clone().acquire_owned().await.map_err(io::Error::other)?;
                // With its dot the name is whole: no search domain of the machine is tried before or after it. (The hosts
                // file is not consulted for such a name; that is what pinning is for.)
                let whole = format!("{host}.");
                let lookup = tokio::task::spawn_blocking(move || {
                    let found = (whole.as_str(), 443).to_socket_addrs();
                    drop(place);
                    found.map(|addresses| addresses.map(|address| address.ip()).collect())
                });
                lookup.await?
            }
        }
    }
}
