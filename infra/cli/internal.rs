//! The parts of the fleet, run in this process because the fleet started it for that.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use carrel_local::CloudConfig;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Internal;
use crate::rooms;

pub(crate) fn run(part: Internal) -> ExitCode {
    match part {
        Internal::Cloud { config } => {
            end_with_parent().and_then(|()| cloud(&config)).map_or_else(failed, |()| ExitCode::SUCCESS)
        }
        Internal::Dispatcher => end_with_parent().map_or_else(failed, |()| carrel_dispatcher::main()),
        Internal::Worker { args } => carrel_worker::main(&["internal", "worker"], args),
        Internal::Volume { args } => volume(args),
        Internal::Room => rooms::inner().map_or_else(failed, |()| ExitCode::SUCCESS),
        Internal::Analyst { args } => carrel_analyst::main(&args, || SystemTime::now().into()),
    }
}

fn volume(args: Vec<String>) -> ExitCode {
    match carrel_telemetry::init(carrel_telemetry::TelemetryConfig::new("volume")) {
        Ok(telemetry) => {
            let code = carrel_volume::main(args);
            telemetry.shutdown();
            code
        }
        Err(error) => failed(error.into()),
    }
}

fn failed(error: anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// A fleet whose `carrel` was killed must not live on: the kernel asks this process to end when its parent has.
fn end_with_parent() -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("ask to be told when the parent ends")
}

/// Runs the loopback cloud until SIGTERM or SIGINT.
pub(crate) fn cloud(config: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(config).with_context(|| format!("read {}", config.display()))?;
    let config: CloudConfig =
        serde_json::from_slice(&text).with_context(|| format!("cloud configuration {}", config.display()))?;
    let telemetry = carrel_telemetry::init(carrel_telemetry::TelemetryConfig::new("cloud"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        carrel_local::serve(config, shutdown).await.context("loopback cloud")
    })?;
    telemetry.shutdown();
    Ok(())
}
