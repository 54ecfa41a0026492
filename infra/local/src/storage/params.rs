//! Query parameters and headers of the JSON API, parsed once; a parameter that is not served is ignored as at Google.

use super::generation::Preconditions;
use super::refusal::Refusal;
use axum::extract::Query;
use http::{HeaderMap, Uri};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use std::fmt::Write;

/// Every query parameter that some method reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Params {
    pub(super) name: Option<String>,
    pub(super) upload_type: Option<String>,
    #[serde(rename = "upload_id")]
    pub(super) upload_id: Option<String>,
    pub(super) alt: Option<String>,
    pub(super) project: Option<String>,
    pub(super) generation: Option<i64>,
    pub(super) if_generation_match: Option<i64>,
    pub(super) if_generation_not_match: Option<i64>,
    pub(super) if_metageneration_match: Option<i64>,
    pub(super) if_metageneration_not_match: Option<i64>,
    pub(super) source_generation: Option<i64>,
    pub(super) if_source_generation_match: Option<i64>,
    pub(super) if_source_generation_not_match: Option<i64>,
    pub(super) if_source_metageneration_match: Option<i64>,
    pub(super) if_source_metageneration_not_match: Option<i64>,
    pub(super) prefix: Option<String>,
    pub(super) delimiter: Option<String>,
    pub(super) start_offset: Option<String>,
    pub(super) end_offset: Option<String>,
    #[serde(deserialize_with = "truth")]
    pub(super) include_trailing_delimiter: bool,
    #[serde(deserialize_with = "truth")]
    pub(super) versions: bool,
    #[serde(deserialize_with = "truth")]
    pub(super) soft_deleted: bool,
    pub(super) page_token: Option<String>,
    pub(super) max_results: Option<usize>,
    pub(super) match_glob: Option<String>,
}

/// Some clients write Python's `True`.
fn truth<'de, D: Deserializer<'de>>(text: D) -> Result<bool, D::Error> {
    let text = String::deserialize(text)?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err(D::Error::custom(format!("{text:?} must be true or false"))),
    }
}

impl Params {
    /// Parses the query of a request.
    pub(super) fn of(uri: &Uri) -> Result<Self, Refusal> {
        Query::try_from_uri(uri)
            .map(|Query(params)| params)
            .map_err(|error| Refusal::Invalid(format!("cannot read the query parameters: {error}")))
    }

    /// The preconditions of the object that the request names.
    pub(super) fn preconditions(&self) -> Preconditions {
        Preconditions {
            generation_match: self.if_generation_match,
            generation_not_match: self.if_generation_not_match,
            metageneration_match: self.if_metageneration_match,
            metageneration_not_match: self.if_metageneration_not_match,
        }
    }

    /// The preconditions of a copy's source.
    pub(super) fn source_preconditions(&self) -> Preconditions {
        Preconditions {
            generation_match: self.if_source_generation_match,
            generation_not_match: self.if_source_generation_not_match,
            metageneration_match: self.if_source_metageneration_match,
            metageneration_not_match: self.if_source_metageneration_not_match,
        }
    }
}

/// A header as text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Encodes everything but RFC 3986's unreserved characters.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    encoded
}

/// Part of an object: the first byte and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// First byte.
    pub(super) start: u64,
    /// Bytes.
    pub(super) length: u64,
}

/// What a `Range` header asks of an object of `size` bytes: `Ok(None)` means all of it, `Err` cannot be satisfied.
pub(super) fn slice(range: Option<&str>, size: u64) -> Result<Option<Slice>, ()> {
    let Some((first, last)) = range.and_then(|r| r.strip_prefix("bytes=")).and_then(|r| r.split_once('-')) else {
        return Ok(None);
    };
    let (first, last) = (first.trim(), last.trim());
    let start_length = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(start), Ok(end)) if end < start => return Ok(None),
        (Ok(start), _) if start >= size => return Err(()),
        (Ok(start), Ok(end)) => (start, end.min(size - 1) - start + 1),
        (Ok(start), Err(_)) if last.is_empty() => (start, size - start),
        (Err(_), Ok(suffix)) if first.is_empty() => {
            if suffix == 0 || size == 0 {
                return Err(());
            }
            (size - suffix.min(size), suffix.min(size))
        }
        // Several ranges, or none at all: the whole object is a legal answer.
        _ => return Ok(None),
    };
    Ok(Some(Slice { start: start_length.0, length: start_length.1 }))
}

/// What a `Content-Range` header of a resumable upload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentRange {
    /// `bytes */*` or, with the size now known, `bytes */N`: no content follows.
    Status(Option<u64>),
    /// `bytes A-B/*`: a chunk from A, with more to come; `bytes A-B/N`: a chunk of N bytes in all.
    Chunk {
        /// Its first byte.
        start: u64,
        /// Behind its last byte, if that is said.
        end: Option<u64>,
        /// Bytes of the object, once they are known.
        total: Option<u64>,
    },
    /// `bytes A-*/*`: everything from A; the object ends where the body ends.
    Rest(u64),
}

/// Parses a `Content-Range`.
pub(super) fn content_range(text: &str) -> Option<ContentRange> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    if range == "*" {
        return Some(ContentRange::Status(total));
    }
    let (first, last) = range.split_once('-')?;
    let start = first.parse().ok()?;
    match (last, total) {
        ("*", None) => Some(ContentRange::Rest(start)),
        ("*", Some(_)) => Some(ContentRange::Chunk { start, end: None, total }),
        _ => {
            let last: u64 = last.parse().ok()?;
            let end = last.checked_add(1)?;
            let fits = last >= start && total.is_none_or(|total| end <= total);
            fits.then_some(ContentRange::Chunk { start, end: Some(end), total })
        }
    }
}

/// Holds `If-Match` and `If-None-Match` against an etag. Clients send it with quotes or without.
pub(super) fn check_etag(headers: &HeaderMap, etag: &str) -> Result<(), Refusal> {
    let names = |header_name| {
        let text = header(headers, header_name)?;
        Some(text.split(',').any(
            |one| matches!(one.trim().trim_start_matches("W/").trim_matches('"'), one if one == "*" || one == etag),
        ))
    };
    if names("if-match") == Some(false) {
        return Err(Refusal::Etag { same: false });
    }
    if names("if-none-match") == Some(true) {
        return Err(Refusal::Etag { same: true });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_compared_with_quotes_or_without() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, http::HeaderValue::from_static(value));
            headers
        };
        assert!(check_etag(&HeaderMap::new(), "a=").is_ok());
        for value in ["a=", "\"a=\"", "*", "x, \"a=\""] {
            assert!(check_etag(&with("if-match", value), "a=").is_ok(), "{value}");
            let same = check_etag(&with("if-none-match", value), "a=");
            assert!(matches!(same, Err(Refusal::Etag { same: true })), "{value}");
        }
        assert!(matches!(check_etag(&with("if-match", "b"), "a="), Err(Refusal::Etag { same: false })));
        assert!(check_etag(&with("if-none-match", "b"), "a=").is_ok());
    }

    #[test]
    fn python_says_true_too() {
        for (text, expected) in
            [("versions=True", true), ("versions=true", true), ("versions=false", false), ("", false)]
        {
            let uri: Uri = format!("/b?{text}").parse().expect("is one");
            assert_eq!(Params::of(&uri).expect("is read").versions, expected);
        }
    }

    #[test]
    fn ranges_follow_rfc_9110() {
        let part = |start, length| Ok(Some(Slice { start, length }));
        assert_eq!(slice(None, 10), Ok(None));
        assert_eq!(slice(Some("bytes=0-"), 10), part(0, 10));
        assert_eq!(slice(Some("bytes=3-5"), 10), part(3, 3));
        assert_eq!(slice(Some("bytes=3-500"), 10), part(3, 7));
        assert_eq!(slice(Some("bytes=-4"), 10), part(6, 4));
        assert_eq!(slice(Some("bytes=-40"), 10), part(0, 10));
        assert_eq!(slice(Some("bytes=10-"), 10), Err(()));
        assert_eq!(slice(Some("bytes=0-"), 0), Err(()));
        assert_eq!(slice(Some("bytes=5-3"), 10), Ok(None));
        assert_eq!(slice(Some("lines=1-2"), 10), Ok(None));
    }

    #[test]
    fn content_ranges_tell_a_question_from_a_chunk() {
        assert_eq!(content_range("bytes */*"), Some(ContentRange::Status(None)));
        assert_eq!(content_range("bytes */0"), Some(ContentRange::Status(Some(0))));
        let chunk = |start, end, total| Some(ContentRange::Chunk { start, end: Some(end), total });
        assert_eq!(content_range("bytes 0-7/*"), chunk(0, 8, None));
        assert_eq!(content_range("bytes 8-*/*"), Some(ContentRange::Rest(8)));
        assert_eq!(content_range("bytes 8-15/16"), chunk(8, 16, Some(16)));
        assert_eq!(content_range("bytes 8-16/16"), None);
        assert_eq!(content_range("bytes 9-8/16"), None);
        assert_eq!(content_range("8-9/16"), None);
    }
}
