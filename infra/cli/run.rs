//! From what was typed to what is done; errors end on stderr with the thing, the cause and the next step.

use std::process::ExitCode;

use carrel_local::config::Isolation;
use clap::Parser as _;

use crate::args::{Carrel, Command, Tenants};
use crate::fleet::Setup;
use crate::interrupt::Interrupt;
use crate::{client, demo, internal, replay, rooms, up, upload};

/// Runs one command.
pub fn main() -> ExitCode {
    // Before anything else: it forks, and what forks should be small and have one thread.
    if let Err(error) = carrel_sandbox::enter() {
        eprintln!("error: start the launcher of rooms: {error}");
        return ExitCode::FAILURE;
    }
    let command = Carrel::parse().command;
    // The parts choose their own runtimes.
    let done = match command {
        Command::Internal(part) => return internal::run(part),
        Command::Cloud(cloud) => crate::cloud::run(cloud),
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

fn isolation(insecure: bool) -> Isolation {
    if insecure { Isolation::None } else { Isolation::Namespaces }
}

#[tokio::main(worker_threads = 2)]
async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo { dir, insecure, json } => {
            demo::run(dir, isolation(insecure), json, &mut Interrupt::listen()?).await
        }
        Command::Up { dir, tenants, insecure, agent, clamd, json } => {
            let agent = agent.map(|words| words.0).unwrap_or_default();
            let isolation = isolation(insecure);
            let setup = Setup { registry: tenants, isolation, agent, clamd, ..Setup::here(dir)? };
            up::run(setup, json, &mut Interrupt::listen()?).await
        }
        Command::Probe { json } => rooms::probe(json).await,
        Command::Upload { tenant, pack, files, fleet } => upload::run(&tenant, &pack, &files, &fleet).await,
        Command::Reviews(command) => client::reviews(command).await,
        Command::DeadLetters(command) => replay::dead_letters(command).await,
        Command::Campaigns(command) => replay::campaigns(command).await,
        Command::Tenants(Tenants::Check { file, json }) => {
            let registry = carrel_dispatcher::registry_file::load(&file)?;
            let tenants: Vec<&str> = registry.tenants().map(|tenant| tenant.id.as_str()).collect();
            if json {
                println!("{}", serde_json::json!({ "file": file, "tenants": tenants }));
            } else {
                println!("{}: {} tenant(s), nothing shared", file.display(), tenants.len());
            }
            Ok(())
        }
        Command::Cloud(_) | Command::Internal(_) => anyhow::bail!("this command has a runtime of its own"),
    }
}
