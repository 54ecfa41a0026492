//! The volume's own small binary: `volume --bucket B MOUNTPOINT`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).init();
    carrel_volume::main(std::env::args().skip(1))
}
