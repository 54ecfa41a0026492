//! Which schema numbers of the ledger's objects this program can read.
//!
//! Fields that it does not know it keeps; an object of a later number it refuses by name and leaves as it is, since what
//! such a number means only a later program knows.

use carrel_schemas::campaign::{Campaign, CampaignChunk};
use carrel_schemas::completion::Completion;
use carrel_schemas::dead_letter::DeadLetter;
use carrel_schemas::seal::Seal;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{LedgerError, ReviewRecord};

/// Something of the control bucket.
pub(crate) trait Stored: DeserializeOwned {
    /// The highest schema number that this program reads; those without one have zero.
    const SCHEMA: u32 = 0;
}

macro_rules! numbered {
    ($($kind:ty: $schema:expr),* $(,)?) => { $(impl Stored for $kind { const SCHEMA: u32 = $schema; })* };
}

numbered! {
    ReviewRecord: Self::SCHEMA,
    Seal: Self::SCHEMA,
    DeadLetter: Self::SCHEMA,
    Completion: Self::SCHEMA,
    Campaign: Self::SCHEMA,
    CampaignChunk: Campaign::SCHEMA,
}

#[derive(Deserialize)]
struct Numbered {
    #[serde(default)]
    schema: u32,
}

/// Reads an object of this name.
pub(super) fn decode<T: Stored>(name: &str, bytes: &[u8]) -> Result<T, LedgerError> {
    let corrupt = |source| LedgerError::Corrupt { name: name.to_owned(), source };
    let Numbered { schema } = serde_json::from_slice(bytes).map_err(corrupt)?;
    if schema > T::SCHEMA {
        return Err(LedgerError::Newer { name: name.to_owned(), schema, known: T::SCHEMA });
    }
    serde_json::from_slice(bytes).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first dispatcher wrote it.
    const OLDEST: &str = include_str!("schema/oldest_record.json");

    #[test]
    fn the_oldest_record_is_read_and_what_it_holds_besides_survives_a_rewrite() {
        let with_more = OLDEST.replace("\"counted\": false", "\"counted\": false, \"also_later\": \"kept\"");
        let record: ReviewRecord = decode("r", with_more.as_bytes()).expect("it is read");
        assert_eq!((record.put_off, record.larger_since, record.ended.len()), (0, None, 1));
        let job = carrel_schemas::ids::JobName::parse("projects/p/locations/l/jobs/j").expect("a name");
        let (next, _) = record.authorise(job, crate::now()).expect("it is queued");
        let rewritten = serde_json::to_value(&next).expect("plain JSON");
        assert_eq!(rewritten["invented_later"]["kept"], true);
        assert_eq!(rewritten["ended"][0]["also_later"], "kept");
        let letter = serde_json::json!({
            "schema": 1, "id": format!("dl_{}", "0".repeat(32)), "class": "malformed", "reason": "r", "fingerprint": "r",
            "source": { "kind": "message", "subscription": "s", "message_id": "1", "attributes": {}, "data": "" },
            "filed_at": "2026-01-01T00:00:00Z", "state": "open", "invented_later": [1],
        });
        let letter: DeadLetter = decode("l", letter.to_string().as_bytes()).expect("it is read");
        assert_eq!(serde_json::to_value(letter).expect("plain JSON")["invented_later"][0], 1);
    }

    #[test]
    fn a_record_of_each_number_before_that_of_now_is_read() {
        for number in 0..=ReviewRecord::SCHEMA {
            let before = OLDEST.replace("\"schema\": 1", &format!("\"schema\": {number}"));
            decode::<ReviewRecord>("r", before.as_bytes()).expect("it is read");
        }
    }

    #[test]
    fn a_later_number_is_refused_by_name_whatever_else_it_holds() {
        let later = format!("\"schema\": {}", ReviewRecord::SCHEMA + 1);
        for text in [OLDEST.replace("\"schema\": 1", &later), format!("{{{later}}}")] {
            let refused = decode::<ReviewRecord>("tenants/acme/reviews/r.json", text.as_bytes()).expect_err("later");
            let text = refused.to_string();
            assert!(
                text.contains("tenants/acme/reviews/r.json") && text.contains(&later.replace(['"', ':'], "")),
                "{text}"
            );
            assert!(!refused.is_permanent(), "a later program reads it");
        }
    }
}
