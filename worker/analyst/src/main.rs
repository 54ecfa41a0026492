//! The `analyst` program: arguments and the clock, nothing else.

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    carrel_analyst::main(&arguments, || std::time::SystemTime::now().into())
}
