//! Uploads a pack through the Storage API, and ends it with the marker.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use carrel_cloud::Objects;
use carrel_schemas::layout::MARKER;

use crate::args::Which;
use crate::fleet::Address;

/// A file of a pack: its name below the pack's folder, and its bytes.
pub(crate) type Named = (String, Bytes);

/// Writes the files and then the marker.
pub(crate) async fn pack(objects: &Objects, bucket: &str, pack: &str, files: Vec<Named>) -> anyhow::Result<()> {
    for (name, bytes) in files {
        objects.put(bucket, &format!("{pack}/{name}"), bytes, "application/octet-stream").await?;
    }
    objects.put(bucket, &format!("{pack}/{MARKER}"), Bytes::new(), "application/octet-stream").await?;
    Ok(())
}

pub(crate) async fn run(tenant: &str, folder: &str, paths: &[PathBuf], fleet: &Which) -> anyhow::Result<()> {
    let (address, _) = Address::load(&fleet.dir)?;
    let registry = carrel_dispatcher::config::load_registry(&fleet.dir.join("tenants.yaml"))?;
    let Some(tenant) = registry.tenants().find(|known| known.id.as_str() == tenant) else {
        bail!("no tenant {tenant:?} in {}/tenants.yaml", fleet.dir.display());
    };
    let mut files = Vec::new();
    for path in paths {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("{}: no file name", path.display()))?;
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        files.push((name.to_owned(), Bytes::from(bytes)));
    }
    let count = files.len();
    let objects = address.connector().objects().await?;
    pack(&objects, tenant.uploads_bucket.as_str(), folder, files).await?;
    if fleet.json {
        println!("{}", serde_json::json!({ "tenant": tenant.id, "pack": folder, "files": count }));
    } else {
        println!("{count} file(s) uploaded to gs://{}/{folder}/ and marked complete", tenant.uploads_bucket);
        println!("follow it with: carrel reviews list {}", tenant.id);
    }
    Ok(())
}
