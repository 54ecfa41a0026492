//! Listing a bucket: prefix, delimiter, offsets and pages, in the order of UTF-8 bytes.
//!
//! A page token is the place to go on from and nothing else: it survives a restart, and objects that come or go
//! between pages neither repeat nor hide others.

use super::name::after_prefix;
use super::record::ObjectRecord;
use super::refusal::Refusal;
use super::shelf;
use crate::store::StoreError;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use redb::ReadTransaction;
use std::ops::Bound;

/// Google's greatest page.
const MAX_PAGE: usize = 1000;

/// What to list.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    /// Only names that start so.
    pub(super) prefix: String,
    /// Names that hold this after the prefix are rolled up; empty means no roll-up.
    pub(super) delimiter: String,
    /// Only names not before this.
    pub(super) start: String,
    /// Only names before this; empty means no end.
    pub(super) end: String,
    /// Objects that end with their only delimiter are listed besides being rolled up.
    pub(super) include_trailing_delimiter: bool,
    /// Where the former page ended.
    pub(super) page_token: String,
    /// Entries in this page; 0 means as many as allowed.
    pub(super) page_size: usize,
}

/// One page.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// Objects in order.
    pub(super) objects: Vec<ObjectRecord>,
    /// Rolled-up prefixes in order.
    pub(super) prefixes: Vec<String>,
    /// Empty on the last page.
    pub(super) next_page_token: String,
}

/// The token of a page that starts after object `name` (`o`) or after everything under `prefix` (`p`).
fn token(kind: char, text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{kind}{text}"))
}

fn resume(token: &str) -> Result<Option<Bound<String>>, Refusal> {
    let refuse = || Refusal::Invalid(format!("page token {token:?} is not one that a listing returned"));
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| refuse())?;
    let text = String::from_utf8(bytes).map_err(|_| refuse())?;
    match (text.strip_prefix('o'), text.strip_prefix('p')) {
        (Some(name), _) => Ok(Some(Bound::Excluded(name.to_owned()))),
        (_, Some(prefix)) => Ok(after_prefix(prefix).map(Bound::Included)),
        _ => Err(refuse()),
    }
}

/// Reads one page of `bucket`.
pub(super) fn list(txn: &ReadTransaction, bucket: &str, query: &Query) -> Result<Result<Page, Refusal>, StoreError> {
    let limit = if query.page_size == 0 { MAX_PAGE } else { query.page_size.min(MAX_PAGE) };
    let first = query.prefix.as_str().max(query.start.as_str()).to_owned();
    let mut from = Bound::Included(first.clone());
    if !query.page_token.is_empty() {
        from = match resume(&query.page_token) {
            Ok(Some(Bound::Included(at))) => Bound::Included(at.max(first)),
            Ok(Some(Bound::Excluded(at))) if at >= first => Bound::Excluded(at),
            Ok(Some(_)) => Bound::Included(first),
            Ok(None) => return Ok(Ok(Page::default())),
            Err(refusal) => return Ok(Err(refusal)),
        };
    }
    let objects = txn.open_table(shelf::OBJECTS)?;
    let mut page = Page::default();
    // The place behind the last entry: the token, if one more entry follows.
    let mut last = String::new();
    'seek: loop {
        let lower = match &from {
            Bound::Included(at) => Bound::Included((bucket, at.as_str())),
            Bound::Excluded(at) => Bound::Excluded((bucket, at.as_str())),
            Bound::Unbounded => Bound::Included((bucket, "")),
        };
        for entry in objects.range::<(&str, &str)>((lower, Bound::Unbounded))? {
            let (key, value) = entry?;
            let (in_bucket, name) = key.value();
            let past_end = !query.end.is_empty() && name >= query.end.as_str();
            if in_bucket != bucket || !name.starts_with(&query.prefix) || past_end {
                break 'seek;
            }
            if page.objects.len() + page.prefixes.len() >= limit {
                page.next_page_token = last;
                break 'seek;
            }
            let rolled_up = match query.delimiter.as_str() {
                "" => None,
                delimiter => name[query.prefix.len()..]
                    .find(delimiter)
                    .map(|at| name[..query.prefix.len() + at + delimiter.len()].to_owned()),
            };
            let Some(prefix) = rolled_up else {
                last = token('o', name);
                page.objects.push(shelf::decode(value.value())?);
                continue;
            };
            if query.include_trailing_delimiter && prefix == name {
                page.objects.push(shelf::decode(value.value())?);
            }
            last = token('p', &prefix);
            let next = after_prefix(&prefix);
            page.prefixes.push(prefix);
            match next {
                Some(next) => {
                    from = Bound::Included(next);
                    continue 'seek;
                }
                None => break 'seek,
            }
        }
        break;
    }
    Ok(Ok(page))
}
