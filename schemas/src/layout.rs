//! Names of objects: what lies where in a tenant's outputs bucket, and which uploads are not files of a pack.
//! The control bucket's layout belongs to the dispatcher alone and is not here.

use crate::ids::{Attempt, Epoch, IdError, ObjectName, PackId, ReviewId};

/// An empty object of this name in a pack's folder says that the pack is complete.
pub const MARKER: &str = "_COMPLETE";
/// A JSON object of this name in a pack's folder says so too, and lists the files.
pub const MANIFEST: &str = "_manifest.json";

fn own(name: String) -> ObjectName {
    ObjectName::parse(name).expect("built from ids that hold no line break and are short")
}

/// `seals/<review>.json`: the worker's copy of the seal.
pub fn seal(review: &ReviewId) -> ObjectName {
    own(format!("seals/{review}.json"))
}

/// `claims/<review>/<epoch>-<attempt>.json`.
pub fn claim(review: &ReviewId, epoch: Epoch, attempt: Attempt) -> ObjectName {
    own(format!("claims/{review}/{epoch}-{attempt}.json"))
}

/// `claims/<review>/`: all of them; each name goes on with its epoch and a hyphen.
pub fn claims(review: &ReviewId) -> String {
    format!("claims/{review}/")
}

/// `progress/<review>/`: of all attempts, named as claims are.
pub fn progresses(review: &ReviewId) -> String {
    format!("progress/{review}/")
}

/// `reviews/<review>/`: what all attempts delivered, each under its epoch and number.
pub fn attempts(review: &ReviewId) -> String {
    format!("reviews/{review}/")
}

/// `outcomes/<review>/`: of all epochs.
pub fn outcomes(review: &ReviewId) -> String {
    format!("outcomes/{review}/")
}

/// `outcomes/<review>/<epoch>.json`.
pub fn outcome(review: &ReviewId, epoch: Epoch) -> ObjectName {
    own(format!("outcomes/{review}/{epoch}.json"))
}

/// `progress/<review>/<epoch>-<attempt>.json`: the stage an attempt is in, overwritten; a hint for people.
pub fn progress(review: &ReviewId, epoch: Epoch, attempt: Attempt) -> ObjectName {
    own(format!("progress/{review}/{epoch}-{attempt}.json"))
}

/// `reviews/<review>/<epoch>-<attempt>/<file>`: a prefix that no other attempt shares.
pub fn delivered(review: &ReviewId, epoch: Epoch, attempt: Attempt, file: &str) -> Result<ObjectName, IdError> {
    ObjectName::parse(format!("reviews/{review}/{epoch}-{attempt}/{file}"))
}

/// How an uploaded object counts, by its name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadKind {
    /// A file of a pack.
    File,
    /// `_COMPLETE`.
    Marker,
    /// `_manifest.json`.
    Manifest,
    /// A folder placeholder, a composed part or a reserved name: no file of any pack.
    Ignored,
}

/// Which folder an object lies in, and how it counts there. Loose objects form [`PackId::ROOT`].
pub fn classify(object: &ObjectName) -> (PackId, UploadKind) {
    let name = object.as_str();
    let (folder, rest) = match name.split_once('/') {
        Some((folder, rest)) if !folder.is_empty() => (folder, rest),
        // A leading slash names a folder without a name: such objects are loose.
        _ => (PackId::ROOT, name),
    };
    let pack = PackId::parse(folder).expect("a part of an object name is one");
    let kind = match rest {
        MARKER => UploadKind::Marker,
        MANIFEST => UploadKind::Manifest,
        _ if rest.is_empty() || name.ends_with('/') => UploadKind::Ignored,
        // Parallel composite uploads of Google's tools, and names the fleet reserves.
        _ if name.contains("/.carrel/") || name.starts_with(".carrel/") => UploadKind::Ignored,
        _ if name.starts_with("gcloud/tmp/parallel_composite_uploads/") => UploadKind::Ignored,
        _ => UploadKind::File,
    };
    (pack, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_legal_object_name_has_a_pack() {
        for (name, pack, kind) in [
            ("q3/pos.csv", "q3", UploadKind::File),
            ("loose.csv", "_root", UploadKind::File),
            ("q3/_COMPLETE", "q3", UploadKind::Marker),
            ("q3/sub/_COMPLETE", "q3", UploadKind::File),
            ("_COMPLETE", "_root", UploadKind::Marker),
            ("q3/_manifest.json", "q3", UploadKind::Manifest),
            ("q3/", "q3", UploadKind::Ignored),
            ("q3/sub/", "q3", UploadKind::Ignored),
            ("/a.csv", "_root", UploadKind::File),
            ("../a.csv", "..", UploadKind::File),
            ("a//b.csv", "a", UploadKind::File),
            ("gcloud/tmp/parallel_composite_uploads/x", "gcloud", UploadKind::Ignored),
        ] {
            let got = classify(&ObjectName::parse(name).expect("legal"));
            assert_eq!(got, (PackId::parse(pack).expect("legal"), kind), "{name}");
        }
    }
}
