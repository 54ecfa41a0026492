//! The JSON that Google's clients read: jobs, executions, tasks and operations of google.cloud.run.v2.
//!
//! 64-bit numbers are strings, times are RFC 3339, durations end in `s`, enums go by name.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::job::JobRecord;
use super::record::{ExecutionRecord, Phase, TaskRecord};
use crate::config::Volume;

const JOB: &str = "type.googleapis.com/google.cloud.run.v2.Job";
const EXECUTION: &str = "type.googleapis.com/google.cloud.run.v2.Execution";

/// `projects/P/locations/L`, of which all names are made.
#[derive(Clone, Debug)]
pub(super) struct Place(pub(super) String);

fn instant(us: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

#[expect(clippy::cast_precision_loss, reason = "a timeout is far below 2^52 ms")]
fn duration(ms: u64) -> String {
    format!("{}s", ms as f64 / 1000.0)
}

/// The etag of an execution in this state.
pub(super) fn execution_etag(record: &ExecutionRecord) -> String {
    format!("\"{}-{}\"", record.seq, if record.is_complete() { 3 } else { 1 + i32::from(record.started_us.is_some()) })
}

fn template(record: &ExecutionRecord) -> Value {
    json!({
        "containers": [container(&record.image, &record.args, record.env.iter().map(|(name, value)| (name, value)))],
        "maxRetries": record.max_retries,
        "timeout": duration(record.timeout_ms),
        "serviceAccount": record.service_account,
        "executionEnvironment": "EXECUTION_ENVIRONMENT_GEN2",
    })
}

fn container<'a>(image: &str, args: &[String], env: impl Iterator<Item = (&'a String, &'a String)>) -> Value {
    let env: Vec<Value> = env.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    json!({ "image": image, "args": args, "env": env })
}

fn condition(kind: &str, state: &str, at_us: i64) -> Value {
    json!({ "type": kind, "state": state, "lastTransitionTime": instant(at_us) })
}

fn set_time(resource: &mut Value, field: &str, us: Option<i64>) {
    if let Some(us) = us {
        resource[field] = instant(us).into();
    }
}

impl Place {
    fn job_name(&self, job: &str) -> String {
        format!("{}/jobs/{job}", self.0)
    }

    fn execution_name(&self, record: &ExecutionRecord) -> String {
        format!("{}/executions/{}", self.job_name(&record.job), record.name)
    }

    /// A job.
    pub(super) fn job(&self, record: &JobRecord, newest: Option<&ExecutionRecord>) -> Value {
        let JobRecord { job, created_us, updated_us, generation } = record;
        let mut only = container(&job.image, &job.args, job.env.iter());
        only["resources"] = json!({ "limits": { "memory": job.memory_bytes.to_string() } });
        let mut template = json!({
            "maxRetries": job.max_retries,
            "timeout": format!("{}s", job.timeout_seconds),
            "serviceAccount": job.service_account,
            "executionEnvironment": "EXECUTION_ENVIRONMENT_GEN2",
        });
        if let Some(Volume { bucket, mount_path }) = &job.volume {
            template["volumes"] = json!([{ "name": bucket, "gcs": { "bucket": bucket, "readOnly": true } }]);
            only["volumeMounts"] = json!([{ "name": bucket, "mountPath": mount_path }]);
        }
        template["containers"] = json!([only]);
        let mut resource = json!({
            "name": self.job_name(&job.name),
            "uid": format!("{}-{created_us}", job.name),
            "generation": generation.to_string(),
            "observedGeneration": generation.to_string(),
            "createTime": instant(*created_us),
            "updateTime": instant(*updated_us),
            "launchStage": "GA",
            "etag": record.etag(),
            "template": { "taskCount": job.task_count, "parallelism": job.parallelism, "template": template },
            "terminalCondition": condition("Ready", "CONDITION_SUCCEEDED", *updated_us),
        });
        if let Some(newest) = newest {
            resource["executionCount"] = newest.seq.into();
            let mut latest = json!({ "name": newest.name, "createTime": instant(newest.created_us) });
            set_time(&mut latest, "completionTime", newest.completed_us);
            resource["latestCreatedExecution"] = latest;
        }
        resource
    }

    /// An execution.
    pub(super) fn execution(&self, record: &ExecutionRecord) -> Value {
        let updated = record.completed_us.or(record.started_us).unwrap_or(record.created_us);
        let started = if record.started_us.is_some() { "CONDITION_SUCCEEDED" } else { "CONDITION_RECONCILING" };
        let mut resource = json!({
            "name": self.execution_name(record),
            "job": record.job,
            "uid": record.uid,
            "creator": record.creator,
            "generation": "1",
            "observedGeneration": "1",
            "launchStage": "GA",
            "labels": { "run.googleapis.com/job": record.job },
            "createTime": instant(record.created_us),
            "updateTime": instant(updated),
            "taskCount": record.tasks.len(),
            "parallelism": if record.parallelism == 0 { record.tasks.len() } else { record.parallelism },
            "template": template(record),
            "reconciling": !record.is_complete(),
            "conditions": [
                completed(record),
                condition("Started", started, record.started_us.unwrap_or(record.created_us)),
            ],
            "runningCount": record.count(Phase::Running),
            "succeededCount": record.count(Phase::Succeeded),
            "failedCount": record.count(Phase::Failed),
            "cancelledCount": record.count(Phase::Cancelled),
            "retriedCount": record.tasks.iter().map(|task| task.retried).sum::<u32>(),
            "etag": execution_etag(record),
        });
        set_time(&mut resource, "startTime", record.started_us);
        set_time(&mut resource, "completionTime", record.completed_us);
        resource
    }

    /// The operation that made, changed or deleted a job: it was done when it was answered.
    pub(super) fn changed(&self, id: &str, mut job: Value) -> Value {
        job["@type"] = JOB.into();
        json!({ "name": format!("{}/operations/{id}", self.0), "metadata": job, "done": true, "response": job })
    }

    /// What is left to say of a job that is gone.
    pub(super) fn gone(&self, job: &str) -> Value {
        json!({ "name": self.job_name(job) })
    }

    /// The operation of an execution: done when the execution is complete.
    pub(super) fn operation(&self, record: &ExecutionRecord) -> Value {
        let mut execution = self.execution(record);
        execution["@type"] = EXECUTION.into();
        let mut operation = json!({
            "name": format!("{}/operations/{}", self.0, record.uid),
            "metadata": execution,
            "done": record.is_complete(),
        });
        if !record.is_complete() {
            return operation;
        }
        if record.count(Phase::Succeeded) == record.tasks.len() {
            operation["response"] = operation["metadata"].clone();
        } else {
            // google.rpc.Code: CANCELLED or UNKNOWN.
            let code = if record.cancelled { 1 } else { 2 };
            operation["error"] = json!({ "code": code, "message": why(record) });
        }
        operation
    }

    /// A task.
    pub(super) fn task(&self, record: &ExecutionRecord, index: usize, task: &TaskRecord) -> Value {
        let updated = task.completed_us.or(task.started_us).unwrap_or(record.created_us);
        let mut condition = condition("Completed", state(task.phase), updated);
        condition["message"] = task.message.clone().into();
        let mut resource = json!({
            "name": format!("{}/tasks/{}", self.execution_name(record), task_id(record, index)),
            "uid": format!("{}-{index}", record.uid),
            "generation": "1",
            "observedGeneration": "1",
            "job": record.job,
            "execution": record.name,
            "createTime": instant(record.created_us),
            "scheduledTime": instant(record.created_us),
            "updateTime": instant(updated),
            "containers": template(record)["containers"],
            "timeout": duration(record.timeout_ms),
            "serviceAccount": record.service_account,
            "executionEnvironment": "EXECUTION_ENVIRONMENT_GEN2",
            "reconciling": !task.phase.is_final(),
            "conditions": [condition],
            "index": index,
            "retried": task.retried,
            "maxRetries": record.max_retries,
        });
        if task.phase.is_final() || task.retried > 0 {
            let mut result = json!({ "status": { "code": if task.phase == Phase::Succeeded { 0 } else { 2 } } });
            result["status"]["message"] = task.message.clone().into();
            if let Some(code) = task.exit_code {
                result["exitCode"] = code.into();
            }
            if let Some(signal) = task.signal {
                result["termSignal"] = signal.into();
            }
            resource["lastAttemptResult"] = result;
        }
        set_time(&mut resource, "startTime", task.started_us);
        set_time(&mut resource, "completionTime", task.completed_us);
        resource
    }
}

/// The short name of a task.
pub(super) fn task_id(record: &ExecutionRecord, index: usize) -> String {
    format!("{}-task{index}", record.name)
}

const fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "CONDITION_PENDING",
        Phase::Running => "CONDITION_RECONCILING",
        Phase::Succeeded => "CONDITION_SUCCEEDED",
        Phase::Failed | Phase::Cancelled => "CONDITION_FAILED",
    }
}

fn completed(record: &ExecutionRecord) -> Value {
    let Some(at) = record.completed_us else {
        return condition("Completed", "CONDITION_RECONCILING", record.started_us.unwrap_or(record.created_us));
    };
    if record.count(Phase::Succeeded) == record.tasks.len() {
        let mut done = condition("Completed", "CONDITION_SUCCEEDED", at);
        done["message"] = "Execution completed successfully.".into();
        return done;
    }
    let mut failed = condition("Completed", "CONDITION_FAILED", at);
    failed["message"] = why(record).into();
    failed["executionReason"] =
        if record.count(Phase::Cancelled) > 0 { "CANCELLED" } else { "NON_ZERO_EXIT_CODE" }.into();
    failed
}

/// In Cloud Run's words, as far as people have quoted them.
fn why(record: &ExecutionRecord) -> String {
    let mut failed = record.tasks.iter().enumerate().filter(|(_, task)| !task.message.is_empty());
    let Some((index, task)) = failed.next() else { return "A task failed.".to_owned() };
    let (id, message) = (task_id(record, index), &task.message);
    match task.exit_code {
        _ if task.phase == Phase::Cancelled => message.clone(),
        Some(code) => format!("Task {id} failed with exit code: {code} and message: {message}"),
        None => format!("Task {id} failed with message: {message}"),
    }
}
