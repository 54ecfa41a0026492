//! Whether what an agent left is a review: findings that validate and a deck.
//!
//! Refuses findings whose evidence names a file that the agent was not shown, or shows with other bytes.

use std::collections::BTreeMap;

use carrel_schemas::agent::AgentInput;
use carrel_schemas::findings::Findings;
use carrel_schemas::outcome::FindingSummary;

use crate::outbox::{Left, Parcel};

/// A larger document is refused unread.
const MAX_FINDINGS: u64 = 8 << 20;
/// Findings that an outcome names, and how much of their titles.
pub(crate) const TOP: usize = 10;
const MAX_TITLE: usize = 200;
/// Names that a verdict says were not taken.
const MAX_REFUSED: usize = 5;

/// The most important findings, or what is wrong with the review, and what of it was not taken.
pub(crate) fn judge(left: &Left, accepted: &[AgentInput]) -> Result<Vec<FindingSummary>, String> {
    validate(&left.parcels, accepted).map_err(|why| {
        let refused = &left.refused;
        if refused.is_empty() {
            return why;
        }
        let more = match refused.len().saturating_sub(MAX_REFUSED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        format!("{why}; not taken: {}{more}", refused[..refused.len().min(MAX_REFUSED)].join(", "))
    })
}

fn validate(parcels: &[Parcel], accepted: &[AgentInput]) -> Result<Vec<FindingSummary>, String> {
    let find = |name: &str| parcels.iter().find(|parcel| parcel.name == name);
    let document = find("findings.json").ok_or("the agent left no findings.json")?;
    if document.size > MAX_FINDINGS {
        return Err(format!("findings.json has {} bytes, {MAX_FINDINGS} are allowed", document.size));
    }
    if !parcels.iter().any(|parcel| parcel.name.starts_with("deck.") && parcel.size > 0) {
        return Err("the agent left no deck".to_owned());
    }
    let bytes = std::fs::read(&document.path).map_err(|error| format!("findings.json cannot be read: {error}"))?;
    check(&bytes, accepted)
}

pub(crate) fn check(bytes: &[u8], accepted: &[AgentInput]) -> Result<Vec<FindingSummary>, String> {
    let findings: Findings =
        serde_json::from_slice(bytes).map_err(|error| format!("findings.json is not what it should be: {error}"))?;
    findings.validate().map_err(|error| format!("findings.json: {error}"))?;
    let shown: BTreeMap<_, _> = accepted.iter().map(|input| (&input.file_id, input.sha256.as_str())).collect();
    for finding in &findings.findings {
        for evidence in &finding.evidence {
            match shown.get(&evidence.file_id) {
                Some(sha256) if evidence.sha256.eq_ignore_ascii_case(sha256) => {}
                Some(_) => {
                    let (id, file) = (&finding.id, &evidence.file_id);
                    return Err(format!("findings.json: finding {id:?} cites {file} with other bytes than it has"));
                }
                None => {
                    let (id, file) = (&finding.id, &evidence.file_id);
                    return Err(format!("findings.json: finding {id:?} cites {file}, which the agent was not shown"));
                }
            }
        }
    }
    let summary = |finding: &carrel_schemas::findings::Finding| FindingSummary {
        id: cut(&finding.id),
        kind: finding.kind,
        level: finding.level,
        title: cut(&finding.title),
    };
    Ok(findings.findings.iter().take(TOP).map(summary).collect())
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TITLE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrel_schemas::agent::FileFormat;
    use carrel_schemas::ids::FileId;

    fn findings(file_id: &str, sha256: &str) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({
            "schema": 1, "agent": "test/1", "title": "t", "summary": "s", "not_computed": [],
            "findings": [{
                "id": "a", "rule_id": "r", "kind": "fact", "level": "note", "title": "T".repeat(300), "statement": "s",
                "evidence": [{"file_id": file_id, "locator": {"kind": "file"}, "query": "q", "sha256": sha256}],
                "confidence": 1.0, "fingerprint": "f"
            }]
        }))
        .expect("JSON")
    }

    #[test]
    fn evidence_must_name_a_file_the_agent_was_shown() {
        let shown = vec![AgentInput {
            file_id: FileId::nth(0),
            path: "f001.csv".into(),
            name: "pos.csv".into(),
            format: FileFormat::Csv,
            size: 1,
            sha256: "ab".into(),
            flags: Vec::new(),
        }];
        let top = check(&findings("f001", "AB"), &shown).expect("valid");
        assert_eq!(top[0].title.len(), MAX_TITLE);
        assert!(check(&findings("f002", "ab"), &shown).expect_err("never shown").contains("f002"));
        assert!(check(&findings("f001", "cd"), &shown).expect_err("other bytes").contains("other bytes"));
        assert!(check(b"{}", &shown).is_err());
        let judged = |refused| judge(&Left { parcels: Vec::new(), refused }, &shown).expect_err("nothing");
        assert_eq!(judged(Vec::new()), "the agent left no findings.json");
        let refused = (0..7).map(|at| format!("\"{at}\": it is a symbolic link")).collect();
        let why = judged(refused);
        assert!(why.starts_with("the agent left no findings.json; not taken: \"0\": it is a symbolic link, "), "{why}");
        assert!(why.ends_with("\"4\": it is a symbolic link, and 2 more"), "{why}");
    }
}
