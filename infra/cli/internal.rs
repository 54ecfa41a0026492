//! The parts of the fleet, run in this process because the fleet started it for that.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;

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

/// Runs the fleet's loopback cloud until SIGTERM or SIGINT.
fn cloud(config: &Path) -> anyhow::Result<()> {
    let config = crate::cloud::read(config)?;
    crate::cloud::serve(config, |_| Ok(()))
}
