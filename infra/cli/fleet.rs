//! The fleet on one machine: cloud and dispatcher as processes, everything they know in one directory.
//!
//! ```text
//! DIR/tenants.yaml  registry        DIR/tokens.json  bearer tokens, mode 0600     DIR/fleet.json  where it answers
//! DIR/cloud.json    cloud's config  DIR/cloud/       its data                     DIR/logs/       one log per part
//! DIR/lock          held while it runs
//! ```
//! Each part runs in a process group of its own with a clean environment, and ends with the process that started it.
//! Stopping asks first, then kills.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use carrel_local::config::Isolation;
use carrel_local::faults::FaultPlan;
use carrel_worker::scan::Clamd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Deserialize;
use tokio::time::Instant;

pub use crate::directory::{Address, Tokens};
use crate::directory::{listen_address, registry, replace};
use crate::plan::{self, Site};

const START_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Where Debian, Fedora and Alpine keep all certificate authorities in one file.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Names a file of authorities to whoever speaks TLS; without it each client reads a directory of hundreds.
pub(crate) const TRUSTED: &str = "SSL_CERT_FILE";
/// The file of a fleet's directory that holds one of them.
const ONE_AUTHORITY: &str = "authority.pem";

/// The system's certificate authorities, where they are one file.
fn authorities() -> Option<&'static Path> {
    AUTHORITIES.into_iter().map(Path::new).find(|file| file.is_file())
}

/// Writes the first of them to a file of its own, for processes that speak plain HTTP on this machine: their clients
/// are not made without any authority, and take 6 ms to read all of them.
fn one_authority(dir: &Path, bundle: &Path) -> anyhow::Result<PathBuf> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let all = std::fs::read_to_string(bundle).with_context(|| format!("read {}", bundle.display()))?;
    let first = all.split_inclusive(END).next().unwrap_or_default();
    let file = dir.join(ONE_AUTHORITY);
    // Tasks read it as somebody else; unlike all that is kept beside it, it is no secret.
    std::fs::write(&file, first).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

/// What a fleet is made of, before anything is written or started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where everything is kept; started again on the same directory it goes on where it stood.
    pub dir: PathBuf,
    /// The `carrel` binary that the parts are started from.
    pub program: PathBuf,
    /// `PATH` of the parts.
    pub path: String,
    /// A tenant registry; without one that of `dir`, or else a new one of `samples`.
    pub registry: Option<PathBuf>,
    /// Ids of the tenants of a new registry.
    pub samples: Vec<String>,
    /// The agent's command line; the built-in analyst if empty.
    pub agent: Vec<String>,
    /// What divides the tasks from this machine and from each other.
    pub isolation: Isolation,
    /// Tasks see their uploads bucket as files, which needs FUSE; otherwise they fetch what they read.
    pub volume: bool,
    /// Where traces go, OTLP over gRPC, as in `http://127.0.0.1:4317`.
    pub otlp: Option<String>,
    /// The virus scanner that every file passes, if any.
    pub clamd: Option<Clamd>,
    /// What the loopback cloud does wrong.
    pub faults: FaultPlan,
    /// More settings of the dispatcher; see its configuration.
    pub dispatcher: Vec<(String, String)>,
}

impl Setup {
    /// A fleet of this very program in `dir`, without faults.
    pub fn here(dir: impl Into<PathBuf>) -> anyhow::Result<Self> {
        Ok(Self {
            dir: dir.into(),
            program: std::env::current_exe().context("find this program")?,
            path: std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned()),
            registry: None,
            samples: Vec::new(),
            agent: Vec::new(),
            isolation: Isolation::Namespaces,
            volume: crate::rooms::can_mount(),
            otlp: std::env::var("CARREL_OTLP_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty()),
            clamd: None,
            faults: FaultPlan::default(),
            dispatcher: Vec::new(),
        })
    }
}

impl Setup {
    fn shows_files(&self) -> bool {
        self.volume && self.isolation == Isolation::Namespaces
    }
}

/// The processes of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The loopback cloud, and below it the tasks it runs.
    Cloud,
    /// The dispatcher.
    Dispatcher,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Dispatcher => "dispatcher",
        }
    }
}

/// A fleet and its processes; dropping it stops them.
#[derive(Debug)]
pub struct Fleet {
    setup: Setup,
    dir: PathBuf,
    address: Address,
    tokens: Tokens,
    metadata: String,
    running: Vec<Running>,
    /// Held for as long as the directory is ours.
    _lock: File,
}

#[derive(Debug)]
struct Running {
    part: Part,
    child: Child,
}

#[derive(Deserialize)]
struct CloudReady {
    endpoint: String,
    metadata: BTreeMap<String, String>,
    owner_token: String,
}

impl Fleet {
    /// Writes registry, tokens and the cloud's configuration; starts nothing. Refuses a directory whose fleet runs.
    pub fn prepare(setup: Setup) -> anyhow::Result<Self> {
        std::fs::create_dir_all(setup.dir.join("logs")).with_context(|| format!("create {}", setup.dir.display()))?;
        let dir = setup.dir.canonicalize().with_context(|| format!("find {}", setup.dir.display()))?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).with_context(|| {
            format!("{} belongs to a fleet that is running; stop that one or choose another --dir", dir.display())
        })?;
        let (registry, tokens) = registry(&dir, setup.registry.as_deref(), &setup.samples)?;
        let listen = listen_address(&dir)?;
        let program = setup.program.to_str().context("the path of this program is not UTF-8")?;
        let analyst = [program, "internal", "analyst"].map(str::to_owned);
        let agent = if setup.agent.is_empty() { &analyst[..] } else { &setup.agent };
        let authorities = authorities().map(|bundle| one_authority(&dir, bundle)).transpose()?;
        let authorities = authorities.as_deref();
        let (isolation, path, otlp, clamd) =
            (setup.isolation, &setup.path, setup.otlp.as_deref(), setup.clamd.as_ref());
        plan::check_scanner(&registry, clamd)?;
        let volume = setup.shows_files();
        let site =
            Site { listen: &listen, dir: &dir, program, path, agent, clamd, authorities, isolation, volume, otlp };
        let mut cloud = plan::cloud(&registry, site).context("plan the cloud")?;
        cloud.check()?;
        cloud.faults = setup.faults;
        replace(&dir.join("cloud.json"), &serde_json::to_vec_pretty(&cloud)?)?;
        let address = Address { cloud: format!("http://{listen}"), api: String::new(), owner_token: String::new() };
        Ok(Self { setup, dir, address, tokens, metadata: String::new(), running: Vec::new(), _lock: lock })
    }

    /// Starts cloud and dispatcher; returns once both answer.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.start_cloud().await?;
        self.start_dispatcher().await
    }

    /// Starts the cloud.
    pub async fn start_cloud(&mut self) -> anyhow::Result<()> {
        let config = self.dir.join("cloud.json");
        let env = [("PATH".to_owned(), self.setup.path.clone())];
        self.spawn(Part::Cloud, &["internal", "cloud", "--config", &config.to_string_lossy()], &env)?;
        let ready: CloudReady = serde_json::from_str(&self.ready(Part::Cloud).await?)?;
        self.metadata =
            ready.metadata.get(plan::DISPATCHER).context("the cloud serves no metadata for the dispatcher")?.clone();
        self.address.cloud = ready.endpoint;
        self.address.owner_token = ready.owner_token;
        Ok(())
    }

    /// Starts the dispatcher, and writes down where the fleet answers.
    pub async fn start_dispatcher(&mut self) -> anyhow::Result<()> {
        let home = self.dir.join("home");
        std::fs::create_dir_all(&home)?;
        let file = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        let env = [
            ("PATH", self.setup.path.clone()),
            ("HOME", file("home")),
            ("GCE_METADATA_HOST", self.metadata.clone()),
            ("CARREL_PROJECT", plan::PROJECT.to_owned()),
            ("CARREL_REGISTRY", file("tenants.yaml")),
            ("CARREL_CONTROL_BUCKET", plan::CONTROL_BUCKET.to_owned()),
            // The directory's lock keeps a second one away.
            ("CARREL_REPLICA", "local".to_owned()),
            // The cloud of one machine has no quota to stay below.
            ("CARREL_LAUNCHES_PER_MINUTE", "6000".to_owned()),
            ("CARREL_LISTEN", "127.0.0.1:0".to_owned()),
            ("CARREL_READY_FILE", file("dispatcher.ready")),
            ("CARREL_STORAGE_ENDPOINT", self.address.cloud.clone()),
            ("CARREL_PUBSUB_ENDPOINT", self.address.cloud.clone()),
            ("CARREL_RUN_ENDPOINT", self.address.cloud.clone()),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value));
        let otlp = self.setup.otlp.iter().map(|endpoint| ("CARREL_OTLP_ENDPOINT".to_owned(), endpoint.clone()));
        // All of them: it may have to fetch keys from whoever issues identity tokens.
        let trusted = authorities().map(|file| (TRUSTED.to_owned(), file.to_string_lossy().into_owned()));
        let env: Vec<_> = env.chain(otlp).chain(trusted).chain(self.setup.dispatcher.iter().cloned()).collect();
        self.spawn(Part::Dispatcher, &["internal", "dispatcher"], &env)?;
        self.address.api = self.ready(Part::Dispatcher).await?.trim().to_owned();
        replace(&self.dir.join("fleet.json"), &serde_json::to_vec_pretty(&self.address)?)
    }

    /// Whether its tasks see their uploads bucket as files.
    pub fn shows_files(&self) -> bool {
        self.setup.shows_files()
    }

    /// Where everything is kept.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the running fleet answers.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Bearer tokens of the API.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    fn log(&self, part: Part) -> PathBuf {
        self.dir.join("logs").join(format!("{}.log", part.name()))
    }

    fn spawn(&mut self, part: Part, args: &[&str], env: &[(String, String)]) -> anyhow::Result<()> {
        let ready = self.dir.join(format!("{}.ready", part.name()));
        if ready.exists() {
            std::fs::remove_file(&ready)?;
        }
        let log = File::options().create(true).append(true).open(self.log(part))?;
        let child = Command::new(&self.setup.program)
            .args(args)
            .env_clear()
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start the {}", part.name()))?;
        self.running.push(Running { part, child });
        Ok(())
    }

    /// Waits for a part to say that it is ready, or to die.
    async fn ready(&mut self, part: Part) -> anyhow::Result<String> {
        let path = self.dir.join(format!("{}.ready", part.name()));
        let deadline = Instant::now() + START_WITHIN;
        loop {
            if let Ok(text) = std::fs::read_to_string(&path) {
                return Ok(text);
            }
            self.check()?;
            if Instant::now() > deadline {
                bail!("the {} was not ready within {START_WITHIN:?}; read {}", part.name(), self.log(part).display());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// An error if a part has died: which, how, and where its log is.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for running in &mut self.running {
            if let Some(status) = running.child.try_wait()? {
                let part = running.part;
                bail!("the {} ended with {status}; read {}", part.name(), self.log(part).display());
            }
        }
        Ok(())
    }

    /// Kills a part as a lost machine would: at once, with nothing said.
    pub fn kill(&mut self, part: Part) -> anyhow::Result<()> {
        let at = self.running.iter().position(|running| running.part == part);
        let mut running = self.running.remove(at.with_context(|| format!("the {} does not run", part.name()))?);
        signal(&running.child, Signal::KILL);
        running.child.wait().with_context(|| format!("wait for the {}", part.name()))?;
        Ok(())
    }

    /// Asks the parts to end, the dispatcher first, and kills what does not.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut failed = None;
        while let Some(mut running) = self.running.pop() {
            if let Err(error) = end(&mut running.child) {
                failed = Some(anyhow::Error::new(error).context(format!("stop the {}", running.part.name())));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Asks a process to end and kills it after a while; the tasks of the cloud end with the cloud.
fn end(child: &mut Child) -> std::io::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let process = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    signal(child, Signal::TERM);
    // A pidfd is readable once its process has ended.
    let limit = Timespec { tv_sec: STOP_WITHIN.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)) {
        Ok(1) => {}
        Ok(_) | Err(_) => signal(child, Signal::KILL),
    }
    child.wait()?;
    Ok(())
}

/// Signals a part's whole process group; one that is gone already is no failure.
fn signal(child: &Child, signal: Signal) {
    if let Err(error) = rustix::process::kill_process_group(Pid::from_child(child), signal)
        && error != rustix::io::Errno::SRCH
    {
        eprintln!("warning: signal process group {}: {error}", child.id());
    }
}
