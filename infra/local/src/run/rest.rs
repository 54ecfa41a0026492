//! The Admin API's methods over JSON: permission first, then the thing itself.
//!
//! One route takes every path, because a verb (`jobs/J:run`) is part of its last segment.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Json, Router};
use http::{HeaderMap, Method, header};
use serde_json::{Value, json};

use super::job::JobRecord;
use super::record::ExecutionRecord;
use super::refusal::Refusal;
use super::request::{Address, Cancel, Page, RunJob, Target, body};
use super::resource::{Place, execution_etag, task_id};
use super::shelf::Deed;
use super::{Run, launch, shelf};
use crate::faults::Fault;
use crate::iam::Principal;

/// The longest JSON body.
const MAX_JSON_BYTES: usize = 1024 * 1024;

pub(super) type Answer = Result<Value, Refusal>;

pub(super) fn router(run: Run) -> Router {
    Router::new().route("/v2/{*path}", any(handle)).layer(DefaultBodyLimit::max(MAX_JSON_BYTES)).with_state(run)
}

async fn handle(
    State(run): State<Run>,
    method: Method,
    Path(path): Path<String>,
    Query(page): Query<Page>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    match answer(&run, &method, &path, &page, &headers, &bytes).await {
        Ok(value) => Json(value).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer(run: &Run, method: &Method, path: &str, page: &Page, headers: &HeaderMap, bytes: &[u8]) -> Answer {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let who = run.0.iam.authenticate(token).map_err(|error| Refusal::Unauthenticated(error.to_string()))?;
    let no_method = || Refusal::NoMethod(format!("{method} /v2/{path}"));
    let address = Address::parse(path).ok_or_else(no_method)?;
    let run = run.clone();
    let call = Call { run, who, place: Place(format!("projects/{}/locations/{}", address.project, address.location)) };
    match (method.as_str(), &address.target, address.verb.as_deref()) {
        ("GET", Target::Jobs, None) => call.list_jobs(page),
        ("POST", Target::Jobs, None) => call.create_job(page, body(bytes)?).await,
        ("PATCH", Target::Job(job), None) => call.update_job(job, page, body(bytes)?).await,
        ("DELETE", Target::Job(job), None) => call.delete_job(job, page).await,
        ("DELETE", Target::Execution(job, name), None) => call.delete_execution(job, name, page).await,
        ("GET", Target::Job(job), None) => call.get_job(job),
        ("POST", Target::Job(job), Some("run")) => call.run_job(job, body(bytes)?).await,
        ("GET", Target::Executions(job), None) => call.list_executions(job, page),
        ("GET", Target::Execution(job, name), None) => call.get_execution(job, name),
        ("POST", Target::Execution(job, name), Some("cancel")) => call.cancel(job, name, body(bytes)?).await,
        ("GET", Target::Tasks(job, name), None) => call.list_tasks(job, name),
        ("GET", Target::Task(job, name, task), None) => call.get_task(job, name, task),
        ("GET", Target::Operation(id), None) => call.get_operation(id),
        _ => Err(no_method()),
    }
}

/// One request of a known principal.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) run: Run,
    pub(super) who: Principal,
    pub(super) place: Place,
}

impl Call {
    pub(super) fn may(&self, permission: &'static str, resource: &str) -> Result<(), Refusal> {
        let checked = self.run.0.iam.check(&self.who, permission, resource);
        checked.map_err(|_| Refusal::Forbidden { permission, resource: resource.to_owned() })
    }

    /// A job of ours, for a caller with this permission.
    pub(super) fn job(&self, permission: &'static str, job: &str) -> Result<JobRecord, Refusal> {
        let resource = format!("{}/jobs/{job}", self.place.0);
        self.may(permission, &resource)?;
        let found = self.run.0.jobs().get(job).filter(|_| self.is_here()).cloned();
        found.ok_or(Refusal::NotFound(resource))
    }

    pub(super) fn is_here(&self) -> bool {
        self.place.0 == format!("projects/{}/locations/{}", self.run.0.project, self.run.0.location)
    }

    pub(super) fn execution(
        &self,
        permission: &'static str,
        job: &str,
        name: &str,
    ) -> Result<ExecutionRecord, Refusal> {
        self.job(permission, job)?;
        let found = self.run.0.store.read(|txn| shelf::find(txn, job, name))?;
        found.ok_or_else(|| Refusal::NotFound(format!("{}/jobs/{job}/executions/{name}", self.place.0)))
    }

    pub(super) fn job_resource(&self, record: &JobRecord) -> Answer {
        let (newest, _) = self.run.0.store.read(|txn| shelf::list(txn, &record.job.name, u64::MAX, 1))?;
        Ok(self.place.job(record, newest.first()))
    }

    fn list_jobs(&self, page: &Page) -> Answer {
        self.may("run.jobs.list", &self.place.0)?;
        let after = page.after();
        let all: Vec<JobRecord> = self.run.0.jobs().values().filter(|_| self.is_here()).cloned().collect();
        let mut rest = all.iter().filter(|record| record.job.name.as_str() > after);
        let items: Vec<_> = rest.by_ref().take(page.size()).collect();
        let next = if rest.next().is_some() { items.last().map(|record| record.job.name.clone()) } else { None };
        let jobs = items.into_iter().map(|record| self.job_resource(record)).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "jobs": jobs, "nextPageToken": next.unwrap_or_default() }))
    }

    fn get_job(&self, job: &str) -> Answer {
        self.job_resource(&self.job("run.jobs.get", job)?)
    }

    async fn run_job(&self, job: &str, request: RunJob) -> Answer {
        let record = self.job("run.jobs.run", job)?;
        if request.overrides.is_some() {
            self.job("run.jobs.runWithOverrides", job)?;
        }
        if request.validate_only {
            return Err(Refusal::Invalid("validate_only is not served here".into()));
        }
        if !request.etag.is_empty() && request.etag != record.etag() {
            return Err(Refusal::Conflict(job.to_owned()));
        }
        let settings = request.overrides.unwrap_or_default().settings()?;
        let inner = &self.run.0;
        // A caller who hangs up must not leave a committed execution without its processes.
        let launched = inner.tasks.spawn(launch::launch(inner.clone(), record.job, self.who.clone(), settings));
        let record = launched.await??;
        if inner.faults.roll(Fault::LoseReply) {
            return Err(Refusal::ReplyLost);
        }
        Ok(self.place.operation(&record))
    }

    fn list_executions(&self, job: &str, page: &Page) -> Answer {
        self.job("run.executions.list", job)?;
        let before = page.token()?.unwrap_or(u64::MAX);
        let (records, next) = self.run.0.store.read(|txn| shelf::list(txn, job, before, page.size()))?;
        let executions: Vec<Value> = records.iter().map(|record| self.place.execution(record)).collect();
        let next = next.map(|seq| seq.to_string()).unwrap_or_default();
        Ok(json!({ "executions": executions, "nextPageToken": next }))
    }

    fn get_execution(&self, job: &str, name: &str) -> Answer {
        Ok(self.place.execution(&self.execution("run.executions.get", job, name)?))
    }

    async fn cancel(&self, job: &str, name: &str, request: Cancel) -> Answer {
        let record = self.execution("run.executions.cancel", job, name)?;
        if request.validate_only {
            return Err(Refusal::Invalid("validate_only is not served here".into()));
        }
        if !request.etag.is_empty() && request.etag != execution_etag(&record) {
            return Err(Refusal::Conflict(record.name));
        }
        let (inner, execution) = (self.run.0.clone(), record.clone());
        let asked = self.run.0.tasks.spawn(async move {
            let (job, seq) = (execution.job, execution.seq);
            let cancel = move |txn: &_| shelf::change(txn, &job, seq, |record| record.cancelled = true);
            let changed = inner.store.write(cancel).await?;
            if let Some(stop) = inner.running().get(&execution.name).filter(|_| changed.is_some()) {
                stop.cancel();
            }
            Ok::<_, Refusal>(changed)
        });
        let Some(changed) = asked.await?? else { return Err(Refusal::Completed(record.name)) };
        Ok(self.place.operation(&changed.record))
    }

    fn list_tasks(&self, job: &str, name: &str) -> Answer {
        let record = self.execution("run.tasks.list", job, name)?;
        let tasks = record.tasks.iter().enumerate();
        let tasks: Vec<Value> = tasks.map(|(index, task)| self.place.task(&record, index, task)).collect();
        Ok(json!({ "tasks": tasks }))
    }

    fn get_task(&self, job: &str, name: &str, id: &str) -> Answer {
        let record = self.execution("run.tasks.get", job, name)?;
        let found = record.tasks.iter().enumerate().find(|(index, _)| task_id(&record, *index) == id);
        let (index, task) = found.ok_or_else(|| Refusal::NotFound(id.to_owned()))?;
        Ok(self.place.task(&record, index, task))
    }

    fn get_operation(&self, id: &str) -> Answer {
        let resource = format!("{}/operations/{id}", self.place.0);
        self.may("run.operations.get", &resource)?;
        match self.run.0.store.read(|txn| shelf::operation(txn, id))?.filter(|_| self.is_here()) {
            Some(Deed::Launched(record)) => Ok(self.place.operation(&record)),
            Some(Deed::Changed(job)) => {
                let record = self.run.0.jobs().get(&job).cloned();
                let shown = record.map_or_else(|| Ok(self.place.gone(&job)), |record| self.job_resource(&record))?;
                Ok(self.place.changed(id, shown))
            }
            None => Err(Refusal::NotFound(resource)),
        }
    }
}
