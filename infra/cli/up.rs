//! `carrel up`: a fleet that stays until it is told to stop, and says how to reach it.

use std::time::Duration;

use crate::fleet::{Fleet, Setup};
use crate::interrupt::Interrupt;
use crate::rooms;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Keeps a fleet running until a signal, or until a part of it has died.
pub(crate) async fn run(setup: Setup, json: bool, interrupt: &mut Interrupt) -> anyhow::Result<()> {
    let samples = carrel_samples::packs().iter().map(|pack| pack.tenant.to_owned()).collect();
    let mut setup = Setup { samples, ..setup };
    eprintln!("{}", rooms::check(&mut setup).await?);
    let mut fleet = Fleet::prepare(setup)?;
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
