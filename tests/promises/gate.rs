//! An agent that is a gate: it runs, and waits in its room until it is let through from outside.
//!
//! A room lets nothing out but what is delivered, so the gate is watched and opened as the machine's owner can: by
//! looking at processes, and by a signal that means nothing to a program that does not listen for it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use carrel::fleet::Setup;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{eventually, parent, program};

/// The gate of one fleet.
pub(crate) struct Gate {
    mark: String,
    /// Workers whose agents were ever seen at it.
    seen: Mutex<BTreeSet<i32>>,
}

impl Gate {
    /// Makes it the agent of a fleet.
    pub(crate) fn install(setup: &mut Setup) -> Self {
        let mark = format!("gate-{}", setup.dir.display());
        let script = format!(
            ": {mark}\ntrap 'open=1' WINCH\nwhile [ -z \"$open\" ]; do sleep 0.02; done\nexec \"$1\" internal analyst \"$2\""
        );
        let analyst = program().display().to_string();
        setup.agent = ["/bin/sh", "-c", &script, "gate", &analyst].map(str::to_owned).to_vec();
        Self { mark, seen: Mutex::default() }
    }

    /// The agents that wait now.
    fn agents(&self) -> Vec<Pid> {
        agents(&self.mark)
    }

    /// True if nobody waits at it.
    pub(crate) fn is_deserted(&self) -> bool {
        self.agents().is_empty()
    }

    /// The workers whose agents have reached the gate so far.
    fn reached(&self) -> Vec<Pid> {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        seen.extend(self.agents().into_iter().filter_map(worker_above).map(|worker| worker.as_raw_nonzero().get()));
        seen.iter().filter_map(|pid| Pid::from_raw(*pid)).collect()
    }

    /// Waits for as many workers as this to have come.
    pub(crate) async fn is_reached_by(&self, count: usize) -> Vec<Pid> {
        eventually(&format!("{count} agent(s) at the gate"), async || {
            let reached = self.reached();
            (reached.len() >= count).then_some(reached)
        })
        .await
    }

    /// Lets through whoever waits, and whoever comes as long as the answer is kept.
    #[must_use]
    pub(crate) fn open(self) -> Open {
        Open(tokio::spawn(async move {
            let mut turn = tokio::time::interval(std::time::Duration::from_millis(10));
            loop {
                turn.tick().await;
                for agent in self.agents() {
                    match kill_process(agent, Signal::WINCH) {
                        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                        Err(error) => panic!("open the gate: {error}"),
                    }
                }
            }
        }))
    }
}

/// A gate that stands open until this is dropped.
pub(crate) struct Open(tokio::task::JoinHandle<()>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let all = std::fs::read_dir("/proc").expect("/proc");
    all.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
}

fn command_line(pid: Pid) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()
}

/// The worker of a process in its room. What its launcher forks carries the same command line, under another name.
pub(crate) fn worker_above(process: Pid) -> Option<Pid> {
    let works = |pid: &Pid| {
        let own_name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
        own_name.is_ok_and(|name| name.trim() == "carrel")
            && command_line(*pid).is_some_and(|words| words.contains("\0internal\0worker\0"))
    };
    std::iter::successors(parent(process), |pid| parent(*pid)).find(works)
}

/// The shells that run as agents with this mark in their script.
pub(crate) fn agents(mark: &str) -> Vec<Pid> {
    let runs =
        |pid: &Pid| command_line(*pid).is_some_and(|words| words.starts_with("/bin/sh\0") && words.contains(mark));
    processes().filter(runs).collect()
}
