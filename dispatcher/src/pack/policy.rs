//! When a pack closes, and which listed objects it holds. Pure: takes `now`.

use std::time::Duration;

use carrel_cloud::ObjectMeta;
use carrel_schemas::ids::{Generation, ObjectName, PackId};
use carrel_schemas::layout::{self, UploadKind};
use carrel_schemas::registry::PackPolicy;
use carrel_schemas::seal::{ClosedBy, Member, Seal};
use carrel_schemas::timestamp::Timestamp;

/// All members as JSON; the rest of a seal has a few hundred bytes.
const MAX_MEMBER_BYTES: u64 = Seal::MAX_BYTES - (64 << 10);

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
    /// There are more files than a seal may name; they are left out.
    pub excess: bool,
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
    /// Sorts a listing of the pack's folder into members, marker and manifest. A listing of more than
    /// [`Seal::MAX_MEMBERS`] objects is taken for one of too many files.
    pub fn of(pack: &PackId, listing: Vec<ObjectMeta>) -> Self {
        let mut contents = Self { excess: listing.len() > Seal::MAX_MEMBERS, ..Self::default() };
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
                UploadKind::File if contents.excess => {}
                UploadKind::File => contents.members.push(member),
                UploadKind::Marker => contents.marker = Some(member.generation),
                UploadKind::Manifest => contents.manifest = Some(member),
                UploadKind::Ignored => {}
            }
        }
        let size = serde_json::to_vec(&contents.members).expect("members are plain JSON").len();
        if size as u64 > MAX_MEMBER_BYTES {
            contents.members.clear();
            contents.excess = true;
        }
        contents
    }

    /// The one object that is a pack of its own, from a listing by its full name.
    pub fn single(pack: &PackId, listing: Vec<ObjectMeta>) -> Self {
        let found = listing.into_iter().find(|object| object.name == pack.as_str());
        let members = found.and_then(|object| Some(member(ObjectName::parse(object.name.clone()).ok()?, object)));
        Self { members: members.into_iter().collect(), ..Self::default() }
    }

    /// What says "complete" here and did not when `former` was sealed.
    fn sign(&self, former: Option<&Seal>) -> Option<ClosedBy> {
        if self.marker.is_some() && self.marker != former.and_then(|seal| seal.marker) {
            return Some(ClosedBy::Marker);
        }
        let spent = former.and_then(|seal| seal.manifest.as_ref());
        let fresh = |manifest: &&Member| spent.is_none_or(|spent| spent.generation != manifest.generation);
        self.manifest.as_ref().filter(fresh).map(|_| ClosedBy::Manifest)
    }

    /// True if the seal holds exactly this.
    pub fn are_of(&self, seal: &Seal) -> bool {
        (&self.members, &self.manifest, self.excess) == (&seal.members, &seal.manifest, seal.excess)
    }

    /// True if no file is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && !self.excess
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

/// Decides for a pack opened at `opened_at` whose last revision is `former`, if it has one.
pub fn decide(
    policy: PackPolicy,
    opened_at: Timestamp,
    contents: &Contents,
    former: Option<&Seal>,
    now: Timestamp,
) -> Decision {
    if let Some(closed_by) = contents.sign(former)
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
    use carrel_schemas::ids::Revision;

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

    fn seal(contents: &Contents) -> Seal {
        let tenant = serde_json::json!({
            "id": "acme", "uploads_bucket": "acme-uploads", "outputs_bucket": "acme-outputs",
            "service_account": "acme@p.iam.gserviceaccount.com", "job": "projects/p/locations/l/jobs/review-acme",
        });
        let tenant = serde_json::from_value(tenant).expect("a tenant");
        let pack = PackId::parse("q3").expect("id");
        crate::pack::seal::draft(&tenant, &pack, Revision::FIRST, contents.clone(), ClosedBy::Marker, None, at(0))
    }

    const MARKER: PackPolicy = PackPolicy::Marker { max_age_seconds: 100 };
    const QUIET: PackPolicy = PackPolicy::Quiet { quiet_seconds: 10, max_age_seconds: 100 };

    #[test]
    fn a_marker_closes_a_pack_once() {
        let contents = pack(vec![object("q3/_COMPLETE", 5, 2), object("q3/a.csv", 4, 1)]);
        assert_eq!(decide(MARKER, at(0), &contents, None, at(3)), Decision::Close(ClosedBy::Marker));
        let sealed = seal(&contents);
        assert_eq!(decide(MARKER, at(0), &contents, Some(&sealed), at(3)), Decision::Wait(at(100)));
        // Another generation is another sign, whichever number the cloud gave it.
        for generation in [4, 6] {
            let again = pack(vec![object("q3/_COMPLETE", generation, 2), object("q3/a.csv", 4, 1)]);
            assert_eq!(decide(MARKER, at(0), &again, Some(&sealed), at(3)), Decision::Close(ClosedBy::Marker));
        }
        let corrected = pack(vec![object("q3/_COMPLETE", 5, 2), object("q3/_manifest.json", 3, 3)]);
        assert_eq!(decide(MARKER, at(0), &corrected, Some(&sealed), at(3)), Decision::Close(ClosedBy::Manifest));
        let spent = seal(&corrected);
        assert_eq!(decide(MARKER, at(0), &corrected, Some(&spent), at(3)), Decision::Wait(at(100)));
    }

    #[test]
    fn a_pack_of_more_than_a_seal_may_name_is_one_of_too_many() {
        let many =
            |count: usize, name: &str| pack((0..count).map(|at| object(&format!("q3/{at:04}{name}"), 1, 1)).collect());
        let full = many(Seal::MAX_MEMBERS, ".csv");
        assert!(!full.excess && full.members.len() == Seal::MAX_MEMBERS);
        let over = many(Seal::MAX_MEMBERS + 1, ".csv");
        assert!(over.excess && over.members.is_empty() && !over.is_empty());
        // Six bytes of JSON for one of the name: what cannot be read back is not sealed.
        let long = many(2000, &"\u{1}".repeat(900));
        assert!(long.excess && long.members.is_empty());
        let largest = serde_json::to_vec(&seal(&many(1400, &"\u{1}".repeat(900)))).expect("JSON");
        assert!(largest.len() as u64 <= Seal::MAX_BYTES && largest.len() > 7 << 20);
        assert!(over.are_of(&seal(&long)), "too many is too many");
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
