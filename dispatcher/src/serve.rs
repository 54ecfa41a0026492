//! The dispatcher's life: configure, connect, serve until a signal, drain, say which of the two ended it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use carrel_cloud::Connector;
use carrel_schemas::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::collect::Collector;
use crate::completion::{Announcer, Outcomes};
use crate::config::Config;
use crate::dead_letters::Index;
use crate::desk::desk;
use crate::drive::Driver;
use crate::explain::Explainer;
use crate::flight::Flight;
use crate::flood::Floods;
use crate::intake::{Carries, Intake, Source};
use crate::launch::Launcher;
use crate::leadership::Leadership;
use crate::ledger::{Ledger, fresh_nonce};
use crate::limbo::Limbo;
use crate::pace::Pace;
use crate::pack::open::Opener;
use crate::pack::seal::Sealer;
use crate::reconcile::{Reconciler, Troubled, Walk};
use crate::replay::Replayer;
use crate::replay::campaigns::Campaigns;
use crate::{api, chain};

/// After a signal, work in hand may end for this long; Cloud Run kills ten seconds after it.
const GRACE: Duration = Duration::from_secs(8);
/// Messages of one subscription in hand at once.
const OUTSTANDING: u32 = 1000;

/// Every subscription the dispatcher pulls; what Pub/Sub gave up on passes the same intake.
const SUBSCRIPTIONS: [(&str, Carries, bool); 5] = [
    ("uploads-dispatcher", Carries::Uploads, false),
    ("uploads-dead-dispatcher", Carries::Uploads, true),
    ("review-requests-dispatcher", Carries::ReviewRequests, false),
    ("review-requests-dead-dispatcher", Carries::ReviewRequests, true),
    ("outcomes-dispatcher", Carries::Outcomes, false),
];

/// Runs the dispatcher until SIGTERM or SIGINT. Exit codes: 0 after a drain, 1 on a failure or where the drain took too long, 64 on a configuration
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
    let mut parts = JoinSet::new();
    let app = start(&config, &mut parts, &stop).await?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let address = listener.local_addr()?;
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
    if drained.is_err() {
        let left = parts.len();
        anyhow::bail!("{left} part(s) were still at work when the grace period ended; the next start takes it up");
    }
    tracing::info!("drained");
    Ok(())
}

/// Starts every part that works by itself, and returns the API that is still to be served.
async fn start(config: &Config, parts: &mut JoinSet<()>, stop: &CancellationToken) -> anyhow::Result<Router> {
    let connector = Connector::application_default(config.endpoints.clone())?;
    let registry = Arc::new(config.registry.clone());
    let (objects, jobs) = tokio::try_join!(connector.objects(), connector.jobs())?;
    let completions = connector.topic(&format!("projects/{}/topics/completions", config.project)).await?;

    let ledger = Ledger::new(objects.clone(), &config.control_bucket);
    refuse_the_buried(&ledger, &registry).await?;
    let limbo = Arc::new(Limbo::new(ledger.clone(), registry.clone(), config.stuck_after));
    let sealer = Sealer::new(ledger.clone(), objects.clone(), registry.clone(), limbo.clone());
    let announcer = Announcer::new(completions);
    let opener = Arc::new(Opener::new(ledger.clone()));
    let leadership = Leadership::default();
    let driver = Arc::new(Driver {
        ledger: ledger.clone(),
        registry: registry.clone(),
        outcomes: Outcomes::new(objects.clone()),
        launcher: Launcher::new(ledger.clone(), objects.clone(), jobs),
        announcer,
        opener: opener.clone(),
        leadership: leadership.clone(),
        limbo: limbo.clone(),
    });
    let (desk, bell) = desk(
        sealer.clone(),
        driver.clone(),
        limbo.clone(),
        registry.clone(),
        leadership.clone(),
        config.capacity,
        Pace::new(config.launches_per_minute),
    );
    parts.spawn(desk.run(stop.clone()));

    let reconciler = Arc::new(Reconciler {
        ledger: ledger.clone(),
        objects: objects.clone(),
        registry: registry.clone(),
        opener: opener.clone(),
        bell: bell.clone(),
        leadership: leadership.clone(),
        limbo,
        troubled: Troubled::default(),
    });
    for (walk, every) in [(Walk::Ledger, config.reconcile), (Walk::Buckets, config.reconcile * 5)] {
        let (reconciler, stop) = (reconciler.clone(), stop.clone());
        parts.spawn(async move { reconciler.run(walk, every, stop).await });
    }

    let intake = Arc::new(Intake {
        ledger: ledger.clone(),
        registry: registry.clone(),
        floods: Floods::new(ledger.clone()),
        opener,
        sealer: sealer.clone(),
        bell: bell.clone(),
    });
    for (name, carries, is_dead_letter) in SUBSCRIPTIONS {
        let name = format!("projects/{}/subscriptions/{name}", config.project);
        let subscription = connector.subscription(&name, OUTSTANDING).await?;
        parts.spawn(intake.clone().run(subscription, Source { carries, is_dead_letter }, stop.clone()));
    }
    let replayer = Arc::new(Replayer {
        ledger: ledger.clone(),
        objects: objects.clone(),
        registry: registry.clone(),
        intake,
        sealer: sealer.clone(),
        bell: bell.clone(),
        capacity: config.capacity,
        launches_per_minute: config.launches_per_minute,
    });
    let campaigns = Campaigns::new(ledger.clone(), replayer.clone(), leadership.clone());
    parts.spawn(campaigns.run(config.reconcile, stop.clone()));

    let collector =
        Collector::new(ledger.clone(), objects.clone(), registry.clone(), leadership.clone(), config.retention);
    parts.spawn(collector.run(config.reconcile * 5, stop.clone()));

    let holder = config.replica.clone().unwrap_or_else(|| fresh_nonce().to_string());
    {
        let (ledger, stop) = (ledger.clone(), stop.clone());
        parts.spawn(async move { leadership.run(&ledger, &holder, stop).await });
    }

    let index = Arc::new(Index::new(ledger.clone(), registry.clone()));
    let explainer = Explainer { ledger: ledger.clone(), objects, registry: registry.clone(), index: index.clone() };
    let identities = config.oidc.as_ref().map(api::Identities::new).transpose()?;
    let (paces, streams) = (api::Paces::new(config.calls_per_second), api::Streams::default());
    let inner = api::Inner {
        ledger,
        registry,
        sealer,
        bell,
        driver,
        explainer,
        index,
        retention: config.retention,
        replayer,
        identities,
        paces,
        streams,
        ready: Flight::default(),
        stop: stop.clone(),
    };
    Ok(api::router(api::State::new(inner)))
}

/// An id is never used again.
async fn refuse_the_buried(ledger: &Ledger, registry: &Registry) -> anyhow::Result<()> {
    let buried = ledger.buried().await.context("look for tenants that were deleted")?;
    match registry.tenants().find(|tenant| !tenant.deleting && buried.contains(&tenant.id)) {
        Some(tenant) => anyhow::bail!(
            "tenant {} was deleted, and ids are never reused; give the new tenant of the registry another id",
            tenant.id
        ),
        None => Ok(()),
    }
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
