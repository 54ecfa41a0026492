//! The fleet on one machine: cloud and dispatcher as processes, everything they know in one directory.
//!
//! ```text
//! DIR/tenants.yaml  registry        DIR/tokens.json  bearer tokens, mode 0600     DIR/fleet.json  where it answers
//! DIR/cloud.json    cloud's config  DIR/cloud/       its data                     DIR/logs/       one log per part
//! ```
//! Each part runs in a process group of its own with a clean environment. Stopping asks first, then kills.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use carrel_cloud::{Connector, Endpoints};
use carrel_schemas::registry::RegistryFile;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::plan;

const START_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Where a running fleet answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Address {
    /// The loopback cloud.
    pub(crate) cloud: String,
    /// The dispatcher's API.
    pub(crate) api: String,
    /// The cloud's owner.
    pub(crate) owner_token: String,
}

/// Bearer tokens of the API: `operator`, and each tenant's under its id.
pub(crate) type Tokens = BTreeMap<String, String>;

/// A running fleet; dropping it kills its processes.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) dir: PathBuf,
    pub(crate) address: Address,
    pub(crate) tokens: Tokens,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

#[derive(Deserialize)]
struct CloudReady {
    endpoint: String,
    metadata: BTreeMap<String, String>,
    owner_token: String,
}

impl Address {
    /// Reads where the fleet of `dir` answers.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<(Self, Tokens)> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path)
                .with_context(|| format!("read {}; start the fleet with `carrel up` first", path.display()))
        };
        Ok((serde_json::from_slice(&read("fleet.json")?)?, serde_json::from_slice(&read("tokens.json")?)?))
    }

    /// A connector with the owner's rights on the loopback cloud.
    pub(crate) fn connector(&self) -> Connector {
        let endpoint = || Some(self.cloud.clone());
        let endpoints = Endpoints { storage: endpoint(), pubsub: endpoint(), run: endpoint() };
        Connector::with_token(endpoints, &self.owner_token)
    }
}

impl Fleet {
    /// Starts cloud and dispatcher in `dir` and returns once both answer. `tenants` is a registry file; without one the
    /// named sample tenants are made.
    pub(crate) async fn start(dir: &Path, tenants: Option<&Path>, samples: &[&str]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir.join("logs")).with_context(|| format!("create {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
        let program = std::env::current_exe().context("find this program")?;
        let program = program.to_str().context("the path of this program is not UTF-8")?.to_owned();
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let (registry, tokens) = registry(&dir, tenants, samples)?;
        let listen = listen_address(&dir)?;
        let cloud = plan::cloud(&registry, &listen, &dir, &program, &path).context("plan the cloud")?;
        std::fs::write(dir.join("cloud.json"), serde_json::to_vec_pretty(&cloud)?)?;
        let mut fleet = Self {
            address: Address { cloud: format!("http://{listen}"), api: String::new(), owner_token: String::new() },
            dir,
            tokens,
            parts: Vec::new(),
        };
        let config = fleet.dir.join("cloud.json");
        fleet.spawn("cloud", &program, &["cloud", "--config", &config.to_string_lossy()], &[("PATH", &path)])?;
        let ready: CloudReady = serde_json::from_str(&fleet.ready("cloud.ready").await?)?;
        let metadata =
            ready.metadata.get(plan::DISPATCHER).context("the cloud serves no metadata for the dispatcher")?;
        let (home, ready_file) = (fleet.dir.join("home"), fleet.dir.join("dispatcher.ready"));
        std::fs::create_dir_all(&home)?;
        let registry_file = fleet.dir.join("tenants.yaml");
        let env = [
            ("PATH", path.as_str()),
            ("HOME", &home.to_string_lossy()),
            ("GCE_METADATA_HOST", metadata),
            ("CARREL_PROJECT", plan::PROJECT),
            ("CARREL_REGISTRY", &registry_file.to_string_lossy()),
            ("CARREL_CONTROL_BUCKET", plan::CONTROL_BUCKET),
            ("CARREL_LISTEN", "127.0.0.1:0"),
            ("CARREL_READY_FILE", &ready_file.to_string_lossy()),
            ("CARREL_STORAGE_ENDPOINT", &ready.endpoint),
            ("CARREL_PUBSUB_ENDPOINT", &ready.endpoint),
            ("CARREL_RUN_ENDPOINT", &ready.endpoint),
        ];
        fleet.spawn("dispatcher", &program, &["internal", "dispatcher"], &env)?;
        fleet.address.api = fleet.ready("dispatcher.ready").await?.trim().to_owned();
        fleet.address.owner_token = ready.owner_token;
        write_private(&fleet.dir.join("fleet.json"), &serde_json::to_vec_pretty(&fleet.address)?)?;
        Ok(fleet)
    }

    fn spawn(&mut self, name: &'static str, program: &str, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<()> {
        let log = self.dir.join("logs").join(format!("{name}.log"));
        let ready = self.dir.join(format!("{name}.ready"));
        if ready.exists() {
            std::fs::remove_file(&ready)?;
        }
        let file = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        self.parts.push(Part { name, child, log });
        Ok(())
    }

    /// Waits for a part to say that it is ready, or to die.
    async fn ready(&mut self, file: &str) -> anyhow::Result<String> {
        let path = self.dir.join(file);
        let deadline = Instant::now() + START_WITHIN;
        loop {
            if let Ok(text) = std::fs::read_to_string(&path) {
                return Ok(text);
            }
            self.check()?;
            if Instant::now() > deadline {
                bail!(
                    "{} did not appear within {START_WITHIN:?}; read the logs in {}",
                    path.display(),
                    self.dir.join("logs").display()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// An error if a part has died: which, how, and where its log is.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for part in &mut self.parts {
            if let Some(status) = part.child.try_wait()? {
                bail!("the {} ended with {status}; read {}", part.name, part.log.display());
            }
        }
        Ok(())
    }

    /// Asks the parts to end, the dispatcher first, and kills what does not.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        while let Some(mut part) = self.parts.pop() {
            signal(&part.child, rustix::process::Signal::TERM);
            let deadline = Instant::now() + STOP_WITHIN;
            while part.child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    signal(&part.child, rustix::process::Signal::KILL);
                    part.child.wait()?;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for part in &mut self.parts {
            signal(&part.child, rustix::process::Signal::KILL);
            if let Err(error) = part.child.wait() {
                eprintln!("warning: wait for the {}: {error}", part.name);
            }
        }
    }
}

/// Signals a part's whole process group; one that is gone already is no failure.
fn signal(child: &Child, signal: rustix::process::Signal) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        if let Err(error) = rustix::process::kill_process_group(group, signal) {
            if error != rustix::io::Errno::SRCH {
                eprintln!("warning: signal process group {}: {error}", child.id());
            }
        }
    }
}

/// The address the cloud had before, if it is free, else any free one: jobs and programs are told it beforehand.
fn listen_address(dir: &Path) -> anyhow::Result<String> {
    let former = std::fs::read(dir.join("fleet.json")).ok();
    let former = former.and_then(|text| serde_json::from_slice::<Address>(&text).ok());
    let former = former.and_then(|address| address.cloud.strip_prefix("http://").map(str::to_owned));
    for wanted in former.iter().map(String::as_str).chain(["127.0.0.1:0"]) {
        if let Ok(listener) = std::net::TcpListener::bind(wanted) {
            return Ok(listener.local_addr()?.to_string());
        }
    }
    bail!("no loopback port is free")
}

/// The registry of `dir`, with its tokens: what was there before, a given file, or new sample tenants.
fn registry(dir: &Path, given: Option<&Path>, samples: &[&str]) -> anyhow::Result<(RegistryFile, Tokens)> {
    let (own, tokens_path) = (dir.join("tenants.yaml"), dir.join("tokens.json"));
    let mut tokens: Tokens = match std::fs::read(&tokens_path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("read {}", tokens_path.display()))?,
        Err(_) => Tokens::new(),
    };
    let mut token = |who: &str| {
        tokens
            .entry(who.to_owned())
            .or_insert_with(|| format!("carrel-{}", hex::encode(rand::random::<[u8; 24]>())))
            .clone()
    };
    let hash = |token: String| hex::encode(Sha256::digest(token));
    let source = given.or(own.exists().then_some(own.as_path()));
    let mut file: RegistryFile = match source {
        Some(path) => {
            carrel_dispatcher::config::load_registry(path)?;
            serde_yaml_ng::from_str(&std::fs::read_to_string(path)?)?
        }
        None => {
            let tenants: Vec<_> = samples.iter().map(|id| plan::tenant(id, hash(token(id)))).collect();
            serde_json::from_value(serde_json::json!({ "schema": 1, "tenants": tenants }))?
        }
    };
    let operator = hash(token("operator"));
    if !file.operator_token_sha256.contains(&operator) {
        file.operator_token_sha256.push(operator);
    }
    std::fs::write(&own, serde_yaml_ng::to_string(&file)?)?;
    write_private(&tokens_path, &serde_json::to_vec_pretty(&tokens)?)?;
    carrel_dispatcher::config::load_registry(&own)?;
    Ok((file, tokens))
}

fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes).with_context(|| format!("write {}", path.display()))
}
