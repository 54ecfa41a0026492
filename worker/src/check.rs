//! Inputs against their seal, twice: sealed generations are fetched before the review, and are still live before delivery.
//!
//! Refuses by metadata alone what is too large, too many, of a type nobody reads, or not what the manifest says: such
//! bytes are never fetched. What is fetched lies under generated names; the customer's names never touch the disk.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use carrel_cloud::DownloadError;
use carrel_sandbox::Tier;
use carrel_schemas::agent::FileFormat;
use carrel_schemas::ids::{FileId, ObjectName};
use carrel_schemas::outcome::{RefusalCode, Verdict};
use carrel_schemas::seal::Member;
use futures::{StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;

use crate::case::{Case, Looked, Refusal, Stop};
use crate::claim::Claimed;
use crate::manifest::{self, Manifest};
use crate::review::Reviewed;

/// Downloads at once.
const PARALLEL: usize = 4;
/// Changed members that an outcome names.
const MAX_NAMED: usize = 50;

/// One member that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// Which entry of [`Hydrated::looked`].
    pub(crate) index: usize,
    pub(crate) format: FileFormat,
    pub(crate) size: u64,
    /// The name it is shown under.
    pub(crate) shown: String,
    /// Below the attempt's own directory, or in the volume.
    pub(crate) path: PathBuf,
}

/// The directories of one attempt; removed when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    fn make(case: &Case) -> anyhow::Result<Self> {
        let place = Self { root: Self::private(case)? };
        if case.config.isolation == Tier::Process {
            // Its agent may be another user, who must find the way; the name of the directory is nobody's to guess.
            let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            std::fs::set_permissions(place.root(), passable).context("let the agent pass")?;
        }
        for name in ["input", "scratch", "output", "home"] {
            let path = place.dir(name);
            std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        }
        Ok(place)
    }

    /// Another directory beside it, under a name that nobody could know before.
    pub(crate) fn private(case: &Case) -> anyhow::Result<TempDir> {
        let scratch = &case.config.scratch;
        let made = tempfile::Builder::new().prefix("carrel-").tempdir_in(scratch);
        made.with_context(|| format!("make a directory in {}", scratch.display()))
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

/// Every sealed member is either refused, with a reason, or can be read as it was sealed: on disk, or in the volume.
#[derive(Debug)]
pub(crate) struct Hydrated {
    pub(crate) case: Case,
    pub(crate) looked: Vec<Looked>,
    pub(crate) fetched: Vec<Fetched>,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) place: Place,
}

pub(crate) async fn hydrate(Claimed(case): Claimed) -> Result<Hydrated, Stop> {
    case.progress.stage("check");
    let place = Place::make(&case)?;
    let mut looked: Vec<Looked> = case
        .seal
        .members
        .iter()
        .enumerate()
        .map(|(index, member)| Looked {
            file_id: FileId::nth(index),
            name: member.name.clone(),
            refusal: None,
            flags: Vec::new(),
        })
        .collect();
    let manifest = match read_manifest(&case).await? {
        Found::None => None,
        Found::Gone(name) => return Err(case.decide(Verdict::InputsChanged { changed: vec![name] }, &looked)),
        Found::Refused(reason) => return Err(case.decide(Verdict::Refused { reason }, &looked)),
        Found::Manifest(manifest) => Some(manifest),
    };
    for (index, (member, look)) in case.seal.members.iter().zip(&mut looked).enumerate() {
        look.refusal = by_metadata(&case, index, member, manifest.as_ref());
    }
    let wanted = looked.iter().zip(&case.seal.members).enumerate().filter(|(_, (look, _))| look.refusal.is_none());
    let wanted: Vec<_> = wanted.map(|(index, (look, member))| (index, look.file_id.clone(), member.clone())).collect();
    if case.config.volume.is_some() {
        // A mount shows what is there now.
        let changed = changed(&case).await?;
        if !changed.is_empty() {
            return Err(case.decide(Verdict::InputsChanged { changed }, &looked));
        }
    }
    let downloads = wanted.into_iter().map(|(index, id, member)| find_or_fetch(&case, &place, index, id, member));
    let fetched: Vec<_> = futures::stream::iter(downloads).buffered(PARALLEL).try_collect().await?;
    let gone: Vec<_> = fetched.iter().filter_map(|got| got.as_ref().err().cloned()).take(MAX_NAMED).collect();
    if !gone.is_empty() {
        return Err(case.decide(Verdict::InputsChanged { changed: gone }, &looked));
    }
    let fetched = fetched.into_iter().flatten().collect();
    Ok(Hydrated { case, looked, fetched, manifest, place })
}

/// What the name's ending says; only a hint until the bytes were looked at.
pub(crate) fn format_of(name: &str) -> Option<FileFormat> {
    let (_, ending) = name.rsplit_once('.')?;
    [FileFormat::Csv, FileFormat::Xlsx, FileFormat::Pdf]
        .into_iter()
        .find(|format| ending.eq_ignore_ascii_case(format.extension()))
}

fn by_metadata(case: &Case, index: usize, member: &Member, manifest: Option<&Manifest>) -> Option<Refusal> {
    let limits = &case.config.limits;
    let name = case.short_name(&member.name);
    if index >= limits.max_files as usize {
        let most = limits.max_files;
        let message = format!("a pack may hold {most} files and {name:?} is one too many; split the pack");
        return Some(Refusal::new(RefusalCode::TooMany, message));
    }
    if member.size == 0 {
        return Some(Refusal::new(RefusalCode::Empty, format!("{name:?} has no bytes; upload it again")));
    }
    if member.size > limits.max_file_bytes {
        let (size, most) = (member.size, limits.max_file_bytes);
        let message =
            format!("{name:?} has {size} bytes, {most} are allowed; split the file or ask for a higher limit");
        return Some(Refusal::new(RefusalCode::TooLarge, message));
    }
    if format_of(name).is_none() {
        let message = format!("{name:?} is no PDF, CSV or XLSX by its name; save it as one of these");
        return Some(Refusal::new(RefusalCode::UnsupportedType, message));
    }
    manifest?.check(name, member)
}

enum Found {
    None,
    Gone(ObjectName),
    Refused(String),
    Manifest(Manifest),
}

async fn read_manifest(case: &Case) -> Result<Found, Stop> {
    let Some(member) = &case.seal.manifest else { return Ok(Found::None) };
    if member.size > manifest::MAX_BYTES {
        let (size, most) = (member.size, manifest::MAX_BYTES);
        return Ok(Found::Refused(format!("_manifest.json has {size} bytes, {most} are allowed; shorten it")));
    }
    let bucket = case.config.uploads.as_str();
    let Some(body) = case.objects.get(bucket, member.name.as_str(), manifest::MAX_BYTES).await? else {
        return Ok(Found::Gone(member.name.clone()));
    };
    if body.generation != member.generation.get() {
        return Ok(Found::Gone(member.name.clone()));
    }
    let manifest = match Manifest::parse(&body.bytes) {
        Ok(manifest) => manifest,
        Err(reason) => return Ok(Found::Refused(reason)),
    };
    let members = case.seal.members.iter().map(|member| (case.short_name(&member.name), member.name.as_str()));
    let missing = manifest.missing(members);
    if missing.is_empty() {
        return Ok(Found::Manifest(manifest));
    }
    Ok(Found::Refused(format!(
        "_manifest.json lists files that are not there: {missing:?}; upload them, then the manifest"
    )))
}

/// A member where the volume shows it; one that it cannot show is fetched.
async fn find_or_fetch(
    case: &Case,
    place: &Place,
    index: usize,
    id: FileId,
    member: Member,
) -> Result<Result<Fetched, ObjectName>, Stop> {
    if let Some(volume) = case.config.volume.clone() {
        let format = format_of(member.name.as_str()).context("a member without a format was refused before")?;
        let (size, wanted) = (member.size, member.clone());
        let found = tokio::task::spawn_blocking(move || volume.find(&wanted)).await.context("looking was cut off")?;
        if let Some(path) = found {
            return Ok(Ok(Fetched { index, format, size, shown: shown(&id, format), path }));
        }
        tracing::warn!(object.name = %member.name, "the volume does not show this file; it is fetched");
    }
    fetch(case, place, index, id, member).await
}

/// Downloads one generation; the inner error is a member that is gone.
async fn fetch(
    case: &Case,
    place: &Place,
    index: usize,
    id: FileId,
    member: Member,
) -> Result<Result<Fetched, ObjectName>, Stop> {
    let format = format_of(member.name.as_str()).context("a member without a format was refused before")?;
    let shown = shown(&id, format);
    let path = place.dir("input").join(&shown);
    let bucket = case.config.uploads.as_str();
    let (name, generation) = (member.name.as_str(), member.generation.get());
    let got = match case.objects.download(bucket, name, generation, &path, member.size).await {
        Ok(got) => got,
        Err(DownloadError::Gone { .. }) => return Ok(Err(member.name)),
        Err(error) => return Err(error.into()),
    };
    if (got.size, got.crc32c) != (member.size, member.crc32c) {
        return Err(Stop::Retry(anyhow!(
            "gs://{bucket}/{name}#{generation} arrived with {} bytes and crc32c {:08x}, sealed were {} and {:08x}",
            got.size,
            got.crc32c,
            member.size,
            member.crc32c
        )));
    }
    Ok(Ok(Fetched { index, format, size: got.size, shown, path }))
}

/// The name that a file is shown under.
fn shown(id: &FileId, format: FileFormat) -> String {
    format!("{id}.{}", format.extension())
}

/// A review whose inputs were still the live versions after it was made.
#[derive(Debug)]
pub(crate) struct Confirmed(pub(crate) Reviewed);

pub(crate) async fn confirm(reviewed: Reviewed) -> Result<Confirmed, Stop> {
    reviewed.case.progress.stage("confirm");
    let changed = changed(&reviewed.case).await?;
    if changed.is_empty() {
        return Ok(Confirmed(reviewed));
    }
    Err(reviewed.decide(Verdict::InputsChanged { changed }))
}

/// Members whose sealed generation is not the live one.
async fn changed(case: &Case) -> anyhow::Result<Vec<ObjectName>> {
    let bucket = case.config.uploads.as_str();
    let members = &case.seal.members;
    let folder = format!("{}/", case.seal.pack);
    let listed = if members.len() > 1 && members.iter().all(|member| member.name.as_str().starts_with(&folder)) {
        case.objects.list(bucket, &folder).await?
    } else {
        // No folder holds them and nothing else: they are looked for one by one.
        let finds = members.iter().map(|member| case.objects.find(bucket, member.name.as_str()));
        let found: Vec<_> = futures::stream::iter(finds).buffered(PARALLEL).try_collect().await?;
        found.into_iter().flatten().collect()
    };
    let live: std::collections::HashMap<_, _> = listed.iter().map(|o| (o.name.as_str(), o.generation)).collect();
    let is_live = |member: &&Member| live.get(member.name.as_str()) == Some(&member.generation.get());
    Ok(members.iter().filter(|m| !is_live(m)).map(|m| m.name.clone()).take(MAX_NAMED).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_read_in_any_case() {
        assert_eq!(format_of("a.b.XLSX"), Some(FileFormat::Xlsx));
        assert_eq!(format_of("xlsx"), None);
        assert_eq!(format_of("a.xlsm"), None);
    }
}
