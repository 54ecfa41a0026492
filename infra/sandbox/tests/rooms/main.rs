//! Every hostile case on every tier that this machine can build.
//!
//! A harness with a `main` of its own: the launcher must be started before there are threads, and the attacker that
//! runs inside the rooms is this same program. `--matrix` writes what came of it into `matrix.txt`.

mod attack;
mod cases;
mod matrix;
mod rooms;
mod stories;
mod world;

use carrel_sandbox::{Runtime, Tier};
use cases::{CASES, Case, Proof};
use libtest_mimic::{Arguments, Failed, Trial};
use world::World;

const GVISOR: Tier = Tier::Oci(Runtime::Runsc);
/// Why some cases are not held in gVisor.
pub(crate) const UNSEEN: &str =
    "processes inside gVisor cannot be seen from outside; crun shows that the keeper ends all";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["attack", ..] => return attack::main(&args[1..]),
        ["host", tier, mark] => {
            carrel_sandbox::enter().expect("the launcher starts");
            stories::be_host(tier, mark)
        }
        _ => {}
    }
    carrel_sandbox::enter().expect("the launcher starts");
    let writes = args.iter().any(|arg| arg == "--matrix");
    let arguments = Arguments::from_iter(std::env::args().filter(|arg| arg != "--matrix"));
    println!("memory guarantee: {}", guarantee());
    let mut trials = vec![matrix::held_elsewhere(), matrix::every_number_is_held()];
    if !writes {
        trials.push(matrix::every_case_is_kept());
    }
    for tier in Tier::ALL {
        match wait_for(carrel_sandbox::probe(tier)).expect("a runtime") {
            Ok(()) => {
                trials.extend(CASES.iter().map(|case| trial(tier, case, writes)));
                trials.extend(rooms::trials(tier));
            }
            Err(missing) => trials.push(skipped(format!("{tier}::every_case"), &missing.to_string())),
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if writes {
        matrix::write().expect("the matrix is written");
    }
    conclusion.exit();
}

fn trial(tier: Tier, case: &'static Case, writes: bool) -> Trial {
    let name = format!("{tier}::{:02}_{}", case.number, case.name);
    match lacks(tier, case) {
        Some(what) => skipped(name, &what),
        None => Trial::test(name, move || hold(tier, case, writes)),
    }
}

/// What holds the memory of the rooms to come, by the word of the kernel: it decides which code the cases meet.
fn guarantee() -> String {
    match wait_for(carrel_sandbox::probe_memory()).expect("a runtime") {
        Ok(()) => {
            let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let one =
                own.lines().any(|line| line.split(':').nth(1).is_some_and(|all| all.split(',').any(|c| c == "memory")));
            format!("a cgroup of version {}", if one { 1 } else { 2 })
        }
        Err(missing) => format!("none but looking often ({missing})"),
    }
}

/// A trial that cannot run here, said aloud with the remedy.
pub(crate) fn skipped(name: String, why: &str) -> Trial {
    Trial::test(name, || Ok(())).with_kind(format!("SKIPPED: {why}")).with_ignored_flag(true)
}

fn lacks(tier: Tier, case: &Case) -> Option<String> {
    if tier == GVISOR && matches!(case.number, 27 | 28) {
        return Some(UNSEEN.to_owned());
    }
    let by_scope = ["abstract_sockets_of_the_machine_are_not_there", "the_first_process_cannot_be_ended_from_inside"];
    let is_user = !rustix::process::geteuid().is_root();
    let of_user = is_user && case.name == "the_program_cannot_be_signalled";
    if tier == Tier::Process && (by_scope.contains(&case.name) || of_user) && !attack::domains_are_scoped() {
        let why = "not held here: it takes Linux 6.12, with landlock among its security modules";
        return Some(why.to_owned());
    }
    let Proof::Attack(attack) = case.proof else { return None };
    if tier == Tier::Process && is_user && attack[0] == "lift-limits" {
        return Some("a command of this tier stays the user, whose control groups are its own".to_owned());
    }
    let there = |path: &str| std::path::Path::new(path).exists();
    match attack[0] {
        "python" if !there("/usr/bin/python3") => Some("no /usr/bin/python3; install python3".to_owned()),
        "numpy" if !there("/usr/lib/python3/dist-packages/numpy") => {
            Some("the system's Python has no numpy; install python3-numpy".to_owned())
        }
        "su" if !there("/usr/bin/su") => Some("no /usr/bin/su; install util-linux".to_owned()),
        _ => None,
    }
}

fn hold(tier: Tier, case: &'static Case, writes: bool) -> Result<(), Failed> {
    let outcome = wait_for(async {
        let world = World::new(tier);
        match case.proof {
            Proof::Attack(attack) => world.attack(attack).await.word(),
            Proof::Story(story) => story(&world).await,
        }
    })?;
    // The table pads its cells.
    let outcome = outcome.trim_end().to_owned();
    let of = &case.expected;
    let expected = match tier {
        Tier::Process if rustix::process::geteuid().is_root() => of.process_as_root,
        Tier::Process => of.process_as_user,
        Tier::Namespaces => of.namespaces,
        GVISOR => of.runsc,
        Tier::Oci(_) => of.oci,
    };
    if !expected.split('|').any(|word| word == outcome) {
        return Err(format!("came to {outcome:?}, not to {expected:?}").into());
    }
    matrix::saw(tier, case, &outcome);
    let Some(column) = matrix::column(tier) else { return Ok(()) };
    match matrix::kept().get(&(column, matrix::row(case))) {
        Some(kept) if writes || *kept == outcome => Ok(()),
        // It depends on the kernel, and the table is of another.
        Some(_) if expected.contains('|') => Ok(()),
        None if writes => Ok(()),
        kept => Err(format!("came to {outcome:?}, and matrix.txt keeps {kept:?}; run with --matrix").into()),
    }
}

pub(crate) fn wait_for<T>(story: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(story))
}
