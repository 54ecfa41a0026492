//! The process: settings, telemetry, one small runtime, SIGTERM, an exit code.
//!
//! 0: decided, or nothing to do. 64: the settings are wrong. 65: the seal is not to be trusted. 75: no outcome, try again.
//! 143: told to stop.

use std::process::ExitCode;
use std::time::Duration;

use carrel_cloud::Connector;
use carrel_schemas::claim::exit_code;
use carrel_telemetry::fields;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Instrument as _;

use crate::claim::Distrusted;
use crate::config::Config;
use crate::run::{End, run};
use crate::scan::child;

/// EX_TEMPFAIL of sysexits.h.
const TRY_AGAIN: u8 = 75;
/// What a shell shows for SIGTERM.
const STOPPED: u8 = 143;
/// Blocking work that is left when the process ends, such as a scan, is not waited for longer.
const GRACE: Duration = Duration::from_secs(1);

/// Runs one attempt, or the scanner that an attempt has started. `args` are the worker's own; `itself` are the words
/// before them that make this program a worker.
pub fn main(itself: &[&str], args: impl IntoIterator<Item = String>) -> ExitCode {
    let args: Vec<String> = args.into_iter().collect();
    if let [command, ask] = &args[..]
        && command == child::COMMAND
    {
        return child::main(ask);
    }
    let config = match Config::from_process(itself, args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(exit_code::WRONG_SETTINGS);
        }
    };
    // One attempt waits most of its time; one thread starts fastest.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("start the runtime: {error}");
            return ExitCode::from(TRY_AGAIN);
        }
    };
    let guard = match carrel_telemetry::init(config.telemetry.clone()) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(exit_code::WRONG_SETTINGS);
        }
    };
    let span = tracing::info_span!(
        "attempt",
        { fields::TENANT_ID } = %config.tenant,
        { fields::REVIEW_ID } = %config.review,
        { fields::EPOCH } = %config.epoch,
        { fields::ATTEMPT } = %config.attempt,
        { fields::EXECUTION_NAME } = %config.execution,
    );
    if config.traceparent.as_deref().is_some_and(|parent| !carrel_telemetry::set_parent(&span, parent)) {
        tracing::debug!("CARREL_TRACEPARENT is no traceparent; the trace starts here");
    }
    let code = runtime.block_on(attempt(config).instrument(span));
    runtime.shutdown_timeout(GRACE);
    guard.shutdown();
    ExitCode::from(code)
}

async fn attempt(config: Config) -> u8 {
    let mut stop = match signal(SignalKind::terminate()) {
        Ok(stop) => stop,
        Err(error) => {
            tracing::error!(%error, "cannot listen for SIGTERM");
            return TRY_AGAIN;
        }
    };
    let journey = async {
        let connector = Connector::application_default(config.endpoints.clone())?;
        run(config, &connector).await
    };
    let ended = tokio::select! {
        // Whatever ended at the same moment may have ended because of it.
        biased;
        _ = stop.recv() => {
            tracing::warn!("told to stop; the agent was ended and no outcome is known of");
            return STOPPED;
        }
        ended = journey => ended,
    };
    match ended {
        Ok(End::Decided(state)) => tracing::info!(state, "decided"),
        Ok(End::Deferred(state)) => tracing::info!(state, "another decided first"),
        Ok(End::StoodDown(why)) => tracing::info!(why, "nothing to do"),
        Err(error) if error.is::<Distrusted>() => {
            let error = format!("{error:#}");
            tracing::error!(error, "no outcome, and no attempt can succeed");
            return exit_code::DISTRUSTED_SEAL;
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::error!(error, "no outcome; another attempt may succeed");
            return TRY_AGAIN;
        }
    }
    0
}
