//! From what was typed to what is done; errors end on stderr with the thing, the cause and the next step.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Carrel, Command, Tenants};
use crate::fleet::Fleet;
use crate::{client, demo, internal, upload};

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

#[tokio::main(worker_threads = 2)]
async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo { dir, json } => demo::run(dir, json).await,
        Command::Up { dir, tenants } => up(&dir, tenants.as_deref()).await,
        Command::Upload { tenant, pack, files, fleet } => upload::run(&tenant, &pack, &files, &fleet).await,
        Command::Reviews(command) => client::reviews(command).await,
        Command::DeadLetters(command) => client::dead_letters(command).await,
        Command::Tenants(Tenants::Check { file }) => {
            let registry = carrel_dispatcher::config::load_registry(&file)?;
            println!("{}: {} tenant(s), nothing shared", file.display(), registry.tenants().count());
            Ok(())
        }
        Command::Cloud { .. } | Command::Internal(_) => anyhow::bail!("this command has a runtime of its own"),
    }
}

async fn up(dir: &Path, tenants: Option<&Path>) -> anyhow::Result<()> {
    eprintln!("{NO_ROOM}");
    let samples: Vec<&str> = carrel_samples::packs().iter().map(|pack| pack.tenant).collect();
    let mut fleet = Fleet::start(dir, tenants, &samples).await?;
    println!("cloud       {}", fleet.address.cloud);
    println!("API         {}", fleet.address.api);
    for (who, token) in &fleet.tokens {
        println!("token       {token}  {who}");
    }
    println!("logs        {}", fleet.dir.join("logs").display());
    println!("Ctrl-C stops the fleet; `carrel up --dir {}` goes on where it stood", dir.display());
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    let mut watch = tokio::time::interval(std::time::Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = watch.tick() => fleet.check()?,
        }
    }
    eprintln!("stopping");
    fleet.stop().await
}
