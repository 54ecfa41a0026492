//! A descriptor that one process leaves open for another, known by its number alone.
//!
//! The number is duplicated, never adopted: whoever else in this process holds it goes on holding it, so that no
//! descriptor is ever closed twice. Refuses to leak either to the programs this process starts.
#![expect(unsafe_code, reason = "a bare number may be anybody's; every block says why it is sound here")]

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;

use rustix::io::FdFlags;

use crate::sys;

/// A duplicate of descriptor `number`, closed on exec as the original then is. Fails with `EBADF` if nothing is open there.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: not -1, the only number a BorrowedFd cannot hold. That it is open, and stays so, matters only to the three
    // calls below: each hands the number to the kernel, which answers EBADF to a closed one, and duplicates what it
    // finds. Nothing here closes it.
    let open = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(open)?;
    rustix::io::fcntl_setfd(open, flags | FdFlags::CLOEXEC)?;
    Ok(rustix::io::fcntl_dupfd_cloexec(open, 3)?)
}

/// Leaves a descriptor open for a program to be started, under this number.
pub fn pass(command: &mut std::process::Command, descriptor: OwnedFd, number: RawFd) {
    // SAFETY: the closure runs between fork and exec and makes two system calls that are async-signal-safe; it owns
    // the descriptor, which therefore is open.
    unsafe { command.pre_exec(move || sys::put(descriptor.as_fd(), number)) };
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_descriptor_is_shared_and_neither_closes_the_other() {
        let mut original = tempfile::tempfile().expect("a file");
        let mut copy = File::from(inherited(original.as_raw_fd()).expect("it is open"));
        copy.write_all(b"seen by both").expect("writable");
        drop(copy);
        let mut text = String::new();
        original.rewind().expect("seekable");
        original.read_to_string(&mut text).expect("still open");
        assert_eq!(text, "seen by both");
    }

    #[test]
    fn a_number_that_nothing_is_open_under_is_refused() {
        for number in [-1, 1_000_000] {
            let refused = inherited(number).expect_err("nothing is open there");
            assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
        }
    }
}
