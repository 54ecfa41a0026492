//! Whether this machine can divide tenants: tried before a fleet starts, with the very rooms it will use.
//!
//! The outer room is a task's; in it this same program opens an inner one, as a worker does for its agent. Refuses to
//! start a fleet that could not keep its tenants apart, unless it is told out loud not to.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use carrel_local::config::Isolation;
use carrel_sandbox::{Command, Entry, Exit, Hearing, Limits, Missing, Network, Profile, Room, Tier};

use crate::fleet::Setup;

/// Said wherever nothing divides the tasks.
const INSECURE: &str = "warning: --insecure: nothing divides tenants, agents and this machine from each other; \
     review only files that you trust";
/// Said where rooms stand.
const DIVIDED: &str = "each task and each agent runs in a room of its own (Linux namespaces)";

/// Says what divides tenants here and how files come in, which it settles, or why nothing can divide them and what to do.
pub(crate) async fn check(setup: &mut Setup) -> anyhow::Result<String> {
    if setup.isolation == Isolation::None {
        return Ok(INSECURE.to_owned());
    }
    const ELSE: &str = "or pass --insecure to run without any isolation";
    if let Err(missing) = carrel_sandbox::probe(Tier::Namespaces).await {
        bail!("this machine cannot divide tenants: {missing}; {ELSE}");
    }
    let nested = open(&setup.program, &["internal", "room"], Profile::Task).await;
    nested.with_context(|| format!("this machine builds no room within a room; {ELSE}"))?;
    let volume = carrel_sandbox::probe_volume().await;
    setup.volume = volume.is_ok();
    Ok(format!("{DIVIDED}; {}", input(volume)))
}

/// What is said of the files of a pack.
fn input(volume: Result<(), Missing>) -> String {
    match volume {
        Ok(()) => "files are read from the tenant's bucket, mounted read-only".to_owned(),
        Err(missing) => format!("files are fetched first, since no room mounts a bucket: {missing}"),
    }
}

/// Whether a room may mount a volume, as far as can be told before one is tried: whoever opens the device may, in a
/// namespace of its own.
pub(crate) fn can_mount() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok()
}

/// Prints what this machine can give: every tier, a volume, a held memory limit.
pub(crate) async fn probe(json: bool) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for tier in Tier::ALL {
        found.push((tier.to_string(), carrel_sandbox::probe(tier).await));
    }
    found.push(("volume".to_owned(), carrel_sandbox::probe_volume().await));
    found.push(("memory guarantee".to_owned(), carrel_sandbox::probe_memory().await));
    found.push(("cloud run sandbox".to_owned(), carrel_sandbox::probe_cloud_run().await));
    if json {
        let told = found.iter().map(|(name, given)| match given {
            Ok(()) => serde_json::json!({ "name": name, "given": true }),
            Err(Missing { what, fix }) => serde_json::json!({ "name": name, "given": false, "what": what, "fix": fix }),
        });
        println!("{}", serde_json::Value::from_iter(told));
        return Ok(());
    }
    for (name, given) in found {
        match given {
            Ok(()) => println!("{name:<18} yes"),
            Err(missing) => println!("{name:<18} no   {missing}"),
        }
    }
    Ok(())
}

/// In the outer room: opens an inner one.
pub(crate) fn inner() -> anyhow::Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(open(&program, &["--version"], Profile::Command))
}

async fn open(program: &Path, args: &[&str], profile: Profile) -> anyhow::Result<()> {
    let mut view = Entry::system();
    view.push(Entry::Fresh { at: "/tmp".into(), bytes: 1 << 20, inodes: 100, exec: false });
    Entry::add(&mut view, program);
    let room = Room {
        command: Command {
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: Vec::new(),
            cwd: "/tmp".into(),
        },
        view,
        network: Network::None,
        profile,
        limits: Limits {
            wall: Duration::from_secs(10),
            cpu_seconds: 10,
            memory_bytes: 1 << 30,
            processes: 64,
            file_bytes: 1 << 20,
            open_files: 256,
        },
    };
    let hearing = Hearing { output_bytes: 1 << 20, line_bytes: 4096, stderr_tail_bytes: 4096 };
    let (finished, ()) = carrel_sandbox::run(Tier::Namespaces, &room, hearing, drop, |_| {}).await?;
    let ended = finished.ended;
    if ended.exit != Exit::Code(0) {
        bail!("{}", String::from_utf8_lossy(&ended.stderr_tail).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_fetched_are_said_to_be_with_what_is_missing_and_the_remedy() {
        let missing = Missing { what: "this machine has no /dev/fuse".to_owned(), fix: "modprobe fuse".to_owned() };
        let said = input(Err(missing));
        assert!(
            said.starts_with("files are fetched first") && said.contains("has no /dev/fuse: modprobe fuse"),
            "{said}"
        );
        assert!(input(Ok(())).contains("mounted read-only"));
    }
}
