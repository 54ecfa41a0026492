//! Writes every published JSON Schema into `schemas/json/`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("json");
    std::fs::create_dir_all(&folder)?;
    for (name, schema) in carrel_schemas::json_schema::all() {
        std::fs::write(folder.join(format!("{name}.json")), carrel_schemas::json_schema::render(&schema))?;
    }
    Ok(())
}
