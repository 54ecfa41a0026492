//! Listing a bucket: prefix, delimiter, offsets, globs, versions and pages, in the order of UTF-8 bytes.
//!
//! A page token is the place to go on from and nothing else: it survives a restart, and objects that come or go
//! between pages neither repeat nor hide others. With versions, generations of one name come in their order, the live
//! one last: a generation that ceases to be live between two pages keeps its place.

use super::glob::Glob;
use super::name::after_prefix;
use super::record::ObjectRecord;
use super::refusal::Refusal;
use super::shelf;
use crate::store::StoreError;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use redb::{AccessGuard, ReadTransaction};
use std::ops::Bound;

/// Google's greatest page.
const MAX_PAGE: usize = 1000;
/// Names that a pattern passes over before a page ends, however few it has: its reader asks for the next.
const MAX_PASSED_OVER: usize = 10_000;

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
    /// Only names that it matches.
    pub(super) glob: Option<Glob>,
    /// Generations that are not live are listed too.
    pub(super) versions: bool,
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

/// Where a listing goes on: at a name, or within it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    name: String,
    within: Within,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Within {
    /// Before all of its generations.
    Start,
    /// Behind this one, which is not live.
    After(i64),
    /// Behind all of them.
    End,
}

impl Place {
    fn at(name: String) -> Self {
        Self { name, within: Within::Start }
    }

    /// The token of a page that starts after object `name` (`o`), after everything under a prefix (`p`), or after one of
    /// the generations of a name (`g`).
    fn token(kind: char, text: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{kind}{text}"))
    }

    /// `None` is behind everything.
    fn resume(token: &str) -> Result<Option<Self>, Refusal> {
        let refuse = || Refusal::Invalid(format!("page token {token:?} is not one that a listing returned"));
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| refuse())?;
        let text = String::from_utf8(bytes).map_err(|_| refuse())?;
        let (kind, rest) = (text.chars().next().ok_or_else(refuse)?, text.get(1..).ok_or_else(refuse)?);
        match kind {
            'o' => Ok(Some(Self { name: rest.to_owned(), within: Within::End })),
            'p' => Ok(after_prefix(rest).map(Self::at)),
            'g' => {
                let (generation, name) = rest.split_once('/').ok_or_else(refuse)?;
                let generation = generation.parse().map_err(|_| refuse())?;
                Ok(Some(Self { name: name.to_owned(), within: Within::After(generation) }))
            }
            _ => Err(refuse()),
        }
    }

    fn live<'p>(&'p self, bucket: &'p str) -> Bound<(&'p str, &'p str)> {
        let key = (bucket, self.name.as_str());
        if self.within == Within::End { Bound::Excluded(key) } else { Bound::Included(key) }
    }

    fn noncurrent<'p>(&'p self, bucket: &'p str) -> Bound<(&'p str, &'p str, i64)> {
        let name = self.name.as_str();
        match self.within {
            Within::Start => Bound::Included((bucket, name, i64::MIN)),
            Within::After(generation) => Bound::Excluded((bucket, name, generation)),
            Within::End => Bound::Excluded((bucket, name, i64::MAX)),
        }
    }
}

/// A record under its name; the generation of one that is not live.
struct Entry {
    name: String,
    noncurrent: Option<i64>,
    bytes: AccessGuard<'static, &'static [u8]>,
}

/// The place behind an entry.
fn token_of(name: &str, noncurrent: Option<i64>) -> String {
    match noncurrent {
        None => Place::token('o', name),
        Some(generation) => Place::token('g', &format!("{generation}/{name}")),
    }
}

/// Reads one page of `bucket`.
pub(super) fn list(txn: &ReadTransaction, bucket: &str, query: &Query) -> Result<Result<Page, Refusal>, StoreError> {
    let limit = if query.page_size == 0 { MAX_PAGE } else { query.page_size.min(MAX_PAGE) };
    let mut from = Place::at(query.prefix.as_str().max(query.start.as_str()).to_owned());
    if !query.page_token.is_empty() {
        from = match Place::resume(&query.page_token) {
            Ok(Some(place)) => place.max(from),
            Ok(None) => return Ok(Ok(Page::default())),
            Err(refusal) => return Ok(Err(refusal)),
        };
    }
    let (objects, former) = (txn.open_table(shelf::OBJECTS)?, txn.open_table(shelf::NONCURRENT)?);
    let mut page = Page::default();
    // The place behind the last entry: the token, if one more entry follows.
    let mut last = String::new();
    let mut passed_over = 0;
    'seek: loop {
        let mut live = objects
            .range::<(&str, &str)>((from.live(bucket), Bound::Unbounded))?
            .map(|entry| {
                let (key, bytes) = entry?;
                let (in_bucket, name) = key.value();
                Ok((in_bucket == bucket).then(|| Entry { name: name.to_owned(), noncurrent: None, bytes }))
            })
            .map_while(|entry: Result<_, StoreError>| entry.transpose())
            .peekable();
        let mut noncurrent = former
            .range::<(&str, &str, i64)>((from.noncurrent(bucket), Bound::Unbounded))?
            .take_while(|_| query.versions)
            .map(|entry| {
                let (key, bytes) = entry?;
                let (in_bucket, name, generation) = key.value();
                let entry = || Entry { name: name.to_owned(), noncurrent: Some(generation), bytes };
                Ok((in_bucket == bucket).then(entry))
            })
            .map_while(|entry: Result<_, StoreError>| entry.transpose())
            .peekable();
        loop {
            let first = match (live.peek(), noncurrent.peek()) {
                (Some(Ok(live_one)), Some(Ok(other))) if live_one.name < other.name => live.next(),
                (_, Some(_)) => noncurrent.next(),
                (_, None) => live.next(),
            };
            let Some(Entry { name, noncurrent: generation, bytes }) = first.transpose()? else { break 'seek };
            let past_end = !query.end.is_empty() && name >= query.end;
            if !name.starts_with(&query.prefix) || past_end {
                break 'seek;
            }
            if query.glob.as_ref().is_some_and(|glob| !glob.matches(&name)) {
                passed_over += 1;
                if passed_over == MAX_PASSED_OVER {
                    page.next_page_token = token_of(&name, generation);
                    break 'seek;
                }
                continue;
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
                last = token_of(&name, generation);
                page.objects.push(shelf::decode(bytes.value())?);
                continue;
            };
            if query.include_trailing_delimiter && prefix == name {
                page.objects.push(shelf::decode(bytes.value())?);
            }
            last = Place::token('p', &prefix);
            let next = after_prefix(&prefix);
            page.prefixes.push(prefix);
            match next {
                Some(next) => {
                    from = Place::at(next);
                    continue 'seek;
                }
                None => break 'seek,
            }
        }
    }
    Ok(Ok(page))
}
