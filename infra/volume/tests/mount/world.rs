//! A loopback cloud with one bucket, and volumes of it: in this process with limits of their own, or as processes.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carrel_cloud::{Connector, Endpoints, Objects};
use carrel_local::{Cloud, CloudConfig, config};
use carrel_volume::{Limits, Mountpoint, ServeError, Served, Volume};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub(crate) const BUCKET: &str = "library";
/// How long the cloud may take to start as a process of its own.
const PATIENCE: Duration = Duration::from_secs(60);
const READER: &str = "reader@demo.iam.gserviceaccount.com";

/// False, and says so, where nothing can be mounted.
pub(crate) fn can_mount() -> bool {
    let lacking = if !rustix::process::geteuid().is_root() {
        "mounting takes root: run the tests as root"
    } else if File::open("/dev/fuse").is_err() {
        "/dev/fuse cannot be opened: load the module with `modprobe fuse`, or start the container with --device /dev/fuse"
    } else {
        return true;
    };
    writeln!(std::io::stderr(), "SKIPPED: {lacking}").expect("stderr");
    false
}

/// Runs what blocks, such as reading from a mount that this process serves.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic")
}

/// Bytes that tell where they stand.
pub(crate) fn pattern(size: usize) -> Bytes {
    (0..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Stamps each page of a part that begins at `at`: a pattern that is repeated does not tell its repetitions apart.
pub(crate) fn stamp(part: &mut [u8], at: usize) {
    const PAGE: usize = 4096;
    for (page, at) in part.chunks_exact_mut(PAGE).zip((at..).step_by(PAGE)) {
        page[..8].copy_from_slice(&(at as u64).to_le_bytes());
    }
}

fn config_in(dir: &Path) -> CloudConfig {
    CloudConfig {
        service_accounts: vec![READER.into()],
        buckets: vec![config::Bucket { name: BUCKET.into(), notifications: Vec::new() }],
        bindings: vec![config::Binding {
            resource: format!("projects/_/buckets/{BUCKET}"),
            role: "roles/storage.objectViewer".into(),
            members: vec![format!("serviceAccount:{READER}")],
        }],
        metadata_servers: vec![config::MetadataServer { service_account: READER.into(), listen: None }],
        ..CloudConfig::new(dir.join("data"), "demo")
    }
}

/// Tells a copy of this program, started for one test, which cloud to be: where it listens, and its directory.
const CLOUD: [&str; 2] = ["CARREL_TEST_LISTEN", "CARREL_TEST_DIR"];

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_in_a_process_of_its_own_is_no_test() {
    let [Ok(listen), Ok(dir)] = CLOUD.map(std::env::var) else { return };
    carrel_cloud::install_crypto();
    let config = CloudConfig { listen: listen.parse().expect("an address"), ..config_in(dir.as_ref()) };
    let _cloud = Cloud::start(config).await.expect("the cloud starts");
    // It ends with whoever started it, at the latest.
    blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await.expect("stdin");
}

pub(crate) struct World {
    config: CloudConfig,
    cloud: Option<Cloud>,
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        carrel_cloud::install_crypto();
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = config_in(dir.path());
        let cloud = Cloud::start(config.clone()).await.expect("the cloud starts");
        // Where it listens now it listens again after a restart.
        let address = cloud.endpoint().trim_start_matches("http://");
        config.listen = address.parse().expect("an address");
        Self { config, cloud: Some(cloud), dir }
    }

    pub(crate) fn cloud(&self) -> &Cloud {
        self.cloud.as_ref().expect("it runs")
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.config.listen)
    }

    pub(crate) async fn stop(&mut self) {
        self.cloud.take().expect("it runs").shutdown().await;
    }

    pub(crate) async fn start_again(&mut self) {
        self.cloud = Some(Cloud::start(self.config.clone()).await.expect("the cloud starts again"));
    }

    /// Puts a process of its own in the place of the cloud, which can be killed.
    pub(crate) async fn move_out(&mut self) -> Serving {
        self.stop().await;
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["--exact", "world::a_cloud_in_a_process_of_its_own_is_no_test", "--nocapture"]);
        let (listen, dir) = (self.config.listen.to_string(), self.dir.path().display().to_string());
        command.envs(CLOUD.into_iter().zip([listen, dir])).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut serving = Serving(command.spawn().expect("it starts"));
        let until = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(self.config.listen).await.is_err() {
            let ended = serving.0.try_wait().expect("it is ours");
            assert!(ended.is_none(), "the cloud has ended: {ended:?}");
            assert!(Instant::now() < until, "the cloud did not listen in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        serving
    }

    fn connector(&self, endpoint: &str) -> Connector {
        let endpoints = Endpoints { storage: Some(endpoint.to_owned()), ..Endpoints::default() };
        Connector::with_token(endpoints, self.cloud().owner_token())
    }

    pub(crate) async fn objects(&self) -> Objects {
        self.connector(&self.endpoint()).objects().await.expect("a client")
    }

    /// Writes so many files below `many/`, each with what `body` makes of its number.
    pub(crate) async fn put_many(&self, files: usize, body: fn(usize) -> String) {
        let objects = self.objects().await;
        let mut writing = tokio::task::JoinSet::new();
        for lane in 0..32 {
            let objects = objects.clone();
            writing.spawn(async move {
                for number in (lane..files).step_by(32) {
                    objects.put(BUCKET, &many(number), body(number).into(), "").await.expect("written");
                }
            });
        }
        writing.join_all().await;
    }

    pub(crate) async fn put(&self, name: &str, body: impl Into<Bytes>) -> i64 {
        self.objects().await.put(BUCKET, name, body.into(), "").await.expect("written")
    }

    pub(crate) async fn delete(&self, name: &str) {
        assert!(self.objects().await.delete(BUCKET, name, None).await.expect("answered"), "{name} was there");
    }

    /// A volume in this process, of what answers at `endpoint`.
    pub(crate) async fn mount_from(&self, endpoint: &str, limits: Limits) -> Mounted {
        let connector = self.connector(endpoint).answer_within(limits.answer_within);
        let objects = connector.objects().await.expect("a client");
        let volume = Volume::new(objects, BUCKET, limits, Handle::current()).expect("a volume");
        let (at, device) = Mount::new();
        let serving =
            tokio::spawn(carrel_volume::serve(volume, Mountpoint::Descriptor(device), std::future::pending()));
        Mounted { at, serving }
    }

    pub(crate) async fn mount(&self) -> Mounted {
        self.mount_from(&self.endpoint(), Limits::default()).await
    }

    /// The volume's process, to be given a mountpoint.
    pub(crate) fn command(&self) -> Command {
        self.command_from(&self.endpoint())
    }

    /// The same, of what answers at `endpoint`.
    pub(crate) fn command_from(&self, endpoint: &str) -> Command {
        let host = self.cloud().metadata_host(READER).expect("it is configured");
        let mut command = Command::new(env!("CARGO_BIN_EXE_volume"));
        command.args(["--bucket", BUCKET, "--storage-endpoint", endpoint]);
        command.env_clear().env("GCE_METADATA_HOST", host).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// A volume in a process of its own, on a descriptor.
    pub(crate) fn spawn(&self) -> (Mount, Serving) {
        self.spawn_from(&self.endpoint())
    }

    /// The same, of what answers at `endpoint`.
    pub(crate) fn spawn_from(&self, endpoint: &str) -> (Mount, Serving) {
        let (at, device) = Mount::new();
        let child = self.command_from(endpoint).arg("/dev/fd/0").stdin(Stdio::from(device)).spawn().expect("it starts");
        (at, Serving(child))
    }
}

/// A FUSE mount made by this process.
pub(crate) struct Mount(tempfile::TempDir);

impl Mount {
    /// The mount, and the descriptor on which it wants to be served.
    pub(crate) fn new() -> (Self, OwnedFd) {
        let at = tempfile::tempdir().expect("a directory");
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("checked");
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let data = std::ffi::CString::new(data).expect("no zero byte");
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount("library", at.path(), "fuse.carrel", flags, Some(data.as_c_str())).expect("root mounts");
        (Self(at), device.into())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn unmount(&self) {
        unmount(self.0.path(), UnmountFlags::DETACH).expect("it is mounted");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if is_mounted(self.0.path()) {
            // By force: a reader that a failed test left waiting would keep this very process, its server, from ending.
            unmount(self.0.path(), UnmountFlags::FORCE | UnmountFlags::DETACH).expect("it is mounted");
        }
    }
}

pub(crate) fn is_mounted(at: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc");
    mounts.lines().any(|line| line.split(' ').nth(4) == at.to_str())
}

/// A volume that this process serves.
pub(crate) struct Mounted {
    pub(crate) at: Mount,
    serving: JoinHandle<Result<Served, ServeError>>,
}

impl Mounted {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.at.path(name)
    }

    pub(crate) async fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let path = self.path(name);
        blocking(move || std::fs::read(path)).await
    }

    pub(crate) async fn open(&self, name: &str) -> std::io::Result<File> {
        let path = self.path(name);
        blocking(move || File::open(path)).await
    }

    pub(crate) async fn names(&self, name: &str) -> Vec<String> {
        let path = self.path(name);
        blocking(move || {
            let entries = std::fs::read_dir(path).expect("a directory");
            let mut names: Vec<String> =
                entries.map(|entry| entry.expect("listed").file_name().into_string().expect("UTF-8")).collect();
            names.sort();
            names
        })
        .await
    }

    pub(crate) async fn unmount(self) {
        self.at.unmount();
        let ended = self.serving.await.expect("it does not panic").expect("it served");
        assert_eq!(ended, Served::Unmounted);
    }
}

/// A process that is killed when the test ends.
pub(crate) struct Serving(pub(crate) Child);

impl Drop for Serving {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().expect("it is ours");
            self.0.wait().expect("it is ours");
        }
    }
}

/// The name of one of many files.
pub(crate) fn many(number: usize) -> String {
    format!("many/{number:05}")
}
