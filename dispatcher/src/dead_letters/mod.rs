//! Dead letters: what was not reviewed, filed once under its content's hash, grouped by fingerprint.
//!
//! Owns how a letter is made; the ledger keeps it. Refuses to decide: the class is given by whoever met the failure.

mod fingerprint;
mod index;

use std::collections::BTreeMap;

use carrel_schemas::completion::Completion;
use carrel_schemas::dead_letter::{
    DeadLetter, DeadLetterClass, DeadLetterSource, DeadLetterState, Evidence, LetterAttempt,
};
use carrel_schemas::ids::{BucketName, DeadLetterId, Epoch, IdempotencyKey, PackId, ReviewId, Revision, TenantId};
use carrel_schemas::outcome::{FailureClass, Verdict};
use carrel_schemas::timestamp::Timestamp;

use crate::ledger::{EndedAttempt, ReviewRecord};

pub use fingerprint::fingerprint;
pub use index::{Group, Index, Page};

/// A reason may quote what it refuses: a letter with the largest message and this much reason can still be read back.
const MAX_REASON: usize = 16 << 10;
/// Before the id of a letter, in the key that its replay asks under.
const REPLAY: &str = "replay/";

/// Makes a letter. Its id covers the source: the same message, review or closing of a pack is one letter however often
/// it is met.
pub fn letter(
    tenant: Option<TenantId>,
    class: DeadLetterClass,
    mut reason: String,
    source: DeadLetterSource,
    now: Timestamp,
) -> DeadLetter {
    reason.truncate(reason.floor_char_boundary(MAX_REASON));
    let id = match &source {
        DeadLetterSource::Message { attributes, data, subscription, .. } => {
            // Not the message id: a redelivered copy under another id is the same letter.
            let attributes = attributes.iter().filter(|(name, _)| !name.starts_with("CloudPubSubDeadLetter"));
            let attributes: BTreeMap<_, _> = attributes.collect();
            let text = serde_json::to_vec(&attributes).expect("a map of strings is plain JSON");
            DeadLetterId::derive(&[b"message", topic_of(subscription).as_bytes(), &text, data.as_bytes()])
        }
        DeadLetterSource::Review { review, epoch, .. } => of_epoch(review, *epoch),
        DeadLetterSource::Pack { pack, revision, bucket } => of_pack(bucket, pack, *revision),
    };
    let id = if class == DeadLetterClass::Stuck { of_stuck(&id) } else { id };
    DeadLetter {
        schema: DeadLetter::SCHEMA,
        id,
        tenant,
        class,
        fingerprint: fingerprint(&reason),
        reason,
        source,
        filed_at: now,
        attempts: Vec::new(),
        evidence: None,
        replay_of: None,
        state: DeadLetterState::Open,
        campaign: None,
        resolution: None,
        unknown: BTreeMap::new(),
    }
}

/// The id of the letter of a review that ended in this epoch.
pub fn of_epoch(review: &ReviewId, epoch: Epoch) -> DeadLetterId {
    DeadLetterId::derive(&[b"review", review.as_str().as_bytes(), &epoch.get().to_be_bytes()])
}

/// The id of the letter that something is stuck, from that of its end: both may be filed.
pub fn of_stuck(end: &DeadLetterId) -> DeadLetterId {
    DeadLetterId::derive(&[b"stuck", end.as_str().as_bytes()])
}

/// The id of the letter of a closing of a pack that came to nothing.
pub fn of_pack(bucket: &BucketName, pack: &PackId, revision: Revision) -> DeadLetterId {
    let parts = [b"pack", bucket.as_str().as_bytes(), pack.as_str().as_bytes(), &revision.get().to_be_bytes()];
    DeadLetterId::derive(&parts)
}

/// The key under which the replay of a pack's letter asks for a review: the letter itself, so it is asked for once.
pub fn replay_key(letter: &DeadLetterId) -> IdempotencyKey {
    IdempotencyKey::parse(format!("{REPLAY}{letter}")).expect("a letter's id is plain")
}

/// The letter whose replay asks under this key.
pub fn replayed_under(key: &IdempotencyKey) -> Option<DeadLetterId> {
    DeadLetterId::parse(key.as_str().strip_prefix(REPLAY)?).ok()
}

/// The subscription of a topic and that of its dead-letter topic carry the same messages.
fn topic_of(subscription: &str) -> String {
    match subscription.rsplit_once('/') {
        Some((project, name)) => format!("{project}/{}", name.replace("-dead-", "-")),
        None => subscription.replace("-dead-", "-"),
    }
}

/// Whether somebody has to look at a review that ended like this.
pub fn is_owed(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Delivered { .. } | Verdict::Cancelled { .. } | Verdict::Superseded { .. } => false,
        Verdict::Refused { .. } | Verdict::InputsChanged { .. } | Verdict::Failed { .. } => true,
    }
}

/// The letter of a review that ended without delivery, with what came before; `None` for endings that nobody has to
/// look at.
pub fn of_completion(
    completion: &Completion,
    record: &ReviewRecord,
    evidence: Evidence,
    now: Timestamp,
) -> Option<DeadLetter> {
    let (class, reason) = match &completion.verdict {
        Verdict::Delivered { .. } | Verdict::Cancelled { .. } | Verdict::Superseded { .. } => return None,
        Verdict::Refused { reason } => (DeadLetterClass::Refused, reason.clone()),
        Verdict::InputsChanged { changed } => {
            // Between one pair of quotes, so that letters with more and with fewer of them are one group.
            let names: Vec<_> = changed.iter().take(5).map(|name| name.as_str()).collect();
            let reason = format!(
                "{} sealed file(s) were replaced or deleted before delivery: {:?}; complete the pack again to have what it holds now reviewed",
                changed.len(),
                names.join(", ")
            );
            (DeadLetterClass::InputsGone, reason)
        }
        Verdict::Failed { class, message, .. } => {
            let class = match class {
                FailureClass::Crashed => DeadLetterClass::Crashed,
                FailureClass::TimedOut => DeadLetterClass::TimedOut,
                FailureClass::OutOfMemory => DeadLetterClass::OutOfMemory,
                FailureClass::AgentFailed => DeadLetterClass::AgentFailed,
                FailureClass::CloudRefused => DeadLetterClass::CloudRefused,
                FailureClass::Expired => DeadLetterClass::Expired,
            };
            (class, message.clone())
        }
    };
    let source = DeadLetterSource::Review {
        review: completion.review.clone(),
        epoch: completion.epoch,
        pack: completion.pack.clone(),
    };
    let attempt = |ended: &EndedAttempt| LetterAttempt {
        attempt: ended.attempt,
        at: ended.at,
        cause: ended.cause.clone(),
        evidence: ended.evidence.clone(),
        unknown: BTreeMap::new(),
    };
    let replay_of = record.former_epoch().map(|epoch| of_epoch(&completion.review, epoch));
    Some(DeadLetter {
        attempts: record.ended.iter().map(attempt).collect(),
        evidence: Some(evidence).filter(|evidence| *evidence != Evidence::default()),
        replay_of,
        ..letter(Some(completion.tenant.clone()), class, reason, source, now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_quotes_a_large_body_is_cut_between_characters() {
        let source = DeadLetterSource::Message {
            subscription: "s".to_owned(),
            message_id: "1".to_owned(),
            attributes: BTreeMap::new(),
            data: String::new(),
        };
        let now = Timestamp::from_unix_seconds(0).expect("in range");
        let letter = letter(None, DeadLetterClass::Malformed, "\u{20ac}".repeat(MAX_REASON), source, now);
        assert_eq!(letter.reason.len(), MAX_REASON - 1);
    }
}
