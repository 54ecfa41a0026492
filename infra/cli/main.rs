//! `carrel`, the one binary people type.

fn main() -> std::process::ExitCode {
    carrel::main()
}
