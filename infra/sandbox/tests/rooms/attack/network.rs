//! On the network: whom a room can reach.

use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};

use super::{Attack, call, last, word};

/// By name, as the table of cases calls them.
pub(super) const ATTACKS: &[(&str, Attack)] = &[
    ("connect", |args| {
        let to: SocketAddr = args[0].parse().expect("an address");
        word(TcpStream::connect_timeout(&to, std::time::Duration::from_secs(2)).map(|_| "reached"))
    }),
    ("resolve", |_| {
        let host = CString::new("example.com").expect("a name");
        let mut found = std::ptr::null_mut();
        let code = unsafe { libc::getaddrinfo(host.as_ptr(), std::ptr::null(), std::ptr::null(), &raw mut found) };
        match code {
            0 => "reached".to_owned(),
            libc::EAI_AGAIN => "EAI_AGAIN".to_owned(),
            libc::EAI_NONAME => "EAI_NONAME".to_owned(),
            libc::EAI_SYSTEM => format!("EAI_SYSTEM {}", last()),
            code => code.to_string(),
        }
    }),
    ("datagram", |_| {
        let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", "8.8.8.8:53"));
        word(sent.map(|_| "sent"))
    }),
    ("abstract", |args| {
        let address = UnixAddr::from_abstract_name(&args[0]).expect("a name");
        word(UnixStream::connect_addr(&address).map(|_| "reached"))
    }),
    ("socket", |args| {
        let family: i32 = args[0].parse().expect("a family");
        call(unsafe { libc::socket(family, libc::SOCK_STREAM, 0) }.into())
    }),
    ("memory-in-sockets", |args| {
        // The kernel keeps what was sent and is not read; no process holds it.
        let (children, pairs): (usize, usize) =
            (args[0].parse().expect("a number"), args[1].parse().expect("a number"));
        for _ in 0..children {
            if unsafe { libc::fork() } == 0 {
                let held: Vec<_> = (0..pairs).map(|_| UnixStream::pair().expect("a pair")).collect();
                for socket in held.iter().flat_map(|(one, other)| [one, other]) {
                    socket.set_nonblocking(true).expect("set");
                    while (&*socket).write(&[1; 32 << 10]).is_ok() {}
                }
                loop {
                    unsafe { libc::pause() };
                }
            }
        }
        // The kernel ends the first of them, or somebody ends all.
        unsafe { libc::wait(std::ptr::null_mut()) };
        "one is gone".to_owned()
    }),
    ("larger-buffer", |_| {
        let (socket, _other) = UnixStream::pair().expect("a pair");
        let size: i32 = 1 << 20;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_SNDBUF);
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        call(unsafe { libc::setsockopt(fd, level, option, (&raw const size).cast(), 4) }.into())
    }),
    ("say", |args| {
        let mut stream = TcpStream::connect(&args[0]).expect("somebody listens");
        stream.write_all(b"hello").expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("said");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).expect("heard");
        heard
    }),
];
