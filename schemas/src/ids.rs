//! Identifiers with a private field, a fallible `parse` and a refusal that says what was wrong.
//!
//! Derived ids (reviews, dead letters, events) are the first 128 bits of a SHA-256 over length-prefixed parts, so
//! that no two different lists of parts can hash alike by concatenation.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a string is not an identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?}: {why}")]
pub struct IdError {
    /// The kind of id, in words: `tenant id`, `bucket name`.
    pub kind: &'static str,
    /// The offending text, cut to 80 characters.
    pub value: String,
    /// The rule it broke.
    pub why: &'static str,
}

fn refuse(kind: &'static str, value: &str, why: &'static str) -> IdError {
    IdError { kind, value: value.chars().take(80).collect(), why }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Accepts text that follows the rule of this kind; the error says which part of it was broken.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(why) => Err(refuse($kind, &text, why)),
                }
            }

            /// The text as it was parsed.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

text_id!(
    /// A customer of the SaaS: 3–32 of `a-z 0-9 -`, a letter first, no hyphen last. Never reused.
    TenantId, "tenant id", |text| {
        if !(3..=32).contains(&text.len()) {
            return Err("must have 3 to 32 characters");
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err("must start with a lower-case letter");
        }
        if text.ends_with('-') {
            return Err("must not end with a hyphen");
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err("may hold only lower-case letters, digits and hyphens");
        }
        Ok(())
    }
);

text_id!(
    /// A bucket: 3–63 of `a-z 0-9 - _ .`, a letter or digit at both ends.
    /// Source: <https://cloud.google.com/storage/docs/buckets#naming>.
    BucketName, "bucket name", |text| {
        if !(3..=63).contains(&text.len()) {
            return Err("must have 3 to 63 characters");
        }
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !text.starts_with(edge) || !text.ends_with(edge) {
            return Err("must start and end with a lower-case letter or a digit");
        }
        if !text.chars().all(|c| edge(c) || matches!(c, '-' | '_' | '.')) {
            return Err("may hold only lower-case letters, digits, '-', '_' and '.'");
        }
        Ok(())
    }
);

text_id!(
    /// An object's name: 1–1,024 bytes of UTF-8 without carriage return or line feed. Never a path on a disk.
    /// Source: <https://cloud.google.com/storage/docs/objects#naming>.
    ObjectName, "object name", check_object_name
);

text_id!(
    /// Which uploads belong together: a top-level folder of the uploads bucket, [`PackId::ROOT`] for loose objects,
    /// or a whole object name where every object is a pack of one. Text to print and to hash, never a path: `..` is a
    /// folder like any other.
    PackId, "pack id", check_name
);

/// A name is put into an address as it is, and may come from where a tenant's worker writes: what an address would read
/// as something else (`\`, `..`, `%`, `?`) could make it the name of another's.
fn is_segment(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(plain)
}

/// That of a project of a domain holds a colon.
fn is_project(text: &str) -> bool {
    text.split(':').all(is_segment)
}

text_id!(
    /// One Cloud Run Job: `projects/P/locations/L/jobs/J`.
    JobName, "job name", |text| {
        let parts: Vec<_> = text.split('/').collect();
        match parts.as_slice() {
            ["projects", p, "locations", l, "jobs", j] if is_project(p) && is_segment(l) && is_segment(j) => Ok(()),
            _ => Err("must read projects/P/locations/L/jobs/J, each of letters, digits and - _ ."),
        }
    }
);

text_id!(
    /// One execution of a Cloud Run Job: `projects/P/locations/L/jobs/J/executions/E`.
    ExecutionName, "execution name", |text| {
        let parts: Vec<_> = text.split('/').collect();
        match parts.as_slice() {
            ["projects", p, "locations", l, "jobs", j, "executions", e]
                if is_project(p) && is_segment(l) && is_segment(j) && is_segment(e) => Ok(()),
            _ => Err("must read projects/P/locations/L/jobs/J/executions/E, each of letters, digits and - _ ."),
        }
    }
);

text_id!(
    /// A review of one sealed pack: `rv_` and 32 hex digits. See [`crate::seal::review_id`].
    ReviewId, "review id", |text| check_derived(text, "rv_")
);

text_id!(
    /// A dead letter: `dl_` and 32 hex digits over its content, so that filing twice is filing once.
    DeadLetterId, "dead letter id", |text| check_derived(text, "dl_")
);

text_id!(
    /// A campaign of replays: `cp_` and 32 hex digits over the idempotency key it was asked for with.
    CampaignId, "campaign id", |text| check_derived(text, "cp_")
);

text_id!(
    /// A completion event: `ev_` and 32 hex digits over review and epoch.
    EventId, "event id", |text| check_derived(text, "ev_")
);

text_id!(
    /// A caller's name for one wish, so that asking twice is asking once: 1–128 of `A-Z a-z 0-9 - _ . : /`.
    IdempotencyKey, "idempotency key", |text| {
        if !(1..=128).contains(&text.len()) {
            return Err("must have 1 to 128 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b)) {
            return Err("may hold only letters, digits and - _ . : /");
        }
        Ok(())
    }
);

text_id!(
    /// A sealed member under its generated name: `f` and three or more digits, as in `f007`.
    FileId, "file id", |text| {
        match text.strip_prefix('f') {
            Some(digits) if (3..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
            _ => Err("must read f and 3 to 6 digits"),
        }
    }
);

text_id!(
    /// A random token that tells one writer's create from another's: 32 hex digits.
    Nonce, "nonce", |text| check_derived(text, "")
);

impl PackId {
    /// The pack of objects that lie in no folder.
    pub const ROOT: &'static str = "_root";

    /// The key under which the control bucket files this pack: `pk_` and 32 hex digits, since a pack's own name may
    /// hold anything up to 1,024 bytes.
    pub fn key(&self) -> String {
        derive("pk_", "pack", &[self.0.as_bytes()])
    }
}

impl DeadLetterId {
    /// The id of the letter with these parts; equal parts give the equal letter.
    pub fn derive(parts: &[&[u8]]) -> Self {
        Self(derive("dl_", "dead-letter", parts))
    }
}

impl CampaignId {
    /// The campaign that this key stands for: asking twice is asking once.
    pub fn of(key: &IdempotencyKey) -> Self {
        Self(derive("cp_", "campaign", &[key.0.as_bytes()]))
    }
}

impl EventId {
    /// The one completion event of a review's epoch.
    pub fn of(review: &ReviewId, epoch: Epoch) -> Self {
        Self(derive("ev_", "completion", &[review.0.as_bytes(), &epoch.0.to_be_bytes()]))
    }
}

impl ReviewId {
    /// Hashes length-prefixed parts; the caller is [`crate::seal::review_id`].
    pub(crate) fn derive(parts: &[&[u8]]) -> Self {
        Self(derive("rv_", "v1", parts))
    }
}

impl FileId {
    /// The id of the member at `index` (from zero) of a seal: `f001` for the first.
    pub fn nth(index: usize) -> Self {
        Self(format!("f{:03}", index + 1))
    }
}

impl Nonce {
    /// Makes a nonce from 128 random bits that the caller drew.
    pub fn from_bits(bits: u128) -> Self {
        Self(hex::encode(bits.to_be_bytes()))
    }
}

impl JobName {
    /// Characters of a job's own id, at most. Source: <https://cloud.google.com/run/docs/create-jobs>.
    pub const MAX_ID: usize = 63;

    /// The job beside this one whose tasks have more memory and time.
    #[must_use]
    pub fn larger(&self) -> Self {
        Self(format!("{}-large", self.0))
    }
}

impl ExecutionName {
    /// The job this is an execution of.
    pub fn job(&self) -> JobName {
        let end = self.0.find("/executions/").unwrap_or(self.0.len());
        JobName(self.0[..end].to_owned())
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(u32);

        impl $name {
            /// The first one: 1.
            pub const FIRST: Self = Self(1);

            /// Accepts 1 and up.
            pub fn new(number: u32) -> Option<Self> {
                (number > 0).then_some(Self(number))
            }

            /// The number, from 1.
            pub fn get(self) -> u32 {
                self.0
            }

            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The one before this, unless this is the first.
            pub fn previous(self) -> Option<Self> {
                Self::new(self.0 - 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().ok().and_then(Self::new).ok_or_else(|| refuse(stringify!($name), text, "must be a whole number from 1"))
            }
        }
    };
}

counter!(
    /// One life of a review: 1, and one more for each replay.
    Epoch
);
counter!(
    /// One authorised try within an epoch, from 1.
    Attempt
);
counter!(
    /// One closing of a pack, from 1.
    Revision
);

/// An object's generation. Unique per object, not ordered: it has no arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Generation(i64);

impl Generation {
    /// Wraps the number that Cloud Storage gave.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number, for a request.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One immutable version of one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ObjectRef {
    /// The bucket it lies in.
    pub bucket: BucketName,
    /// Its name there.
    pub name: ObjectName,
    /// Which version of it.
    pub generation: Generation,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gs://{}/{}#{}", self.bucket, self.name, self.generation)
    }
}

fn check_object_name(text: &str) -> Result<(), &'static str> {
    if text == "." || text == ".." {
        return Err("must not be '.' or '..'");
    }
    check_name(text)
}

fn check_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("must not be empty");
    }
    if text.len() > 1024 {
        return Err("must have at most 1,024 bytes");
    }
    if text.contains(['\r', '\n']) {
        return Err("must hold no line break");
    }
    Ok(())
}

fn check_derived(text: &str, prefix: &'static str) -> Result<(), &'static str> {
    let digits = text.strip_prefix(prefix).ok_or("has the wrong prefix")?;
    if digits.len() != 32 {
        return Err("must have 32 hex digits after its prefix");
    }
    if !digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err("may hold only lower-case hex digits after its prefix");
    }
    Ok(())
}

/// `prefix` and the first 128 bits of SHA-256 over the domain and the parts, each behind its length.
fn derive(prefix: &str, domain: &str, parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("{prefix}{}", hex::encode(&hash.finalize()[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_kind_the_value_and_the_rule() {
        let error = TenantId::parse("Acme").expect_err("upper case");
        assert_eq!(error.to_string(), r#"tenant id "Acme": must start with a lower-case letter"#);
        assert!(ObjectName::parse("a\nb").is_err());
        assert!(ObjectName::parse("x".repeat(1024)).is_ok());
        assert!(ObjectName::parse("x".repeat(1025)).is_err());
        assert!(ReviewId::parse("rv_0123").is_err());
    }

    #[test]
    fn an_execution_s_name_is_no_way_to_another_s() {
        let named =
            |execution: &str| ExecutionName::parse(format!("projects/p/locations/l/jobs/a/executions/{execution}"));
        for astray in ["", ".", "..", "..\\..\\b\\executions\\x", "%2e%2e", "x?alt=media", "x#y", "x:cancel", "x y"] {
            assert!(named(astray).is_err(), "{astray:?}");
        }
        assert!(named("a-x7k2m").is_ok());
        assert!(JobName::parse("projects/example.com:p/locations/-/jobs/a").is_ok());
        assert!(JobName::parse("projects/p/locations/l/jobs/a\\b").is_err());
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        assert_ne!(DeadLetterId::derive(&[b"ab", b"c"]), DeadLetterId::derive(&[b"a", b"bc"]));
    }

    #[test]
    fn an_epoch_has_one_event_id() {
        let review = ReviewId::parse(format!("rv_{}", "0".repeat(32))).expect("well formed");
        assert_eq!(EventId::of(&review, Epoch::FIRST), EventId::of(&review, Epoch::FIRST));
        assert_ne!(EventId::of(&review, Epoch::FIRST), EventId::of(&review, Epoch::FIRST.next()));
    }
}
