//! Uploads a pack through the Storage API, and ends it with the marker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use carrel_cloud::Objects;
use carrel_schemas::ids::{ObjectName, PackId};
use carrel_schemas::layout::{MANIFEST, MARKER, UploadKind, classify};

use crate::args::Which;
use crate::fleet::Address;

/// A file of a pack: its name below the pack's folder, and its bytes.
pub type Named = (String, Bytes);

/// Writes the files and then the marker.
pub async fn pack(objects: &Objects, bucket: &str, pack: &str, files: Vec<Named>) -> anyhow::Result<()> {
    for (name, bytes) in files {
        objects.put(bucket, &format!("{pack}/{name}"), bytes, "application/octet-stream").await?;
    }
    objects.put(bucket, &format!("{pack}/{MARKER}"), Bytes::new(), "application/octet-stream").await?;
    Ok(())
}

/// The pack of that name; refuses a name whose marker would close another.
fn pack_named(folder: &str) -> anyhow::Result<PackId> {
    let pack = PackId::parse(folder)?;
    let marker = ObjectName::parse(format!("{pack}/{MARKER}"))?;
    if classify(&marker) != (pack.clone(), UploadKind::Marker) {
        bail!("{folder:?} names no pack: a pack is one folder at the top of the bucket; leave out every /");
    }
    Ok(pack)
}

/// Reads files from disk and names each after itself; refuses two of one name, of which the later would win.
fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Named>> {
    let mut files: BTreeMap<String, (&PathBuf, Bytes)> = BTreeMap::new();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{}: no file name in UTF-8; rename it", path.display()))?;
        if name == MARKER || name == MANIFEST {
            bail!("{}: {name} has a meaning of its own in a pack; rename it", path.display());
        }
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        if let Some((first, _)) = files.insert(name.to_owned(), (path, Bytes::from(bytes))) {
            bail!("{} and {} would both become {name}; rename one", first.display(), path.display());
        }
    }
    Ok(files.into_iter().map(|(name, (_, bytes))| (name, bytes)).collect())
}

pub(crate) async fn run(tenant: &str, folder: &str, paths: &[PathBuf], fleet: &Which) -> anyhow::Result<()> {
    let (address, _) = Address::load(&fleet.dir)?;
    let registry = carrel_dispatcher::registry_file::load(&fleet.dir.join("tenants.yaml"))?;
    let Some(tenant) = registry.tenants().find(|known| known.id.as_str() == tenant) else {
        let known: Vec<_> = registry.tenants().map(|tenant| tenant.id.as_str()).collect();
        bail!("no tenant {tenant:?} in {}/tenants.yaml; it knows {}", fleet.dir.display(), known.join(", "));
    };
    let folder = pack_named(folder)?;
    let files = read(paths)?;
    let count = files.len();
    let objects = address.connector().objects().await?;
    pack(&objects, tenant.uploads_bucket.as_str(), folder.as_str(), files).await?;
    if fleet.json {
        println!("{}", serde_json::json!({ "tenant": tenant.id, "pack": folder, "files": count }));
    } else {
        println!("{count} file(s) uploaded to gs://{}/{folder}/ and marked complete", tenant.uploads_bucket);
        println!("follow it with: carrel reviews list {}", tenant.id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_that_its_marker_would_not_close_is_refused() {
        assert_eq!(pack_named("q3 2026").expect("a folder").as_str(), "q3 2026");
        for name in ["a/b", "/a", "a/", ""] {
            assert!(pack_named(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn files_that_would_overwrite_each_other_or_the_marker_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(&path, b"sku\n1\n").expect("written");
            path
        };
        let (one, two, marker) = (file("a/items.csv"), file("b/items.csv"), file(MARKER));
        let error = read(&[one.clone(), two]).expect_err("the same name twice").to_string();
        assert!(error.contains("a/items.csv") && error.contains("b/items.csv"), "{error}");
        assert!(read(&[marker]).is_err());
        assert_eq!(read(&[one]).expect("one file")[0].0, "items.csv");
    }
}
