//! An execution and its tasks, as they are kept. Pure: every change takes the time as an argument.
//!
//! ```text
//! Pending ─► Running ─► Succeeded │ Failed │ Cancelled
//!    └───retry──┘
//! ```

use serde::{Deserialize, Serialize};

/// One execution of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExecutionRecord {
    /// The job's short name.
    pub(super) job: String,
    /// The execution's short name.
    pub(super) name: String,
    /// Place in the job's history, from 1.
    pub(super) seq: u64,
    /// UUID; names the operation too.
    pub(super) uid: String,
    /// Who launched it.
    pub(super) creator: String,
    /// Microseconds since 1970.
    pub(super) created_us: i64,
    /// When the first task started.
    pub(super) started_us: Option<i64>,
    /// When the last task ended.
    pub(super) completed_us: Option<i64>,
    /// The image's name.
    pub(super) image: String,
    /// What the container is given, overrides applied.
    pub(super) args: Vec<String>,
    /// The container's environment, overrides applied.
    pub(super) env: Vec<(String, String)>,
    /// Whose tokens the tasks get.
    pub(super) service_account: String,
    /// How long an attempt may take, milliseconds.
    pub(super) timeout_ms: u64,
    /// Attempts at a task beyond the first.
    #[serde(default)]
    pub(super) max_retries: u32,
    /// Tasks that run at once; 0 is all.
    #[serde(default)]
    pub(super) parallelism: usize,
    /// Somebody asked for its end.
    pub(super) cancelled: bool,
    /// By index.
    pub(super) tasks: Vec<TaskRecord>,
}

/// One task of an execution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TaskRecord {
    /// How far it is.
    pub(super) phase: Phase,
    /// Its process group, while it runs.
    pub(super) process: Option<Process>,
    /// When its process started.
    pub(super) started_us: Option<i64>,
    /// When it ended.
    pub(super) completed_us: Option<i64>,
    /// Its process's exit code.
    pub(super) exit_code: Option<i32>,
    /// The signal that ended its process.
    pub(super) signal: Option<i32>,
    /// Why it did not succeed.
    pub(super) message: String,
    /// Attempts that failed and were followed by another.
    #[serde(default)]
    pub(super) retried: u32,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Not started yet.
    #[default]
    Pending,
    /// Its process runs.
    Running,
    /// Exit code 0.
    Succeeded,
    /// Anything else.
    Failed,
    /// Ended because somebody asked.
    Cancelled,
}

/// A process no other can be taken for: ids are used again, but not at the same tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// Leader of the group.
    pub(super) pid: i32,
    /// Clock ticks from boot to its start.
    pub(super) start_ticks: u64,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// A final phase.
    pub(super) phase: Phase,
    /// The exit code, if the process exited.
    pub(super) exit_code: Option<i32>,
    /// The signal, if one ended it.
    pub(super) signal: Option<i32>,
    /// Why, unless it succeeded.
    pub(super) message: String,
}

impl End {
    /// Failed without a process to blame.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { phase: Phase::Failed, exit_code: None, signal: None, message: message.into() }
    }

    /// Ended because somebody asked.
    pub(super) fn cancelled() -> Self {
        Self { phase: Phase::Cancelled, exit_code: None, signal: None, message: "The execution was cancelled.".into() }
    }
}

impl Phase {
    /// No process runs or will run.
    pub(super) const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl ExecutionRecord {
    /// Tasks in a phase.
    pub(super) fn count(&self, phase: Phase) -> usize {
        self.tasks.iter().filter(|task| task.phase == phase).count()
    }

    /// No task runs or will run.
    pub(super) const fn is_complete(&self) -> bool {
        self.completed_us.is_some()
    }

    /// A task's process has started.
    pub(super) fn start(&mut self, index: usize, process: Option<Process>, now_us: i64) {
        let Some(task) = self.tasks.get_mut(index).filter(|task| task.phase == Phase::Pending) else { return };
        task.phase = Phase::Running;
        task.process = process;
        task.started_us = Some(now_us);
        self.started_us.get_or_insert(now_us);
    }

    /// An attempt has failed and another follows.
    pub(super) fn retry(&mut self, index: usize, end: &End) {
        let Some(task) = self.tasks.get_mut(index).filter(|task| !task.phase.is_final()) else { return };
        task.phase = Phase::Pending;
        task.process = None;
        task.exit_code = end.exit_code;
        task.signal = end.signal;
        task.message.clone_from(&end.message);
        task.retried += 1;
    }

    /// A task has ended; the last one completes the execution.
    pub(super) fn end(&mut self, index: usize, end: &End, now_us: i64) {
        let Some(task) = self.tasks.get_mut(index).filter(|task| !task.phase.is_final()) else { return };
        task.phase = end.phase;
        task.process = None;
        task.completed_us = Some(now_us);
        task.exit_code = end.exit_code;
        task.signal = end.signal;
        task.message.clone_from(&end.message);
        if self.tasks.iter().all(|task| task.phase.is_final()) {
            self.completed_us = Some(now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_failed_is_tried_again_and_what_the_last_attempt_came_to_is_kept() {
        let text = r#"{"job":"j","name":"j-1","seq":1,"uid":"u","creator":"c","created_us":1,"started_us":null,
            "completed_us":null,"image":"i","args":[],"env":[],"service_account":"a","timeout_ms":1,"cancelled":false,
            "tasks":[{"phase":"Pending","process":null,"started_us":null,"completed_us":null,"exit_code":null,
            "signal":null,"message":""}]}"#;
        let mut record: ExecutionRecord = serde_json::from_str(text).expect("as former clouds wrote it");
        assert_eq!((record.max_retries, record.parallelism, record.tasks[0].retried), (0, 0, 0));
        record.start(0, None, 2);
        record.retry(0, &End { exit_code: Some(3), ..End::failed("code 3") });
        let task = &record.tasks[0];
        assert_eq!((task.phase, task.retried, task.exit_code), (Phase::Pending, 1, Some(3)));
        assert!(!record.is_complete());
        record.start(0, None, 3);
        let well = End { phase: Phase::Succeeded, exit_code: Some(0), signal: None, message: String::new() };
        record.end(0, &well, 4);
        record.retry(0, &End::failed("too late"));
        let task = &record.tasks[0];
        assert_eq!((task.phase, task.retried, task.message.as_str()), (Phase::Succeeded, 1, ""));
        assert_eq!((record.started_us, record.completed_us), (Some(2), Some(4)));
    }
}
