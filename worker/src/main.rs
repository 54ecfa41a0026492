//! The worker's own small binary, for the image of a tenant's job.

use std::process::ExitCode;

fn main() -> ExitCode {
    carrel_worker::main(std::env::args().skip(1))
}
