//! Every hostile case on every tier that this machine can build.
//!
//! A harness with a `main` of its own: the launcher must be started before there are threads, and the attacker that
//! runs inside the rooms is this same program.

mod attack;
mod world;

use carrel_sandbox::Tier;
use libtest_mimic::{Arguments, Failed, Trial};
use world::World;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("attack", rest)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        attack::main(rest);
        return;
    }
    carrel_sandbox::enter().expect("the launcher starts");
    let trial =
        |tier: Tier| Trial::test(format!("{tier}::what_was_inherited_is_nothing"), move || inherits_nothing(tier));
    let trials = [Tier::Namespaces, Tier::Process].map(trial).into_iter().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn inherits_nothing(tier: Tier) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let world = World::new(tier);
    let came = runtime.block_on(world.attack("descriptors", &[]));
    if came.said == "0 1 2" { Ok(()) } else { Err(came.said.into()) }
}
