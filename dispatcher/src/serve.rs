//! The dispatcher's life: configure, connect, serve until a signal, drain, say which of the two ended it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use carrel_cloud::Connector;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::completion::Announcer;
use crate::config::Config;
use crate::desk::desk;
use crate::drive::Driver;
use crate::intake::{Carries, Intake};
use crate::leadership::Leadership;
use crate::ledger::{Ledger, fresh_nonce};
use crate::pack::open::Opener;
use crate::pack::seal::Sealer;
use crate::reconcile::{Reconciler, Rhythm};
use crate::{api, chain};

/// After a signal, work in hand may end for this long; Cloud Run kills ten seconds after it.
const GRACE: Duration = Duration::from_secs(8);
/// Messages of one subscription in hand at once.
const OUTSTANDING: u32 = 1000;

/// Every subscription the dispatcher pulls; what Pub/Sub gave up on passes the same intake.
const SUBSCRIPTIONS: [(&str, Carries); 5] = [
    ("uploads-dispatcher", Carries::Uploads),
    ("uploads-dead-dispatcher", Carries::Uploads),
    ("review-requests-dispatcher", Carries::ReviewRequests),
    ("review-requests-dead-dispatcher", Carries::ReviewRequests),
    ("outcomes-dispatcher", Carries::Outcomes),
];

/// Runs the dispatcher until SIGTERM or SIGINT. Exit codes: 0 after a drain, 1 on a failure, 64 on a configuration
/// mistake.
pub fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(64);
        }
    };
    let guard = match carrel_telemetry::init(config.telemetry.clone()) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            return ExitCode::from(64);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let served = runtime.context("start the runtime").and_then(|runtime| runtime.block_on(serve(config)));
    guard.shutdown();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let connector = Connector::application_default(config.endpoints.clone())?;
    let registry = Arc::new(config.registry);
    let (objects, jobs) = tokio::try_join!(connector.objects(), connector.jobs())?;
    let completions = connector.topic(&format!("projects/{}/topics/completions", config.project)).await?;

    let ledger = Ledger::new(objects.clone(), &config.control_bucket);
    let sealer = Sealer::new(ledger.clone(), objects.clone(), registry.clone());
    let announcer = Announcer::new(completions);
    let opener = Arc::new(Opener::new(ledger.clone()));
    let driver = Driver::new(ledger.clone(), objects.clone(), jobs, registry.clone(), announcer, opener.clone());
    let leadership = Leadership::default();
    let (desk, bell) = desk(sealer.clone(), Arc::new(driver), registry.clone(), leadership.clone(), config.capacity);
    let reconciler = Reconciler {
        ledger: ledger.clone(),
        objects,
        registry: registry.clone(),
        opener: opener.clone(),
        bell: bell.clone(),
        leadership: leadership.clone(),
    };
    let intake = Arc::new(Intake {
        ledger: ledger.clone(),
        registry: registry.clone(),
        opener,
        sealer: sealer.clone(),
        bell: bell.clone(),
    });

    let mut parts = JoinSet::new();
    let holder = config.replica.unwrap_or_else(|| fresh_nonce().to_string());
    {
        let (ledger, stop) = (ledger.clone(), stop.clone());
        parts.spawn(async move { leadership.run(&ledger, &holder, stop).await });
    }
    parts.spawn(desk.run(stop.clone()));
    for (name, carries) in SUBSCRIPTIONS {
        let name = format!("projects/{}/subscriptions/{name}", config.project);
        let subscription = connector.subscription(&name, OUTSTANDING).await?;
        parts.spawn(intake.clone().run(subscription, carries, stop.clone()));
    }
    let rhythm = Rhythm { hot: config.reconcile, cold: config.reconcile * 5, cycle: Duration::from_secs(24 * 60 * 60) };
    {
        let stop = stop.clone();
        parts.spawn(async move { reconciler.run(rhythm, stop).await });
    }

    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let app = api::router(api::State::new(ledger, registry, sealer, bell));
    {
        let stop = stop.clone();
        parts.spawn(async move {
            if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await {
                tracing::error!(%error, "the API ended");
            }
        });
    }
    if let Some(path) = &config.ready_file {
        let part = path.with_extension("part");
        std::fs::write(&part, format!("http://{address}\n")).and_then(|()| std::fs::rename(&part, path))?;
    }
    tracing::info!(%address, "dispatcher ready");

    let signal = signalled(&mut parts).await?;
    tracing::info!(signal, "draining");
    stop.cancel();
    let drained = tokio::time::timeout(GRACE, async { while parts.join_next().await.is_some() {} }).await;
    match drained {
        Ok(()) => tracing::info!("drained"),
        Err(_) => tracing::warn!(left = parts.len(), "grace period over, work in hand is left to the next start"),
    }
    Ok(())
}

/// Waits for a signal; a part that ends by itself before it is a failure.
async fn signalled(parts: &mut JoinSet<()>) -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        ended = parts.join_next() => match ended {
            Some(Err(error)) => Err(error).context("a part of the dispatcher was lost"),
            _ => anyhow::bail!("a part of the dispatcher ended by itself"),
        },
    }
}
