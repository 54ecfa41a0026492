//! The first stage: read the seal, and become the one execution that may act for this attempt.
//!
//! A claim is created if absent and never changed; there is no lease and no clock. After a lost reply the claim is read
//! back: our nonce means the create was ours. Refuses a seal that does not derive to its own review id, or that names
//! another tenant or bucket: such a seal is a forgery or a misrouted launch, nothing is written for it, and no other
//! attempt would find it better.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use carrel_cloud::{Created, Objects};
use carrel_schemas::claim::{Claim, ClaimHolder};
use carrel_schemas::ids::Nonce;
use carrel_schemas::layout;
use carrel_schemas::outcome::{Outcome, RoomReport};
use carrel_schemas::seal::Seal;

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
    let seal = serde_json::from_slice::<Seal>(&seal.bytes)
        .map_err(anyhow::Error::new)
        .and_then(|seal| verify(&seal, &config).map(|()| seal))
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

fn verify(seal: &Seal, config: &Config) -> anyhow::Result<()> {
    ensure!(seal.schema == Seal::SCHEMA, "it has schema {}, this worker reads {}", seal.schema, Seal::SCHEMA);
    ensure!(seal.review == config.review, "it seals {}, asked was {}", seal.review, config.review);
    ensure!(seal.tenant == config.tenant, "it seals for tenant {}, this is {}'s job", seal.tenant, config.tenant);
    ensure!(seal.bucket == config.uploads, "it names bucket {}, this job reads {}", seal.bucket, config.uploads);
    if !seal.is_consistent() {
        bail!("its members do not derive to its review id");
    }
    Ok(())
}
