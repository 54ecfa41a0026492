//! The dispatcher as its own small binary, for the image that runs it in the cloud.

fn main() -> std::process::ExitCode {
    carrel_dispatcher::main()
}
