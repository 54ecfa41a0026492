//! Names of buckets and objects as Cloud Storage defines them.
//!
//! An object name is 1 to 1,024 bytes of UTF-8 without CR or LF, and is neither `.` nor `..`; everything else
//! (`a//b`, `../x`, right-to-left marks) is a legal name. Names are keys, never paths: no file on disk is called by one.

use std::fmt;

/// The longest object name, in bytes of UTF-8.
pub(super) const MAX_OBJECT_NAME_BYTES: usize = 1024;

/// A bucket's id, such as `acme-uploads`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BucketName(String);

/// An object's name within its bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectName(String);

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than 1,024 bytes.
    #[error("object name has {0} bytes: it must have 1 to {MAX_OBJECT_NAME_BYTES}")]
    Length(usize),
    /// A carriage return or a line feed.
    #[error("object name {0:?} holds a carriage return or a line feed")]
    LineBreak(String),
    /// `.` or `..`.
    #[error("object name {0:?} is reserved")]
    Dots(String),
    /// A bucket id outside Google's alphabet or length.
    #[error("bucket name {0:?} must have 3 to 222 characters of a-z, 0-9, '-', '_' and '.'")]
    Bucket(String),
    /// A gRPC bucket resource that does not start with `projects/_/buckets/`.
    #[error("bucket resource {0:?} must look like projects/_/buckets/BUCKET")]
    Resource(String),
}

impl BucketName {
    /// Parses a bucket id.
    pub(super) fn parse(text: &str) -> Result<Self, NameError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if (3..=222).contains(&text.len()) && text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Bucket(text.to_owned()))
        }
    }

    /// Parses the gRPC form, `projects/_/buckets/BUCKET`.
    pub(super) fn parse_resource(text: &str) -> Result<Self, NameError> {
        let id = text.strip_prefix("projects/_/buckets/").ok_or_else(|| NameError::Resource(text.to_owned()))?;
        Self::parse(id)
    }

    /// The bare id.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The resource that IAM bindings name.
    pub(super) fn resource(&self) -> String {
        format!("projects/_/buckets/{}", self.0)
    }
}

impl ObjectName {
    /// Parses an object name.
    pub(super) fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > MAX_OBJECT_NAME_BYTES {
            Err(NameError::Length(text.len()))
        } else if text.contains(['\r', '\n']) {
            Err(NameError::LineBreak(text.to_owned()))
        } else if text == "." || text == ".." {
            Err(NameError::Dots(text.to_owned()))
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// The bare name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first string after every string that starts with `prefix`; `None` when there is none.
pub(super) fn after_prefix(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Code points and UTF-8 bytes sort alike; the surrogate gap is stepped over.
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            char::MAX => None,
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_but_legal_names_are_kept_as_they_are() {
        for name in ["../secret", "a//b", "/", "\u{202e}fdp.exe", "a b?c#d%2F", &"é".repeat(512)] {
            assert_eq!(ObjectName::parse(name).expect("legal").as_str(), name);
        }
    }

    #[test]
    fn illegal_names_are_refused_by_cause() {
        assert_eq!(ObjectName::parse(""), Err(NameError::Length(0)));
        assert_eq!(ObjectName::parse(&"x".repeat(1025)), Err(NameError::Length(1025)));
        assert!(matches!(ObjectName::parse("a\nb"), Err(NameError::LineBreak(_))));
        assert!(matches!(ObjectName::parse(".."), Err(NameError::Dots(_))));
        assert!(BucketName::parse("UPPER").is_err());
        assert!(BucketName::parse_resource("buckets/abc").is_err());
    }

    #[test]
    fn the_string_after_a_prefix_follows_all_its_extensions() {
        for prefix in ["a", "a/", "\u{D7FF}", "x\u{10FFFF}"] {
            let after = after_prefix(prefix).expect("has one");
            assert!(after.as_str() > prefix && after > format!("{prefix}\u{10FFFF}\u{10FFFF}"));
        }
        assert_eq!(after_prefix("\u{10FFFF}"), None);
        assert_eq!(after_prefix(""), None);
    }
}
