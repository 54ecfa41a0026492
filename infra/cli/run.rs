//! From what was typed to what is done; errors end on stderr with the thing, the cause and the next step.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{Carrel, Command, Tenants};
use crate::fleet::{Fleet, Setup};
use crate::{client, demo, internal, upload};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Said wherever agents run without a room.
pub(crate) const NO_ROOM: &str =
    "note: child processes run without a sandbox here; review only files that you trust on this machine";

/// Runs one command.
pub fn main() -> ExitCode {
    let command = Carrel::parse().command;
    // The parts choose their own runtimes.
    let done = match command {
        Command::Internal(part) => return internal::run(part),
        Command::Cloud { config } => internal::cloud(&config),
        command => run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The two signals that mean "stop, in order".
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Returns the name of the next one.
    pub(crate) async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo { dir, json } => demo::run(dir, json, &mut Interrupt::listen()?).await,
        Command::Up { dir, tenants, json } => up(dir, tenants, json, &mut Interrupt::listen()?).await,
        Command::Upload { tenant, pack, files, fleet } => upload::run(&tenant, &pack, &files, &fleet).await,
        Command::Reviews(command) => client::reviews(command).await,
        Command::DeadLetters(command) => client::dead_letters(command).await,
        Command::Tenants(Tenants::Check { file, json }) => {
            let registry = carrel_dispatcher::config::load_registry(&file)?;
            let tenants: Vec<&str> = registry.tenants().map(|tenant| tenant.id.as_str()).collect();
            if json {
                println!("{}", serde_json::json!({ "file": file, "tenants": tenants }));
            } else {
                println!("{}: {} tenant(s), nothing shared", file.display(), tenants.len());
            }
            Ok(())
        }
        Command::Cloud { .. } | Command::Internal(_) => anyhow::bail!("this command has a runtime of its own"),
    }
}

async fn up(dir: PathBuf, registry: Option<PathBuf>, json: bool, interrupt: &mut Interrupt) -> anyhow::Result<()> {
    eprintln!("{NO_ROOM}");
    let samples = carrel_samples::packs().iter().map(|pack| pack.tenant.to_owned()).collect();
    let mut fleet = Fleet::prepare(Setup { registry, samples, ..Setup::here(dir)? })?;
    let ended = tokio::select! {
        ended = keep(&mut fleet, json) => ended,
        signal = interrupt.received() => {
            eprintln!("{signal}: stopping");
            Ok(())
        }
    };
    let stopped = fleet.stop();
    ended.and(stopped)
}

/// Starts the fleet, says where it answers, and returns only when a part has died.
async fn keep(fleet: &mut Fleet, json: bool) -> anyhow::Result<()> {
    fleet.start().await?;
    let (address, logs) = (fleet.address(), fleet.dir().join("logs"));
    if json {
        let said = serde_json::json!({
            "cloud": address.cloud, "api": address.api, "tokens": fleet.tokens(), "dir": fleet.dir(), "logs": logs,
        });
        println!("{said}");
    } else {
        println!("cloud       {}", address.cloud);
        println!("API         {}", address.api);
        for (who, token) in fleet.tokens() {
            println!("token       {token}  {who}");
        }
        println!("logs        {}", logs.display());
        println!("Ctrl-C stops the fleet; `carrel up --dir {}` goes on where it stood", fleet.dir().display());
    }
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        fleet.check()?;
    }
}
