//! When a pack closes, and which listed objects it holds. Pure: takes `now`.

use std::time::Duration;

use carrel_cloud::ObjectMeta;
use carrel_schemas::ids::{Generation, ObjectName, PackId};
use carrel_schemas::layout::{self, UploadKind};
use carrel_schemas::registry::PackPolicy;
use carrel_schemas::seal::{ClosedBy, Member, Seal};
use carrel_schemas::timestamp::Timestamp;

/// A pack as one listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// Files in order of names.
    pub members: Vec<Member>,
    /// The generation of `_COMPLETE`, if it is there.
    pub marker: Option<Generation>,
    /// `_manifest.json`, if it is there.
    pub manifest: Option<Member>,
    /// When the newest of all these was created.
    pub newest: Option<Timestamp>,
}

/// What to do with an open pack now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Seal it.
    Close(ClosedBy),
    /// Nothing before this instant, unless an upload arrives.
    Wait(Timestamp),
}

impl Contents {
    /// Sorts a listing of the pack's folder into members, marker and manifest.
    pub fn of(pack: &PackId, listing: Vec<ObjectMeta>) -> Self {
        let mut contents = Self::default();
        for object in listing {
            let Ok(name) = ObjectName::parse(object.name.clone()) else { continue };
            let (folder, kind) = layout::classify(&name);
            if folder != *pack || kind == UploadKind::Ignored {
                continue;
            }
            let created = object.created.map(Timestamp::from);
            contents.newest = contents.newest.max(created);
            let member = member(name, object);
            match kind {
                UploadKind::File => contents.members.push(member),
                UploadKind::Marker => contents.marker = Some(member.generation),
                UploadKind::Manifest => contents.manifest = Some(member),
                UploadKind::Ignored => {}
            }
        }
        contents
    }

    /// The one object that is a pack of its own, from a listing by its full name.
    pub fn single(pack: &PackId, listing: Vec<ObjectMeta>) -> Self {
        let found = listing.into_iter().find(|object| object.name == pack.as_str());
        let members = found.and_then(|object| Some(member(ObjectName::parse(object.name.clone()).ok()?, object)));
        Self { members: members.into_iter().collect(), ..Self::default() }
    }

    /// The generation that says "complete": the marker's or the manifest's, whichever is newer.
    pub fn sign(&self) -> Option<(ClosedBy, Generation)> {
        let marker = self.marker.map(|generation| (ClosedBy::Marker, generation));
        let manifest = self.manifest.as_ref().map(|manifest| (ClosedBy::Manifest, manifest.generation));
        marker.into_iter().chain(manifest).max_by_key(|(_, generation)| *generation)
    }

    /// True if the seal holds exactly this.
    pub fn are_of(&self, seal: &Seal) -> bool {
        self.members == seal.members && self.manifest == seal.manifest
    }
}

fn member(name: ObjectName, object: ObjectMeta) -> Member {
    Member {
        name,
        generation: Generation::new(object.generation),
        size: object.size,
        crc32c: object.crc32c.unwrap_or(0),
        content_type: (!object.content_type.is_empty()).then_some(object.content_type),
    }
}

/// Decides for a pack opened at `opened_at` whose former revision was closed by the sign `spent`, if any.
pub fn decide(
    policy: PackPolicy,
    opened_at: Timestamp,
    contents: &Contents,
    spent: Option<Generation>,
    now: Timestamp,
) -> Decision {
    if let Some((closed_by, sign)) = contents.sign()
        && Some(sign) != spent
        && policy != PackPolicy::Each
    {
        return Decision::Close(closed_by);
    }
    let seconds = Duration::from_secs;
    match policy {
        PackPolicy::Each => Decision::Close(ClosedBy::Each),
        PackPolicy::Marker { max_age_seconds } => {
            let end = opened_at.plus(seconds(max_age_seconds));
            if now >= end { Decision::Close(ClosedBy::MaxAge) } else { Decision::Wait(end) }
        }
        PackPolicy::Quiet { quiet_seconds, max_age_seconds } => {
            let quiet = contents.newest.unwrap_or(opened_at).max(opened_at).plus(seconds(quiet_seconds));
            let end = opened_at.plus(seconds(max_age_seconds));
            match (now >= quiet, now >= end) {
                (true, _) => Decision::Close(ClosedBy::Quiet),
                (false, true) => Decision::Close(ClosedBy::MaxAge),
                (false, false) => Decision::Wait(quiet.min(end)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds).expect("in range")
    }

    fn object(name: &str, generation: i64, created: i64) -> ObjectMeta {
        ObjectMeta {
            name: name.into(),
            generation,
            size: 1,
            crc32c: Some(1),
            content_type: String::new(),
            created: time::OffsetDateTime::from_unix_timestamp(created).ok(),
        }
    }

    fn pack(listing: Vec<ObjectMeta>) -> Contents {
        Contents::of(&PackId::parse("q3").expect("id"), listing)
    }

    const MARKER: PackPolicy = PackPolicy::Marker { max_age_seconds: 100 };
    const QUIET: PackPolicy = PackPolicy::Quiet { quiet_seconds: 10, max_age_seconds: 100 };

    #[test]
    fn a_marker_closes_a_pack_once() {
        let contents = pack(vec![object("q3/_COMPLETE", 5, 2), object("q3/a.csv", 4, 1)]);
        assert_eq!(decide(MARKER, at(0), &contents, None, at(3)), Decision::Close(ClosedBy::Marker));
        let spent = Some(Generation::new(5));
        assert_eq!(decide(MARKER, at(0), &contents, spent, at(3)), Decision::Wait(at(100)));
        let again = Some(Generation::new(4));
        assert_eq!(decide(MARKER, at(0), &contents, again, at(3)), Decision::Close(ClosedBy::Marker));
        let corrected = pack(vec![object("q3/_COMPLETE", 5, 2), object("q3/_manifest.json", 7, 3)]);
        assert_eq!(decide(MARKER, at(0), &corrected, spent, at(3)), Decision::Close(ClosedBy::Manifest));
    }

    #[test]
    fn a_marker_that_never_comes_is_ended_by_the_maximum_age() {
        let contents = pack(vec![object("q3/a.csv", 4, 1)]);
        assert_eq!(decide(MARKER, at(0), &contents, None, at(99)), Decision::Wait(at(100)));
        assert_eq!(decide(MARKER, at(0), &contents, None, at(100)), Decision::Close(ClosedBy::MaxAge));
    }

    #[test]
    fn a_quiet_pack_waits_for_its_last_upload_but_not_for_ever() {
        let contents = pack(vec![object("q3/a.csv", 4, 50)]);
        assert_eq!(decide(QUIET, at(0), &contents, None, at(55)), Decision::Wait(at(60)));
        assert_eq!(decide(QUIET, at(0), &contents, None, at(60)), Decision::Close(ClosedBy::Quiet));
        let busy = pack(vec![object("q3/a.csv", 4, 95)]);
        assert_eq!(decide(QUIET, at(0), &busy, None, at(100)), Decision::Close(ClosedBy::MaxAge));
    }

    #[test]
    fn a_listing_is_sorted_by_what_each_object_is() {
        let contents = pack(vec![
            object("q3/", 1, 1),
            object("q3/_COMPLETE", 2, 1),
            object("q3/_manifest.json", 3, 1),
            object("q3/a.csv", 4, 1),
            object("q3/deep/b.csv", 5, 1),
            object("q4/c.csv", 6, 1),
        ]);
        let names: Vec<_> = contents.members.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["q3/a.csv", "q3/deep/b.csv"]);
        assert_eq!(contents.marker, Some(Generation::new(2)));
        assert!(contents.manifest.is_some());
    }
}
