//! The worker's own small binary, for the image of a tenant's job.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: it forks, and what forks should be small and have one thread.
    if let Err(error) = carrel_worker::enter() {
        eprintln!("start the launcher of rooms: {error}");
        return ExitCode::from(75);
    }
    carrel_worker::main(&[], std::env::args().skip(1))
}
