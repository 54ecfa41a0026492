//! Writes every published JSON Schema, and the documents of the topics and of the HTTP API, into `schemas/json/`.

use std::path::Path;

use carrel_schemas::json_schema::{all, render};

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/json");
    std::fs::create_dir_all(&folder)?;
    for (name, schema) in all() {
        std::fs::write(folder.join(format!("{name}.json")), render(&schema))?;
    }
    std::fs::write(folder.join("asyncapi.json"), render(&carrel_schemas::async_api::document()))?;
    std::fs::write(folder.join("openapi.json"), render(&carrel_dispatcher::api::open_api()))
}
