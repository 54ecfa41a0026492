//! What a fleet keeps in its directory for others to read: registry, tokens, where it answers.
//!
//! Refuses to run anything, and to overwrite a file in halves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use carrel_cloud::{Connector, Endpoints};
use carrel_schemas::registry::RegistryFile;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::plan;

/// Below it lie the ports of well-known services.
const FIRST_PORT: u16 = 10_000;
/// Ports looked at before giving up.
const TRIES: usize = 100;

/// Bearer tokens of the API: `operator`, and each tenant's under its id.
pub type Tokens = BTreeMap<String, String>;

/// Where a running fleet answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Address {
    /// The loopback cloud.
    pub cloud: String,
    /// The dispatcher's API.
    pub api: String,
    /// The cloud's owner.
    pub owner_token: String,
}

impl Address {
    /// Reads where the fleet of `dir` answers, and the tokens of its API.
    pub fn load(dir: &Path) -> anyhow::Result<(Self, Tokens)> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path)
                .with_context(|| format!("read {}; start the fleet with `carrel up` first", path.display()))
        };
        Ok((serde_json::from_slice(&read("fleet.json")?)?, serde_json::from_slice(&read("tokens.json")?)?))
    }

    /// A connector with the owner's rights on the loopback cloud.
    pub fn connector(&self) -> Connector {
        let endpoint = || Some(self.cloud.clone());
        let endpoints = Endpoints { storage: endpoint(), pubsub: endpoint(), run: endpoint() };
        Connector::with_token(endpoints, &self.owner_token)
    }
}

/// The address the cloud had before, if it is free, else any free one: jobs and programs are told it beforehand.
pub(crate) fn listen_address(dir: &Path) -> anyhow::Result<String> {
    let former = std::fs::read(dir.join("fleet.json")).ok();
    let former = former.and_then(|text| serde_json::from_slice::<Address>(&text).ok());
    let former = former.and_then(|address| address.cloud.strip_prefix("http://").map(str::to_owned));
    let begin = ephemeral_ports_begin();
    let chosen = (0..TRIES).map(|_| format!("127.0.0.1:{}", rand::random_range(FIRST_PORT..begin)));
    for wanted in former.into_iter().chain(chosen) {
        if std::net::TcpListener::bind(&wanted).is_ok() {
            return Ok(wanted);
        }
    }
    bail!("none of {TRIES} loopback ports from {FIRST_PORT} to {begin} is free")
}

/// Where the kernel begins to give ports to connections. The cloud's own port lies below: it is named here and bound
/// later, and must not be taken by somebody's connection in between, or while a killed cloud is started again.
fn ephemeral_ports_begin() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let begin = range.split_whitespace().next().and_then(|port| port.parse().ok());
    // 32768 is Linux's own default; a range that leaves no room below is no use either.
    begin.filter(|begin| *begin > FIRST_PORT).unwrap_or(32_768)
}

/// The registry of `dir`, with its tokens: a given file, what was there before, or new sample tenants. Every tenant
/// and the operator can use the API: who has no token here gets one.
pub(crate) fn registry(dir: &Path, given: Option<&Path>, samples: &[String]) -> anyhow::Result<(RegistryFile, Tokens)> {
    let (own, tokens_path) = (dir.join("tenants.yaml"), dir.join("tokens.json"));
    let mut tokens: Tokens = match std::fs::read(&tokens_path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("read {}", tokens_path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Tokens::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", tokens_path.display())),
    };
    let mut file = match given.or(own.exists().then_some(own.as_path())) {
        Some(path) => read_registry(path)?,
        None => {
            let tenants: Vec<_> = samples.iter().map(|id| plan::tenant(id)).collect();
            serde_json::from_value(serde_json::json!({ "schema": 1, "tenants": tenants }))?
        }
    };
    plan::check(&file)?;
    let mut admit = |who: &str, known: &mut Vec<String>| {
        let new = || format!("carrel-{}", hex::encode(rand::random::<[u8; 32]>()));
        let hash = hex::encode(Sha256::digest(tokens.entry(who.to_owned()).or_insert_with(new)));
        if !known.contains(&hash) {
            known.push(hash);
        }
    };
    admit("operator", &mut file.operator_token_sha256);
    for tenant in &mut file.tenants {
        admit(tenant.id.as_str(), &mut tenant.token_sha256);
    }
    replace(&tokens_path, &serde_json::to_vec_pretty(&tokens)?)?;
    replace(&own, serde_yaml_ng::to_string(&file)?.as_bytes())?;
    Ok((file, tokens))
}

fn read_registry(path: &Path) -> anyhow::Result<RegistryFile> {
    carrel_dispatcher::registry_file::load(path)?;
    Ok(carrel_dispatcher::registry_file::read(path)?)
}

/// Replaces a file in one step, readable by its owner alone: whoever reads it sees the former text or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let written = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let written = written.and_then(|mut file| file.write_all(bytes)).and_then(|()| std::fs::rename(&part, path));
    written.with_context(|| format!("write {}", path.display()))
}
