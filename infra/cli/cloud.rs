//! `carrel cloud`: the loopback cloud alone, for programs that were written against Google's clients and emulators.
//!
//! Owns what is said at its start: where it answers, who callers without a token are, which seed its faults follow.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carrel_local::faults::FaultPlan;
use carrel_local::{Cloud, CloudConfig};
use serde_json::{Map, Value};

use crate::args;
use crate::interrupt::Interrupt;

/// Runs a cloud until SIGTERM or SIGINT.
pub(crate) fn run(told: args::Cloud) -> anyhow::Result<()> {
    let mut config = match &told.config {
        Some(file) => read(file)?,
        None => empty(&told)?,
    };
    config.anonymous = told.anonymous_as;
    if let Some(file) = &told.faults {
        config.faults = faults(file, config.faults.seed)?;
    }
    let said = said(&config);
    serve(config, |cloud| {
        let (url, authority) = (cloud.endpoint(), cloud.endpoint().trim_start_matches("http://"));
        let variables = format!("export PUBSUB_EMULATOR_HOST={authority}\nexport STORAGE_EMULATOR_HOST={url}\n");
        // At once: who reads up to the variables and goes must not end a cloud that has more to say.
        let all = format!("cloud       {url}\n{said}{variables}Ctrl-C stops it\n");
        std::io::stdout().write_all(all.as_bytes()).context("say where the cloud answers")
    })
}

fn empty(told: &args::Cloud) -> anyhow::Result<CloudConfig> {
    let dir = std::path::absolute(&told.dir).with_context(|| format!("find {}", told.dir.display()))?;
    Ok(CloudConfig {
        listen: told.listen,
        ready_file: Some(dir.join("ready.json")),
        ..CloudConfig::new(dir, &told.project)
    })
}

/// The configuration in a file.
pub(crate) fn read(file: &Path) -> anyhow::Result<CloudConfig> {
    let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cloud configuration {}", file.display()))
}

/// The plan in a file; a seed that it does not name is the configuration's, or is thrown.
fn faults(file: &Path, configured: u64) -> anyhow::Result<FaultPlan> {
    let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let wrong = || format!("plan of faults {}", file.display());
    let mut plan: Map<String, Value> = serde_json::from_slice(&text).with_context(wrong)?;
    let seed = if configured == 0 { u64::from(rand::random::<u32>()) } else { configured };
    plan.entry("seed").or_insert(seed.into());
    serde_json::from_value(plan.into()).with_context(wrong)
}

/// What else a person should know.
fn said(config: &CloudConfig) -> String {
    let mut said = format!("project     {}, kept in {}\n", config.project, config.data_dir.display());
    said += &match (&config.anonymous, &config.ready_file) {
        (Some(who), _) => format!("callers without a token are {who}\n"),
        (None, Some(file)) => token(file),
        (None, None) => token(&PathBuf::from("the `ready_file` of the configuration")),
    };
    if config.faults != FaultPlan::default() {
        said += &format!("faults      seed {}: name it in the plan to have them again\n", config.faults.seed);
    }
    said
}

fn token(file: &Path) -> String {
    format!("callers without a token are refused; the owner's token lies in {}\n", file.display())
}

/// Serves until SIGTERM or SIGINT, or until it can run no more tasks; `started` hears of it once everything listens.
pub(crate) fn serve(config: CloudConfig, started: impl FnOnce(&Cloud) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let telemetry = carrel_telemetry::init(carrel_telemetry::TelemetryConfig::new("cloud"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = Interrupt::listen()?;
        let cloud = Cloud::start(config).await.context("loopback cloud")?;
        started(&cloud)?;
        let ended = tokio::select! {
            _signal = interrupt.received() => Ok(()),
            gone = cloud.unable() => Err(gone).context("loopback cloud"),
        };
        cloud.shutdown().await;
        ended
    })?;
    telemetry.shutdown();
    Ok(())
}
