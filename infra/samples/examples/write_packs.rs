//! Writes the demo packs below a directory, as `<tenant>/<pack>/<file>`: `write_packs DIR`.

use std::path::PathBuf;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let to = PathBuf::from(std::env::args_os().nth(1).context("name the directory to write to: write_packs DIR")?);
    for pack in carrel_samples::packs() {
        let folder = to.join(pack.tenant).join(pack.pack);
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        for file in pack.files {
            let path = folder.join(file.name);
            std::fs::write(&path, file.bytes).with_context(|| format!("write {}", path.display()))?;
        }
        println!("{}", folder.display());
    }
    Ok(())
}
