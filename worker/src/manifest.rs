//! `_manifest.json`: what the uploader says the pack holds, held against what was sealed.
//!
//! `{"files":[{"name":"pos.csv","size":12,"crc32c":"AAAAAA==","sha256":"…"}]}`; names are relative to the pack's folder
//! or whole. `crc32c` is a number, or base64 of four bytes as Cloud Storage shows it. Refuses members that it does not
//! list or that differ from it, and the whole pack if a file that it lists is not there.

use std::collections::BTreeMap;

use base64::Engine as _;
use carrel_schemas::outcome::RefusalCode;
use carrel_schemas::seal::Member;
use serde::Deserialize;

use crate::case::Refusal;

/// A larger manifest is refused unread.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
struct Document {
    files: Vec<Listed>,
}

/// One file as the manifest tells it.
#[derive(Debug, Clone, Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    crc32c: Option<Checksum>,
    #[serde(default)]
    sha256: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Checksum {
    Number(u32),
    Base64(String),
}

impl Checksum {
    fn value(&self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Base64(text) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
                Some(u32::from_be_bytes(bytes.try_into().ok()?))
            }
        }
    }
}

/// A manifest that was read.
#[derive(Debug, Clone)]
pub(crate) struct Manifest(BTreeMap<String, Listed>);

impl Manifest {
    /// Reads a manifest; the error is for the uploader.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(bytes).map_err(|error| {
            format!("_manifest.json cannot be read ({error}); write {{\"files\":[{{\"name\":…}}]}} and upload it again")
        })?;
        Ok(Self(document.files.into_iter().map(|listed| (listed.name.clone(), listed)).collect()))
    }

    /// The listed names that none of the members has, first ten.
    pub(crate) fn missing<'a>(&self, members: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
        let there: std::collections::BTreeSet<&str> = members.flat_map(|(short, whole)| [short, whole]).collect();
        self.0.keys().filter(|name| !there.contains(name.as_str())).take(10).cloned().collect()
    }

    /// Holds a member against its entry by metadata alone.
    pub(crate) fn check(&self, short: &str, member: &Member) -> Option<Refusal> {
        let refuse = |what: String| Some(Refusal::new(RefusalCode::ManifestMismatch, what));
        let Some(listed) = self.entry(short, member.name.as_str()) else {
            return refuse(format!("{short:?} is not in _manifest.json; list it there, or leave the file out"));
        };
        if let Some(size) = listed.size.filter(|size| *size != member.size) {
            let found = member.size;
            return refuse(format!(
                "{short:?} has {found} bytes, _manifest.json says {size}; upload file and manifest again"
            ));
        }
        if listed.crc32c.as_ref().is_some_and(|sum| sum.value() != Some(member.crc32c)) {
            return refuse(format!("{short:?} has another crc32c than _manifest.json says; upload it again"));
        }
        None
    }

    /// Holds a file's SHA-256 against its entry.
    pub(crate) fn check_sha256(&self, short: &str, whole: &str, sha256: &str) -> Option<Refusal> {
        let wanted = self.entry(short, whole)?.sha256.as_ref()?;
        (!wanted.eq_ignore_ascii_case(sha256)).then(|| {
            let message = format!("{short:?} has another sha256 than _manifest.json says; upload it again");
            Refusal::new(RefusalCode::ManifestMismatch, message)
        })
    }

    fn entry(&self, short: &str, whole: &str) -> Option<&Listed> {
        self.0.get(short).or_else(|| self.0.get(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrel_schemas::ids::{Generation, ObjectName};

    #[test]
    fn a_member_that_differs_from_the_manifest_is_refused_by_name() {
        let manifest = br#"{"files":[{"name":"a.csv","size":1,"crc32c":"AAAAAQ=="},{"name":"q3/b.csv","crc32c":9},
            {"name":"c.csv","sha256":"AB"}]}"#;
        let manifest = Manifest::parse(manifest).expect("well formed");
        let member = |name: &str, size, crc32c| Member {
            name: ObjectName::parse(format!("q3/{name}")).expect("name"),
            generation: Generation::new(1),
            size,
            crc32c,
            content_type: None,
        };
        assert_eq!(manifest.check("a.csv", &member("a.csv", 1, 1)), None);
        for (name, size, crc32c) in [("a.csv", 2, 1), ("a.csv", 1, 2), ("b.csv", 1, 8), ("x.csv", 1, 1)] {
            let refusal = manifest.check(name, &member(name, size, crc32c)).expect("differs");
            assert_eq!(refusal.code, RefusalCode::ManifestMismatch);
            assert!(refusal.message.contains(name));
        }
        assert_eq!(manifest.check_sha256("c.csv", "q3/c.csv", "ab"), None);
        assert!(manifest.check_sha256("c.csv", "q3/c.csv", "ac").is_some());
        assert_eq!(manifest.missing([("a.csv", "q3/a.csv"), ("b.csv", "q3/b.csv")].into_iter()), ["c.csv"]);
        assert!(Manifest::parse(b"[]").is_err());
    }
}
