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
/// Characters of the name of something that is refused.
const MAX_SHOWN: usize = 40;

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

/// What an agent left.
#[derive(Debug)]
pub(crate) struct Left {
    /// What may be delivered, in order of names.
    pub(crate) parcels: Vec<Parcel>,
    /// The rest, by names that are escaped and cut, each with why not.
    pub(crate) refused: Vec<String>,
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
    refused: Vec<String>,
}

impl Outbox {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// Copies what may be delivered into `to`. Blocking.
    pub(crate) fn collect(&self, to: &Path, max_bytes: u64) -> Result<Left, CollectError> {
        let mut walk = Walk { to, max_bytes, bytes: 0, names: 0, parcels: Vec::new(), refused: Vec::new() };
        walk.directory(&self.0, "")?;
        let Walk { mut parcels, mut refused, .. } = walk;
        parcels.sort_by(|a, b| a.name.cmp(&b.name));
        refused.sort();
        Ok(Left { parcels, refused })
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
                Ok(Some(why)) => {
                    tracing::warn!(name = ?shown, why, "output is not delivered");
                    let name: String = shown.chars().take(MAX_SHOWN).collect();
                    self.refused.push(format!("{name:?}: {why}"));
                }
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
        let opened = match open_beneath(dir, raw) {
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

/// Opens a name that may have become something else since it was looked at.
fn open_beneath(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let beneath =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    openat2(dir, name, flags, Mode::empty(), beneath)
}

fn is_plain(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

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
        let left = open(&dirs.output).expect("opened").collect(&dirs.to, max)?;
        Ok(left.parcels.into_iter().map(|parcel| parcel.name).collect())
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
        let left = open(&d.output).expect("opened").collect(&d.to, 1 << 20).expect("walked");
        let names: Vec<&str> = left.parcels.iter().map(|parcel| parcel.name.as_str()).collect();
        assert_eq!(names, ["-ok_name.txt", "charts/a.png", "deck.html"]);
        drop(socket);
        let refused = left.refused.join("\n");
        let said = [r#""a b.html": its name"#, r#""line\nbreak": its name"#, r#""r\u{202e}gpj.exe": its name"#];
        let links = [r#""link.html": it is a symbolic link"#, r#""etc": it is a symbolic link"#];
        let kinds = [r#""fifo.html": it is no regular file"#, r#""socket.html": it is no regular file"#];
        let others = [r#""hard.html": it has another link"#, r#""charts/deep": it lies more than one directory deep"#];
        for wanted in [&said[..], &links, &kinds, &others].concat() {
            assert!(refused.contains(wanted), "{wanted}\n{refused}");
        }
        assert_eq!(left.refused.len(), 9, "{refused}");
        let copied: Vec<_> = std::fs::read_dir(&d.to).expect("listed").collect();
        assert_eq!(copied.len(), 3);
    }

    #[test]
    fn what_has_become_a_link_a_mount_or_a_pipe_is_not_followed_entered_or_waited_for() {
        let d = dirs();
        symlink(&d.outside, d.output.join("link")).expect("linked");
        let Outbox(output) = open(&d.output).expect("opened");
        assert_eq!(open_beneath(&output, c"link").expect_err("a link"), Errno::LOOP);
        let Outbox(root) = open(Path::new("/")).expect("opened");
        assert_eq!(open_beneath(&root, c"proc").expect_err("a mount"), Errno::XDEV);
        rustix::fs::mknodat(&output, "fifo", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let (told, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(open_beneath(&output, c"fifo").is_ok()));
        assert_eq!(said.recv_timeout(Duration::from_secs(10)), Ok(true), "nobody writes to it");
    }

    #[test]
    fn a_file_that_turns_into_a_link_and_back_during_the_walk_gives_no_foreign_byte() {
        use std::sync::atomic::{AtomicBool, Ordering};
        const WALKS: usize = 500;
        let d = dirs();
        let (deck, next) = (d.output.join("deck.html"), d.to.with_file_name("next"));
        std::fs::write(&deck, "own").expect("written");
        let outbox = open(&d.output).expect("opened");
        let (over, until) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(60));
        let (mut taken, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) && Instant::now() < until {
                    symlink(&d.outside, &next).expect("linked");
                    std::fs::rename(&next, &deck).expect("swapped");
                    std::fs::write(&next, "own").expect("written");
                    std::fs::rename(&next, &deck).expect("swapped");
                }
            });
            // Both were met: else nothing was raced.
            while (taken + refused < WALKS || taken == 0 || refused == 0) && Instant::now() < until {
                // A name that is replaced while it is listed may come twice, or not at all.
                let left = outbox.collect(&d.to, 1 << 20).expect("walked");
                refused += left.refused.len();
                for parcel in left.parcels {
                    taken += 1;
                    assert_eq!(std::fs::read_to_string(&parcel.path).expect("copied"), "own");
                    std::fs::remove_file(&parcel.path).expect("removed");
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    }

    #[test]
    fn a_directory_put_in_the_place_of_the_output_is_not_delivered() {
        let d = dirs();
        let outbox = open(&d.output).expect("opened");
        std::fs::write(d.output.join("deck.html"), "x").expect("written");
        std::fs::rename(&d.output, d.output.with_file_name("moved")).expect("moved");
        symlink("/etc", &d.output).expect("linked");
        let parcels = outbox.collect(&d.to, 100).expect("walked").parcels;
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
            let parcels = open(&d.output).expect("opened").collect(&d.to, 100).expect("walked").parcels;
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
        let parcels = open(&d.output).expect("opened").collect(&d.to, 9).expect("walked").parcels;
        assert_eq!((parcels[0].size, parcels[0].crc32c), (9, 0xe306_9283));
        assert!(parcels[0].sha256.starts_with("15e2b0d3"));
    }
}
