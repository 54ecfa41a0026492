//! From what was typed to what is done; errors end on stderr with the thing, the cause and the next step.

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Carrel, Command, Tenants};
use crate::interrupt::Interrupt;
use crate::{client, demo, internal, up, upload};

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
        Command::Demo { dir, json } => demo::run(dir, json, &mut Interrupt::listen()?).await,
        Command::Up { dir, tenants, clamd, json } => {
            up::run(dir, tenants, clamd, json, &mut Interrupt::listen()?).await
        }
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
