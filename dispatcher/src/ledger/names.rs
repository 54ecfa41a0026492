//! The control bucket's layout. Nobody but the dispatcher reads or writes it.
//!
//! ```text
//! open/packs/<tenant>/<pack key>/<revision>.json     a pack that has uploads and no seal for them yet
//! open/reviews/<tenant>/<review>.json                a review whose completion is not announced; names its seal
//! open/sweeps/<tenant>.json                         a tenant whose uploads bucket is to be swept at once
//! tenants/<tenant>/seals/<pack key>/<revision>.json  write-once
//! tenants/<tenant>/reviews/<review>.json             the record, compare-and-swap, one name for life
//! tenants/<tenant>/completions/<time>-<event>.json   what was announced, in order of time; write-once
//! tenants/<tenant>/completions-begin.json            up to where the collector has taken that log away
//! tenants/<tenant>/dead-letters/<id>.json            `_unknown` where the sender is nobody's
//! tenants/<tenant>/requests/<key>.json               the seal an idempotency key stands for
//! tenants/<tenant>/sweep.json                        where the cold sweep of the uploads bucket stands
//! open/campaigns/<campaign>.json                     a campaign with something left to do
//! campaigns/<campaign>.json                          its head, compare-and-swap
//! campaign-items/<campaign>/<nonce>/<chunk>.json     some of its letters and how far each is, compare-and-swap
//! tombstones/<tenant>.json                           a tenant that was deleted; its id is never used again
//! collector.json                                     where the collector's pass over all this stands
//! leader.json                                        who schedules and reconciles
//! ```

use carrel_schemas::campaign::LetterFilter;
use carrel_schemas::ids::{CampaignId, DeadLetterId, IdempotencyKey, Nonce, PackId, ReviewId, Revision, TenantId};

/// Prefix of open packs.
pub(super) const OPEN_PACKS: &str = "open/packs/";
/// Prefix of open reviews.
pub(super) const OPEN_REVIEWS: &str = "open/reviews/";
/// Prefix of tenants to be swept.
pub(super) const SWEEP_MARKS: &str = "open/sweeps/";
/// Prefix of campaigns with something left to do.
pub(super) const OPEN_CAMPAIGNS: &str = "open/campaigns/";
/// Prefix of campaigns.
pub(super) const CAMPAIGNS: &str = "campaigns/";
/// Prefix of everything that is kept for tenants.
pub(super) const TENANTS: &str = "tenants/";
/// Prefix of tenants that were deleted.
pub(super) const TOMBSTONES: &str = "tombstones/";
/// Where the collector stands.
pub(super) const COLLECTOR: &str = "collector.json";
/// The leadership object.
pub const LEADER: &str = "leader.json";

/// Revisions are zero-padded, so that names sort as numbers do.
fn revision_name(revision: Revision) -> String {
    format!("{:010}.json", revision.get())
}

pub(super) fn open_pack(tenant: &TenantId, pack: &PackId, revision: Revision) -> String {
    format!("{OPEN_PACKS}{tenant}/{}/{}", pack.key(), revision_name(revision))
}

pub(super) fn open_pack_prefix(tenant: &TenantId, pack: &PackId) -> String {
    format!("{OPEN_PACKS}{tenant}/{}/", pack.key())
}

pub(super) fn open_review(tenant: &TenantId, review: &ReviewId) -> String {
    format!("{OPEN_REVIEWS}{tenant}/{review}.json")
}

pub(super) fn seal(tenant: &TenantId, pack: &PackId, revision: Revision) -> String {
    format!("{}{}", seal_prefix(tenant, pack), revision_name(revision))
}

pub(super) fn seal_prefix(tenant: &TenantId, pack: &PackId) -> String {
    format!("tenants/{tenant}/seals/{}/", pack.key())
}

pub(super) fn record(tenant: &TenantId, review: &ReviewId) -> String {
    format!("{}{review}.json", record_prefix(tenant))
}

pub(super) fn record_prefix(tenant: &TenantId) -> String {
    format!("tenants/{tenant}/reviews/")
}

pub(super) fn dead_letter(tenant: Option<&TenantId>, id: &DeadLetterId) -> String {
    format!("{}{id}.json", dead_letter_prefix(tenant))
}

pub(super) fn dead_letter_prefix(tenant: Option<&TenantId>) -> String {
    format!("tenants/{}/dead-letters/", tenant.map_or(LetterFilter::NOBODY, TenantId::as_str))
}

pub(super) fn completion(tenant: &TenantId, place: &str) -> String {
    format!("{}{place}.json", completion_prefix(tenant))
}

pub(super) fn completion_prefix(tenant: &TenantId) -> String {
    format!("tenants/{tenant}/completions/")
}

pub(super) fn request(tenant: &TenantId, key: &IdempotencyKey) -> String {
    // A key may hold slashes; folded to one path segment it stays distinct, since keys hold no `%`.
    format!("tenants/{tenant}/requests/{}.json", key.as_str().replace('/', "%2F"))
}

pub(super) fn sweep(tenant: &TenantId) -> String {
    format!("tenants/{tenant}/sweep.json")
}

pub(super) fn sweep_mark(tenant: &TenantId) -> String {
    format!("{SWEEP_MARKS}{tenant}.json")
}

pub(super) fn open_campaign(id: &CampaignId) -> String {
    format!("{OPEN_CAMPAIGNS}{id}.json")
}

pub(super) fn campaign(id: &CampaignId) -> String {
    format!("{CAMPAIGNS}{id}.json")
}

pub(super) fn campaign_items(id: &CampaignId, nonce: &Nonce) -> String {
    format!("campaign-items/{id}/{nonce}/")
}

pub(super) fn campaign_chunk(items: &str, at: usize) -> String {
    format!("{items}{at:05}.json")
}

pub(super) fn tenant_prefix(tenant: &TenantId) -> String {
    format!("{TENANTS}{tenant}/")
}

pub(super) fn tombstone(tenant: &TenantId) -> String {
    format!("{TOMBSTONES}{tenant}.json")
}

pub(super) fn log_begin(tenant: &TenantId) -> String {
    format!("{TENANTS}{tenant}/completions-begin.json")
}

/// What an object is, by its name, where the collector may take it away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept<'a> {
    /// A review's record.
    Record,
    /// A seal, and the prefix of all seals of its pack.
    Seal {
        /// That prefix.
        folder: &'a str,
    },
    /// An entry of a tenant's log of completions.
    Completion {
        /// Whose.
        tenant: TenantId,
        /// Its place there.
        place: &'a str,
    },
    /// A dead letter.
    Letter,
    /// What an idempotency key stands for.
    Request,
    /// The head of a campaign.
    Campaign,
    /// Some letters of a campaign.
    Chunk {
        /// Which campaign's.
        campaign: CampaignId,
        /// Where the head that has it says that it lies.
        items: &'a str,
    },
}

impl<'a> Kept<'a> {
    /// What the object of this name is; none where it is nothing that grows old.
    pub fn of(name: &'a str) -> Option<Self> {
        let parts: Vec<&str> = name.split('/').collect();
        let folder = &name[..name.rfind('/').map_or(0, |slash| slash + 1)];
        Some(match parts[..] {
            ["tenants", _, "reviews", _] => Self::Record,
            ["tenants", _, "seals", _, _] => Self::Seal { folder },
            ["tenants", tenant, "completions", _] => {
                Self::Completion { tenant: TenantId::parse(tenant).ok()?, place: stem(name) }
            }
            ["tenants", _, "dead-letters", _] => Self::Letter,
            ["tenants", _, "requests", _] => Self::Request,
            ["campaigns", _] => Self::Campaign,
            ["campaign-items", campaign, _, _] => {
                Self::Chunk { campaign: CampaignId::parse(campaign).ok()?, items: folder }
            }
            _ => return None,
        })
    }
}

/// The last part of a name without `.json`.
pub(super) fn stem(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.strip_suffix(".json").unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collector_knows_each_thing_that_grows_old_by_its_name_and_nothing_else() {
        let tenant = TenantId::parse("acme").expect("id");
        let (pack, review) = (PackId::parse("q3").expect("id"), format!("rv_{}", "0".repeat(32)));
        let review = ReviewId::parse(review).expect("id");
        let campaign = CampaignId::parse(format!("cp_{}", "0".repeat(32))).expect("id");
        let key = IdempotencyKey::parse("a/b").expect("key");
        let letter = DeadLetterId::derive(&[b"x"]);
        let items = campaign_items(&campaign, &Nonce::from_bits(1));
        let sealed = seal(&tenant, &pack, Revision::FIRST);
        assert_eq!(Kept::of(&record(&tenant, &review)), Some(Kept::Record));
        assert_eq!(Kept::of(&sealed), Some(Kept::Seal { folder: &seal_prefix(&tenant, &pack) }));
        let logged = completion(&tenant, "1-ev");
        assert_eq!(Kept::of(&logged), Some(Kept::Completion { tenant: tenant.clone(), place: "1-ev" }));
        assert_eq!(Kept::of(&dead_letter(None, &letter)), Some(Kept::Letter));
        assert_eq!(Kept::of(&request(&tenant, &key)), Some(Kept::Request));
        assert_eq!(Kept::of(&super::campaign(&campaign)), Some(Kept::Campaign));
        let chunk = campaign_chunk(&items, 0);
        assert_eq!(Kept::of(&chunk), Some(Kept::Chunk { campaign: campaign.clone(), items: &items }));
        for other in [
            open_pack(&tenant, &pack, Revision::FIRST),
            open_review(&tenant, &review),
            open_campaign(&campaign),
            sweep(&tenant),
            log_begin(&tenant),
            tombstone(&tenant),
            LEADER.to_owned(),
            COLLECTOR.to_owned(),
        ] {
            assert_eq!(Kept::of(&other), None, "{other}");
        }
    }
}
