//! The uploads bucket as the platform mounts it: where a member can be read without being fetched.
//!
//! A mount shows the live objects; whether they are the sealed ones is compared by generation, before the review and
//! again before delivery. Refuses names that a path would read as something else: such members are fetched.

use std::path::{Component, Path, PathBuf};

use carrel_schemas::seal::Member;

/// A mounted bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume(PathBuf);

impl Volume {
    /// The bucket mounted at this absolute path.
    pub fn at(path: &str) -> Result<Self, String> {
        let path = Path::new(path);
        if path.is_absolute() { Ok(Self(path.to_owned())) } else { Err(format!("{path:?} is no absolute path")) }
    }

    /// Where a member lies, if it is shown with the size that was sealed. Blocking.
    pub(crate) fn find(&self, member: &Member) -> Option<PathBuf> {
        let name = Path::new(member.name.as_str());
        let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        // A path forgets doubled and trailing slashes, an object's name does not.
        if !plain || name.components().collect::<PathBuf>().as_os_str() != name.as_os_str() {
            return None;
        }
        let path = self.0.join(name);
        let found = std::fs::symlink_metadata(&path).ok()?;
        (found.is_file() && found.len() == member.size).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, size: u64) -> Member {
        let text = serde_json::json!({ "name": name, "generation": 1, "size": size, "crc32c": 0 });
        serde_json::from_value(text).expect("a member")
    }

    #[test]
    fn only_what_a_path_names_truly_is_read_from_the_volume() {
        let dir = tempfile::tempdir().expect("a directory");
        let volume = Volume::at(dir.path().to_str().expect("UTF-8")).expect("absolute");
        std::fs::create_dir(dir.path().join("q3")).expect("made");
        std::fs::write(dir.path().join("q3/a.csv"), "12345").expect("written");
        std::os::unix::fs::symlink("a.csv", dir.path().join("q3/link.csv")).expect("linked");
        assert_eq!(volume.find(&member("q3/a.csv", 5)), Some(dir.path().join("q3/a.csv")));
        for (name, size) in [
            ("q3/a.csv", 4),
            ("q3//a.csv", 5),
            ("q3/../q3/a.csv", 5),
            ("/q3/a.csv", 5),
            ("q3/./a.csv", 5),
            ("q3/link.csv", 5),
            ("q3/b.csv", 5),
        ] {
            assert_eq!(volume.find(&member(name, size)), None, "{name}");
        }
        assert!(Volume::at("uploads").is_err());
    }
}
