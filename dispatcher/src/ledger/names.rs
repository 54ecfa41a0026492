//! The control bucket's layout. Nobody but the dispatcher reads or writes it.
//!
//! ```text
//! open/packs/<tenant>/<pack key>/<revision>.json     a pack that has uploads and no seal for them yet
//! open/reviews/<tenant>/<review>.json                a review whose completion is not announced; names its seal
//! open/sweeps/<tenant>.json                         a tenant whose uploads bucket is to be swept at once
//! tenants/<tenant>/seals/<pack key>/<revision>.json  write-once
//! tenants/<tenant>/reviews/<review>.json             the record, compare-and-swap, one name for life
//! tenants/<tenant>/completions/<time>-<event>.json   what was announced, in order of time; write-once
//! tenants/<tenant>/dead-letters/<id>.json            `_unknown` where the sender is nobody's
//! tenants/<tenant>/requests/<key>.json               the seal an idempotency key stands for
//! tenants/<tenant>/sweep.json                        where the cold sweep of the uploads bucket stands
//! open/campaigns/<campaign>.json                     a campaign with something left to do
//! campaigns/<campaign>.json                          its head, compare-and-swap
//! campaign-items/<campaign>/<nonce>/<chunk>.json     some of its letters and how far each is, compare-and-swap
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

/// The last part of a name without `.json`.
pub(super) fn stem(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.strip_suffix(".json").unwrap_or(last)
}
