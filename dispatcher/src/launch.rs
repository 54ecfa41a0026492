//! Launches an attempt as an execution of the tenant's own job, and finds it again after a lost reply.
//!
//! Cloud Run's launch is not idempotent: a lost reply may be a running execution. So the ledger says Launching before
//! the call, the arguments carry review, epoch and attempt, and nothing launches again before the attempt's execution
//! is found or its claim is revoked, after which no execution of it can ever act.

use bytes::Bytes;
use carrel_cloud::{CallError, Created, Ended, Jobs, Launch, LaunchError, Objects, ReadError};
use carrel_schemas::claim::{Claim, ClaimHolder};
use carrel_schemas::ids::{Attempt, ExecutionName, JobName};
use carrel_schemas::layout;
use carrel_schemas::registry::Tenant;

use crate::ledger::{Ledger, LedgerError, ReviewRecord, State, fresh_nonce};

const MAX_CLAIM_BYTES: u64 = 16 << 10;

/// Starts and finds executions.
#[derive(Debug)]
pub struct Launcher {
    ledger: Ledger,
    objects: Objects,
    jobs: Jobs,
}

/// What a launch came to.
#[derive(Debug)]
pub enum Launched {
    /// It runs.
    Running(ExecutionName),
    /// The cloud said not now, in words.
    PutOff(String),
    /// The cloud called the launch wrong, in words; it always will.
    Refused(String),
    /// The cloud said no, in words, until somebody mends a permission or the job.
    Denied(String),
    /// Nobody knows.
    InDoubt,
}

/// What looking for the execution of an attempt came to.
#[derive(Debug)]
pub enum Look {
    /// This is its execution.
    Found(ExecutionName),
    /// It has none that could ever act.
    Revoked,
}

impl Launcher {
    /// A launcher with the dispatcher's identity.
    pub fn new(ledger: Ledger, objects: Objects, jobs: Jobs) -> Self {
        Self { ledger, objects, jobs }
    }

    /// Puts the worker's copy of the seal into the tenant's outputs bucket. The worker holds it against the review id.
    pub async fn prepare(&self, tenant: &Tenant, record: &ReviewRecord) -> Result<(), LedgerError> {
        let seal = self.ledger.seal(&record.tenant, &record.pack, record.revision).await?;
        let seal = seal.ok_or_else(|| LedgerError::NoSeal(record.review.clone()))?;
        let body = Bytes::from(serde_json::to_vec(&seal).expect("a seal is plain JSON"));
        let name = layout::seal(&record.review);
        self.objects.create(tenant.outputs_bucket.as_str(), name.as_str(), body, "application/json").await?;
        Ok(())
    }

    /// Starts one execution for an attempt that the ledger has authorised.
    pub async fn launch(&self, tenant: &Tenant, record: &ReviewRecord, attempt: Attempt) -> Launched {
        let mut env = Vec::new();
        if let Some(traceparent) = carrel_telemetry::inject().or_else(|| record.traceparent.clone()) {
            env.push(("CARREL_TRACEPARENT".to_owned(), traceparent));
        }
        let launch = Launch { args: args(record, attempt), env };
        let job = job_of(tenant, record);
        let error = match self.jobs.run(job.as_str(), launch).await {
            Ok(name) => match ExecutionName::parse(name) {
                Ok(name) => return Launched::Running(name),
                Err(error) => {
                    tracing::warn!(%error, "the launch answered with a name that is none");
                    return Launched::InDoubt;
                }
            },
            Err(error) => error,
        };
        match error {
            LaunchError::Throttled(call) => Launched::PutOff(describe(&call)),
            LaunchError::Refused(call) => Launched::Refused(describe(&call)),
            LaunchError::Denied(call) => Launched::Denied(format!(
                "{}; check that the job exists and that the dispatcher may run it with overrides",
                describe(&call)
            )),
            LaunchError::InDoubt(call) => {
                tracing::warn!(review.id = %record.review, error = describe(&call), "launch in doubt");
                Launched::InDoubt
            }
        }
    }

    /// Finds the execution of an attempt whose launch was not answered, or revokes the attempt.
    pub async fn find(&self, tenant: &Tenant, record: &ReviewRecord, attempt: Attempt) -> Result<Look, CallError> {
        let wanted = args(record, attempt);
        let job = job_of(tenant, record);
        for execution in self.jobs.executions(job.as_str()).await? {
            if execution.args == wanted
                && let Ok(name) = ExecutionName::parse(execution.name)
            {
                return Ok(Look::Found(name));
            }
        }
        self.revoke(tenant, record, attempt).await
    }

    /// How the execution ended; `None` while it runs or will.
    pub async fn ended(&self, execution: &ExecutionName) -> Result<Option<Ended>, CallError> {
        let forgotten =
            || Some(Ended { limit: None, exit_code: None, message: "the cloud has forgotten it".to_owned() });
        Ok(self.jobs.execution(execution.as_str()).await?.map_or_else(forgotten, |execution| execution.ended))
    }

    /// Ends an execution, unless it has ended.
    pub async fn cancel(&self, execution: &ExecutionName) -> Result<(), CallError> {
        match self.jobs.cancel(execution.as_str()).await {
            Err(error) if self.ended(execution).await?.is_none() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Takes the attempt's claim, so that no execution of it can ever act; or finds the execution that holds it.
    pub async fn revoke(&self, tenant: &Tenant, record: &ReviewRecord, attempt: Attempt) -> Result<Look, CallError> {
        let bucket = tenant.outputs_bucket.as_str();
        let name = layout::claim(&record.review, record.epoch, attempt);
        let claim = Claim {
            schema: Claim::SCHEMA,
            review: record.review.clone(),
            epoch: record.epoch,
            attempt,
            holder: ClaimHolder::Revoked,
            nonce: fresh_nonce(),
            claimed_at: crate::now(),
        };
        let body = Bytes::from(serde_json::to_vec(&claim).expect("a claim is plain JSON"));
        match self.objects.create(bucket, name.as_str(), body, "application/json").await? {
            Created::New(_) => Ok(Look::Revoked),
            Created::Exists => {
                let claimant = self.claimant(tenant, record, attempt).await?;
                Ok(claimant.map_or(Look::Revoked, Look::Found))
            }
        }
    }

    /// The execution that holds the claim of an attempt: of two that were started for it, the one that acts.
    async fn claimant(
        &self,
        tenant: &Tenant,
        record: &ReviewRecord,
        attempt: Attempt,
    ) -> Result<Option<ExecutionName>, CallError> {
        let name = layout::claim(&record.review, record.epoch, attempt);
        let held = match self.objects.get(tenant.outputs_bucket.as_str(), name.as_str(), MAX_CLAIM_BYTES).await {
            Ok(held) => held,
            // It is no claim then, and no execution can hold it.
            Err(ReadError::TooLarge { .. }) => None,
            Err(ReadError::Call(error)) => return Err(error),
        };
        let held = held.and_then(|body| serde_json::from_slice::<Claim>(&body.bytes).ok());
        Ok(match held.map(|claim| claim.holder) {
            // The claim lies where the tenant's worker writes: believe an execution only of the attempt's own job.
            Some(ClaimHolder::Execution { execution }) if execution.job() == job_of(tenant, record) => Some(execution),
            _ => None,
        })
    }
}

/// The job of the attempt in hand, as the ledger noted it; of the next one, as the registry says now.
pub fn job_of(tenant: &Tenant, record: &ReviewRecord) -> JobName {
    match &record.state {
        State::Launching { job: Some(job), .. } => job.clone(),
        State::Running { execution, .. } => execution.job(),
        State::Launching { job: None, .. } | State::Queued { .. } | State::Settled { .. } => {
            tenant.job_for(record.larger_since.is_some() && tenant.retry_limits.is_some())
        }
    }
}

fn args(record: &ReviewRecord, attempt: Attempt) -> Vec<String> {
    let arg = |name: &str, value: &dyn std::fmt::Display| [name.to_owned(), value.to_string()];
    [arg("--review", &record.review), arg("--epoch", &record.epoch), arg("--attempt", &attempt)].concat()
}

fn describe(error: &CallError) -> String {
    format!("{error}: {}", error.source)
}
