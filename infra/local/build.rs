//! Compiles the protos that are served; no protoc needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["google/pubsub/v1/pubsub.proto", "google/storage/v2/storage.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(protos, ["proto"])?;
    tonic_prost_build::configure().build_client(false).bytes(".").compile_fds(descriptors)?;
    Ok(())
}
