//! The network of a room: a host name that is nobody's, and nothing, or a loopback interface with the sockets that somebody outside accepts on.

use std::net::TcpListener;
use std::os::fd::AsFd as _;

use rustix::net::{AddressFamily, SocketType};

use crate::messages::Fault;
use crate::room::Network;
use crate::sys;

/// Makes the listening sockets inside, where no address of the machine can be in their way.
pub(super) fn set_up(network: &Network, listeners: &mut Vec<TcpListener>) -> Result<(), Fault> {
    rustix::system::sethostname(b"room").map_err(Fault::kernel("name the host of a room"))?;
    let Network::Listeners(addresses) = network else { return Ok(()) };
    let up = "bring up the loopback interface of a room";
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(Fault::kernel(up))?;
    sys::loopback_up(socket.as_fd()).map_err(Fault::at(up))?;
    for address in addresses {
        let listener = TcpListener::bind(address).map_err(Fault::at(format!("listen at {address} in a room")))?;
        listener.set_nonblocking(true).map_err(Fault::at(format!("listen at {address} in a room")))?;
        listeners.push(listener);
    }
    Ok(())
}
