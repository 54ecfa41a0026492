//! The delivery walk: from a directory that a hostile agent wrote to copies that it cannot reach.
//!
//! Every name is opened beneath the directory with symbolic links, mount points and magic links refused by the kernel,
//! never waiting on a pipe; only regular files with one link and a plain name, at most one directory deep, are taken.
//! The rest is skipped and logged, its target never opened. Bytes are copied and hashed in one pass, so that what was
//! hashed is what is uploaded. Refuses a kernel without `openat2`: a walk by hand would be a race.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, statat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Files of one delivery.
pub(crate) const MAX_FILES: usize = 200;
/// Names looked at, good and bad.
const MAX_NAMES: usize = 5_000;
/// Characters of a name.
pub(crate) const MAX_NAME: usize = 100;

/// A copied file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// `deck.html`, or `charts/a.png`.
    pub(crate) name: String,
    /// Where the copy lies.
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) crc32c: u32,
    pub(crate) sha256: String,
}

/// Why nothing can be delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    #[error("the agent left more than {MAX_FILES} files or {MAX_NAMES} names")]
    TooMany,
    #[error("the agent left more than {0} bytes")]
    TooLarge(u64),
    #[error(
        "this kernel has no openat2 (Linux 5.6, and a seccomp profile that permits it), without which nothing is delivered"
    )]
    NoOpenat2,
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
}

impl CollectError {
    /// True for a fault of this machine, false for one of the agent.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            Self::NoOpenat2 | Self::Io { .. } => true,
            Self::TooMany | Self::TooLarge(_) => false,
        }
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(Errno) -> CollectError {
    move |error| CollectError::Io { what: what.into(), source: error.into() }
}

/// An output directory, held open.
#[derive(Debug)]
pub(crate) struct Outbox(OwnedFd);

struct Walk<'a> {
    to: &'a Path,
    max_bytes: u64,
    bytes: u64,
    names: usize,
    parcels: Vec<Parcel>,
}

impl Outbox {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// Copies what may be delivered into `to`, in order of names. Blocking.
    pub(crate) fn collect(&self, to: &Path, max_bytes: u64) -> Result<Vec<Parcel>, CollectError> {
        let mut walk = Walk { to, max_bytes, bytes: 0, names: 0, parcels: Vec::new() };
        walk.directory(&self.0, "")?;
        walk.parcels.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(walk.parcels)
    }
}

impl Walk<'_> {
    fn directory(&mut self, dir: &OwnedFd, prefix: &str) -> Result<(), CollectError> {
        for entry in Dir::read_from(dir).map_err(failed("list the output directory"))? {
            let entry = entry.map_err(failed("list the output directory"))?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            self.names += 1;
            if self.names > MAX_NAMES {
                return Err(CollectError::TooMany);
            }
            let shown = format!("{prefix}{}", name.to_string_lossy());
            match self.entry(dir, name, prefix) {
                Ok(None) => {}
                Ok(Some(why)) => tracing::warn!(name = ?shown, why, "output is not delivered"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes one name; tells why not.
    fn entry(&mut self, dir: &OwnedFd, raw: &CStr, prefix: &str) -> Result<Option<&'static str>, CollectError> {
        let Some(name) = raw.to_str().ok().filter(|name| is_plain(name)) else {
            return Ok(Some("its name is not of A-Z a-z 0-9 . _ -"));
        };
        // Looked at before it is opened, since opening a device may do something.
        let before = match statat(dir, raw, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(_) => return Ok(Some("it went away")),
        };
        match before {
            FileType::RegularFile | FileType::Directory => {}
            FileType::Symlink => return Ok(Some("it is a symbolic link")),
            _ => return Ok(Some("it is no regular file")),
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let beneath =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let opened = match openat2(dir, raw, flags, Mode::empty(), beneath) {
            Ok(opened) => opened,
            Err(Errno::NOSYS) => return Err(CollectError::NoOpenat2),
            Err(_) => return Ok(Some("it cannot be opened beneath the output directory")),
        };
        let stat = fstat(&opened).map_err(failed(format!("look at {name}")))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if prefix.is_empty() => {
                self.directory(&opened, &format!("{name}/"))?;
                Ok(None)
            }
            FileType::Directory => Ok(Some("it lies more than one directory deep")),
            FileType::RegularFile if stat.st_nlink == 1 => {
                self.copy(File::from(opened), format!("{prefix}{name}"))?;
                Ok(None)
            }
            FileType::RegularFile => Ok(Some("it has another link")),
            _ => Ok(Some("it is no regular file")),
        }
    }

    fn copy(&mut self, file: File, name: String) -> Result<(), CollectError> {
        if self.parcels.len() == MAX_FILES {
            return Err(CollectError::TooMany);
        }
        let path = self.to.join(format!("{:03}", self.parcels.len()));
        let fail = |source| CollectError::Io { what: format!("copy {name} to {}", path.display()), source };
        let mut to = File::create_new(&path).map_err(fail)?;
        let left = self.max_bytes - self.bytes;
        let mut from = file.take(left.saturating_add(1));
        let (mut size, mut crc32c, mut sha256) = (0_u64, 0, Sha256::new());
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(fail(error)),
            };
            size += count as u64;
            if size > left {
                return Err(CollectError::TooLarge(self.max_bytes));
            }
            crc32c = crc32c::crc32c_append(crc32c, &buffer[..count]);
            sha256.update(&buffer[..count]);
            to.write_all(&buffer[..count]).map_err(fail)?;
        }
        self.bytes += size;
        self.parcels.push(Parcel { name, path, size, crc32c, sha256: hex::encode(sha256.finalize()) });
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Dirs {
        _root: tempfile::TempDir,
        output: PathBuf,
        to: PathBuf,
        outside: PathBuf,
    }

    fn dirs() -> Dirs {
        let root = tempfile::tempdir().expect("a directory");
        let dir = |name: &str| {
            let path = root.path().join(name);
            std::fs::create_dir(&path).expect("made");
            path
        };
        let (output, to, outside) = (dir("output"), dir("to"), root.path().join("secret"));
        std::fs::write(&outside, "another tenant's").expect("written");
        Dirs { output, to, outside, _root: root }
    }

    fn open(path: &Path) -> io::Result<Outbox> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Outbox::new(rustix::fs::open(path, flags, Mode::empty())?))
    }

    fn names(dirs: &Dirs, max: u64) -> Result<Vec<String>, CollectError> {
        let parcels = open(&dirs.output).expect("opened").collect(&dirs.to, max)?;
        Ok(parcels.into_iter().map(|parcel| parcel.name).collect())
    }

    #[test]
    fn only_plain_files_leave() {
        let d = dirs();
        let write = |name: &str| std::fs::write(d.output.join(name), "x").expect("written");
        write("deck.html");
        for odd in ["a b.html", "line\nbreak", "r\u{202e}gpj.exe", "-ok_name.txt"] {
            write(odd);
        }
        symlink(&d.outside, d.output.join("link.html")).expect("linked");
        symlink("/etc", d.output.join("etc")).expect("linked");
        std::fs::hard_link(&d.outside, d.output.join("hard.html")).expect("linked");
        let fifo = d.output.join("fifo.html");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let socket = std::os::unix::net::UnixListener::bind(d.output.join("socket.html")).expect("bound");
        std::fs::create_dir_all(d.output.join("charts/deep")).expect("made");
        write("charts/a.png");
        write("charts/deep/b.png");
        assert_eq!(names(&d, 1 << 20).expect("walked"), ["-ok_name.txt", "charts/a.png", "deck.html"]);
        drop(socket);
        let copied: Vec<_> = std::fs::read_dir(&d.to).expect("listed").collect();
        assert_eq!(copied.len(), 3);
    }

    #[test]
    fn a_directory_put_in_the_place_of_the_output_is_not_delivered() {
        let d = dirs();
        let outbox = open(&d.output).expect("opened");
        std::fs::write(d.output.join("deck.html"), "x").expect("written");
        std::fs::rename(&d.output, d.output.with_file_name("moved")).expect("moved");
        symlink("/etc", &d.output).expect("linked");
        let parcels = outbox.collect(&d.to, 100).expect("walked");
        assert_eq!(parcels.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["deck.html"]);
        assert!(open(&d.output).is_err());
    }

    #[test]
    fn a_program_that_runs_as_its_owner_is_delivered_as_bytes() {
        use std::os::unix::fs::PermissionsExt as _;
        let d = dirs();
        let program = d.output.join("tool");
        std::fs::write(&program, "#!/bin/sh\n").expect("written");
        for mode in [0o4755, 0o2755, 0o6777] {
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).expect("set");
            let set = std::fs::metadata(&program).expect("there").permissions().mode();
            assert_eq!(set & 0o7777, mode, "this filesystem keeps the mode that is to be stripped");
            let parcels = open(&d.output).expect("opened").collect(&d.to, 100).expect("walked");
            let copied = std::fs::metadata(&parcels[0].path).expect("there").permissions().mode();
            assert_eq!(copied & 0o7111, 0, "{copied:o}");
            std::fs::remove_file(&parcels[0].path).expect("removed");
        }
    }

    #[test]
    fn bytes_and_files_have_caps() {
        let d = dirs();
        std::fs::write(d.output.join("a"), [0; 60]).expect("written");
        std::fs::write(d.output.join("b"), [0; 60]).expect("written");
        let sparse = File::create(d.output.join("c")).expect("made");
        sparse.set_len(1 << 40).expect("sparse");
        assert!(matches!(names(&d, 100), Err(CollectError::TooLarge(100))));
        let d = dirs();
        for n in 0..=MAX_FILES {
            std::fs::write(d.output.join(n.to_string()), "").expect("written");
        }
        assert!(matches!(names(&d, 100), Err(CollectError::TooMany)));
    }

    #[test]
    fn the_copy_carries_its_checksums() {
        let d = dirs();
        std::fs::write(d.output.join("a.txt"), "123456789").expect("written");
        let parcels = open(&d.output).expect("opened").collect(&d.to, 9).expect("walked");
        assert_eq!((parcels[0].size, parcels[0].crc32c), (9, 0xe306_9283));
        assert!(parcels[0].sha256.starts_with("15e2b0d3"));
    }
}
