//! Executions of Cloud Run Jobs: launch with overrides, look, find.

use std::time::Duration;

use google_cloud_gax::error::Error;
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_run_v2::client::{Executions, Jobs as JobsClient};
use google_cloud_run_v2::model::condition::State;
use google_cloud_run_v2::model::run_job_request::Overrides;
use google_cloud_run_v2::model::run_job_request::overrides::ContainerOverride;
use google_cloud_run_v2::model::{EnvVar, Execution as WireExecution};

use crate::Call;
use crate::error::{CallError, in_time, status};

/// Cloud Run with one identity.
#[derive(Debug, Clone)]
pub struct Jobs {
    jobs: JobsClient,
    executions: Executions,
    answer_within: Duration,
}

/// What one launch sets; everything else is the job's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Replaces the container's arguments.
    pub args: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<(String, String)>,
}

/// One execution as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// `projects/P/locations/L/jobs/J/executions/E`.
    pub name: String,
    /// The container's arguments, by which a lost launch is found again.
    pub args: Vec<String>,
    /// How it ended; absent while a task of it runs or will run.
    pub ended: Option<Ended>,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The limit of its job that ended it, if one did.
    pub limit: Option<Limit>,
    /// What its task exited with, as far as the cloud's words say.
    pub exit_code: Option<i32>,
    /// The cloud's words for it, with the exit code where there was one, at most [`Ended::MAX_WORDS`] characters; may be empty.
    pub message: String,
}

impl Ended {
    /// More of what the cloud says is cut.
    pub const MAX_WORDS: usize = 200;

    fn new(message: &str) -> Self {
        let code = message.split_once("exit code: ").and_then(|(_, after)| {
            let digits = after.find(|c: char| !c.is_ascii_digit()).map_or(after, |end| &after[..end]);
            digits.parse().ok()
        });
        let words = message.chars().take(Self::MAX_WORDS).collect();
        Self { limit: Limit::named_in(message), exit_code: code, message: words }
    }
}

/// A limit of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The memory of a task.
    Memory,
    /// The time of an attempt.
    Time,
}

impl Limit {
    /// Cloud Run has no code for either, only these words: what says neither is taken for a crash, which is tried again.
    fn named_in(message: &str) -> Option<Self> {
        let words =
            [("configured memory limit was reached", Self::Memory), ("configured timeout was reached", Self::Time)];
        words.into_iter().find_map(|(words, limit)| message.contains(words).then_some(limit))
    }
}

/// Why a launch has no execution to show.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The cloud called the request wrong: nothing runs, and the same request is answered the same way.
    #[error("launch refused")]
    Refused(#[source] CallError),
    /// The cloud said no: nothing runs, until somebody mends a permission or the job.
    #[error("launch denied")]
    Denied(#[source] CallError),
    /// The cloud said not now: nothing runs.
    #[error("launch put off")]
    Throttled(#[source] CallError),
    /// No usable answer: an execution may run, and must be looked for before another launch.
    #[error("launch in doubt")]
    InDoubt(#[source] CallError),
}

impl Jobs {
    pub(crate) fn new(jobs: JobsClient, executions: Executions, answer_within: Duration) -> Self {
        Self { jobs, executions, answer_within }
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        in_time(self.answer_within, call).await
    }

    /// Starts one execution of `job`. Not idempotent: never repeat it without looking.
    pub fn run<'a>(&'a self, job: &'a str, launch: Launch) -> Call<'a, Result<String, LaunchError>> {
        Box::pin(async move {
            let env = launch.env.into_iter().map(|(name, value)| EnvVar::new().set_name(name).set_value(value));
            let container = ContainerOverride::new().set_args(launch.args).set_env(env);
            let overrides = Overrides::new().set_container_overrides([container]).set_task_count(1);
            let sent = self.in_time(self.jobs.run_job().set_name(job).set_overrides(overrides).send()).await;
            let operation = sent.map_err(|error| {
                let code = status(&error);
                let call = CallError::new("run job", job, error);
                match code {
                    Some(400) => LaunchError::Refused(call),
                    Some(401 | 403 | 404 | 412) => LaunchError::Denied(call),
                    Some(429) => LaunchError::Throttled(call),
                    // A timeout or a conflict may be the answer to a copy of a request that was carried out.
                    _ => LaunchError::InDoubt(call),
                }
            })?;
            let execution = operation.metadata.as_ref().map(|any| any.to_msg::<WireExecution>());
            match execution {
                Some(Ok(execution)) => Ok(execution.name),
                Some(Err(error)) => Err(LaunchError::InDoubt(CallError::local("run job", job, error))),
                None => Err(LaunchError::InDoubt(CallError::local("run job", job, "the operation names no execution"))),
            }
        })
    }

    /// The job's executions, newest first.
    pub fn executions<'a>(&'a self, job: &'a str) -> Call<'a, Result<Vec<Execution>, CallError>> {
        Box::pin(async move {
            let mut items = self.executions.list_executions().set_parent(job).by_item();
            let mut found = Vec::new();
            let fail = |error| CallError::new("list executions of", job, error);
            while let Some(item) = self.in_time(async { items.next().await.transpose() }).await.map_err(fail)? {
                found.push(execution(item));
            }
            Ok(found)
        })
    }

    /// One execution; `None` if the cloud has forgotten it.
    pub fn execution<'a>(&'a self, name: &'a str) -> Call<'a, Result<Option<Execution>, CallError>> {
        Box::pin(async move {
            match self.in_time(self.executions.get_execution().set_name(name).send()).await {
                Ok(found) => Ok(Some(execution(found))),
                Err(error) if status(&error) == Some(404) => Ok(None),
                Err(error) => Err(CallError::new("get execution", name, error)),
            }
        })
    }

    /// Ends an execution's tasks. An error may be that of one that has ended already: look before trusting it.
    pub fn cancel<'a>(&'a self, name: &'a str) -> Call<'a, Result<(), CallError>> {
        Box::pin(async move {
            let sent = self.in_time(self.executions.cancel_execution().set_name(name).send()).await;
            sent.map(|_operation| ()).map_err(|error| CallError::new("cancel execution", name, error))
        })
    }
}

fn execution(wire: WireExecution) -> Execution {
    let container = wire.template.and_then(|template| template.containers.into_iter().next());
    let completed = wire.conditions.into_iter().find(|condition| condition.r#type == "Completed");
    let is_decided = completed
        .as_ref()
        .is_some_and(|condition| matches!(condition.state, State::ConditionSucceeded | State::ConditionFailed));
    let ended = (wire.completion_time.is_some() || is_decided).then(|| {
        let message = completed.map(|condition| condition.message).unwrap_or_default();
        Ended::new(&message)
    });
    Execution { name: wire.name, args: container.map(|container| container.args).unwrap_or_default(), ended }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_and_the_exit_code_that_ended_an_execution_are_told_from_the_clouds_words() {
        for (message, limit, exit_code) in [
            (
                "Task t-task0 failed with exit code: 0 and message: The configured memory limit was reached.",
                Some(Limit::Memory),
                Some(0),
            ),
            ("Task t-task0 failed with message: The configured timeout was reached.", Some(Limit::Time), None),
            ("Task t-task0 failed with exit code: 64 and message: The container exited with an error.", None, Some(64)),
            ("The container exited with exit code: 75", None, Some(75)),
            ("exit code: unknown", None, None),
            ("", None, None),
        ] {
            let ended = Ended::new(message);
            assert_eq!((ended.limit, ended.exit_code, ended.message.as_str()), (limit, exit_code, message));
        }
    }
}
