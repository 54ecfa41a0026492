//! The life of the process: mount or take over the descriptor, serve, end.
//!
//! ```text
//! arguments ─► the bucket answers ─► session ─┬─► unmounted by somebody else ─► 0
//!                                             └─► SIGTERM ─► unmount ─────────► 0
//! ```
//! On a descriptor nothing is ever unmounted: whoever mounted it does that, and once this process ends, however it
//! ends, the kernel fails what is still open with `ENOTCONN`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use carrel_cloud::{CallError, ConnectError, Connector, Endpoints};
use clap::Parser as _;
use fuser::{Config, MountOption, Session, SessionACL};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::args::{Args, Place};
use crate::{Limits, Volume};

/// Threads that take the kernel's calls; none of them ever waits for the cloud.
const TAKERS: usize = 2;
/// `EX_USAGE`.
const USAGE: u8 = 64;

/// Where a volume is shown.
#[derive(Debug)]
pub enum Mountpoint {
    /// On this directory, by `mount` as root and by `fusermount3` otherwise.
    Directory(PathBuf),
    /// Wherever this descriptor of `/dev/fuse` was mounted.
    Descriptor(OwnedFd),
}

/// Why serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Somebody unmounted the volume.
    Unmounted,
    /// It was asked to stop.
    Stopped,
}

/// Why a volume could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The runtime, its signals or its threads.
    #[error("start the volume of bucket {bucket}")]
    Start {
        /// The bucket.
        bucket: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The descriptor that was to be taken over.
    #[error("take over descriptor {number}; it must be /dev/fuse, open and mounted")]
    Descriptor {
        /// Its number.
        number: i32,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The client of Cloud Storage.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The bucket could not be listed.
    #[error("bucket {bucket} does not answer; check its name and the right storage.objects.list")]
    Bucket {
        /// The bucket.
        bucket: String,
        /// What the cloud said.
        #[source]
        source: CallError,
    },
    /// The mount.
    #[error("mount bucket {bucket} on {at}; /dev/fuse and, unless root, fusermount3 (Debian: fuse3) are needed")]
    Mount {
        /// The bucket.
        bucket: String,
        /// The directory or the descriptor.
        at: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The kernel's calls could not be read any more.
    #[error("serve bucket {bucket} on {at}")]
    Session {
        /// The bucket.
        bucket: String,
        /// The directory or the descriptor.
        at: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// The process: serves what the arguments say, with application-default credentials.
pub fn main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(refusal) => {
            let code = if refusal.use_stderr() { USAGE } else { 0 };
            if let Err(error) = refusal.print() {
                tracing::debug!(%error, "nobody reads the refusal");
            }
            return code.into();
        }
    };
    match run(args) {
        Ok(ended) => {
            tracing::info!(?ended, "volume ended");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let causes = std::iter::successors(std::error::Error::source(&error), |&cause| cause.source());
            eprintln!("error: {}", causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}")));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<Served, ServeError> {
    let Args { bucket, storage_endpoint, mountpoint } = args;
    let failed = |source| ServeError::Start { bucket: bucket.clone(), source };
    // Taken before anything else is opened: the number is the parent's.
    let mountpoint = match mountpoint {
        Place::Directory(path) => Mountpoint::Directory(path),
        Place::Descriptor(number) => carrel_sandbox::inherited(number)
            .map(Mountpoint::Descriptor)
            .map_err(|source| ServeError::Descriptor { number, source })?,
    };
    // One thread for all that is asked of the cloud: between two, each answer would wake one more of them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let limits = Limits::default();
        let endpoints = Endpoints { storage: storage_endpoint, ..Endpoints::default() };
        let connector = Connector::application_default(endpoints)?.answer_within(limits.answer_within);
        let objects = connector.objects().await?;
        let asked = objects.list_folder(&bucket, "", 1, "").await;
        asked.map_err(|source| ServeError::Bucket { bucket: bucket.clone(), source })?;
        let volume = Volume::new(objects, &bucket, limits, runtime.handle().clone()).map_err(failed)?;
        serve(volume, mountpoint, async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
    });
    // Whoever still waits for the cloud learns of the end from the kernel.
    runtime.shutdown_background();
    ended
}

/// Serves `volume` until it is unmounted or `stop` resolves.
pub async fn serve(
    volume: Volume,
    mountpoint: Mountpoint,
    stop: impl Future<Output = ()>,
) -> Result<Served, ServeError> {
    let shared = volume.shared.clone();
    let bucket = shared.bucket.to_string();
    let (at, directory) = match &mountpoint {
        Mountpoint::Directory(path) => (path.display().to_string(), Some(path.clone())),
        Mountpoint::Descriptor(_) => ("its descriptor".to_owned(), None),
    };
    let start = |source| ServeError::Start { bucket: bucket.clone(), source };
    let mount = |source| ServeError::Mount { bucket: bucket.clone(), at: at.clone(), source };
    let name = bucket.clone();
    let opening = tokio::task::spawn_blocking(move || session(volume, mountpoint, name));
    let session = opening.await.map_err(|error| start(error.into()))?.map_err(mount)?;
    if shared.notifier.set(session.notifier()).is_err() {
        tracing::debug!("the volume had a session before");
    }
    let (ended, end) = oneshot::channel();
    let serving = std::thread::Builder::new().name("session".to_owned()).spawn(move || {
        let result = session.run();
        if ended.send(result).is_err() {
            tracing::debug!("nobody waits for the end of the session");
        }
    });
    serving.map_err(start)?;
    tracing::info!(bucket, at, "volume ready");
    tokio::select! {
        result = end => match result {
            Ok(Ok(())) => Ok(Served::Unmounted),
            Ok(Err(source)) => Err(ServeError::Session { bucket, at, source }),
            Err(_) => Err(ServeError::Session { bucket, at, source: std::io::Error::other("its thread panicked") }),
        },
        () = stop => {
            if let Some(directory) = directory {
                unmount(directory).await;
            }
            Ok(Served::Stopped)
        }
    }
}

fn session(volume: Volume, mountpoint: Mountpoint, bucket: String) -> std::io::Result<Session<Volume>> {
    let mut config = Config::default();
    config.n_threads = Some(TAKERS);
    match mountpoint {
        Mountpoint::Directory(path) => {
            config.mount_options = vec![
                MountOption::RO,
                MountOption::NoDev,
                MountOption::NoSuid,
                MountOption::FSName(bucket),
                MountOption::Subtype("carrel".to_owned()),
            ];
            Session::new(volume, path, &config)
        }
        // Who may look is the mount's own matter.
        Mountpoint::Descriptor(fd) => Session::from_fd(volume, fd, SessionACL::All, config),
    }
}

/// Takes the mount away at once, whoever still uses it.
async fn unmount(directory: PathBuf) {
    let detach = |directory: &Path| rustix::mount::unmount(directory, rustix::mount::UnmountFlags::DETACH);
    if detach(&directory).is_ok() {
        return;
    }
    let helper = tokio::process::Command::new("fusermount3").args(["-u", "-z", "-q", "--"]).arg(&directory).status();
    match helper.await {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!(directory = %directory.display(), %status, "fusermount3 leaves the mount"),
        Err(error) => tracing::warn!(directory = %directory.display(), %error, "the mount stays, without a server"),
    }
}
