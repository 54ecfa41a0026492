//! The first stage: read the seal, and become the one execution that may act for this attempt.
//!
//! A claim is created if absent and never changed; there is no lease and no clock. After a lost reply the claim is read
//! back: our nonce means the create was ours. Refuses a seal that does not derive to its own review id, or that names
//! another tenant or bucket: such a seal is a forgery or a misrouted launch, nothing is written for it, and no other
//! attempt would find it better. A seal that it cannot read, of another schema number above all, is left to another
//! attempt: programs are upgraded one by one.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use carrel_cloud::{Created, Objects};
use carrel_schemas::claim::{Claim, ClaimHolder};
use carrel_schemas::ids::Nonce;
use carrel_schemas::layout;
use carrel_schemas::outcome::{Outcome, RoomReport};
use carrel_schemas::seal::Seal;
use serde::Deserialize;

use crate::case::{Case, Stop};
use crate::config::Config;
use crate::progress::Progress;

/// A claim has a few hundred bytes.
const MAX_CLAIM_BYTES: u64 = 16 << 10;

/// No attempt can be made with this seal.
#[derive(Debug, thiserror::Error)]
#[error("distrust {seal}: {why}")]
pub(crate) struct Distrusted {
    seal: String,
    why: String,
}

/// An attempt that is ours alone.
#[derive(Debug)]
pub(crate) struct Claimed(pub(crate) Case);

pub(crate) async fn claim(
    config: Arc<Config>,
    objects: Objects,
    progress: Progress,
    room: RoomReport,
) -> Result<Claimed, Stop> {
    let began = Instant::now();
    progress.stage("claim");
    let bucket = config.outputs.as_str();
    let seal_name = layout::seal(&config.review);
    let outcome_name = layout::outcome(&config.review, config.epoch);
    let (seal, outcome) = tokio::try_join!(
        objects.get(bucket, seal_name.as_str(), Seal::MAX_BYTES),
        objects.get(bucket, outcome_name.as_str(), Outcome::MAX_BYTES),
    )?;
    if outcome.is_some() {
        return Err(Stop::StandDown(format!("epoch {} has an outcome already", config.epoch)));
    }
    let seal = seal.with_context(|| format!("gs://{bucket}/{seal_name} does not exist"))?;
    let seal = parse(&seal.bytes).with_context(|| format!("parse gs://{bucket}/{seal_name}"))?;
    verify(&seal, &config)
        .map_err(|why| Distrusted { seal: format!("gs://{bucket}/{seal_name}"), why: format!("{why:#}") })?;

    let nonce = Nonce::from_bits(rand::random());
    let claim = Claim {
        schema: Claim::SCHEMA,
        review: config.review.clone(),
        epoch: config.epoch,
        attempt: config.attempt,
        holder: ClaimHolder::Execution { execution: config.execution.clone() },
        nonce: nonce.clone(),
        claimed_at: SystemTime::now().into(),
    };
    let name = layout::claim(&config.review, config.epoch, config.attempt);
    let body = serde_json::to_vec(&claim)?.into();
    if objects.create(bucket, name.as_str(), body, "application/json").await? == Created::Exists {
        let found = objects.get(bucket, name.as_str(), MAX_CLAIM_BYTES).await?;
        let found = found.with_context(|| format!("gs://{bucket}/{name} existed and is gone"))?;
        let found: Claim =
            serde_json::from_slice(&found.bytes).with_context(|| format!("parse gs://{bucket}/{name}"))?;
        if found.nonce != nonce {
            return Err(Stop::StandDown(match found.holder {
                ClaimHolder::Execution { execution } => format!("attempt {} belongs to {execution}", config.attempt),
                ClaimHolder::Revoked => format!("attempt {} was revoked", config.attempt),
            }));
        }
    }
    Ok(Claimed(Case {
        config,
        objects,
        progress,
        seal: Arc::new(seal),
        nonce,
        began,
        scanners: Vec::new(),
        exit: None,
        room,
    }))
}

/// Its number first: what else another one holds only another worker knows.
fn parse(bytes: &[u8]) -> anyhow::Result<Seal> {
    #[derive(Deserialize)]
    struct Numbered {
        schema: u32,
    }
    let Numbered { schema } = serde_json::from_slice(bytes)?;
    ensure!(schema == Seal::SCHEMA, "it has schema {schema}, this worker reads {}", Seal::SCHEMA);
    Ok(serde_json::from_slice(bytes)?)
}

fn verify(seal: &Seal, config: &Config) -> anyhow::Result<()> {
    ensure!(seal.review == config.review, "it seals {}, asked was {}", seal.review, config.review);
    ensure!(seal.tenant == config.tenant, "it seals for tenant {}, this is {}'s job", seal.tenant, config.tenant);
    ensure!(seal.bucket == config.uploads, "it names bucket {}, this job reads {}", seal.bucket, config.uploads);
    if !seal.is_consistent() {
        bail!("its members do not derive to its review id");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_of_another_number_is_named_by_it_whatever_else_it_holds() {
        let later = format!("{{\"schema\": {}, \"review\": {{}}}}", Seal::SCHEMA + 1);
        let why = parse(later.as_bytes()).expect_err("a later one").to_string();
        assert!(why.contains(&format!("it has schema {}", Seal::SCHEMA + 1)), "{why}");
        for wrong in ["", "[]", "{}", "{\"schema\": 1}"] {
            parse(wrong.as_bytes()).expect_err(wrong);
        }
    }
}
