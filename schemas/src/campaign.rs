//! Campaigns: dead letters replayed by the fleet itself, at a pace, and stopped by themselves where it does not help.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterState};
use crate::ids::{CampaignId, DeadLetterId, TenantId};
use crate::timestamp::Timestamp;

/// Which letters. Every field that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LetterFilter {
    /// A tenant's id, or [`LetterFilter::NOBODY`] for letters whose sender is nobody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Why it stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<DeadLetterClass>,
    /// The fingerprint, whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Text that the reason holds, in either case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Filed at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Timestamp>,
    /// Filed before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DeadLetterState>,
}

impl LetterFilter {
    /// In the place of a tenant's id: letters whose sender is nobody's.
    pub const NOBODY: &str = "_unknown";

    /// True if the letter fits.
    pub fn fits(&self, letter: &DeadLetter) -> bool {
        let owner = letter.tenant.as_ref().map_or(Self::NOBODY, TenantId::as_str);
        self.tenant.as_ref().is_none_or(|tenant| tenant == owner)
            && self.class.is_none_or(|class| class == letter.class)
            && self.fingerprint.as_ref().is_none_or(|fingerprint| *fingerprint == letter.fingerprint)
            && self.text.as_ref().is_none_or(|text| letter.reason.to_lowercase().contains(&text.to_lowercase()))
            && self.after.is_none_or(|after| letter.filed_at >= after)
            && self.before.is_none_or(|before| letter.filed_at < before)
            && self.state.is_none_or(|state| state == letter.state)
    }
}

/// The body that asks for a campaign, or, with `dry_run`, only for what it would come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCampaign {
    /// Which of the open letters.
    #[serde(default)]
    pub filter: LetterFilter,
    /// These letters alone.
    #[serde(default)]
    pub letters: Vec<DeadLetterId>,
    /// Every open letter of everybody, where neither a filter nor letters are given.
    #[serde(default)]
    pub all: bool,
    /// Replays begun in a minute at most.
    #[serde(default = "CreateCampaign::default_per_minute")]
    pub per_minute: u32,
    /// Replays that must pass before the rest begins; 0 is none.
    #[serde(default)]
    pub canary: u32,
    /// Replay nothing: say what would become of each letter.
    #[serde(default)]
    pub dry_run: bool,
}

impl CreateCampaign {
    const fn default_per_minute() -> u32 {
        60
    }
}

/// One campaign. Its letters lie beside it, in chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Campaign {
    /// Schema number: [`Campaign::SCHEMA`].
    pub schema: u32,
    /// Which.
    pub id: CampaignId,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Which letters it was asked for.
    pub filter: LetterFilter,
    /// SHA-256 (hex) of everything it was asked with: the same key with anything else is another campaign.
    pub asked_sha256: String,
    /// Replays begun in a minute at most.
    pub per_minute: u32,
    /// Replays that must pass before the rest begins.
    pub canary: u32,
    /// Where it stands.
    pub state: CampaignState,
    /// Why it stands there, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was last set going: what failed before does not halt it again.
    pub going_since: Timestamp,
    /// Where its chunks lie.
    pub items: String,
    /// How many chunks.
    pub chunks: u32,
    /// How many letters.
    pub letters: u32,
    /// Fields of a newer schema, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl Campaign {
    /// The schema number that this code writes.
    pub const SCHEMA: u32 = 1;
    /// Letters of one chunk.
    pub const CHUNK: usize = 100;
    /// Letters of one campaign.
    pub const MOST: usize = 100_000;
}

/// Where a campaign stands. Replays under way go on in each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CampaignState {
    /// It begins replays.
    Running,
    /// An operator has stopped it for now.
    Paused,
    /// It has stopped itself: a canary failed, or a failure came back as it was.
    Halted,
    /// An operator has ended it.
    Cancelled,
    /// Every letter has been dealt with.
    Finished,
}

/// Some letters of a campaign, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CampaignChunk {
    /// Schema number: [`Campaign::SCHEMA`].
    pub schema: u32,
    /// The letters, oldest first.
    pub items: Vec<CampaignItem>,
    /// Fields of a newer schema, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// One letter of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CampaignItem {
    /// Which.
    pub letter: DeadLetterId,
    /// Whose; none is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Its fingerprint.
    pub fingerprint: String,
    /// When its replay was begun; noted before anything is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<Timestamp>,
    /// How far it is.
    pub state: ItemState,
    /// Fields of a newer schema, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// How far the replay of one letter is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ItemState {
    /// It waits for its turn.
    Pending,
    /// It is under way.
    Begun,
    /// It was delivered, or the message was taken.
    Passed,
    /// It failed again.
    Failed {
        /// When that was seen.
        at: Timestamp,
        /// Why, in words.
        reason: String,
        /// The reason with ids, numbers and paths removed.
        fingerprint: String,
    },
    /// It was not replayed.
    Skipped {
        /// Why not, in words.
        reason: String,
    },
}

/// What would become of a letter if it were replayed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Foresight {
    /// It would run.
    WouldRun,
    /// Its review was delivered meanwhile, or is under way.
    AlreadyDone,
    /// The sealed versions are not there any more.
    InputsGone,
    /// It would be refused as it was.
    StillInvalid,
    /// Its tenant is suspended.
    TenantSuspended,
    /// Its tenant is not in the registry.
    UnknownTenant,
    /// A campaign has it in hand, or it was discarded or resolved.
    NotOpen,
}
